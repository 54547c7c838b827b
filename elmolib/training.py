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
from elmolib.checkpoint import Checkpoints, Facts
from elmolib.corpus import PreparedCorpus
from elmolib.errors import ParameterError, TrainingError
from elmolib.files import remove_unfinished, replacing
from elmolib.fine_tuning import Beginning, begin_from_pretrained
from elmolib.locks import alone_in
from elmolib.parameters import Parameters
from elmolib.precision import has_bfloat16
from elmolib.progress import progress_callback
from elmolib.scoring import Perplexity, evaluate, windows_of_split
from elmolib.training_step import TrainingStep
from elmolib.weights import write_model

MAY_CHANGE = {
    *("run_dir", "corpus_dir", "epochs", "max_steps"),
    *("checkpoint_minutes", "checkpoint_steps", "keep_checkpoints"),
    *("metrics_every", "pictures_every", "sentence", "progress"),
    *("tagged_text", "evaluation_data"),
}
"""Parameters that may differ when a run goes on; any other would make it a different run."""

MAY_BE_NEW = {"precision", "shuffle", "learning_rate_decay"}
"""Parameters that came with a later version than the first."""

SPEEDS = ("tokens_per_second", "seconds")
"""What a line of the history says of the machine rather than of the model."""


class Training:
    """One training run in its folder.

    Made again with the same parameters, it goes on from the folder's last checkpoint and ends
    with the bytes that it would have written without the stop, on the same machine and with as many
    threads: every batch, sample and dropout mask is a function of the seed and the step's number.

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
        ParameterError: the pretrained model is of other dimensions, or the processor lacks the
            precision asked for.
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
        if parameters.precision == "bfloat16" and not has_bfloat16():
            raise ParameterError(
                "precision: this processor does not multiply bfloat16 (it has neither avx512_bf16 "
                "nor amx_bf16), so it would take many times as long: set it to float32."
            )
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
        self.training_step = TrainingStep(
            self.bilm, self.optimizer, parameters.clip_norm, parameters.precision == "bfloat16"
        )
        self.step = 0
        self.state = self.bilm.initial_state(parameters.batch_size)
        self.history: list[dict[str, float]] = []
        # Sums since the last line of the history: losses of each direction, steps, seconds.
        self._epoch_losses, self._epoch_steps, self._epoch_seconds = np.zeros(2), 0, 0.0
        self._gradient_norm = math.nan
        self.beginning: Beginning | None = None
        self._checkpoints = Checkpoints(self.folder, parameters.keep_checkpoints)
        self._checkpoints.refuse_older()
        # The checkpoint that holds the very state in memory, if there is one.
        self._saved_in: Path | None = None
        self._saved_at = time.monotonic()
        if self._checkpoints.latest() is not None:
            self._restore()
        elif parameters.pretrained is not None:
            self.beginning = begin_from_pretrained(self.bilm, corpus.vocabulary, parameters)

    @property
    def weights_path(self) -> Path:
        """Where the trained model is written."""
        return self.folder / "elmo.h5"

    @property
    def checkpoint_path(self) -> Path | None:
        """The latest state of the run on disk; None before the first step."""
        return self._checkpoints.latest()

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

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step: in the run's last part it falls in a line to nothing."""
        rate, last = self.parameters.learning_rate, self.parameters.learning_rate_decay
        falling = last * self.last_step
        return rate * min(1.0, (self.last_step - self.step) / falling) if falling else rate

    def run(self, callbacks: Sequence[keras.callbacks.Callback] = ()) -> Path:
        """Train to the end, or until stopped, and write the weights.

        An interrupt (Ctrl-C, the kernel's stop button) or a callback that sets
        `model.stop_training` ends the run after the current step; a second interrupt ends it at
        once. The logs of a step are `loss_forward`, `loss_backward` (nats, of the sampled
        softmax) and `gradient_norm`; those of an epoch are its line of the history.

        Args:
            callbacks: told of every step and epoch; their `model` is the biLM. What they remember
                is theirs to keep when the run is stopped and gone on with, but Keras'
                `EarlyStopping` is told of the epochs before, so that it ends the run where it
                would have.

        Returns:
            the weight file.

        Raises:
            TrainingError: another process works on the same run, the losses are no longer numbers,
                or something cannot be saved. The last checkpoint stays good.
        """
        with alone_in(self.folder, self.folder / ".lock", TrainingError):
            return self._run_alone(callbacks)

    def _run_alone(self, callbacks: Sequence[keras.callbacks.Callback]) -> Path:
        self._checkpoints.remove_unfinished()
        remove_unfinished(self.folder)
        self._make_memory_and_disk_agree()
        if self.beginning is not None and self.parameters.progress != "none":
            print(self.beginning, flush=True)
            if heldout := self.heldout_perplexity():
                print(f"held-out text before training: {heldout}", flush=True)
        progress = progress_callback(self)
        told = keras.callbacks.CallbackList([*progress, *callbacks], model=self.bilm)
        self.bilm.stop_training = False
        told.on_train_begin()
        self._remind(callbacks)
        with stop_on_interrupt(self.bilm):
            self._take_steps(told)
        if not self.bilm.stop_training and self._epoch_steps > 0:
            self._end_epoch(told)
        self.save()
        told.on_train_end(self.history[-1] if self.history else {})
        return self.weights_path

    def _remind(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Let early stopping judge the epochs before this process, so that it forgets none."""
        for callback in callbacks:
            if not isinstance(callback, keras.callbacks.EarlyStopping):
                continue
            if callback.restore_best_weights:
                raise TrainingError(
                    "EarlyStopping cannot restore_best_weights here, for checkpoints and weight "
                    "file hold the latest ones: set it to False."
                )
            for line in self.history:
                callback.on_epoch_end(_number_of_epoch(line), dict(line))

    def _make_memory_and_disk_agree(self) -> None:
        """Go on from the latest state on disk; put this one there if there is none.

        In memory may be less than another process has done by now, or more than a step that was
        broken off should have.
        """
        latest = self._checkpoints.latest()
        if latest is None:
            self._save_state()
        elif latest != self._saved_in:
            self._restore()
        with self._saving(self.folder):
            self.parameters.to_yaml(self.folder / "parameters.yaml")
            self._write_history()

    def _take_steps(self, told: keras.callbacks.CallbackList) -> None:
        first = self.step
        if self.bilm.stop_training:
            return
        for batch in self.batches.read_ahead(first, self.last_step):
            if self._epoch_steps == 0 or self.step == first:
                told.on_epoch_begin(self.step // self.steps_per_epoch)
            told.on_train_batch_begin(self.step)
            self._saved_in = None
            started = time.perf_counter()
            self.optimizer.learning_rate.assign(self.learning_rate)
            result = self.training_step(batch, self.state, self.step)
            losses, norm = np.asarray(result.losses), float(result.gradient_norm)
            self._epoch_seconds += time.perf_counter() - started
            self._gradient_norm = norm
            self._require_finite(losses)
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
            if self._saved_in is None and self._checkpoint_is_due():
                self._save_state()

    def _checkpoint_is_due(self) -> bool:
        steps, minutes = self.parameters.checkpoint_steps, self.parameters.checkpoint_minutes
        return (steps is not None and self.step % steps == 0) or (
            minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        )

    def _require_finite(self, losses: np.ndarray) -> None:
        if not (np.isfinite(losses).all() and math.isfinite(self._gradient_norm)):
            raise self._divergence(
                f"losses {losses[FORWARD]:g} forward and {losses[BACKWARD]:g} backward"
            )

    def _divergence(self, what: str) -> TrainingError:
        return TrainingError(
            f"Training diverged at step {self.step}: {what}, gradient norm "
            f"{self._gradient_norm:g}, learning_rate {self.learning_rate:g}; train "
            "with a lower one in another run_dir, the last good checkpoint is "
            f"{self.checkpoint_path or 'yet to come'}."
        )

    def _end_epoch(self, told: keras.callbacks.CallbackList) -> None:
        """Measure, add a line to the history, tell the callbacks, save.

        They are told before: killed in between, they are told again, and nothing is left out.
        """
        with np.errstate(over="ignore"):
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
        for name, value in line.items():
            if not math.isfinite(value):
                raise self._divergence(f"{name} is {value:g}")
        self.history.append({name: float(value) for name, value in line.items()})
        self._epoch_losses, self._epoch_steps, self._epoch_seconds = np.zeros(2), 0, 0.0
        self._saved_in = None
        told.on_epoch_end(_number_of_epoch(line), dict(self.history[-1]))
        self.save()

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
        """Write a checkpoint, the history and the weights, each complete or not at all.

        Raises:
            TrainingError: the weights are no longer numbers, or something cannot be written; what
                was there before is unchanged.
        """
        self._save_state()
        with self._saving(self.history_path):
            self._write_history()
        self.write_weights(self.weights_path)

    def _save_state(self) -> None:
        """Write a checkpoint, unless the state in memory came from one."""
        if self._saved_in is not None:
            return
        arrays = self._state_arrays()
        for name, values in arrays.items():
            if not np.isfinite(values).all():
                raise self._divergence(f"{name} holds values that are no numbers")
        facts = Facts(
            identity=self._identity(),
            step=self.step,
            epoch_steps=self._epoch_steps,
            epoch_seconds=self._epoch_seconds,
            history=self.history,
        )
        with self._saving(self._checkpoints.folder):
            self._saved_in = self._checkpoints.write(arrays, facts)
        self._saved_at = time.monotonic()

    def _state_arrays(self) -> dict[str, np.ndarray]:
        arrays = {f"weights/{name}": values for name, values in self._weights().items()}
        for name, accumulator in self.optimizer.accumulators.items():
            arrays[f"accumulators/{name}"] = accumulator.numpy()
        c, h = map(np.asarray, self.state)
        return arrays | {"state/c": c, "state/h": h, "epoch_losses": self._epoch_losses}

    def _write_history(self) -> None:
        with replacing(self.history_path) as unfinished:
            self.history_frame().to_csv(unfinished, index=False)

    @contextmanager
    def _saving(self, place: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"{place} cannot be written ({error.strerror or error}), so training stopped at "
                f"step {self.step}: see to it and start again, the last good checkpoint is "
                f"{self.checkpoint_path or 'yet to come'}."
            ) from None

    def write_weights(self, path: str | Path) -> None:
        """Write the model as it is now, self-contained, in the bilm-tf/AllenNLP HDF5 layout."""
        write_model(
            path,
            self.bilm.options,
            self._weights(),
            self.corpus.vocabulary,
            self.corpus.tokenizer,
            record={
                "parameters": self.parameters.to_json(),
                "step": self.step,
                "history": [
                    {name: value for name, value in line.items() if name not in SPEEDS}
                    for line in self.history
                ],
            },
        )

    def _weights(self) -> dict[str, np.ndarray]:
        variables = self.bilm.named_variables()
        return {name: np.asarray(v.value) for name, v in variables.items()}

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        kept = {k: v for k, v in self.parameters.to_json().items() if k not in MAY_CHANGE}
        if self.parameters.learning_rate_decay:
            # Where the rate falls towards the end, another end makes other steps.
            kept |= {"epochs": self.parameters.epochs, "max_steps": self.parameters.max_steps}
        return kept | self.corpus.fingerprints

    def _restore(self) -> None:
        arrays, facts, path = self._checkpoints.read_latest()
        wanted = self._identity()
        # A run begun before a parameter existed did what its default does.
        begun = {key: Parameters.model_fields[key].default for key in wanted if key in MAY_BE_NEW}
        begun |= facts.identity
        changed = [key for key in wanted if wanted[key] != begun.get(key)]
        if changed:
            raise TrainingError(
                f"{self.folder} holds a run that differs in {', '.join(changed)}: choose another "
                "run_dir, or remove the folder to train anew."
            )
        shapes = {name: values.shape for name, values in self._state_arrays().items()}
        if {name: values.shape for name, values in arrays.items()} != shapes:
            raise TrainingError(f"{path} holds other arrays than a run of its parameters has.")
        for name, variable in self.bilm.named_variables().items():
            variable.assign(arrays[f"weights/{name}"])
            self.optimizer.accumulators[name].assign(arrays[f"accumulators/{name}"])
        c, h = (keras.ops.convert_to_tensor(arrays[f"state/{part}"]) for part in "ch")
        self.state = c, h
        self.step = facts.step
        self.history = list(facts.history)
        self._epoch_losses = arrays["epoch_losses"]
        self._epoch_steps, self._epoch_seconds = facts.epoch_steps, facts.epoch_seconds
        self._saved_in = self._checkpoints.latest()


def _number_of_epoch(line: dict[str, float]) -> int:
    """What Keras calls the epoch of a line of the history, counting from 0."""
    return math.ceil(line["epoch"]) - 1


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
