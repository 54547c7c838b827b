"""Measured programs run in processes of their own and take orders, one line of JSON each.

So every program has its own TensorFlow, and two of them can be measured in turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
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
"""The same for everybody. TensorFlow sees by itself that there are so many cores."""


class ProgramFailed(Exception):
    """A measured program ended without an answer."""


class Orders:
    """The side of the program that is measured."""

    def __init__(self) -> None:
        # Peers print as they go; that belongs into the log, not between the answers.
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def next(self) -> dict:
        """Wait for an order. When there are no more, the program ends here."""
        line = sys.stdin.readline()
        if not line:
            self._answers.close()
            # Peers' exits would first write checkpoints that nobody wants.
            os._exit(0)
        return json.loads(line)

    def answer(self, **facts) -> None:
        """Answer the order."""
        self._answers.write(json.dumps(facts) + "\n")


class Program:
    """The side that measures.

    Args:
        module: of this package, to be run.
        task: which of the module's tasks.
        settings: what the task needs to know, as JSON can hold it.
        folder: where everything that the program prints is added to a file.
    """

    def __init__(self, module: str, task: str, settings: dict, folder: Path) -> None:
        self._name = f"benchmarks.{module} {task}"
        self._log = folder / f"{module}_{task}.txt"
        self._process = start(
            ["-m", f"benchmarks.{module}", task, json.dumps(settings)],
            self._log,
            stdin=subprocess.PIPE,
        )

    def ask(self, **order) -> dict:
        """Give an order and wait for its answer.

        Raises:
            ProgramFailed: the program ended instead.
        """
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ProgramFailed(f"{self._name} ended early:\n{self._last_lines()}")
        return json.loads(line)

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text().splitlines()[-20:])

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.stdin.close()
            self._process.wait(60)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
        finally:
            self._process.stdout.close()
            self._process.wait()


def start(arguments: Sequence[str], log: Path, **kwargs) -> subprocess.Popen:
    """Start Python with the environment that all measured programs share."""
    with log.open("a") as stream:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            **kwargs,
        )
