"""The progress of a training run as lines of text."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from elmolib.errors import TrainingError
from elmolib.live import run_log
from elmolib.live.dashboard import Dashboard
from elmolib.live.progress import Progress, duration, read_progress
from elmolib.live.run_log import EpochLine, RunLog
from elmolib.live.watch import progress_callbacks
from elmolib.scoring.perplexity import Perplexity

LOGS = {
    "epoch": 2.0,
    "step": 20,
    "train_forward": 50.25,
    "train_backward": 60.75,
    "train_text_mean": 140.26,
    "tokens_per_second": 12_000.0,
    "vocabulary_size": 12_426.0,
    "heldout_forward": 155.98,
    "heldout_backward": 153.76,
    "heldout_mean": 154.86,
}


SCORES = {name: value for name, value in LOGS.items() if name.startswith("heldout")}


def progress(**changes) -> Progress:
    """The progress of a run after 24 of 50 steps."""
    known = {"state": "running", "step": 24, "last_step": 50, "steps_per_epoch": 10}
    known |= {"vocabulary_size": 12_426, "tokens_per_second": 2_000.0, "seconds_left": 60.0}
    return Progress(**known | {"written": time.time()} | changes)


def run(progress="auto"):
    """The attributes of a run that the callbacks read before training."""
    return SimpleNamespace(
        parameters=SimpleNamespace(progress=progress, epochs=5),
        batches=SimpleNamespace(n_targets=448_248),
        corpus=SimpleNamespace(vocabulary=range(12_426)),
        step=20,
        last_step=50,
        transfer=None,
        folder=None,
    )


def line_of(training=None) -> EpochLine:
    log = SimpleNamespace(training=training or run(), progress=progress(), update=progress)
    return EpochLine(log)


@pytest.mark.parametrize(
    ("progress", "in_jupyterlab", "kinds"),
    [
        ("none", True, [RunLog]),
        ("line", True, [RunLog, EpochLine]),
        ("auto", False, [RunLog, EpochLine]),
        ("auto", True, [RunLog, Dashboard]),
    ],
)
def test_progress_parameter_chooses_the_callback(monkeypatch, progress, in_jupyterlab, kinds):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    if in_jupyterlab:
        monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/02_train.ipynb")
    assert [type(callback) for callback in progress_callbacks(run(progress))] == kinds


def test_one_line_per_epoch(capsys):
    line = line_of()
    line.on_train_begin()
    line.on_epoch_end(1, LOGS)
    begin, epoch = capsys.readouterr().out.splitlines()
    assert begin == (
        "448,248 targets per direction and epoch, 12,426 words in the softmax, steps 20 to 50"
    )
    assert epoch == (
        "epoch 2/5 | held-out perplexity 156.0 forward, 153.8 backward, 154.9 mean (12,426 words) "
        "| training text 140.3 mean | 12,000 tokens/s | 60 s left"
    )


def test_fine_tuning_prints_what_it_starts_from(capsys):
    training = run()
    training.transfer = SimpleNamespace(
        source="runs/tiny/elmo.h5", n_kept=6_201, n_new=940, optimizer=""
    )
    training.heldout_perplexity = lambda: Perplexity(61.5, 60.5, 61.0, 900, 7_141)
    line_of(training).on_train_begin()
    start, heldout, begin = capsys.readouterr().out.splitlines()
    assert start == "fine-tuning from runs/tiny/elmo.h5: 6,201 words kept, 940 new"
    assert heldout == (
        "before training: held-out perplexity 61.50 forward, 60.50 backward, 61.00 mean, over 900 "
        "targets per direction and 7,141 words"
    )
    assert begin.startswith("448,248 targets")
    training.heldout_perplexity = lambda: None
    line_of(training).on_train_begin()
    assert capsys.readouterr().out.splitlines() == [start, begin]


def test_line_without_held_out_text(capsys):
    line_of().on_epoch_end(
        1, {name: value for name, value in LOGS.items() if not name.startswith("heldout")}
    )
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("epoch 2/5 | training text 140.3 mean")


def test_one_line_per_minute(capsys, monkeypatch):
    line, now = line_of(), [1000.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: now[0])
    line.on_train_begin()
    capsys.readouterr()
    for seconds in (59, 2, 58, 3):
        now[0] += seconds
        line.on_train_batch_end(1)
    first, second = capsys.readouterr().out.splitlines()
    assert first == second == str(progress())


def test_progress_in_words():
    found = progress(loss_forward=5.124, loss_backward=5.2)
    assert str(found) == (
        "epoch 3 of 5 (40%) | step 24 of 50 | loss 5.12 forward, 5.20 backward | 2,000 tokens/s | "
        "60 s left"
    )
    held_out = "perplexity 156.0 forward, 153.8 backward, 154.9 mean (12,426 words)"
    assert str(progress(**SCORES)).endswith(f"60 s left | held-out {held_out}")
    stopped = progress(**SCORES, state="stopped", heldout_is_sample=True)
    assert str(stopped) == f"Stopped after 24 steps, 26 left | held-out sample {held_out}"
    assert str(progress(state="finished", step=50)) == "Finished after 50 steps"


def test_a_killed_run_is_told_by_its_silence():
    killed = progress(written=time.time() - 300)
    assert str(killed).endswith("step 24 of 50 | nothing written for 5 min")
    assert progress().is_running
    assert not killed.is_running
    assert not progress(state="stopped").is_running


def test_missing_and_damaged_progress_is_one_sentence(tmp_path):
    with pytest.raises(TrainingError, match="start the training first"):
        read_progress(tmp_path)
    for text in ("", "{", "[]", '{"state": "running"}', "9" * 10**5):
        (tmp_path / "progress.json").write_text(text)
        with pytest.raises(TrainingError, match="is damaged"):
            read_progress(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (1800, "30 min"), (7500, "2 h 5 min")],
)
def test_durations_are_readable(seconds, text):
    assert duration(seconds) == text
