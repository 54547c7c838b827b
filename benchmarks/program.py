"""Run each measured program in its own process, which answers requests as lines of JSON.

So each program can use its own version of TensorFlow, and programs can be measured in turns.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]

N_THREADS = 2

ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "MKL_NUM_THREADS": str(N_THREADS),
    "OMP_NUM_THREADS": str(N_THREADS),
    "OPENBLAS_NUM_THREADS": str(N_THREADS),
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
"""Environment variables of every program. TensorFlow itself chooses its number of threads."""

FORK = "fork"


class ProgramFailed(Exception):
    """A measured program ended without an answer."""


class Requests:
    """The requests that a measured program receives and answers."""

    def __init__(self) -> None:
        # bilm-tf prints to standard output, which must not mix with the answers.
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def next(self) -> dict:
        """Wait for the next request and return it; after the last request, end the program."""
        line = sys.stdin.readline()
        if not line:
            # Exit at once, because bilm-tf would otherwise write checkpoints that nobody needs.
            os._exit(0)
        return json.loads(line)

    def answer(self, **values) -> None:
        """Answer the latest request."""
        self._answers.write(json.dumps(values) + "\n")


def run(*functions: Callable[[dict, Requests], None], preload: Sequence[str] = ()) -> None:
    """Run the task that the first request names; see `Program` and `ForkServer`.

    Args:
        *functions: the tasks.
        preload: modules to import before forking.
    """
    tasks = {function.__name__: function for function in functions}
    if FORK in sys.argv:
        for name in ("tensorflow", *preload):
            import_module(name)
        _fork_for_each_connection()
    requests = Requests()
    first = requests.next()
    tasks[first["task"]](first["settings"], requests)


def _fork_for_each_connection() -> None:
    """Fork for each socket received on standard input; return in the forks, never in the parent."""
    control = socket.socket(fileno=os.dup(0))
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 1, 1)
        if not message:
            os._exit(0)
        (connection,) = descriptors
        if os.fork() == 0:
            control.close()
            os.dup2(connection, 0)
            os.dup2(connection, 1)
            os.close(connection)
            return
        os.close(connection)


class Program:
    """Start a measured program and send it requests; use it in a `with` block.

    Args:
        module: the module of this package to run.
        task: one of the module's tasks.
        settings: the arguments of the task, in types that JSON supports.
        log: the file to which everything the program prints is appended.
        server: process of the same module to fork from, or None to start Python.
    """

    def __init__(
        self, module: str, task: str, settings: dict, log: Path, server: ForkServer | None = None
    ) -> None:
        self._name = f"benchmarks.{module} {task}"
        self._process: subprocess.Popen | None = None
        if server is None:
            self._log = log
            self._process = _start(module, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._requests, self._answers = self._process.stdin, self._process.stdout
        else:
            self._log = server.log
            with server.connect() as connection:
                self._requests = connection.makefile("w")
                self._answers = connection.makefile("r")
        self.send(task=task, settings=settings)

    def ask(self, **request) -> dict:
        """Send a request and wait for its answer.

        Raises:
            ProgramFailed: the program ended without an answer.
        """
        try:
            self.send(**request)
            line = self._answers.readline()
        except (BrokenPipeError, ConnectionResetError):
            line = ""
        if not line:
            last = "\n".join(self._log.read_text().splitlines()[-20:])
            raise ProgramFailed(f"{self._name} ended early:\n{last}")
        return json.loads(line)

    def send(self, **request) -> None:
        """Send a request without waiting for an answer."""
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._requests.close()
            if self._process is not None:
                self._process.wait(60)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            if self._process is not None:
                self._process.kill()
                self._process.wait()
        finally:
            self._answers.close()


class ForkServer:
    """A process that imports TensorFlow once and then forks for each program, which saves seconds.

    A user's program does not start as such a fork, so only `--quick` uses this class.

    Args:
        module: the module of this package whose tasks the forks run.
        log: the file to which everything that the forks print is appended.
    """

    def __init__(self, module: str, log: Path) -> None:
        self.log = log
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = _start(module, log, FORK, stdin=theirs, stdout=subprocess.DEVNULL)

    def connect(self) -> socket.socket:
        """Fork, and return a socket connected to the new process's standard input and output."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
        return ours

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._process.wait()


def _start(module: str, log: Path, *arguments: str, **streams) -> subprocess.Popen:
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments],
            stderr=file,
            text=True,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            **streams,
        )
