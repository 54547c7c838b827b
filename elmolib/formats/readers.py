"""Read a model from any of the file formats in which models are published."""

import os
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePosixPath

import h5py

from elmolib.errors import ElmolibError, WeightsError, reason
from elmolib.files import read_limited, require_regular_file
from elmolib.formats.options import read_options
from elmolib.formats.published import NAMES, pretrained_path
from elmolib.formats.weights import Request, StoredModel, file_stamp, read_weight_file
from elmolib.text.vocabulary import MAX_BYTES, Vocabulary

_VOCABULARY_NAMES = ("vocab.txt", "vocab.txt.gz")

# zip shortens floats by a tenth and text to a third, so a far larger expansion is an attack.
_MAX_EXPANSION, _EXPANSION_FLOOR = 20, 10_000_000

# The exceptions that zipfile raises for damaged files.
_ZIP_FAILURES = (zipfile.BadZipFile, zlib.error, struct.error, EOFError)
_ZIP_FAILURES += (RuntimeError, ValueError, LookupError, ArithmeticError)


def read_model(
    path: str | Path, options: str | Path | None = None, softmax: bool = True
) -> StoredModel:
    """Read a biLM from any of the file formats in which models are published.

    Args:
        path: one of
            - a name or URL that `fetch` accepts,
            - a file written by `write_model`,
            - a weight file of bilm-tf or AllenNLP, together with `options`,
            - a folder with one `*.hdf5` or `*.h5` file, and `options.json` and `vocab.txt[.gz]`
              if the weight file does not contain them,
            - a zip file of such a folder.
        options: an options file that replaces the stored options.
        softmax: whether to read the output layer, which embedding does not need.

    Returns:
        the model. If the file has no tokenizer, the model gets one that splits text at white space,
        because published models were trained on text with white space between all words.

    Raises:
        WeightsError: the file is missing, damaged or not a model, contradicts its options or its
            vocabulary, contains values that are not finite, or refers to data in other files.
        OptionsError, VocabularyError: the options or the vocabulary are malformed.

    Example:
        ```python
        model = read_model("elmo.h5")
        model.arrays["char_cnn/embedding"].shape  # (261, 16)
        ```

    References:
        bilm-tf, `bilm/training.py` (`dump_weights`), whose character embedding has 261 rows. Files
        with 262 rows are read too; their first row is the padding.
    """
    return _read(path, options, Request(layers=True, softmax=softmax))


def read_softmax(path: str | Path, options: str | Path | None = None) -> StoredModel:
    """Read a model's softmax and vocabulary. If one of them is missing, raise a WeightsError."""
    model = _read(path, options, Request(layers=False, softmax=True))
    model.require_softmax("it cannot predict words")
    return model


def read_vocabulary(path: str | Path, consequence: str = "its words are not known") -> Vocabulary:
    """Read the words of a model's softmax. If there are none, raise an error with `consequence`."""
    model = _read(path, None, Request(layers=False, softmax=False))
    model.require_softmax(consequence)
    return model.vocabulary


def _read(path: str | Path, options: str | Path | None, request: Request) -> StoredModel:
    path = pretrained_path(path, Path()) if isinstance(path, str) else path
    if options is not None:
        request = request._replace(options=read_options(options))
    try:
        require_regular_file(path)
        read = next((read for recognizes, read in READERS if recognizes(path)), None)
    except (OSError, ValueError) as error:
        names = f": published names are {', '.join(NAMES)}" if not os.path.exists(path) else ""
        raise WeightsError(f"{path} cannot be read as a model ({reason(error)}){names}.") from None
    if read is None:
        raise WeightsError(
            f"{path} is damaged or not a model: name an HDF5 weight file, or a folder or zip file "
            "that holds one."
        )
    return read(path, request, str(path))


def _read_folder(folder: Path, request: Request, source: str) -> StoredModel:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise WeightsError(f"{source} cannot be listed ({reason(error)}).") from None
    weights = [name for name in names if _is_weight_file(PurePosixPath(name))]
    if not weights:
        raise WeightsError(f"{source} holds no weight file: add a *.hdf5 or *.h5 file.")
    if len(weights) > 1:
        raise WeightsError(
            f"{source} holds several weight files ({', '.join(weights[:5])}): name one of them."
        )
    options = vocabulary = None
    if "options.json" in names and request.options is None:
        options = read_options(folder / "options.json", f"{source}/options.json")
    for name in [name for name in _VOCABULARY_NAMES if name in names][:1]:
        text = read_limited(folder / name, MAX_BYTES, WeightsError, f"{source}/{name}")
        vocabulary = Vocabulary.parse(text, f"{source}/{name}")
    file = weights[0]
    return read_weight_file(folder / file, request, f"{source}/{file}", options, vocabulary)


def _read_zip(path: Path, request: Request, source: str) -> StoredModel:
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="elmolib-")))
            with zipfile.ZipFile(path) as archive:
                _extract(archive, folder, path)
        except ElmolibError:
            raise
        except OSError as error:
            raise WeightsError(
                f"{path} cannot be unpacked in {tempfile.gettempdir()} ({reason(error)}): if the "
                "file is not damaged, free some space there or set TMPDIR to another folder."
            ) from None
        except _ZIP_FAILURES as error:
            raise WeightsError(f"{path} is a damaged or encrypted zip file: {error}.") from None
        return replace(_read_folder(folder, request, source), stamp=file_stamp(path))


def _extract(archive: zipfile.ZipFile, folder: Path, path: Path) -> None:
    """Extract the weight file, its options and its vocabulary, after checking names and sizes."""
    members = {PurePosixPath(i.filename): i for i in archive.infolist() if not i.is_dir()}
    for name in map(str, members):
        if re.match(r"/|[^/]*:", name) or re.search(r"\\|(^|/)\.\.(/|$)", name):
            raise WeightsError(f"{path} is refused: its member {name!r} leads outside the archive.")
    homes = {name.parent for name in members if _is_weight_file(name)}
    if len(homes) != 1:
        raise WeightsError(f"{path} must contain exactly one weight file (*.hdf5 or *.h5).")
    home = homes.pop()
    known = {home / name for name in ("options.json", *_VOCABULARY_NAMES)}
    wanted = [info for name, info in members.items() if name in known or _is_weight_file(name)]
    # zipfile never extracts more than the declared size of a member.
    size = sum(info.file_size for info in wanted)
    if size > _MAX_EXPANSION * path.stat().st_size + _EXPANSION_FLOOR:
        raise WeightsError(
            f"{path} is refused: it would expand to {size:,} bytes, more than {_MAX_EXPANSION} "
            "times its own size."
        )
    for info in wanted:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"{path}: {info.filename} must be uncompressed or use deflate.")
        target = folder / PurePosixPath(info.filename).name
        with archive.open(info) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)


def _is_weight_file(path: PurePosixPath) -> bool:
    # macOS adds a hidden file, whose name begins with "._", to the zip for each real file.
    return path.suffix in (".hdf5", ".h5") and not path.name.startswith(".")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


READERS: list[tuple[Callable, Callable]] = [
    (Path.is_dir, _read_folder),
    (_is_zip, _read_zip),
    (h5py.is_hdf5, read_weight_file),
]
"""Pairs of functions, one pair for each form of a model: a test of a path, and a reader."""
