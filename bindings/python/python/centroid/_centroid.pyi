from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypedDict, final, overload

import numpy as np
import numpy.typing as npt
from typing_extensions import Self, disjoint_base

__all__ = [
    "ArrowArray",
    "Classification",
    "ImageClassification",
    "ImageClassifier",
    "LabelScore",
    "SentenceEmbedder",
    "TextClassifier",
    "__version__",
]

__version__: str

class _ArrowColumn(Protocol):
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

class _ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

class _Label(TypedDict):
    label: str
    score: float

@final
class LabelScore:
    @property
    def label(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def logit(self) -> float: ...
    @property
    def index(self) -> int: ...

@final
class Classification:
    @property
    def label(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def labels(self) -> list[LabelScore]: ...
    @property
    def tokens(self) -> int: ...
    @property
    def truncated(self) -> bool: ...

@final
class ImageClassification:
    @property
    def label(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def labels(self) -> list[LabelScore]: ...

@final
class ArrowArray:
    def __len__(self) -> int: ...
    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

@disjoint_base
class TextClassifier:
    def __new__(
        cls,
        path: str | PathLike[str],
        *,
        threads: int = 0,
        mode: str = "int8",
        isa: str | None = None,
        max_length: int | None = None,
        truncation: bool = False,
    ) -> Self: ...
    @staticmethod
    def from_bytes(
        data: bytes,
        *,
        threads: int = 0,
        mode: str = "int8",
        isa: str | None = None,
        max_length: int | None = None,
        truncation: bool = False,
    ) -> TextClassifier: ...
    def classify(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> list[Classification]: ...
    @overload
    def __call__(self, texts: str | Iterable[str]) -> list[_Label]: ...
    @overload
    def __call__(self, texts: str, *, top_k: int | None) -> list[_Label]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, texts: Iterable[str], *, top_k: int | None) -> list[list[_Label]]: ...
    def classify_arrow(self, column: _ArrowColumn | _ArrowStream) -> ArrowArray: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def max_length(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def path(self) -> Path | None: ...
    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]: ...

@disjoint_base
class SentenceEmbedder:
    def __new__(
        cls,
        path: str | PathLike[str],
        *,
        threads: int = 0,
        mode: str = "int8",
        isa: str | None = None,
        max_length: int | None = None,
        truncation: bool = False,
    ) -> Self: ...
    @staticmethod
    def from_bytes(
        data: bytes,
        *,
        threads: int = 0,
        mode: str = "int8",
        isa: str | None = None,
        max_length: int | None = None,
        truncation: bool = False,
    ) -> SentenceEmbedder: ...
    def encode(
        self, texts: str | Iterable[str], pairs: str | Iterable[str] | None = None
    ) -> npt.NDArray[np.float32]: ...
    def encode_arrow(self, column: _ArrowColumn | _ArrowStream) -> ArrowArray: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def path(self) -> Path | None: ...
    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]: ...

@disjoint_base
class ImageClassifier:
    def __new__(
        cls, path: str | PathLike[str], *, threads: int = 0, mode: str = "int8", isa: str | None = None
    ) -> Self: ...
    @staticmethod
    def from_bytes(data: bytes, *, threads: int = 0, mode: str = "int8", isa: str | None = None) -> ImageClassifier: ...
    def classify(self, images: Iterable[str | PathLike[str] | bytes | npt.NDArray[np.uint8]]) -> list[ImageClassification]: ...
    def classify_inputs(self, inputs: npt.NDArray[np.float32]) -> list[ImageClassification]: ...
    @property
    def labels(self) -> list[str]: ...
    @property
    def size(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def path(self) -> Path | None: ...
    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]: ...
