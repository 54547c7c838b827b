"""Training a biLM on a prepared corpus."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from elmolib.adagrad import Adagrad
from elmolib.batches import BACKWARD, FORWARD, Batches
from elmolib.bilm import BiLM
from elmolib.checkpoint import read_checkpoint, write_checkpoint
from elmolib.corpus import PreparedCorpus
from elmolib.errors import TrainingError
from elmolib.files import replacing
from elmolib.fine_tuning import Beginning, begin_from_pretrained
from elmolib.parameters import Parameters
from elmolib.progress import progress_callback
from elmolib.scoring import Perplexity, evaluate, windows_of_split
from elmolib.training_step import TrainingStep
from elmolib.weights import write_model

MAY_CHANGE = {"run_dir", "corpus_dir", "epochs", "max_steps", "progress", "sentence"} | {
    "metrics_every",
    "pictures_every",
}
"""Parameters that may differ when a run goes on; any other would make it a different run."""


class Training:
    """One training run in its folder.

    Made again with the same parameters, it goes on from the folder's last checkpoint and ends
    with the weights that it would have had without the stop: every batch, sample and dropout mask
    is a function of the seed and the step's number.

    Args:
        parameters: what to train and how.
        corpus: the prepared text.

    Attributes:
        bilm: the model.
        step: steps taken so far.
        history: one dict per epoch, as in `history.csv`.
        beginning: what was taken over from the parameters' `pretrained` model, or None where there
            is none, or the run went on from a checkpoint, which holds all of it.

    Raises:
        WeightsError: the pretrained model cannot be read.
        ParameterError: the pretrained model is of other dimensions.
        TrainingError: the folder holds a run with other parameters or another corpus, or the text
            is too short for one batch.

    Example:
        >>> training = Training(parameters, prepare_corpus(parameters))
        >>> training.run()
        PosixPath('runs/tiny/elmo.h5')

    References:
        Peters et al. 2018, arXiv:1802.05365; the recipe of bilm-tf's `bin/train_elmo.py`.
    """

    def __init__(self, parameters: Parameters, corpus: PreparedCorpus) -> None:
        self.parameters = parameters
        self.corpus = corpus
        self.folder = parameters.run_path
        self.batches = Batches.of(corpus, parameters)
        keras.utils.set_random_seed(parameters.seed)
        self.bilm = BiLM(
            parameters.options,
            len(corpus.vocabulary),
            parameters.dropout,
            parameters.timestep_dropout,
            parameters.seed,
        )
        self.optimizer = Adagrad(
            self.bilm.named_variables(), parameters.learning_rate, parameters.initial_accumulator
        )
        self.training_step = TrainingStep(self.bilm, self.optimizer, parameters.clip_norm)
        self.step = 0
        self.state = self.bilm.initial_state(parameters.batch_size)
        self.history: list[dict[str, float]] = []
        # Sums since the last line of the history: losses of each direction, steps, seconds.
        self._epoch_losses, self._epoch_steps, self._epoch_seconds = np.zeros(2), 0, 0.0
        self.beginning: Beginning | None = None
        if self.checkpoint_path.exists():
            self._restore()
        elif parameters.pretrained is not None:
            self.beginning = begin_from_pretrained(self.bilm, corpus.vocabulary, parameters)

    @property
    def weights_path(self) -> Path:
        """Where the trained model is written."""
        return self.folder / "elmo.h5"

    @property
    def checkpoint_path(self) -> Path:
        """Where the state of the run is written."""
        return self.folder / "checkpoint.h5"

    @property
    def history_path(self) -> Path:
        """Where the history is written."""
        return self.folder / "history.csv"

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the training text."""
        return self.batches.steps_per_epoch

    @property
    def last_step(self) -> int:
        """Steps of the whole run."""
        steps = self.parameters.epochs * self.steps_per_epoch
        return min(steps, self.parameters.max_steps or steps)

    def run(self, callbacks: Sequence[keras.callbacks.Callback] = ()) -> Path:
        """Train to the end, or until stopped, and write the weights.

        An interrupt (Ctrl-C, the kernel's stop button) or a callback that sets
        `model.stop_training` ends the run after the current step; a second interrupt ends it at
        once. The logs of a step are `loss_forward`, `loss_backward` (nats, of the sampled
        softmax) and `gradient_norm`; those of an epoch are its line of the history.

        Args:
            callbacks: told of every step and epoch; their `model` is the biLM.

        Returns:
            the weight file.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parameters.to_yaml(self.folder / "parameters.yaml")
        if self.beginning is not None and self.parameters.progress != "none":
            print(self.beginning, flush=True)
            if heldout := self.heldout_perplexity():
                print(f"held-out text before training: {heldout}", flush=True)
        progress = progress_callback(self)
        told = keras.callbacks.CallbackList([*progress, *callbacks], model=self.bilm)
        self.bilm.stop_training = False
        told.on_train_begin()
        with stop_on_interrupt(self.bilm):
            self._run(told)
        if not self.bilm.stop_training and self._epoch_steps > 0:
            self._end_epoch(told)
        self.save()
        told.on_train_end(self.history[-1] if self.history else {})
        return self.weights_path

    def _run(self, told: keras.callbacks.CallbackList) -> None:
        first = self.step
        for batch in self.batches.read_ahead(first, self.last_step):
            if self._epoch_steps == 0 or self.step == first:
                told.on_epoch_begin(self.step // self.steps_per_epoch)
            told.on_train_batch_begin(self.step)
            started = time.perf_counter()
            result = self.training_step(batch, self.state, self.step)
            losses, norm = np.asarray(result.losses), float(result.gradient_norm)
            self._epoch_seconds += time.perf_counter() - started
            self._require_finite(losses, norm)
            self.state = result.state
            self.step += 1
            self._epoch_losses += losses
            self._epoch_steps += 1
            logs = {
                "loss_forward": float(losses[FORWARD]),
                "loss_backward": float(losses[BACKWARD]),
                "gradient_norm": norm,
            }
            told.on_train_batch_end(self.step - 1, logs)
            if self.step % self.steps_per_epoch == 0:
                self._end_epoch(told)
            if self.bilm.stop_training:
                return

    def _require_finite(self, losses: np.ndarray, norm: float) -> None:
        if not (np.isfinite(losses).all() and math.isfinite(norm)):
            raise TrainingError(
                f"Training diverged at step {self.step}: losses {losses[0]} forward and "
                f"{losses[1]} backward, gradient norm {norm}, learning_rate "
                f"{self.parameters.learning_rate}; lower learning_rate and start again, the "
                f"weights before are in {self.checkpoint_path}."
            )

    def _end_epoch(self, told: keras.callbacks.CallbackList) -> None:
        """Measure, write a line of history, save."""
        means = np.exp(self._epoch_losses / self._epoch_steps)
        targets = self._epoch_steps * self.parameters.batch_size * self.parameters.unroll_steps
        line = {
            "epoch": round(self.step / self.steps_per_epoch, 4),
            "step": self.step,
            "train_forward": means[FORWARD],
            "train_backward": means[BACKWARD],
            "tokens_per_second": targets / self._epoch_seconds,
            "seconds": self._epoch_seconds,
            "vocabulary_size": len(self.corpus.vocabulary),
        }
        heldout = self.heldout_perplexity()
        if heldout is not None:
            line |= {
                "heldout_forward": heldout.forward,
                "heldout_backward": heldout.backward,
                "heldout_mean": heldout.mean,
            }
        self.history.append({name: float(value) for name, value in line.items()})
        self._epoch_losses, self._epoch_steps, self._epoch_seconds = np.zeros(2), 0, 0.0
        self.save()
        told.on_epoch_end(math.ceil(line["epoch"]) - 1, dict(self.history[-1]))

    def heldout_perplexity(self) -> Perplexity | None:
        """Score the held-out text as the model is now; None where there is none."""
        if self.corpus.heldout is None or self.corpus.heldout.n_sentences == 0:
            return None
        windows = windows_of_split(
            self.corpus.heldout, self.corpus.lexicon, len(self.corpus.vocabulary), self.bilm.options
        )
        return evaluate(self.bilm, windows)

    def history_frame(self) -> pd.DataFrame:
        """Return the history as a table, one row per epoch."""
        return pd.DataFrame(self.history)

    def save(self) -> None:
        """Write the checkpoint, the history and the weights, each complete or not at all."""
        arrays = {f"weights/{k}": np.asarray(v) for k, v in self._variables().items()}
        arrays |= {f"accumulators/{k}": v.numpy() for k, v in self.optimizer.accumulators.items()}
        arrays |= {"state/c": np.asarray(self.state[0]), "state/h": np.asarray(self.state[1])}
        arrays["epoch_losses"] = self._epoch_losses
        write_checkpoint(
            self.checkpoint_path,
            arrays,
            {
                "identity": self._identity(),
                "step": self.step,
                "epoch_steps": self._epoch_steps,
                "epoch_seconds": self._epoch_seconds,
                "history": self.history,
            },
        )
        with replacing(self.history_path) as unfinished:
            self.history_frame().to_csv(unfinished, index=False)
        self.write_weights(self.weights_path)

    def write_weights(self, path: str | Path) -> None:
        """Write the model as it is now, self-contained, in the bilm-tf/AllenNLP HDF5 layout."""
        write_model(
            path,
            self.bilm.options,
            {name: np.asarray(variable) for name, variable in self._variables().items()},
            self.corpus.vocabulary,
            self.corpus.tokenizer,
            record={
                "parameters": self.parameters.to_json(),
                "step": self.step,
                "history": self.history,
            },
        )

    def _variables(self) -> dict[str, Any]:
        return {name: v.value for name, v in self.bilm.named_variables().items()}

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        kept = {k: v for k, v in self.parameters.to_json().items() if k not in MAY_CHANGE}
        return kept | {
            "vocabulary (words)": len(self.corpus.vocabulary),
            "corpus (words)": self.corpus.train.n_words,
            "corpus (sentences)": self.corpus.train.n_sentences,
        }

    def _restore(self) -> None:
        arrays, facts = read_checkpoint(self.checkpoint_path)
        wanted, found = self._identity(), facts["identity"]
        changed = [key for key in wanted if wanted[key] != found.get(key)]
        if changed:
            raise TrainingError(
                f"{self.folder} holds a run that differs in {', '.join(changed)}: choose another "
                "run_dir, or remove the folder to train anew."
            )
        for name, variable in self.bilm.named_variables().items():
            variable.assign(arrays[f"weights/{name}"])
            self.optimizer.accumulators[name].assign(arrays[f"accumulators/{name}"])
        self.state = tuple(keras.ops.convert_to_tensor(arrays[f"state/{k}"]) for k in "ch")
        self.step = facts["step"]
        self.history = facts["history"]
        self._epoch_losses = arrays["epoch_losses"]
        self._epoch_steps, self._epoch_seconds = facts["epoch_steps"], facts["epoch_seconds"]


@contextmanager
def stop_on_interrupt(bilm: BiLM) -> Iterator[None]:
    """Let the first interrupt end training after the current step; the second acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: object) -> None:
        bilm.stop_training = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
