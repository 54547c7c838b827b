"""The progress of a training run as lines of text."""

import time

import keras
from tqdm import tqdm

from elmolib.live.progress import LINE_SECONDS, heldout_text, speed_text
from elmolib.live.run_log import RunLog
from elmolib.training.loop import Training


class EpochLine(keras.callbacks.Callback):
    """Print a line at the start and after each epoch; meanwhile, show a bar or print progress.

    In the list of callbacks, `log` must come before this callback.
    """

    def __init__(self, log: RunLog) -> None:
        super().__init__()
        self._bar = tqdm(disable=True)
        self.log, self.training = log, log.training

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Print which model is fine-tuned, if any, and the numbers of targets, words and steps."""
        training, self._printed = self.training, time.monotonic()
        print_transfer(training)
        print(
            f"{training.batches.n_targets:,} targets per direction and epoch, "
            f"{len(training.corpus.vocabulary):,} words in the softmax, "
            f"steps {training.step:,} to {training.last_step:,}",
            flush=True,
        )
        last, disable = training.last_step, training.parameters.progress != "auto" or None
        self._bar = tqdm(None, "", last, initial=training.step, unit="step", disable=disable)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Move the bar, or print the progress of the run once a minute."""
        self._bar.update()
        if self._bar.disable and time.monotonic() - self._printed > LINE_SECONDS:
            self._printed = time.monotonic()
            print(self.log.update(), flush=True)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Print the perplexities and the speed of the epoch."""
        parts = (
            f"epoch {logs['epoch']:g}/{self.training.parameters.epochs}",
            heldout_text(logs),
            f"training text {logs['train_text_mean']:.1f} mean",
            speed_text(logs["tokens_per_second"], self.log.progress.seconds_left),
        )
        self._bar.clear()  # the next step shows the bar again
        print(" | ".join(filter(None, parts)), flush=True)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leave the bar where it is."""
        self._bar.close()


def print_transfer(training: Training) -> None:
    """If a run fine-tunes a model, print the name and the held-out perplexity of this model."""
    if (start := training.transfer) is None:
        return
    words = f"{start.n_kept:,} words kept, {start.n_new:,} new"
    print(f"fine-tuning from {start.source}: {words}", flush=True)
    if heldout := training.heldout_perplexity():
        print(f"before training: held-out {heldout}", flush=True)
