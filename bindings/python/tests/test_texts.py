"""Classifiers of texts."""

import concurrent.futures
import pickle

import pytest
from conftest import DATA, MODELS

import centroid

PATH = MODELS / "sentiment.centroid"
TEXTS = ["A gorgeous, witty, seductive movie.", "The plot is dull and the actors know it.", "It is a film. 🎬"]


def logits(results):
    return [[(of.label, of.logit) for of in result.labels] for result in results]


def test_labels_and_scores(classifier):
    good, bad, _ = classifier.classify(TEXTS)
    assert (good.label, bad.label) == ("positive", "negative")
    assert good.score == good.labels[0].score > 0.9
    assert sum(of.score for of in good.labels) == pytest.approx(1)
    assert [of.index for of in good.labels] == [1, 0]
    assert good.tokens == 10 and not good.truncated
    assert repr(good).startswith('Classification(label="positive", score=0.99')
    assert repr(good.labels[0]).startswith('LabelScore(label="positive", score=0.99')
    assert classifier.labels == ["negative", "positive"]
    assert classifier.max_length == 256
    assert classifier.path == PATH
    assert classifier.isa in repr(classifier) and str(PATH) in repr(classifier)
    assert classifier.classify([]) == []
    assert classifier.classify(text for text in TEXTS[:1])[0].label == "positive"


def test_real_sentences_are_mostly_right(classifier):
    lines = (DATA / "sentiment/reviews.tsv").read_text(encoding="utf-8").splitlines()[1:]
    examples = [line.split("\t") for line in lines]
    found = classifier.classify([text for text, _ in examples])
    right = sum(of.label == label for of, (_, label) in zip(found, examples))
    assert right / len(examples) > 0.8


def test_results_do_not_depend_on_company_threads_or_way_in(classifier):
    together = logits(classifier.classify(TEXTS))
    assert [logits(classifier.classify([text]))[0] for text in TEXTS] == together
    for other in (
        centroid.TextClassifier(PATH, threads=1),
        centroid.TextClassifier(str(PATH), threads=2),
        centroid.TextClassifier.from_bytes(PATH.read_bytes()),
    ):
        assert logits(other.classify(TEXTS)) == together
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: logits(classifier.classify(TEXTS)), range(12)):
            assert found == together
    assert logits(centroid.TextClassifier(PATH, mode="exact").classify(TEXTS)) != together


def test_pairs(classifier):
    [pair] = classifier.classify(["one"], ["another"])
    assert pair.tokens == 5
    with pytest.raises(ValueError, match="1 texts and 2 pairs"):
        classifier.classify(["one"], ["another", "third"])


def test_called_as_a_pipeline(classifier):
    best = classifier(TEXTS)
    assert [set(of) for of in best] == [{"label", "score"}] * 3
    assert best[0]["label"] == "positive"
    assert classifier(TEXTS[0]) == best[:1]
    every = classifier(TEXTS, top_k=None)
    assert [len(of) for of in every] == [2, 2, 2]
    assert [of[0] for of in every] == best
    assert classifier(TEXTS[0], top_k=None) == every[0]
    assert classifier(TEXTS, top_k=1) == [[of] for of in best]
    with pytest.raises(TypeError, match="truncation is not a known argument"):
        classifier(TEXTS, truncation=True)
    with pytest.raises(ValueError, match="top_k is 0"):
        classifier(TEXTS, top_k=0)


def test_pickles_open_the_file_again(classifier, monkeypatch, tmp_path):
    copy = pickle.loads(pickle.dumps(centroid.TextClassifier(PATH, threads=1, max_length=16, truncation=True)))
    assert copy.max_length == 16
    assert logits(copy.classify(TEXTS)) == logits(classifier.classify(TEXTS))
    # A relative path still is the same file from elsewhere.
    monkeypatch.chdir(MODELS)
    stored = pickle.dumps(centroid.TextClassifier("sentiment.centroid"))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(stored).path == PATH
    with pytest.raises(TypeError, match="opened in memory"):
        pickle.dumps(centroid.TextClassifier.from_bytes(PATH.read_bytes()))


def test_long_texts_are_an_error_or_cut():
    long = ["short", "far too long for a limit of five tokens"]
    with pytest.raises(centroid.TooLongError, match="text 1: .* 12 tokens"):
        centroid.TextClassifier(PATH, max_length=5).classify(long)
    found = centroid.TextClassifier(PATH, max_length=5, truncation=True).classify(long)
    assert [of.truncated for of in found] == [False, True]
    assert found[1].tokens == 5


def test_what_is_wrong_is_told(classifier, tmp_path):
    with pytest.raises(FileNotFoundError, match="no/such.centroid"):
        centroid.TextClassifier("no/such.centroid")
    with pytest.raises(centroid.UnsupportedError, match="embedding model"):
        centroid.TextClassifier(MODELS / "minilm-l6.centroid")
    whole = PATH.read_bytes()
    cut = tmp_path / "cut.centroid"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(centroid.FormatError, match="cut.centroid"):
        centroid.TextClassifier(cut)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    with pytest.raises(centroid.ChecksumError):
        centroid.TextClassifier.from_bytes(bytes(damaged))
    with pytest.raises(centroid.ConfigError, match="100000 tokens"):
        centroid.TextClassifier(PATH, max_length=100_000)
    with pytest.raises(centroid.IsaError, match="abacus"):
        centroid.TextClassifier(PATH, isa="abacus")
    with pytest.raises(ValueError, match='mode "fast" is neither "int8" nor "exact"'):
        centroid.TextClassifier(PATH, mode="fast")
    with pytest.raises(TypeError, match="texts is a str; a list of them is needed"):
        classifier.classify("one text")
    with pytest.raises(TypeError, match=r"texts\[1\] is int, not str"):
        classifier.classify(["one", 2])
    with pytest.raises(TypeError, match="texts is int, not a list of str"):
        classifier.classify(5)
    with pytest.raises(UnicodeEncodeError):
        classifier.classify(["\ud800"])
    assert issubclass(centroid.ChecksumError, centroid.CentroidError)
    assert issubclass(centroid.TooLongError, ValueError)
