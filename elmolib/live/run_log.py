"""The log of a training run, written to the folder of the run or printed as lines of text."""

import math
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from tensorflow import Graph
from tensorflow.compat.v1 import SessionLog, Summary
from tensorflow.compat.v1.summary import FileWriter
from tensorflow.errors import OpError
from tqdm import tqdm

from elmolib.errors import reason
from elmolib.files import atomic_write
from elmolib.live.progress import (
    COLUMNS,
    LINE_SECONDS,
    PARTS,
    Progress,
    heldout_text,
    read_steps,
    speed_text,
)
from elmolib.live.throttle import Throttle
from elmolib.scoring.heldout import unigram_perplexity
from elmolib.settings.run_folder import EVENTS, LOCK, PROGRESS, STEPS, STOP
from elmolib.training.loop import Training

WRITE_SECONDS = 10.0  # time between two writes of the files
ROW_SECONDS = 1.0, 15.0  # time between two rows of `steps.csv`: in a short run, in a long run
SCORING_FRACTION = 0.015  # the share of the training time that may go to scoring the samples


class RunLog(keras.callbacks.Callback):
    """Write the progress of a run to its folder, and stop the run if a file `stop` appears there.

    Every ten seconds, a second thread writes `progress.json`, `steps.csv` and event files for
    TensorBoard. A row of `steps.csv` has the mean losses (nats, sampled softmax) of the steps since
    the previous row. Some rows also have the perplexities of samples of the text. A resumed run
    keeps the rows up to its checkpoint. If a file cannot be written, training goes on.

    Attributes:
        rows: the rows of `steps.csv`, each a dictionary.
        scored_at: the step at which this process last measured perplexities, or None.
        progress: the progress that `update` last returned.
    """

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training, self.folder = training, training.folder

    def on_train_begin(self, logs: dict | None = None) -> None:
        training, corpus = self.training, self.training.corpus
        (self.folder / STOP).unlink(missing_ok=True)
        rows = read_steps(self.folder)
        self.rows = rows[rows["step"] <= training.step].to_dict("records")
        self._n_written, self._has_warned = 0, False
        self._score = dict(training.history[-1]) if training.history else {}
        self.scored_at: int | None = None
        self._unigram = unigram_perplexity(corpus) if corpus.heldout is not None else None
        self._losses: list[tuple[float, float]] = []  # one pair per step since the last row
        self._step_ends: deque[float] = deque(maxlen=50)
        self._began = self._row_at = self._looked_at = time.monotonic()
        self._events: FileWriter | None = None
        # Outside a graph, `FileWriter` raises an error.
        with self._warn_of_errors(), Graph().as_default():
            self._events = FileWriter(str(self.folder / EVENTS), flush_secs=WRITE_SECONDS)
            # TensorBoard ignores later steps in older event files.
            self._events.add_session_log(SessionLog(status=SessionLog.START), training.step + 1)
        self.update()
        self._write()
        self._ended = threading.Event()
        ending = self._ended, _changed_at(self.folder / LOCK)
        self._thread = threading.Thread(target=self._write_until, args=ending, daemon=True)
        self._thread.start()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        now = time.monotonic()
        if not self._step_ends:  # this was the first step, which is slow
            self._scoring = Throttle(SCORING_FRACTION, 5.0, time.perf_counter)
        self._losses.append((logs["loss_forward"], logs["loss_backward"]))
        self._step_ends.append(now)
        if now - self._looked_at > 1.0:
            self._looked_at = now
            if (self.folder / STOP).exists():
                self.model.stop_training = True
        training = self.training
        if training.step % training.steps_per_epoch == 0 or training.step == training.last_step:
            return  # `on_epoch_end` scores the epoch and adds the row
        if self._scoring.is_due():
            if self.scored_at is None:
                # Compile the scorer now: its compile time must not count as the cost of scoring.
                training.perplexity_of(training.corpus.train.select([0]))
            with self._scoring.measure():
                self._add_row(self._measure(training.samples))
        elif now - self._row_at >= np.clip((now - self._began) / 200, *ROW_SECONDS):
            self._add_row({})

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        scores = {f"train_text_{part}": logs[f"train_text_{part}"] for part in PARTS}
        self._add_row(scores | self._measure(self.training.samples.keys() - {"train_text"}))
        self._score = dict(logs)
        self.update()

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._step_ends and self.scored_at != self.training.step:  # stopped within an epoch
            self._add_row(self._measure(self.training.samples))
        (self.folder / STOP).unlink(missing_ok=True)
        self.update("stopped" if self.training.step < self.training.last_step else "finished")
        self._ended.set()
        self._thread.join()
        self._write()
        with self._warn_of_errors():
            if self._events is not None:
                self._events.close()

    def update(self, state: str = "running") -> Progress:
        """Compute and return the progress of the run. Only the training thread may call this."""
        training, p, speed = self.training, self.training.parameters, self._speed()
        left = (training.last_step - training.step) * p.batch_size * p.unroll_steps
        values = dict(self.rows[-1]) if self.rows else {}
        values |= {f"heldout_{part}": self._score.get(f"heldout_{part}") for part in PARTS}
        values |= {"tokens_per_second": speed, "seconds_left": left / speed if speed else None}
        known = {name: value for name, value in values.items() if _is_known(value)}
        known |= {k: getattr(training, k) for k in ("step", "last_step", "steps_per_epoch")}
        known |= {"unigram": self._unigram, "heldout_is_sample": "epoch" not in self._score}
        n_words = len(training.corpus.vocabulary)
        self.progress = Progress(**known, state=state, vocabulary_size=n_words, written=time.time())
        return self.progress

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=COLUMNS)

    def _measure(self, samples: Iterable[str]) -> dict[str, float]:
        found = {name: self.training.perplexity_of(self.training.samples[name]) for name in samples}
        return {f"{name}_{part}": getattr(found[name], part) for name in found for part in PARTS}

    def _add_row(self, scores: dict[str, float]) -> None:
        training = self.training
        forward, backward = np.mean(self._losses, axis=0) if self._losses else (math.nan, math.nan)
        row = {"step": training.step, "epoch": training.step / training.steps_per_epoch}
        row |= {"loss_forward": forward, "loss_backward": backward, **scores}
        row["tokens_per_second"] = self._speed() or math.nan
        self._losses, self._row_at = [], time.monotonic()
        if scores:
            self._score, self.scored_at = scores, training.step
        self.rows.append(row)
        known = [name for name in COLUMNS[2:] if _is_known(row.get(name))]
        values = [Summary.Value(tag=name, simple_value=row[name]) for name in known]
        with self._warn_of_errors():
            if self._events is not None:
                self._events.add_summary(Summary(value=values), training.step)
        self.update()

    def _speed(self) -> float | None:
        """Return the tokens per second of the last steps, without the first step, which is slow."""
        if len(self._step_ends) < 2:
            return None
        p = self.training.parameters
        return p.batch_size * p.unroll_steps / float(np.median(np.diff(self._step_ends)))

    def _write_until(self, ended: threading.Event, locked_at: int | None) -> None:
        """Write the files until training ends. A missing lock file means that training failed."""
        while not ended.wait(WRITE_SECONDS):
            now = _changed_at(self.folder / LOCK)
            if now not in (locked_at, None):
                return  # another run writes into the folder now
            if now != locked_at:
                self.progress = self.progress.model_copy(update={"state": "failed"})
                ended.set()
            self._write()

    def _write(self) -> None:
        path, n_written = self.folder / STEPS, self._n_written
        self._n_written = 0  # after an error, the whole file is written again
        # Copy the rows, because the training thread adds rows at the same time.
        rows = self.rows[n_written:]
        table, look = pd.DataFrame(rows, columns=COLUMNS), {"index": False, "float_format": "%.7g"}
        with self._warn_of_errors():
            if n_written:
                table.to_csv(path, mode="a", header=False, **look)
            else:
                with atomic_write(path) as unfinished:
                    table.to_csv(unfinished, **look)
            self._n_written = n_written + len(rows)
            progress = self.progress.model_copy(update={"written": time.time()})
            with atomic_write(self.folder / PROGRESS) as unfinished:
                unfinished.write_text(progress.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @contextmanager
    def _warn_of_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, OpError) as error:
            if not self._has_warned:
                self._has_warned = True
                what = f"The log of the run in {self.folder} cannot be written"
                warnings.warn(f"{what} ({reason(error)}); training goes on.", stacklevel=3)


