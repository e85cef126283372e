"""The exceptions of the package. Files that cannot be read raise Python's own OSError."""


class CentroidError(Exception):
    """Everything that the runtime finds wrong."""


class FormatError(CentroidError, ValueError):
    """The bytes are not a valid artifact."""


class ChecksumError(FormatError):
    """A stored checksum does not match the bytes that it covers."""


class UnsupportedError(CentroidError, ValueError):
    """Valid, but from a newer version, or a model of another kind."""


class ConfigError(CentroidError, ValueError):
    """An option is wrong or cannot be met."""


class TokenizerError(CentroidError, ValueError):
    """The model's tokenizer is unreadable."""


class TooLongError(CentroidError, ValueError):
    """A text has more tokens than the model takes."""


class InputError(CentroidError, ValueError):
    """Any other unusable text or image."""


class IsaError(CentroidError, ValueError):
    """The instruction set asked for is unknown or not available here."""
