"""The models that ship, and pictures made here."""

import pathlib

import pytest

import centroid

ROOT = pathlib.Path(__file__).resolve().parents[3]
MODELS = ROOT / "models"
DATA = ROOT / "tests/data"


@pytest.fixture(scope="session")
def classifier():
    return centroid.TextClassifier(MODELS / "sentiment.centroid")


@pytest.fixture(scope="session")
def embedder():
    return centroid.SentenceEmbedder(MODELS / "minilm-l6.centroid", truncation=True)


@pytest.fixture(scope="session")
def images():
    return centroid.ImageClassifier(MODELS / "efficientnet-lite0.centroid")


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    from PIL import Image

    path = tmp_path_factory.mktemp("pictures") / "gradient.png"
    Image.linear_gradient("L").convert("RGB").resize((90, 60)).save(path)
    return path
