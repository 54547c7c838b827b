"""The exceptions that elmolib raises for a user's mistake or a bad file.

Every message is one sentence that names the file, line, key or value at fault and says what to do.
"""


class ElmolibError(ValueError):
    """Base of every error that elmolib raises on purpose.

    Args:
        message: the sentence. Line ends and other characters that cannot be seen, which names of
            files and words may hold, are written as Python does in quotes.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


class ParameterError(ElmolibError):
    """A parameter is unknown, has the wrong type, or contradicts another one."""


class TextError(ElmolibError):
    """A text file cannot be read or holds no usable text."""


class VocabularyError(ElmolibError):
    """A word mapping or word list is broken."""


class CorpusError(ElmolibError):
    """A prepared corpus is missing, damaged, or does not fit what is asked of it."""


class OptionsError(ElmolibError):
    """The options of a biLM are malformed or out of bounds."""


class WeightsError(ElmolibError):
    """A weight file is damaged, foreign, or contradicts its options."""


class DownloadError(ElmolibError):
    """A published model could not be fetched."""


class TrainingError(ElmolibError):
    """Training cannot start or go on."""


def reason(error: Exception) -> str:
    """Say why a file cannot be opened: the system's words, or Python's for an impossible name."""
    return getattr(error, "strerror", None) or str(error)
