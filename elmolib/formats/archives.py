"""Unpack zip and `.tar.gz` archives of models without trusting them."""

import re
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from gzip import BadGzipFile, GzipFile
from pathlib import Path, PurePosixPath
from typing import IO

from elmolib.errors import ElmolibError, WeightsError, reason

# Floats shrink by a tenth and text to a third, so a far larger expansion is an attack.
_MAX_EXPANSION, _EXPANSION_FLOOR, _MAX_FILES = 20, 10_000_000, 1000

DAMAGE = (zipfile.BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, struct.error, EOFError)
DAMAGE += (RuntimeError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError)
"""Exceptions that damaged files cause when they are unpacked or parsed."""

_WANTED = ("*.hdf5", "*.h5", "*.json", "vocab.txt", "vocab.txt.gz")
_WANTED += ("checkpoint", "*.index", "*.data-?????-of-?????", "saved_model.pb")
_WANTED += ("weights.th", "*options_file", "token_embedder.pkl", "encoder.pkl", "*.dic")
"""The names of the files to unpack. Nothing else is unpacked."""


def is_zip(path: Path) -> bool:
    """Whether a path is a zip file."""
    return begins_with(path, b"PK\x03\x04")


def is_archive(path: Path) -> bool:
    """Whether a path is a zip file, or a file compressed by gzip, as `.tar.gz` files are."""
    return is_zip(path) or begins_with(path, b"\x1f\x8b")


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpack the files of a model into a temporary folder.

    Raises:
        WeightsError: the archive is damaged, hostile or too large for the folder.
    """
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="elmolib-")))
            for number, (name, packed) in enumerate(_members(path)):
                if number == _MAX_FILES:
                    raise WeightsError(f"{path} is refused: it holds more than {_MAX_FILES} files.")
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with packed, (folder / name).open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
        except ElmolibError:
            raise
        except DAMAGE as error:
            raise WeightsError(f"{path} is a damaged or encrypted archive: {error}.") from None
        except OSError as error:
            problem = f"{path} cannot be unpacked in {tempfile.gettempdir()} ({reason(error)})"
            advice = "free some space there or set TMPDIR to another folder"
            raise WeightsError(f"{problem}: if the file is not damaged, {advice}.") from None
        yield folder


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if not is_zip(path):
        yield from _tar_members(path)
        return
    with zipfile.ZipFile(path) as archive:
        files = [info for info in archive.infolist() if not info.is_dir()]
        wanted = [info for info in files if _is_wanted(info.filename, path)]
        # zipfile never extracts more than the declared size of a member.
        _require_size(sum(info.file_size for info in wanted), path)
        for info in wanted:
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise WeightsError(f"{path}: {info.filename} must be uncompressed or use deflate.")
            yield info.filename, archive.open(info)


def _tar_members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with _Bounded(path) as bounded, tarfile.open(fileobj=bounded, mode="r|") as archive:
        for info in archive:
            wanted = _is_wanted(info.name, path) and not info.isdir()
            if wanted and not info.isreg():
                raise WeightsError(f"{path} is refused: its member {info.name!r} is no plain file.")
            if wanted:
                _require_size(info.size, path)
                yield info.name, archive.extractfile(info)


class _Bounded(GzipFile):
    """A gzip file that refuses to expand too much."""

    def read(self, size: int | None = -1) -> bytes:
        _require_size(self.tell(), Path(self.name))
        return super().read(size)


def _require_size(size: int, path: Path) -> None:
    if size > _MAX_EXPANSION * path.stat().st_size + _EXPANSION_FLOOR:
        limit = f"more than {_MAX_EXPANSION} times its own size"
        raise WeightsError(f"{path} is refused: it would expand to {size:,} bytes, {limit}.")


def _is_wanted(name: str, path: Path) -> bool:
    if re.match(r"/|[^/]*:", name) or re.search(r"\\|(^|/)\.\.(/|$)", name):
        raise WeightsError(f"{path} is refused: its member {name!r} leads outside the archive.")
    # macOS adds a hidden file, whose name begins with "._", to the archive for each real file.
    file = PurePosixPath(name).name
    return not file.startswith(".") and any(fnmatch(file, each) for each in _WANTED)


def begins_with(path: Path, start: bytes) -> bool:
    """Whether a path is a file that begins with these bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(start)) == start
