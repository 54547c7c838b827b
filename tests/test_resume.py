"""Runs that are killed at any moment end with the same bytes as an uninterrupted run."""

from __future__ import annotations

import csv
import json
import random
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
from children import Child, started
from small_corpus import made_up_sentences, small_parameters

from elmolib.corpus.prepare import prepare_corpus
from elmolib.live import run_log
from elmolib.live.progress import read_progress, read_steps
from elmolib.live.reports import DetailedMetrics
from elmolib.live.run_log import RunLog
from elmolib.settings.parameters import Parameters
from elmolib.training.loop import Training

STEPS_PER_EPOCH = 49


class ReportSteps(keras.callbacks.Callback):
    """Callback that reports every step to the parent process."""

    def __init__(self, report: Callable[[int], None]) -> None:
        super().__init__()
        self.report = report

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.report(batch)


def train(report: Callable[[int], None]) -> None:
    warnings.filterwarnings("error", category=UserWarning, module="elmolib")
    parameters = Parameters.from_yaml("params.yaml")
    corpus = prepare_corpus(parameters)
    training = Training(parameters, corpus)
    run_log.WRITE_SECONDS, run_log.ROW_SECONDS = 0.05, (0.0, 0.0)
    log, metrics = RunLog(training), DetailedMetrics.of(corpus, parameters)
    training.run([log, ReportSteps(report), metrics])


def prepare(report: Callable[[int], None]) -> None:
    prepare_corpus(Parameters.from_yaml("params.yaml"), processes=2, chunk_bytes=20_000)


def made(folder: Path, n_sentences: int, n_steps: int, recipe: str = "bilm-tf") -> Path:
    """Create a folder with a text and parameters."""
    folder.mkdir()
    text = "\n".join(made_up_sentences(n_sentences)) + "\n"
    (folder / "text.txt").write_text(text, encoding="utf-8")
    parameters = small_parameters(
        folder,
        run_dir="run",
        recipe=recipe,
        learning_rate=None,
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


def wait_until(happens: Callable[[], bool], child: Child) -> None:
    while not child.ended and not happens():
        time.sleep(0.0005)


# Each of these functions waits for a certain moment in a run. The test then kills the run.


def after_some_time(child: Child, folder: Path, rng: random.Random) -> None:
    time.sleep(rng.uniform(0.0, 3.0))


def after_some_steps(child: Child, folder: Path, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 7)):
        child.receive()
    time.sleep(rng.uniform(0.0, 0.02))


def after_an_epoch(child: Child, folder: Path, rng: random.Random) -> None:
    for _ in range(STEPS_PER_EPOCH):
        child.receive()
    time.sleep(rng.uniform(0.0, 0.1))


def within_a_checkpoint(child: Child, folder: Path, rng: random.Random) -> None:
    child.receive()
    checkpoints = folder / "run" / "checkpoints"
    wait_until(lambda: any(checkpoints.glob(".*.part")), child)
    time.sleep(rng.uniform(0.0, 0.003))


def within_the_weights(child: Child, folder: Path, rng: random.Random) -> None:
    child.receive()
    wait_until(lambda: any((folder / "run").glob(".elmo.h5.*.part")), child)
    time.sleep(rng.uniform(0.0, 0.003))


def within_preparation(child: Child, folder: Path, rng: random.Random) -> None:
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


def survives(
    tmp_path: Path, recipe: str, n_steps: int, moments: list[Callable], least_kills: int
) -> None:
    """Require that training that is killed at each of the moments writes the bytes of a whole run.

    A process that ends just before its kill does not count towards `least_kills`.
    """
    whole, folder = (made(tmp_path / name, 200, n_steps, recipe) for name in ("whole", "killed"))
    with started(train, whole) as undisturbed:
        undisturbed.finish()
    rng = random.Random(1)
    n_killed = 0
    for wait_for_moment in moments:
        with started(train, folder) as killed:
            wait_for_moment(killed, folder, rng)
            n_killed += killed.kill()
    with started(train, folder) as last:
        last.finish()
    assert n_killed >= least_kills
    run, undisturbed = folder / "run", whole / "run"
    assert (run / "elmo.h5").read_bytes() == (undisturbed / "elmo.h5").read_bytes()
    assert history(folder) == history(whole)
    steps = [float(line["step"]) for line in history(folder)]
    assert steps == [*range(STEPS_PER_EPOCH, n_steps, STEPS_PER_EPOCH), n_steps]
    assert files(run / "reports") == files(undisturbed / "reports")
    assert {path.name for path in run.iterdir()} == {path.name for path in undisturbed.iterdir()}
    rows = read_steps(run)["step"].tolist()
    # A kill can lose the rows since the latest write of the log, but no step appears twice.
    assert rows == sorted(set(rows)) and set(rows) <= set(range(1, n_steps + 1))
    assert rows[-1] == n_steps
    assert read_progress(run).state == "finished"
    kept = [path.name for path in sorted((run / "checkpoints").iterdir())]
    assert kept == [f"step-{step:09d}.h5" for step in (n_steps - 2, n_steps)]


both_recipes = pytest.mark.parametrize("recipe", ["elmolib", "bilm-tf"])


@both_recipes
def test_killed_training_ends_with_the_same_bytes(tmp_path, recipe):
    moments = [within_preparation, after_some_steps, within_a_checkpoint, within_the_weights]
    survives(tmp_path, recipe, 110, moments, 3)


@pytest.mark.slow
@both_recipes
def test_training_killed_many_times_ends_with_the_same_bytes(tmp_path, recipe):
    again_and_again = [after_some_time, after_some_steps, within_a_checkpoint, after_some_steps]
    moments = [within_preparation] * 2 + [within_the_weights, after_an_epoch] * 2
    survives(tmp_path, recipe, 210, moments + again_and_again * 2, 10)


def preparation_survives(tmp_path: Path, n_kills: int) -> None:
    whole, folder = (made(tmp_path / name, 8000, 1) for name in ("whole", "killed"))
    begun = time.monotonic()
    with started(prepare, whole) as undisturbed:
        undisturbed.finish()
    duration = time.monotonic() - begun
    rng = random.Random(2)
    n_killed = 0
    while n_killed < n_kills:
        with started(prepare, folder) as killed:
            time.sleep(rng.uniform(0.0, duration))
            n_killed += killed.kill()
        if (folder / "run" / "corpus").exists():
            shutil.rmtree(folder / "run" / "corpus")
    with started(prepare, folder) as last:
        last.finish()
    prepared, undisturbed = (files(each / "run") for each in (folder, whole))
    records = [json.loads(each.pop("corpus/corpus.json")) for each in (prepared, undisturbed)]
    assert prepared == undisturbed
    assert records[0]["sha256"] == records[1]["sha256"]


def test_killed_preparation_ends_with_the_same_bytes(tmp_path):
    preparation_survives(tmp_path, 4)


@pytest.mark.slow
def test_preparation_killed_many_times_ends_with_the_same_bytes(tmp_path):
    preparation_survives(tmp_path, 25)