class EpochLine(keras.callbacks.Callback):
    """Print a line at the start and after each epoch; meanwhile, show a bar or print progress.

    In the list of callbacks, `log` must come before this callback.
    """

    def __init__(self, log: RunLog) -> None:
        super().__init__()
        self._bar = tqdm(disable=True)
        self.log, self.training = log, log.training

    def on_train_begin(self, logs: dict | None = None) -> None:
        training, self._printed = self.training, time.monotonic()
        print_transfer(training)
        first, last = training.step, training.last_step
        targets = f"{training.batches.n_targets:,} targets per direction and epoch"
        words = f"{len(training.corpus.vocabulary):,} words in the softmax"
        print(f"{targets}, {words}, steps {first:,} to {last:,}", flush=True)
        disable = training.parameters.progress != "auto" or None
        self._bar = tqdm(None, "", last, initial=first, unit="step", disable=disable)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._bar.update()
        if self._bar.disable and time.monotonic() - self._printed > LINE_SECONDS:
            self._printed = time.monotonic()
            print(self.log.update(), flush=True)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        parts = (
            f"epoch {logs['epoch']:g}/{self.training.parameters.epochs}",
            heldout_text(logs),
            f"training text {logs['train_text_mean']:.1f} mean",
            speed_text(logs["tokens_per_second"], self.log.progress.seconds_left),
        )
        self._bar.clear()  # the next step shows the bar again
        print(" | ".join(filter(None, parts)), flush=True)

    def on_train_end(self, logs: dict | None = None) -> None:
        self._bar.close()


def print_transfer(training: Training) -> None:
    """If a run fine-tunes a model, print the name and the held-out perplexity of this model."""
    if (start := training.transfer) is None:
        return
    words = f"{start.n_kept:,} words kept, {start.n_new:,} new"
    note = f"; {start.optimizer}" if start.optimizer else ""
    print(f"fine-tuning from {start.source}: {words}{note}", flush=True)
    if heldout := training.heldout_perplexity():
        print(f"before training: held-out {heldout}", flush=True)


def _changed_at(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return None


def _is_known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
