"""Telling a person how training goes: a line per epoch, or a live bar in JupyterLab."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from elmolib.training import Training


def progress_callback(training: Training) -> list[keras.callbacks.Callback]:
    """Return the callbacks that report on a run, as its parameter `progress` asks."""
    chosen = training.parameters.progress
    if chosen == "none":
        return []
    if chosen == "auto" and is_live_notebook():
        return [EpochLine(training), LiveBar(training)]
    return [EpochLine(training)]


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
        heldout = (
            f"held-out perplexity {logs['heldout_forward']:.1f} forward, "
            f"{logs['heldout_backward']:.1f} backward, {logs['heldout_mean']:.1f} mean "
            f"({int(logs['vocabulary_size']):,} words) | "
            if "heldout_mean" in logs
            else ""
        )
        print(
            f"epoch {logs['epoch']:g}/{self.training.parameters.epochs} | {heldout}"
            f"sampled training perplexity {logs['train_forward']:.1f} forward, "
            f"{logs['train_backward']:.1f} backward | "
            f"{logs['tokens_per_second']:,.0f} tokens/s | {duration(left / steps)} left",
            flush=True,
        )


class LiveBar(keras.callbacks.Callback):
    """Show a bar that moves with every step."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Draw the bar."""
        from tqdm.auto import tqdm

        self.bar = tqdm(
            total=self.training.last_step, initial=self.training.step, unit="step", smoothing=0.05
        )
        self.last_shown = 0.0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Move the bar."""
        self.bar.update()
        now = time.monotonic()
        if logs and now - self.last_shown > 1.0:
            self.last_shown = now
            self.bar.set_postfix(
                forward=f"{logs['loss_forward']:.2f}", backward=f"{logs['loss_backward']:.2f}"
            )

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def duration(seconds: float) -> str:
    """Write a time span for people: `42 s`, `3 min`, `2 h 5 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
