"""Folders and files on which only one process may work at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from elmolib.errors import ElmolibError

_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def alone_in(folder: Path, lock: Path, error: type[ElmolibError]) -> Iterator[None]:
    """Keep other processes, and other users of this function in this one, out of a folder or file.

    The system gives the lock back however its holder ends, so what a killed process left behind
    stops nobody.

    Args:
        folder: what messages call the place.
        lock: a file to hold while the block runs; it says who does.
        error: what to raise.

    Raises:
        ElmolibError: of the given kind, if another process works there, or the lock cannot be
            written.

    Warns:
        UserWarning: the file system knows no locks.

    Example:
        >>> with alone_in(run, run / ".lock", TrainingError):
        ...     train()
    """
    with _locked(folder, lock, error) as file:
        try:
            # If the disk is full, what is done in the block will say so.
            with suppress(OSError):
                file.truncate(0)
                file.write(f"{os.getpid()} {socket.gethostname()}\n".encode())
            yield
        finally:
            lock.unlink(missing_ok=True)


def _locked(folder: Path, lock: Path, error: type[ElmolibError]) -> BinaryIO:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = lock.open("ab+", buffering=0)
            _lock(file, folder, error)
            # The holder before may have removed its file after this one was opened.
            if os.fstat(file.fileno()).st_nlink > 0:
                return file
            file.close()
    except OSError as problem:
        raise error(f"{lock} cannot be written: {problem.strerror}.") from None


def _lock(file: BinaryIO, folder: Path, error: type[ElmolibError]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno in _HELD_BY_ANOTHER:
            file.seek(0)
            process, _, host = file.read(1000).decode(errors="replace").strip().partition(" ")
            holder = f"process {process} on {host}" if host else "another process"
            file.close()
            raise error(
                f"{folder} is in use by {holder}: wait for it or stop it, or choose another place."
            ) from None
        warnings.warn(
            f"{folder} cannot be locked on this file system ({problem.strerror}): take care that "
            "no other process works there.",
            stacklevel=5,
        )
