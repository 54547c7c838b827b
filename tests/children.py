"""Start processes that tests can kill, with TensorFlow and elmolib already imported.

Some tests kill many processes, and importing both packages takes longer than the tested work. So
each child is forked from a process that has imported both packages and done nothing else.
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
_forked.set_forkserver_preload(
    ["elmolib.live.reports", "elmolib.live.run_log", "elmolib.elmo", "elmolib.training.loop"]
)

Work = Callable[..., None]


class Child:
    """A process that does one piece of work in a folder and reports its progress.

    Args:
        work: function of a module. Its first argument is a function that sends a value to
            `receive`, the others are `arguments`.
        folder: the working directory; `stderr.txt` in it gets the standard error.
        arguments: further arguments of `work`.
    """

    def __init__(self, work: Work, folder: Path, *arguments: object) -> None:
        self.errors = folder / "stderr.txt"
        self._receiver, sender = _forked.Pipe(duplex=False)
        self._process = _forked.Process(target=_do, args=(work, folder, sender, arguments))
        self._process.start()
        sender.close()

    @property
    def ended(self) -> bool:
        return self._process.exitcode is not None

    def receive(self) -> object:
        """Wait for the next report and return it; None once the process has ended."""
        with suppress(EOFError):
            return self._receiver.recv()
        return None

    def finish(self) -> None:
        """Wait until the process has ended, and require that it ended without an error."""
        while self.receive() is not None:
            pass
        self._process.join(120)
        assert self._process.exitcode == 0, self.errors.read_text()

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def wait(self, seconds: float) -> int | None:
        """Return the exit code, or None if the process still runs after so many seconds."""
        self._process.join(seconds)
        return self._process.exitcode

    def kill(self) -> bool:
        """Kill the process, and return whether it was still running."""
        self._process.kill()
        self._process.join()
        self._receiver.close()
        return self._process.exitcode == -signal.SIGKILL


@contextmanager
def started(work: Work, folder: Path, *arguments: object) -> Iterator[Child]:
    """Start a process that is killed at the end of the `with` block."""
    child = Child(work, folder, *arguments)
    try:
        yield child
    finally:
        child.kill()


def _do(work: Work, folder: Path, sender: Connection, arguments: tuple) -> None:
    with (folder / "stderr.txt").open("wb") as errors:
        os.dup2(errors.fileno(), 2)
    os.chdir(folder)
    work(sender.send, *arguments)
