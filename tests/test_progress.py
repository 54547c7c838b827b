"""What a person is told while a model learns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from elmolib.dashboard import Dashboard
from elmolib.progress import EpochLine, duration, progress_callback, progress_line

LOGS = {
    "epoch": 2.0,
    "step": 20,
    "train_forward": 50.25,
    "train_backward": 60.75,
    "tokens_per_second": 12_000.0,
    "vocabulary_size": 12_426.0,
    "heldout_forward": 155.98,
    "heldout_backward": 153.76,
    "heldout_mean": 154.86,
}


def run(progress="auto", step=20, last_step=50, history=()):
    """What the callbacks look at of a run: 30 more steps of 4,000 tokens."""
    return SimpleNamespace(
        parameters=SimpleNamespace(progress=progress, batch_size=200, unroll_steps=20, epochs=5),
        batches=SimpleNamespace(n_targets=448_248),
        corpus=SimpleNamespace(vocabulary=range(12_426)),
        step=step,
        last_step=last_step,
        steps_per_epoch=10,
        history=list(history),
    )


@pytest.mark.parametrize(
    ("progress", "in_jupyterlab", "kinds"),
    [
        ("none", True, []),
        ("line", True, [EpochLine]),
        ("auto", False, [EpochLine]),
        ("auto", True, [Dashboard]),
    ],
)
def test_who_sees_what(monkeypatch, progress, in_jupyterlab, kinds):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    if in_jupyterlab:
        monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/02_train.ipynb")
    assert [type(callback) for callback in progress_callback(run(progress))] == kinds


def test_one_line_per_epoch(capsys):
    line = EpochLine(run())
    line.on_train_begin()
    line.on_epoch_end(1, LOGS)
    begin, epoch = capsys.readouterr().out.splitlines()
    assert begin == (
        "448,248 targets per direction and epoch, 12,426 words in the softmax, steps 20 to 50"
    )
    assert epoch == (
        "epoch 2/5 | held-out perplexity 156.0 forward, 153.8 backward, 154.9 mean (12,426 words) "
        "| sampled training perplexity 50.2 forward, 60.8 backward | 12,000 tokens/s | 10 s left"
    )


def test_without_held_out_text_the_line_is_shorter(capsys):
    EpochLine(run()).on_epoch_end(
        1, {name: value for name, value in LOGS.items() if not name.startswith("heldout")}
    )
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("epoch 2/5 | sampled training perplexity 50.2")


def test_where_a_run_is_and_what_is_left():
    assert progress_line(run(), seconds_per_step=2.0) == (
        "epoch 3 of 5 | step 20 of 50 | 2,000 tokens/s | 60 s left"
    )
    assert progress_line(run(step=50, history=[LOGS]), seconds_per_step=0.5) == (
        "epoch 5 of 5 | step 50 of 50 | 8,000 tokens/s | 0 s left | held-out perplexity "
        "156.0 forward, 153.8 backward, 154.9 mean (12,426 words)"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (1800, "30 min"), (7500, "2 h 5 min")],
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text
