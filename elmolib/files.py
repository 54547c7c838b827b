"""Replace files and folders atomically, lock them, compute checksums, and limit file sizes."""

import errno
import gzip
import hashlib
import os
import secrets
import shutil
import socket
import stat
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape as glob_escape
from pathlib import Path

from elmolib.errors import ElmolibError, reason

_IS_WINDOWS = os.name == "nt"
_PARTIAL, _REPLACED = ".part", ".old"
_NO_LOCKING = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a new empty file beside `path`, and move it to `path` if the block raises no error.

    Parent folders are created. Until the move, `path` is unchanged, even if the process is killed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    unfinished.touch(exist_ok=False)
    try:
        yield unfinished
        fsync(unfinished)
        os.replace(unfinished, path)
        fsync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new empty folder that replaces `folder` if the block raises no error.

    The new folder must not contain folders. Unfinished folders of killed processes are deleted
    first, so the caller must hold a lock that keeps other processes from writing `folder`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f".{glob_escape(folder.name)}.*"):
        if leftover.suffix in (_PARTIAL, _REPLACED):
            shutil.rmtree(leftover, ignore_errors=True)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}{_PARTIAL}")
    replaced = unfinished.with_suffix(_REPLACED)
    unfinished.mkdir()
    try:
        yield unfinished
        for file in unfinished.iterdir():
            fsync(file)
        fsync(unfinished)
        if folder.exists():
            folder.rename(replaced)
        unfinished.rename(folder)
        fsync(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def remove_partial_files(folder: Path) -> None:
    """Delete unfinished files of killed `atomic_write` calls. Nobody may write there meanwhile."""
    for unfinished in filter(Path.is_file, folder.glob(f".*{_PARTIAL}")):
        unfinished.unlink(missing_ok=True)


@contextmanager
def write_errors(path: str | Path, error: type[ElmolibError], advice: str) -> Iterator[None]:
    """Turn an `OSError` in the block into one sentence that names `path` and ends in `advice`."""
    try:
        yield
    except OSError as problem:
        raise error(f"{path} could not be written ({reason(problem)}): {advice}.") from None


@contextmanager
def exclusive_lock(folder: Path, lock: Path, error: type[ElmolibError]) -> Iterator[None]:
    """Hold a lock while the block runs; raise an error if another process or thread holds it.

    The operating system releases the lock when the process ends, even if it was killed. If the file
    system does not support locks, there is only a warning.

    Args:
        folder: the folder or file that the lock protects. Error messages name it.
        lock: the lock file; it names the holder's process and host, and is deleted afterwards.
        error: the class of the error if the lock is held or the lock file cannot be written.
    """
    # This import is here, because it takes as long as all imports above together.
    from filelock import FileLock, SoftFileLock, Timeout

    held = FileLock(lock, timeout=0, fallback_to_soft=False)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        advice = "wait until it ends, stop it, or choose another place"
        raise error(f"{folder} is in use by {_holder(lock)}: {advice}.") from None
    except OSError as problem:
        if problem.errno not in _NO_LOCKING:
            raise error(f"{lock} cannot be written: {problem.strerror}.") from None
        why = f"its file system does not support locking ({problem.strerror})"
        advice = "make sure that no other process works there"
        warnings.warn(f"{folder} cannot be locked, because {why}: {advice}.", stacklevel=3)
    # On a system without file locks, filelock itself writes and deletes the lock file.
    is_ours = not isinstance(held, SoftFileLock)
    try:
        with suppress(OSError):  # If the disk is full, the writes in the `with` block report it.
            if is_ours:
                lock.write_text(f"{os.getpid()} {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            if is_ours:
                lock.unlink()
        held.release()


def _holder(lock: Path) -> str:
    try:
        process, host = lock.read_text(encoding="utf-8", errors="replace").split()[:2]
    except (OSError, ValueError):
        return "another process"
    return f"process {process} on {host}"


def require_regular_file(path: str | Path) -> None:
    """Raise an OSError for a missing file and for pipes and devices, which could block a reader.

    Like `os.stat`, raise a ValueError for an impossible name.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe or device, not a file", str(path))


def read_limited(
    path: str | Path, limit: int, error: type[ElmolibError], source: str | Path = ""
) -> bytes:
    """Read a file of at most `limit` bytes, decompressed if its name ends in `.gz`.

    If the file is larger or cannot be read, raise an `error` that names `source` (default: `path`).
    """
    source = source or path
    try:
        require_regular_file(path)
        opener = gzip.open if Path(path).suffix == ".gz" else open
        with opener(path, "rb") as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, zlib.error, ValueError) as problem:
        raise error(f"{source} cannot be read: {reason(problem)}.") from None
    if len(content) > limit:
        raise error(f"{source} cannot be read: it is larger than {limit:,} bytes.")
    return content


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power cut.

    Windows cannot sync a folder, and can sync a file only if it is open for writing.
    """
    if _IS_WINDOWS and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if _IS_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
