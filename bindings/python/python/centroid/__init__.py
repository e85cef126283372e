"""A runtime for models whose weights are codebooks.

>>> classifier = centroid.TextClassifier("sentiment.centroid")
>>> classifier.classify(["A gorgeous, witty, seductive movie."])
[Classification(label="positive", score=0.9917)]
"""

from ._centroid import (
    ArrowArray,
    Classification,
    ImageClassification,
    ImageClassifier,
    LabelScore,
    SentenceEmbedder,
    TextClassifier,
    __version__,
)
from ._errors import (
    CentroidError,
    ChecksumError,
    ConfigError,
    FormatError,
    InputError,
    IsaError,
    TokenizerError,
    TooLongError,
    UnsupportedError,
)

__all__ = [
    "ArrowArray",
    "CentroidError",
    "ChecksumError",
    "Classification",
    "ConfigError",
    "FormatError",
    "ImageClassification",
    "ImageClassifier",
    "InputError",
    "IsaError",
    "LabelScore",
    "SentenceEmbedder",
    "TextClassifier",
    "TokenizerError",
    "TooLongError",
    "UnsupportedError",
    "__version__",
]
