"""Processes that may be killed, begun with TensorFlow and elmolib imported.

Importing them takes longer than what is tested, and tests kill many a process, so that each is
forked from one that has imported them and done nothing else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

_forked = get_context("forkserver")
_forked.set_forkserver_preload(["elmolib.callbacks", "elmolib.elmo", "elmolib.training"])

Work = Callable[..., None]


class Child:
    """A process that does one piece of work in a folder and says how far it is.

    Args:
        work: function of a module, called with a function that passes on what it is given to
            `hear`, and with the arguments.
        folder: where the process works; what it writes to standard error goes to `stderr.txt`
            there.
        arguments: what else the function is called with.
    """

    def __init__(self, work: Work, folder: Path, *arguments: object) -> None:
        self.errors = folder / "stderr.txt"
        self._ear, mouth = _forked.Pipe(duplex=False)
        self._process = _forked.Process(target=_do, args=(work, folder, mouth, arguments))
        self._process.start()
        mouth.close()

    @property
    def ended(self) -> bool:
        return self._process.exitcode is not None

    def hear(self) -> object:
        """Wait for the next thing the work says; None once the process has ended."""
        with suppress(EOFError):
            return self._ear.recv()
        return None

    def finish(self) -> None:
        """Let the process work to its end, without a failure."""
        while self.hear() is not None:
            pass
        self._process.join(120)
        assert self._process.exitcode == 0, self.errors.read_text()

    def kill(self) -> bool:
        """Kill the process, and say whether it was still at work."""
        self._process.kill()
        self._process.join()
        self._ear.close()
        return self._process.exitcode == -signal.SIGKILL


@contextmanager
def started(work: Work, folder: Path, *arguments: object) -> Iterator[Child]:
    """Start a process that does not outlive the block."""
    child = Child(work, folder, *arguments)
    try:
        yield child
    finally:
        child.kill()


def _do(work: Work, folder: Path, mouth: Connection, arguments: tuple) -> None:
    with (folder / "stderr.txt").open("wb") as errors:
        os.dup2(errors.fileno(), 2)
    os.chdir(folder)
    work(mouth.send, *arguments)
