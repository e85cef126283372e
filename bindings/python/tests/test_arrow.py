"""Columns in, columns out."""

import numpy as np
import pytest

import centroid

pa = pytest.importorskip("pyarrow")

TEXTS = ["A gorgeous, witty, seductive movie.", None, "The plot is dull and the actors know it."]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_labels_of_a_column(classifier, kind):
    batch = pa.record_batch(classifier.classify_arrow(pa.array(TEXTS, kind)))
    assert batch.schema.names == ["label", "score", "tokens", "truncated"]
    assert batch["label"].to_pylist() == ["positive", None, "negative"]
    assert batch["truncated"].to_pylist() == [False, None, False]
    first, last = classifier.classify([TEXTS[0], TEXTS[2]])
    assert batch["score"].to_pylist() == [first.score, None, last.score]
    assert batch["tokens"].to_pylist() == [first.tokens, None, last.tokens]


def test_vectors_of_a_column(embedder):
    column = pa.chunked_array([TEXTS[:1], TEXTS[1:]])
    found = embedder.encode_arrow(column)
    assert len(found) == 3 and "FixedSizeList" in repr(found)
    array = pa.array(found)
    assert array.type == pa.list_(pa.field("item", pa.float32(), nullable=False), 384)
    assert array.null_count == 1 and not array[1].is_valid
    expected = embedder.encode([TEXTS[0], TEXTS[2]])
    assert (np.stack([array[0].values.to_numpy(), array[2].values.to_numpy()]) == expected).all()
    # Without nulls the values are one array.
    whole = pa.array(embedder.encode_arrow(pa.array([TEXTS[0], TEXTS[2]])))
    assert (whole.flatten().to_numpy().reshape(2, 384) == expected).all()


def test_a_slice_and_an_empty_column(classifier, embedder):
    sliced = pa.array(["ignored", TEXTS[0]])[1:]
    batch = pa.record_batch(classifier.classify_arrow(sliced))
    assert batch["label"].to_pylist() == ["positive"]
    assert pa.record_batch(classifier.classify_arrow(pa.array([], pa.string()))).num_rows == 0
    assert len(pa.array(embedder.encode_arrow(pa.array([], pa.string())))) == 0
    nulls = pa.array(embedder.encode_arrow(pa.array([None, None], pa.string())))
    assert nulls.null_count == 2


def test_columns_that_are_no_texts(classifier):
    with pytest.raises(TypeError, match="a column of Int64; one of strings is needed"):
        classifier.classify_arrow(pa.array([1, 2]))
    with pytest.raises((TypeError, ValueError)):
        classifier.classify_arrow(["a list"])
    short = centroid.TextClassifier(classifier.path, max_length=4)
    with pytest.raises(centroid.TooLongError) as raised:
        short.classify_arrow(pa.array([None, "far more than four tokens"]))
    if hasattr(raised.value, "__notes__"):
        assert "row 1" in raised.value.__notes__[0]
