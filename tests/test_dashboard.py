"""The dashboard of a training run, without a browser."""

from __future__ import annotations

import random
import re
import shutil
import time
from pathlib import Path
from threading import Thread

import keras
import numpy as np
import pytest
from small_corpus import small_parameters

from elmolib import plots
from elmolib.corpus.prepare import prepare_corpus
from elmolib.corpus.prepared import PreparedCorpus
from elmolib.live import dashboard
from elmolib.live.dashboard import Dashboard
from elmolib.live.page import ModelInTraining, RunPage, visible_epochs
from elmolib.live.progress import heldout_text
from elmolib.live.run_log import RunLog
from elmolib.live.throttle import Throttle
from elmolib.live.watch import progress_callbacks
from elmolib.training.loop import Training

WORDS = ["the", "river", "bank"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("dashboard")


@pytest.fixture(scope="module")
def corpus(folder) -> PreparedCorpus:
    return prepare_corpus(small_parameters(folder))


@pytest.fixture
def training(folder, corpus) -> Training:
    """A new run, always in the same folder, so that the files of two runs can be compared."""
    shutil.rmtree(folder / "watched", ignore_errors=True)
    parameters = small_parameters(
        folder, run_dir=str(folder / "watched"), corpus_dir=str(corpus.path)
    )
    return Training(parameters, corpus)


class At(keras.callbacks.Callback):
    """Callback that calls a function after the given steps."""

    def __init__(self, steps, act) -> None:
        super().__init__()
        self.steps, self.act = steps, act

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 in self.steps:
            self.act()


def shown(training: Training) -> tuple[Dashboard, RunPage]:
    """Make the dashboard of a run, and return it with its page."""
    board = Dashboard(RunLog(training))
    return board, board.page


def results(training: Training) -> dict[str, bytes]:
    """The files of a run, without the speeds in them."""
    arrays = {name: a.tobytes() for name, a in training._state_arrays().items()}
    return arrays | {"elmo.h5": training.weights_path.read_bytes()}


@pytest.fixture(scope="module")
def without_dashboard(folder, corpus) -> dict[str, bytes]:
    """The files of a run without a dashboard."""
    parameters = small_parameters(
        folder, run_dir=str(folder / "watched"), corpus_dir=str(corpus.path)
    )
    alone = Training(parameters, corpus)
    alone.run()
    return results(alone)


def test_log_and_dashboard_do_not_change_a_byte(without_dashboard, training, monkeypatch):
    # Score samples, draw pictures and copy weights very often, while a user types into the box.
    rng = random.Random(0)
    monkeypatch.setattr(Throttle, "is_due", lambda self: rng.random() < 0.3)
    board, page = shown(training)
    numbers = iter(range(10**6))

    def type_something():
        page.box.sentence.value = f"the bank number {next(numbers)}"

    in_another_thread = At(range(500), lambda: Thread(target=type_something).start())
    training.run([board.log, board, in_another_thread])
    assert next(numbers) > 50
    assert page.box.message.value == ""
    assert board.log.frame()["heldout_mean"].notna().sum() > 2
    assert results(training) == without_dashboard


@pytest.mark.slow
def test_stopped_run_resumes_to_the_same_bytes(without_dashboard, training):
    board, page = shown(training)
    training.run([board.log, board, At([7], lambda: page.stop.click())])
    assert training.step == 7
    assert training.weights_path.exists()
    left = training.last_step - 7
    score = training.perplexity_of(training.samples["heldout"]).mean
    assert re.fullmatch(
        rf"Stopped after 7 steps, {left:,} left \| held-out sample perplexity .* {score:.1f} mean "
        rf"\(30 words\) \| saved as {training.weights_path}",
        page.status.value,
    )
    _, steps, _ = page.lines
    assert steps["heldout_mean"].iloc[-1] == pytest.approx(score)
    assert page.advice.value == "Run this cell again to resume."
    board, again = shown(training)
    training.run([board.log, board])
    n, heldout = training.last_step, heldout_text(training.history[-1])
    assert again.status.value.startswith(f"Finished after {n} steps | {heldout} | saved as")
    assert again.advice.value == ""
    assert results(training) == without_dashboard


@pytest.mark.slow
def test_stop_is_enabled_once_the_probe_is_answered(training):
    board, page = shown(training)
    seen = {}

    def look(when):
        seen[when] = page.stop.disabled

    def answer():
        look("before")
        board._probe.value += 1
        look("after")

    training.run([board.log, board, At([3], answer)])
    look("at the end")
    # A reply from the browser that arrives after the run has ended must not enable the button.
    board._probe_answered({})
    look("late")
    assert seen == {"before": True, "after": False, "at the end": True, "late": True}


@pytest.mark.slow
def test_dashboard_without_clicks_says_how_to_stop(training, monkeypatch):
    monkeypatch.setattr(dashboard, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(Throttle, "is_due", lambda self: True)
    (board, page), advice = shown(training), []
    at = At([2, 3], lambda: advice.append(page.advice.value))
    answered = At([2], lambda: board._probe_answered({}))
    training.run([board.log, board, at, answered])
    assert "the square in the toolbar above" in advice[0]
    assert advice[1:] == [""]


def test_dashboard_shows_every_epoch(training):
    (board, page), titles = shown(training), []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            page.box.wait()
            titles.append(re.search('aria-label="(.*?)"', page.box.picture.value)[1])

    training.run([board.log, board, Look()])
    n = training.steps_per_epoch
    assert titles == [f"layer 1, after {n} steps", f"layer 1, after {2 * n} steps"]
    assert page.bar.value == page.bar.max == training.last_step
    history, steps, _ = page.lines
    assert len(history) == 2
    assert steps["step"].iloc[-1] == training.last_step
    assert bytes(page.curve.value).startswith(b"\x89PNG")


def test_jupyterlab_shows_the_dashboard_instead_of_lines(training, monkeypatch, capsys):
    shown = []
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/02_train.ipynb")
    monkeypatch.setattr(dashboard, "display", shown.append)
    training.parameters = training.parameters.model_copy(update={"progress": "auto"})
    training.run(progress_callbacks(training))
    (page,) = shown
    assert "elmolib-dashboard" in page._dom_classes
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_model_in_training_uses_the_latest_copy(training):
    copy = ModelInTraining(training)

    def drawn(model):
        return np.asarray(model.heatmap(WORDS).axes[0].collections[0].get_array())

    def now():
        return drawn(ModelInTraining(training))

    at_first = now()
    np.testing.assert_array_equal(drawn(copy), at_first)
    training.run([At([4], lambda: setattr(training.bilm, "stop_training", True))])
    np.testing.assert_array_equal(drawn(copy), at_first)
    copy.copy_weights()
    np.testing.assert_array_equal(drawn(copy), now())
    assert not np.array_equal(now(), at_first)
    assert copy.heatmap(WORDS, 0).axes[0].get_title() == "layer 0: no context, after 4 steps"


@pytest.mark.parametrize(
    ("done", "planned", "seen"),
    [(0, 5, 1), (0.4, 5, 1), (1, 5, 1), (1.1, 5, 2), (2.5, 5, 5), (2.5, 3, 3), (0, 0.25, 0.25)]
    + [(12, 1000, 20), (999, 1000, 1000), (10**6, 10**6, 10**6)],
)
def test_axis_grows_with_the_run(done, planned, seen):
    assert visible_epochs(done, planned) == seen


def test_throttle_limits_the_fraction_of_time(monkeypatch):
    now, busy = [100.0], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    throttle = Throttle(clock=lambda: busy[0])
    assert not throttle.is_due()
    for cost, wait in ((0.0, 1.0), (0.01, 1.0), (0.5, 25.0)):
        now[0] += 1000
        started = now[0]
        with throttle.measure():
            assert not throttle.is_due()
            busy[0] += cost
            # Waiting for a processor does not slow training, so do not count it.
            now[0] += cost + 0.2
            assert not throttle.is_due()
        now[0] = started + wait - 1e-6
        assert not throttle.is_due()
        now[0] = started + wait + 1e-6
        assert throttle.is_due()


@pytest.mark.slow
def test_drawing_error_is_shown_and_training_goes_on(training, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError

    (board, page), advice = shown(training), []
    monkeypatch.setattr(Throttle, "is_due", lambda self: True)
    at_first = At([2], lambda: monkeypatch.setattr(plots, "learning_curve", fail))
    then = At([10], lambda: (page.latest_curve.wait(), advice.append(page.advice.value)))
    training.run([board.log, board, at_first, then])
    assert advice == ["MemoryError"]
    assert training.step == training.last_step
