"""The progress of a training run: the files `progress.json` and `steps.csv`, and text lines."""

import io
import time
from collections.abc import Mapping
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from elmolib.errors import TrainingError
from elmolib.files import read_limited
from elmolib.settings.run_folder import PROGRESS, STEPS, STOP

SILENT_SECONDS = 90.0  # a run that has written nothing for longer counts as killed
LINE_SECONDS = 60.0  # time between two lines of text
LOOK_SECONDS = 2.0  # pause between two reads of a run's files

PARTS = "forward", "backward", "mean"
COLUMNS = ["step", "epoch", "loss_forward", "loss_backward", "tokens_per_second"]
COLUMNS += [f"{sample}_{part}" for sample in ("heldout", "train_text") for part in PARTS]


class Progress(BaseModel):
    """The content of `progress.json`; values that are not known yet are None."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")

    state: Literal["running", "stopped", "finished", "failed"]
    step: int  # number of steps taken
    last_step: int
    steps_per_epoch: int
    vocabulary_size: int
    loss_forward: float | None = None  # mean of the last steps, sampled softmax, in nats
    loss_backward: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    heldout_forward: float | None = None  # the most recent held-out perplexity
    heldout_backward: float | None = None
    heldout_mean: float | None = None
    heldout_is_sample: bool = False  # True within an epoch, when only a sample is scored
    unigram: float | None = None  # held-out perplexity of word frequencies alone
    written: float  # seconds since 1970

    @property
    def is_running(self) -> bool:
        """Whether a process is training this run: it has written its progress recently."""
        return self.state == "running" and time.time() - self.written < SILENT_SECONDS

    def __str__(self) -> str:
        kind = "held-out sample" if self.heldout_is_sample else "held-out"
        score, left = heldout_text(dict(self), kind), self.last_step - self.step
        if self.state != "running":
            steps = f"{self.state.capitalize()} after {self.step:,} steps"
            steps += f", {left:,} left" if left else ""
            return " | ".join(filter(None, (steps, score)))
        done, epochs = self.step / self.steps_per_epoch, ceil(self.last_step / self.steps_per_epoch)
        epoch = min(int(done) + 1, epochs)
        parts = [f"epoch {epoch:,} of {epochs:,} ({done - epoch + 1:.0%})"]
        parts += [f"step {self.step:,} of {self.last_step:,}"]
        if self.loss_forward is not None:
            parts += [f"loss {self.loss_forward:.2f} forward, {self.loss_backward:.2f} backward"]
        if not self.is_running:
            parts += [f"nothing written for {duration(time.time() - self.written)}"]
        elif self.tokens_per_second is not None:
            parts += [speed_text(self.tokens_per_second, self.seconds_left)]
        return " | ".join(filter(None, (*parts, score)))


def read_progress(run_folder: Path) -> Progress:
    """Read a run's progress; raise a TrainingError if no run has begun or the file is damaged."""
    path = run_folder / PROGRESS
    if not path.is_file():
        raise TrainingError(f"There is no {path}: start the training first.")
    try:
        return Progress.model_validate_json(read_limited(path, 100_000, TrainingError))
    except ValidationError:
        raise TrainingError(f"{path} is damaged: resume the training to write it anew.") from None


def read_steps(run_folder: Path) -> pd.DataFrame:
    """Read the complete rows of `steps.csv`. The table is empty if the file is unusable."""
    with suppress(OSError, ValueError):
        text = (run_folder / STEPS).read_text(encoding="utf-8")
        frame = pd.read_csv(io.StringIO(text[: text.rfind("\n") + 1]), dtype=float)
        if list(frame) == COLUMNS:
            return frame.astype({"step": int})
    return pd.DataFrame(columns=COLUMNS)


def request_stop(run_folder: Path) -> None:
    """Ask the training process to stop after the current step."""
    (run_folder / STOP).touch()


def heldout_text(line: Mapping[str, float | None], kind: str = "held-out") -> str:
    """Return the held-out perplexities of `line` as text, or "" if it has none."""
    if line.get("heldout_mean") is None:
        return ""
    return (
        f"{kind} perplexity {line['heldout_forward']:.1f} forward, "
        f"{line['heldout_backward']:.1f} backward, {line['heldout_mean']:.1f} mean "
        f"({int(line['vocabulary_size'] or 0):,} words)"
    )


def speed_text(tokens_per_second: float, seconds_left: float | None) -> str:
    return f"{tokens_per_second:,.0f} tokens/s | {duration(seconds_left or 0)} left"


def duration(seconds: float) -> str:
    """Return a readable duration: `42 s`, `3 min`, `2 h 5 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
