"""Telling a person how training goes: a line per epoch, or a dashboard in JupyterLab."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from elmolib.parameters import Parameters
    from elmolib.training import Training


def progress_callback(training: Training) -> list[keras.callbacks.Callback]:
    """Return the callbacks that report on a run, as its parameter `progress` asks."""
    if training.parameters.progress == "none":
        return []
    if shows_dashboard(training.parameters):
        from elmolib.dashboard import Dashboard

        return [Dashboard(training)]
    return [EpochLine(training)]


def shows_dashboard(parameters: Parameters) -> bool:
    """Whether a run with these parameters draws itself here, in place of printing lines."""
    return parameters.progress == "auto" and is_live_notebook()


def is_live_notebook() -> bool:
    """Whether somebody sits before this notebook.

    A Jupyter server names the notebook in the kernel's environment; Papermill, which starts
    kernels by itself, does not.
    """
    return "JPY_SESSION_NAME" in os.environ


class EpochLine(keras.callbacks.Callback):
    """Print one readable line per epoch."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Say what is to be done."""
        training = self.training
        print(
            f"{training.batches.n_targets:,} targets per direction and epoch, "
            f"{len(training.corpus.vocabulary):,} words in the softmax, "
            f"steps {training.step:,} to {training.last_step:,}",
            flush=True,
        )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Print the epoch's line of the history."""
        logs = logs or {}
        left = self.training.last_step - self.training.step
        steps = logs["tokens_per_second"] / (
            self.training.parameters.batch_size * self.training.parameters.unroll_steps
        )
        parts = (
            f"epoch {logs['epoch']:g}/{self.training.parameters.epochs}",
            heldout_text(logs),
            f"sampled training perplexity {logs['train_forward']:.1f} forward, "
            f"{logs['train_backward']:.1f} backward",
            f"{logs['tokens_per_second']:,.0f} tokens/s",
            f"{duration(left / steps)} left",
        )
        print(" | ".join(filter(None, parts)), flush=True)


def progress_line(training: Training, seconds_per_step: float) -> str:
    """Say where a run is, how fast it goes, and what is left."""
    parameters = training.parameters
    epoch = min(training.step // training.steps_per_epoch + 1, parameters.epochs)
    speed = parameters.batch_size * parameters.unroll_steps / seconds_per_step
    left = (training.last_step - training.step) * seconds_per_step
    line = (
        f"epoch {epoch:,} of {parameters.epochs:,} | step {training.step:,} of "
        f"{training.last_step:,} | {speed:,.0f} tokens/s | {duration(left)} left"
    )
    heldout = heldout_text(training.history[-1] if training.history else {})
    return " | ".join(filter(None, (line, heldout)))


def heldout_text(line: Mapping[str, float]) -> str:
    """Write a history line's held-out perplexities; nothing where no text is held out."""
    if "heldout_mean" not in line:
        return ""
    return (
        f"held-out perplexity {line['heldout_forward']:.1f} forward, "
        f"{line['heldout_backward']:.1f} backward, {line['heldout_mean']:.1f} mean "
        f"({int(line['vocabulary_size']):,} words)"
    )


def duration(seconds: float) -> str:
    """Write a time span for people: `42 s`, `3 min`, `2 h 5 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
