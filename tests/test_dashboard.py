"""The page that shows a run while it trains, without a browser."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Thread

import keras
import numpy as np
import pytest
from small_corpus import small_parameters

from elmolib import dashboard
from elmolib.corpus import PreparedCorpus, prepare_corpus
from elmolib.dashboard import (
    MOST_POINTS,
    Dashboard,
    ModelInTraining,
    Pace,
    StepLosses,
    epochs_in_view,
)
from elmolib.embedding import SentenceEncoder
from elmolib.errors import WeightsError
from elmolib.progress import heldout_text
from elmolib.training import Training

WORDS = ["the", "river", "bank"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("dashboard")


@pytest.fixture(scope="module")
def corpus(folder) -> PreparedCorpus:
    return prepare_corpus(small_parameters(folder))


@pytest.fixture
def training(folder, corpus) -> Training:
    """A run from its beginning, always in the same folder for its files to be comparable."""
    shutil.rmtree(folder / "watched", ignore_errors=True)
    parameters = small_parameters(
        folder, run_dir=str(folder / "watched"), corpus_dir=str(corpus.path)
    )
    return Training(parameters, corpus)


class At(keras.callbacks.Callback):
    """Do something after some steps."""

    def __init__(self, steps, act) -> None:
        super().__init__()
        self.steps, self.act = steps, act

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 in self.steps:
            self.act()


def results(training: Training) -> dict[str, bytes]:
    """What a run leaves, but for speeds."""
    arrays = {name: a.tobytes() for name, a in training._state_arrays().items()}
    return arrays | {"elmo.h5": training.weights_path.read_bytes()}


@pytest.fixture(scope="module")
def unwatched(folder, corpus) -> dict[str, bytes]:
    """What the run leaves that nobody watches."""
    parameters = small_parameters(
        folder, run_dir=str(folder / "watched"), corpus_dir=str(corpus.path)
    )
    alone = Training(parameters, corpus)
    alone.run()
    return results(alone)


def test_a_watched_run_ends_with_the_same_bytes(unwatched, training, monkeypatch):
    # As much drawing, copying and typing as there can be.
    monkeypatch.setattr(Pace, "is_due", lambda self: True)
    page = Dashboard(training)
    typed = iter(range(10**6))

    def type_something():
        page.box.sentence.value = f"the bank number {next(typed)}"

    in_another_thread = At(range(500), lambda: Thread(target=type_something).start())
    training.run([page, in_another_thread])
    assert next(typed) > 50
    assert page.box.message.value == ""
    assert results(training) == unwatched


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bytes(unwatched, training):
    page = Dashboard(training)
    training.run([page, At([7], lambda: page.stop.click())])
    assert training.step == 7
    assert training.weights_path.exists()
    assert page.status.value.startswith("Stopped with ")
    assert page.status.value.endswith(f", after 7 steps | saved as {training.weights_path}")
    assert page.advice.value == "Run this cell again to go on."
    again = Dashboard(training)
    training.run([again])
    n, heldout = training.last_step, heldout_text(training.history[-1])
    assert again.status.value.startswith(f"Finished, after {n} steps | {heldout} | saved as")
    assert again.advice.value == ""
    assert results(training) == unwatched


@pytest.mark.slow
def test_stop_can_be_pressed_once_the_page_was_heard(training):
    page = Dashboard(training)
    seen = {}

    def look(when):
        seen[when] = page.stop.disabled

    def beat():
        look("before")
        page._echo.value += 1
        look("after")

    training.run([page, At([3], beat)])
    look("at the end")
    # What came too late must not open the button of a run that is over.
    page._hear({})
    look("late")
    assert seen == {"before": True, "after": False, "at the end": True, "late": True}


@pytest.mark.slow
def test_a_page_that_is_not_heard_says_how_to_stop(training, monkeypatch):
    monkeypatch.setattr(dashboard, "DEAF_SECONDS", 0.0)
    monkeypatch.setattr(Pace, "is_due", lambda self: True)
    page, advice = Dashboard(training), []
    at = At([2, 3], lambda: advice.append(page.advice.value))
    heard = At([2], lambda: page._hear({}))
    training.run([page, at, heard])
    assert "the square in the bar above" in advice[0]
    assert advice[1:] == [""]


def test_the_page_shows_every_epoch(training):
    page, titles = Dashboard(training), []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            page.box.wait()
            titles.append(page.box._axes.get_title())

    training.run([page, Look()])
    n = training.steps_per_epoch
    assert titles == [f"layer 1, after {n} steps", f"layer 1, after {2 * n} steps"]
    assert page.bar.value == page.bar.max == training.last_step
    history, steps = page._lines
    assert len(history) == 2
    np.testing.assert_allclose(
        [np.log(steps["train_forward"])[:n].mean(), np.log(steps["train_forward"])[n:].mean()],
        np.log(history["train_forward"]),
    )
    assert bytes(page.curve.value).startswith(b"\x89PNG")


def test_it_is_shown_in_jupyterlab_in_place_of_lines(training, monkeypatch, capsys):
    shown = []
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/02_train.ipynb")
    monkeypatch.setattr(dashboard, "display", shown.append)
    training.parameters = training.parameters.model_copy(update={"progress": "auto"})
    training.run()
    (page,) = shown
    assert "elmolib-dashboard" in page._dom_classes
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_model_in_training_is_the_latest_copy(training):
    looked_at = ModelInTraining(training)

    def by_the_model():
        (layers,) = SentenceEncoder(training.bilm).encode([WORDS])
        return layers

    at_first = by_the_model()
    np.testing.assert_array_equal(looked_at.embed([WORDS], layers="all")[0], at_first)
    training.run([At([4], lambda: setattr(training.bilm, "stop_training", True))])
    np.testing.assert_array_equal(looked_at.embed([WORDS], layers="all")[0], at_first)
    looked_at.copy_weights()
    np.testing.assert_array_equal(looked_at.embed([WORDS], layers="all")[0], by_the_model())
    assert not np.array_equal(by_the_model(), at_first)
    assert looked_at.heatmap(WORDS, 0).get_title() == "layer 0: no context, after 4 steps"
    with pytest.raises(WeightsError, match="without its softmax"):
        looked_at.predict("the river")


@pytest.mark.parametrize("n", [0, 1, MOST_POINTS, 5 * MOST_POINTS + 3, 33 * MOST_POINTS])
def test_losses_of_any_length_are_a_line_of_their_means(n):
    losses = StepLosses()
    values = np.random.default_rng(0).normal(5, 1, (n, 3))
    for epoch, forward, backward in values:
        losses.add(epoch, forward, backward)
    frame = losses.frame()
    assert min(n, MOST_POINTS) <= len(frame) < 2 * MOST_POINTS
    if n:
        per_point = n // len(frame)
        kept = values[: len(frame) * per_point].reshape(len(frame), per_point, 3).mean(axis=1)
        np.testing.assert_allclose(frame["epoch"], kept[:, 0])
        np.testing.assert_allclose(np.log(frame[["train_forward", "train_backward"]]), kept[:, 1:])


def test_a_line_that_goes_on_is_as_smooth_as_the_whole_would_be():
    n_before, n_after = 104 * 32, 10 * 32
    values = np.random.default_rng(0).normal(5, 1, (n_before + n_after, 3))
    whole, rest = StepLosses(), StepLosses(n_before)
    for step, (epoch, forward, backward) in enumerate(values):
        whole.add(epoch, forward, backward)
        if step >= n_before:
            rest.add(epoch, forward, backward)
    assert len(rest.frame()) == 10
    np.testing.assert_allclose(rest.frame(), whole.frame()[-10:])


@pytest.mark.parametrize(
    ("done", "planned", "seen"),
    [(0, 5, 1), (0.4, 5, 1), (1, 5, 1), (1.1, 5, 2), (2.5, 5, 5), (2.5, 3, 3), (0, 0.25, 0.25)]
    + [(12, 1000, 20), (999, 1000, 1000), (10**6, 10**6, 10**6)],
)
def test_the_axis_grows_with_the_run(done, planned, seen):
    assert epochs_in_view(done, planned) == seen


def test_what_takes_long_is_done_seldom(monkeypatch):
    now, busy = [100.0], [0.0]
    monkeypatch.setattr(dashboard.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(dashboard.time, "thread_time", lambda: busy[0])
    pace = Pace(seconds=1.0, share=0.1)
    assert pace.is_due()
    for cost, wait in ((0.0, 1.0), (0.05, 1.0), (0.5, 5.0)):
        pace.hold()
        now[0] += 1000
        assert not pace.is_due()
        started = now[0]
        with pace.spent():
            busy[0] += cost
            # Waiting for a processor costs training nothing.
            now[0] += cost + 0.2
        now[0] = started + wait - 1e-6
        assert not pace.is_due()
        now[0] = started + wait + 1e-6
        assert pace.is_due()


@pytest.mark.slow
def test_what_goes_wrong_with_a_picture_is_said_and_stops_nothing(training, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError

    page, advice = Dashboard(training), []
    monkeypatch.setattr(Pace, "is_due", lambda self: True)
    at_first = At([2], lambda: monkeypatch.setattr(dashboard.plots, "learning_curve", fail))
    then = At([10], lambda: (page._latest.wait(), advice.append(page.advice.value)))
    training.run([page, at_first, then])
    assert advice == ["MemoryError"]
    assert training.step == training.last_step
