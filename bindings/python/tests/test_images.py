"""Classifiers of images."""

import pickle

import numpy as np
import pytest
from conftest import MODELS, ROOT

import centroid


def best(results):
    return [(of.label, of.labels[0].logit) for of in results]


def test_paths_and_bytes_give_the_same(images, picture):
    found = best(images.classify([picture, str(picture), picture.read_bytes()]))
    assert found[0] == found[1] == found[2]
    from PIL import Image

    pixels = np.asarray(Image.open(picture))
    assert best(images.classify([pixels])) == found[:1]
    alpha = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    assert best(images.classify([alpha])) == found[:1]
    # Rows from the last to the first, and then again.
    assert best(images.classify([np.flipud(pixels)[::-1]])) == found[:1]
    assert images.size == 224
    assert len(images.labels) == 1000 and images.labels[0] == "tench"
    assert len(images.classify([picture])[0].labels) == 1000
    assert repr(images.classify([picture])[0]).startswith("ImageClassification(label=")
    copy = pickle.loads(pickle.dumps(images))
    assert best(copy.classify([picture])) == found[:1]
    copy = centroid.ImageClassifier.from_bytes((MODELS / "efficientnet-lite0.centroid").read_bytes())
    assert best(copy.classify([picture])) == found[:1]


def test_pictures_of_imagenet(images):
    folder = ROOT / ".cache/lite0"
    if not folder.exists():
        pytest.skip("tools/fetch-lite0 fetches the pictures")
    lines = (folder / "imagenet.tsv").read_text().splitlines()[1:]
    files, labels = zip(*(line.split("\t") for line in lines))
    found = images.classify([folder / file for file in files])
    assert sum(of.label == label for of, label in zip(found, labels)) >= 15


def test_inputs(images):
    inputs = np.zeros((2, 224, 224, 3), np.float32)
    first, second = best(images.classify_inputs(inputs))
    assert first == second
    with pytest.raises(ValueError, match=r"shape \[2, 224, 224, 1\] where \[images, 224, 224, 3\]"):
        images.classify_inputs(np.zeros((2, 224, 224, 1), np.float32))
    with pytest.raises(ValueError, match="not contiguous"):
        images.classify_inputs(np.zeros((2, 224, 224, 6), np.float32)[..., ::2])
    with pytest.raises(TypeError):
        images.classify_inputs(np.zeros((2, 224, 224, 3), np.float64))
    inputs[1, 0, 0, 0] = np.nan
    with pytest.raises(centroid.InputError, match="image 1: value 0 is NaN"):
        images.classify_inputs(inputs)


def test_what_is_wrong_is_told(images, picture, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("once upon a time")
    with pytest.raises(centroid.InputError, match="text.png: not a picture"):
        images.classify([picture, text])
    with pytest.raises(centroid.InputError, match="not a picture"):
        images.classify([b"once upon a time"])
    with pytest.raises(FileNotFoundError, match="no.png"):
        images.classify([tmp_path / "no.png"])
    with pytest.raises(TypeError, match=r"images\[0\] is int, neither a path nor bytes"):
        images.classify([3])
    with pytest.raises(ValueError, match=r"images\[0\] has shape \[4, 5, 1\]: 3 or 4 colours"):
        images.classify([np.zeros((4, 5, 1), np.uint8)])
    with pytest.raises(TypeError, match=r"images\[0\] is ndarray"):
        images.classify([np.zeros((4, 5, 3), np.float32)])
    with pytest.raises(TypeError, match="images is str; a list is needed"):
        images.classify(str(picture))
    with pytest.raises(centroid.UnsupportedError):
        centroid.ImageClassifier(MODELS / "sentiment.centroid")
