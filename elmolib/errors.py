"""The exceptions that elmolib raises for a user's mistake or a bad file.

Every message is one sentence that names the file, line, key or value at fault and says what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class ElmolibError(ValueError):
    """Base class of all errors that elmolib raises on purpose.

    Unprintable characters in the message, such as line breaks in file names, are escaped.
    """

    exit_code = 1  # of the command line

    def __init__(self, message: str = "") -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


class ParameterError(ElmolibError):
    """A parameter is unknown, has the wrong type, or contradicts another one."""


class TextError(ElmolibError):
    """A text file cannot be read or holds no usable text."""


class VocabularyError(ElmolibError):
    """A vocabulary file is malformed, or lists almost no word of the text."""


class CorpusError(ElmolibError):
    """A prepared corpus or vector file is missing, damaged, or lacks the requested data."""


class OptionsError(ElmolibError):
    """The options of a model (`options.json`) are malformed, or a value is out of bounds."""


class WeightsError(ElmolibError):
    """A weight file is damaged, not a model, or contradicts its options."""


class DownloadError(ElmolibError):
    """A published model could not be downloaded."""


class TrainingError(ElmolibError):
    """Training cannot start or resume."""


class WorkersError(TrainingError):
    """Another worker is missing or has ended. Starting all workers again may help."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class MissingPackageError(ElmolibError, ImportError):
    """A package is missing, because the extra that installs it was not chosen."""


_EXTRAS = {"keras": "train", "sklearn": "train", "tensorflow": "train", "spacy": "spacy"}
_EXTRAS |= {"cycler": "plots", "matplotlib": "plots", "pandas": "plots", "seaborn": "plots"}
_EXTRAS |= dict.fromkeys(("IPython", "comm", "gensim", "ipywidgets"), "notebooks")
_EXTRAS |= {"onnx": "fast", "onnxruntime": "fast", "pyarrow": "ray", "ray": "ray"}


@contextmanager
def needs_extras() -> Iterator[None]:
    """If the `with` block imports a missing package, raise an error that names its extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in _EXTRAS:
            raise
        problem = f"This needs the package {package}, which is not installed"
        advice = f"pip install 'elmolib[{_EXTRAS[package]}]'"
        raise MissingPackageError(f"{problem}: {advice}.") from None


def reason(error: BaseException) -> str:
    """Return why an operation on a file failed, without the file's name."""
    return getattr(error, "strerror", None) or str(error)
