"""Writing a file so that its name never holds half of it."""

from __future__ import annotations

import errno
import gzip
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUFFIX = ".part"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Hand out a file beside `path` that takes its place once the block is done.

    Parent folders are made. After an error, or a kill at any moment, `path` is what it was.

    Args:
        path: the file to write or replace.

    Yields:
        Path: an empty file in the same folder, to be written by any means.

    Example:
        >>> with replacing("runs/tiny/history.csv") as unfinished:
        ...     unfinished.write_text("epoch,loss\\n")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_SUFFIX, dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        # mkstemp files are private to their owner; results are not.
        unfinished.chmod(0o666 & ~_umask())
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def refuse_pipe(path: str | Path) -> None:
    """Refuse what could make a reader wait or read for ever: pipes, devices and sockets.

    Raises:
        OSError: it is one of these, or not there.
        ValueError: no file can have that name.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe or device, not a file", str(path))


def read_at_most(path: Path, limit: int) -> bytes:
    """Read a file, packed if its name ends in `.gz`, of no more than `limit` bytes.

    Raises:
        OSError, EOFError, zlib.error: it cannot be read.
        ValueError: it is larger, perhaps only once unpacked.
    """
    refuse_pipe(path)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit:,} bytes")
    return content


def remove_unfinished(folder: Path) -> None:
    """Remove what `replacing` could not, because its process was killed.

    Args:
        folder: in which nobody else writes at the moment; it need not exist.
    """
    for unfinished in folder.glob(f".*{_SUFFIX}"):
        if unfinished.is_file():
            unfinished.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
