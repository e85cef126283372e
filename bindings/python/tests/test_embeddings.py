"""Embedding models, and what transformers gives."""

import json
import multiprocessing
import pickle
import threading
import time

import numpy as np
import pytest
from conftest import DATA, MODELS, ROOT

import centroid

PATH = MODELS / "minilm-l6.centroid"
# Held-out sentences; the README has the mean of 2,000, 0.905.
LEAST_MEAN_COSINE = 0.865


@pytest.fixture(scope="module")
def golden():
    """What transformers gave for the original model: texts, token ids, vectors of the first texts."""
    folder = DATA / "minilm"
    read = lambda name: json.loads((folder / name).read_text(encoding="utf-8"))
    vectors = np.fromfile(folder / "embeddings.f32", "<f4").reshape(-1, 384)
    return read("lines.json"), read("ids.json"), vectors


def test_vectors(embedder):
    vectors = embedder.encode(["a dog barks", "a hound is loud", "rates went up"])
    assert vectors.shape == (3, embedder.dimensions) == (3, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    alone = embedder.encode("a dog barks")
    assert alone.shape == (384,)
    assert (alone == vectors[0]).all()
    assert embedder.encode([]).shape == (0, 384)
    assert embedder.encode("one", "another").shape == (384,)
    assert embedder.encode(["one"], ["another"]).shape == (1, 384)
    assert embedder.max_length == 256


def test_arrays_are_the_runtimes_own_memory(embedder):
    vectors = embedder.encode(["a", "b"])
    owner = vectors
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    # NumPy did not allocate it: it belongs to an object of the runtime.
    assert not owner.flags.owndata and owner.base is not None
    assert vectors.flags.c_contiguous and vectors.flags.writeable
    vectors[0] = 0
    del owner
    assert (vectors[0] == 0).all()


def test_close_to_what_transformers_gives(embedder, golden):
    lines, _, expected = golden
    vectors = embedder.encode(lines[: len(expected)])
    cosines = (vectors * expected).sum(axis=1)
    assert cosines.mean() > LEAST_MEAN_COSINE


def test_tokens_are_those_of_transformers(golden):
    """Live, with the tokenizer of the original model."""
    transformers = pytest.importorskip("transformers")
    checkpoint = ROOT / ".cache/minilm-l6-v2"
    if not checkpoint.exists():
        pytest.skip("tools/fetch-minilm fetches the checkpoint")
    theirs = transformers.AutoTokenizer.from_pretrained(checkpoint)
    lines, ids, _ = golden
    # The classifier has the same tokenizer, and tells how many tokens it saw.
    ours = centroid.TextClassifier(MODELS / "sentiment.centroid", truncation=True)
    found = [of.tokens for of in ours.classify(lines)]
    limit = ours.max_length
    assert found == [len(theirs(line, truncation=True, max_length=limit)["input_ids"]) for line in lines]
    assert found == [min(len(of), limit) for of in ids]


def test_vectors_are_near_those_of_a_live_transformer(embedder):
    """With torch, which is large: skipped where it is not installed."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    checkpoint = ROOT / ".cache/minilm-l6-v2"
    if not checkpoint.exists():
        pytest.skip("tools/fetch-minilm fetches the checkpoint")
    theirs = transformers.pipeline("feature-extraction", str(checkpoint))
    texts = ["The food was great.", "A wonderful meal!", "Rates went up by half a point."]
    means = np.stack([np.asarray(theirs(text))[0].mean(axis=0) for text in texts])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert (embedder.encode(texts) * means).sum(axis=1).mean() > LEAST_MEAN_COSINE


def test_the_lock_is_given_back(embedder, golden):
    """While one thread embeds, others go on."""
    lines, _, _ = golden
    turns, stop = [], threading.Event()

    def count():
        while not stop.is_set():
            turns.append(time.perf_counter())
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    start = time.perf_counter()
    embedder.encode(lines)
    end = time.perf_counter()
    stop.set()
    counter.join()
    meanwhile = sum(start < turn < end for turn in turns)
    assert meanwhile >= 5, f"{meanwhile} turns in {end - start:.3f} s"


def fingerprint(model, lines):
    return model.encode(lines).tobytes()


def in_child(queue, model, lines):
    queue.put(fingerprint(model, lines))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(golden, method):
    """Sent to one by its pickle, or inherited by a fork, whose threads are not there any more."""
    # Work enough to be worth a second thread.
    lines = golden[0][:100]
    model = centroid.SentenceEmbedder(PATH, threads=2, truncation=True)
    expected = fingerprint(model, lines)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=in_child, args=(queue, model, lines))
    child.start()
    try:
        assert queue.get(timeout=120) == expected
    finally:
        child.terminate()
        child.join()
    assert fingerprint(model, lines) == expected


def test_pickles(embedder):
    copy = pickle.loads(pickle.dumps(embedder))
    assert (copy.encode("a text") == embedder.encode("a text")).all()


def test_what_is_wrong_is_told(embedder):
    with pytest.raises(centroid.UnsupportedError, match="a classifier and not an embedding model"):
        centroid.SentenceEmbedder(MODELS / "sentiment.centroid")
    with pytest.raises(TypeError, match=r"texts\[0\] is NoneType, not str"):
        embedder.encode([None])
    with pytest.raises(TypeError, match="pairs is a str"):
        embedder.encode(["a"], "b")
