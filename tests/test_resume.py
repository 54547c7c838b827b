"""Runs killed at any moment end with the bytes of a run that was never killed."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_corpus import made_up_sentences, small_parameters

ROOT = Path(__file__).parents[1]

STEPS_PER_EPOCH = 51

TRAIN = """
import sys

import keras

from elmolib.callbacks import DetailedMetrics
from elmolib.corpus import prepare_corpus
from elmolib.parameters import Parameters
from elmolib.training import Training


class Tell(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print(batch, flush=True)


parameters = Parameters.from_yaml("params.yaml")
sys.stdin.readline()
corpus = prepare_corpus(parameters)
Training(parameters, corpus).run([Tell(), DetailedMetrics.of(corpus, parameters)])
"""

PREPARE = """
import sys

from elmolib.corpus import prepare_corpus
from elmolib.parameters import Parameters

parameters = Parameters.from_yaml("params.yaml")
sys.stdin.readline()
prepare_corpus(parameters, processes=2, chunk_bytes=20_000)
"""


def made(folder: Path, n_sentences: int, n_steps: int) -> Path:
    """Make a folder that programs can be run in."""
    folder.mkdir()
    text = "\n".join(made_up_sentences(n_sentences)) + "\n"
    (folder / "text.txt").write_text(text, encoding="utf-8")
    parameters = small_parameters(
        folder,
        run_dir="run",
        text="text.txt",
        n_layers=2,
        timestep_dropout=0.1,
        epochs=9,
        batch_size=4,
        unroll_steps=7,
        max_steps=n_steps,
        checkpoint_steps=2,
        metrics_every=3,
        pictures_every=3,
    )
    parameters.to_yaml(folder / "params.yaml")
    return folder


class Children:
    """Runs one program in one folder so many times, the next one waiting when one ends."""

    def __init__(self, program: str, folder: Path, n: int) -> None:
        self.program, self.folder, self.n_to_come = program, folder, n - 1
        self.next: subprocess.Popen | None = self._start()

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning:elmolib", "-c", self.program],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "stderr.txt").open("wb"),
        )

    def go(self) -> subprocess.Popen:
        child, self.next = self.next, self._start() if self.n_to_come else None
        self.n_to_come -= 1
        child.stdin.write(b"\n")
        child.stdin.flush()
        return child

    def stop(self) -> None:
        if self.next is not None:
            self.next.kill()
            self.next.communicate()


@contextmanager
def children_in(folder: Path, program: str, n: int) -> Iterator[Children]:
    children = Children(program, folder, n)
    try:
        yield children
    finally:
        children.stop()


def finish(child: subprocess.Popen, folder: Path) -> None:
    child.communicate(timeout=120)
    assert child.returncode == 0, (folder / "stderr.txt").read_text()


def kill(child: subprocess.Popen) -> bool:
    child.send_signal(signal.SIGKILL)
    child.communicate()
    return child.returncode == -signal.SIGKILL


def wait_until(happens: Callable[[], bool], child: subprocess.Popen) -> None:
    while child.poll() is None and not happens():
        time.sleep(0.0005)


# When to kill: each function waits for its moment.


def after_some_time(child: subprocess.Popen, folder: Path, rng: random.Random) -> None:
    time.sleep(rng.uniform(0.0, 3.0))


def after_some_steps(child: subprocess.Popen, folder: Path, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 7)):
        child.stdout.readline()
    time.sleep(rng.uniform(0.0, 0.02))


def after_an_epoch(child: subprocess.Popen, folder: Path, rng: random.Random) -> None:
    for _ in range(STEPS_PER_EPOCH):
        child.stdout.readline()
    time.sleep(rng.uniform(0.0, 0.1))


def within_a_checkpoint(child: subprocess.Popen, folder: Path, rng: random.Random) -> None:
    child.stdout.readline()
    checkpoints = folder / "run" / "checkpoints"
    wait_until(lambda: any(checkpoints.glob(".*.part")), child)
    time.sleep(rng.uniform(0.0, 0.003))


def within_the_weights(child: subprocess.Popen, folder: Path, rng: random.Random) -> None:
    child.stdout.readline()
    wait_until(lambda: any((folder / "run").glob(".elmo.h5.*.part")), child)
    time.sleep(rng.uniform(0.0, 0.003))


def within_preparation(child: subprocess.Popen, folder: Path, rng: random.Random) -> None:
    wait_until(lambda: any((folder / "run").glob("*corpus*")), child)
    time.sleep(rng.uniform(0.0, 0.03))


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "run" / "history.csv").open() as file:
        lines = list(csv.DictReader(file))
    return [
        {
            name: value
            for name, value in line.items()
            if name not in ("seconds", "tokens_per_second")
        }
        for line in lines
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def survives(tmp_path: Path, n_steps: int, moments: list[Callable], least_kills: int) -> None:
    """Train in peace, and so that each moment is the last of its process, and compare.

    A process that ends just before it is to be killed does not count as killed.
    """
    whole, folder = (made(tmp_path / name, 200, n_steps) for name in ("whole", "killed"))
    with children_in(whole, TRAIN, 1) as children:
        finish(children.go(), whole)
    rng = random.Random(1)
    n_killed = 0
    with children_in(folder, TRAIN, len(moments) + 1) as children:
        for wait_for_moment in moments:
            child = children.go()
            wait_for_moment(child, folder, rng)
            n_killed += kill(child)
        finish(children.go(), folder)
    assert n_killed >= least_kills
    run, undisturbed = folder / "run", whole / "run"
    assert (run / "elmo.h5").read_bytes() == (undisturbed / "elmo.h5").read_bytes()
    assert history(folder) == history(whole)
    steps = [float(line["step"]) for line in history(folder)]
    assert steps == [*range(STEPS_PER_EPOCH, n_steps, STEPS_PER_EPOCH), n_steps]
    assert files(run / "reports") == files(undisturbed / "reports")
    assert {path.name for path in run.iterdir()} == {path.name for path in undisturbed.iterdir()}
    kept = [path.name for path in sorted((run / "checkpoints").iterdir())]
    assert kept == [f"step-{step:09d}.h5" for step in (n_steps - 2, n_steps)]


def test_killed_training_ends_with_the_same_bytes(tmp_path):
    moments = [within_preparation, after_some_steps, within_a_checkpoint, within_the_weights]
    survives(tmp_path, 110, moments, 3)


@pytest.mark.slow
def test_training_killed_many_times_ends_with_the_same_bytes(tmp_path):
    again_and_again = [after_some_time, after_some_steps, within_a_checkpoint, after_some_steps]
    moments = [within_preparation] * 2 + [within_the_weights, after_an_epoch] * 2
    survives(tmp_path, 410, moments + again_and_again * 5, 20)


def preparation_survives(tmp_path: Path, n_kills: int) -> None:
    whole, folder = (made(tmp_path / name, 8000, 1) for name in ("whole", "killed"))
    with children_in(whole, PREPARE, 1) as children:
        started = time.monotonic()
        finish(children.go(), whole)
        duration = time.monotonic() - started
    rng = random.Random(2)
    n_killed = 0
    with children_in(folder, PREPARE, 3 * n_kills) as children:
        while n_killed < n_kills:
            child = children.go()
            time.sleep(rng.uniform(0.0, duration))
            n_killed += kill(child)
            if (folder / "run" / "corpus").exists():
                shutil.rmtree(folder / "run" / "corpus")
        finish(children.go(), folder)
    prepared, undisturbed = (files(each / "run") for each in (folder, whole))
    records = [json.loads(each.pop("corpus/corpus.json")) for each in (prepared, undisturbed)]
    assert prepared == undisturbed
    assert records[0]["sha256"] == records[1]["sha256"]


def test_killed_preparation_ends_with_the_same_bytes(tmp_path):
    preparation_survives(tmp_path, 4)


@pytest.mark.slow
def test_preparation_killed_many_times_ends_with_the_same_bytes(tmp_path):
    preparation_survives(tmp_path, 25)
