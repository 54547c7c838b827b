"""The training loop: it takes steps, scores and saves the model, and resumes from checkpoints."""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras.callbacks import Callback, CallbackList, EarlyStopping

from elmolib.backend import has_bfloat16
from elmolib.corpus.prepared import PreparedCorpus, Split, sentences_of, spread_sentences
from elmolib.errors import ParameterError, TrainingError
from elmolib.files import atomic_write, exclusive_lock, remove_partial_files, write_errors
from elmolib.formats.published import pretrained_path
from elmolib.formats.weights import StoredModel, write_model
from elmolib.model.bilm import BiLM
from elmolib.scoring.heldout import unigram_log_probabilities
from elmolib.scoring.perplexity import Perplexity, Scorer, windows_of_split
from elmolib.settings.parameters import SCHEDULE, Parameters, project_root
from elmolib.settings.run_folder import HISTORY, LOCK, PARAMETERS, WEIGHTS
from elmolib.training.adagrad import Adagrad
from elmolib.training.batches import Batches
from elmolib.training.checkpoint import CheckpointMetadata, Checkpoints
from elmolib.training.fine_tuning import Transfer, load_pretrained
from elmolib.training.muon import MuonAdam
from elmolib.training.step import TrainingStep
from elmolib.training.workers import ALONE, Workers, stop_on_interrupt

SAMPLE = 2048  # the approximate number of targets per direction in each sample
SPEEDS = ("tokens_per_second", "seconds")  # columns of the history that depend on the machine


class Training:
    """A training run in its folder.

    With the parameters of an earlier run, it resumes that run from the last checkpoint. On the same
    machine, with the same number of threads, a resumed run writes the same weight file as a run
    without interruption, because the seed and the step determine every batch, sample and mask.

    Several `workers`, as `join` returns them, train one model together. Worker 0 reads and writes
    all files of the run, scores the model, and calls the callbacks.

    Attributes:
        bilm, scorer: the model, and the scorer of text with its current weights.
        step, steps_per_epoch, last_step: the number of steps taken, in an epoch and in the run.
        samples: small sets of sentences for frequent scoring: `train_text` and, if text is held
            out, `heldout`.
        history: one dictionary per epoch, as in `history.csv`.
        transfer: the parts copied from the model `pretrained`. It is None without such a model, or
            if the run resumed from a checkpoint.
        folder, weights_path, history_path: the paths of the run, its weight file and its history.

    Raises:
        WeightsError: the pretrained model cannot be read.
        ParameterError: the pretrained model has other dimensions, or the processor does not
            support the precision.
        TrainingError: the folder holds a run with other parameters or another corpus, or the text
            is too short for one batch.

    Example:
        >>> training = Training(parameters, prepare_corpus(parameters))
        >>> training.run()
        PosixPath('runs/tiny/elmo.h5')

    References:
        Peters et al. 2018, arXiv:1802.05365; for `recipe: bilm-tf`, bilm-tf's `bin/train_elmo.py`.
    """

    def __init__(
        self, parameters: Parameters, corpus: PreparedCorpus, workers: Workers = ALONE
    ) -> None:
        p, bfloat16 = parameters, parameters.precision == "bfloat16"
        if bfloat16 and not has_bfloat16():
            raise ParameterError(
                "precision: this processor does not multiply bfloat16 (it has neither avx512_bf16 "
                "nor amx_bf16), so training would be many times slower: set precision to float32."
            )
        self.parameters, self.corpus, self.folder = p, corpus, p.run_path
        self.weights_path, self.history_path = self.folder / WEIGHTS, self.folder / HISTORY
        self.workers, self._own = workers, workers.rows(p.batch_size)
        self.batches = Batches(corpus, p.architecture, p, self._own)
        self.steps_per_epoch = self.batches.steps_per_epoch
        steps = p.epochs * self.steps_per_epoch
        self.last_step = min(steps, p.max_steps or steps)
        keras.utils.set_random_seed(p.seed)
        size = len(corpus.vocabulary)
        with workers.scope():
            self.bilm = bilm = BiLM(p.architecture, size, p.dropout, p.timestep_dropout, p.seed)
            variables, rate = bilm.weights_by_name(), p.of_recipe("learning_rate")
            self.optimizer: Adagrad | MuonAdam
            if p.recipe == "bilm-tf":
                self.optimizer = Adagrad(variables, rate, p.initial_accumulator)
            else:
                self.optimizer = MuonAdam(variables, rate)
                bilm.softmax_b.assign(unigram_log_probabilities(corpus))
        bilm.own_rows = None if workers.is_alone else (self._own, p.batch_size)
        self.scorer, optimizer = Scorer(bilm), self.optimizer
        self.training_step = TrainingStep(bilm, optimizer, p.clip_norm, bfloat16, workers)
        texts = {"train_text": corpus.train, "heldout": corpus.heldout}
        self.samples = {k: spread_sentences(v, SAMPLE) for k, v in texts.items() if v is not None}
        self.step, self.state = 0, bilm.initial_state(p.batch_size)
        self.history: list[dict[str, float]] = []
        # Sums since the last line of the history: losses of each direction, steps, seconds.
        self._epoch_losses, self._epoch_steps, self._epoch_seconds = np.zeros(2), 0, 0.0
        self._gradient_norm = math.nan
        self.transfer: Transfer | None = None
        self.checkpoints = Checkpoints(self.folder, p.keep_checkpoints)
        self._saved_in: Path | None = None  # the checkpoint that equals the state in memory, if any
        self._saved_at = time.monotonic()
        if not workers.is_chief:
            return  # `run` will copy the chief's state
        if self.checkpoints.latest() is not None:
            self._restore()
        elif p.pretrained is not None:
            path = pretrained_path(p.pretrained, project_root())
            accumulators = optimizer.accumulators if isinstance(optimizer, Adagrad) else {}
            self.transfer = load_pretrained(bilm, corpus.vocabulary, path, accumulators)

    def __repr__(self) -> str:
        return f"Training({str(self.folder)!r}, step {self.step:,} of {self.last_step:,})"

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step: it rises from 0, stays, and falls to 0, in lines."""
        rate, warmup, decay = map(self.parameters.of_recipe, SCHEDULE)
        if decay:
            decay_steps = decay * self.last_step
            rate *= min(1.0, (self.last_step - self.step) / decay_steps)
        return rate * min(1.0, (self.step + 1) / (warmup * self.last_step)) if warmup else rate

    def run(self, callbacks: Sequence[Callback] = ()) -> Path:
        """Train to the end, or until stopped, and write the weights.

        An interrupt (Ctrl-C, the kernel's stop button; with several workers, also SIGTERM) or a
        callback that sets `model.stop_training` ends the run after the current step. A second
        Ctrl-C ends it at once. The logs of a step are `loss_forward`, `loss_backward` (nats,
        sampled softmax) and `gradient_norm`. The logs of an epoch are its line of the history.

        Args:
            callbacks: Keras callbacks. Their `model` is the biLM; their `params["scorer"]` is the
                scorer. Their state is not saved. When a run resumes, only Keras' `EarlyStopping`
                gets the logs of earlier epochs again, so that it ends the run at the same epoch.

        Returns:
            the path of the weight file.

        Raises:
            TrainingError: another process works on the same run, losses or weights are not finite,
                a file cannot be written, or the workers have different parameters or texts. The
                last checkpoint remains usable.
            WorkersError: another worker ended.
        """
        callbacks = list(callbacks) if (chief := self.workers.is_chief) else []
        lock = exclusive_lock(self.folder, self.folder / LOCK, TrainingError)
        with self.workers.noticing_losses(), lock if chief else nullcontext():
            if not self.workers.is_alone:
                self.workers.require_equal({"version of elmolib": version("elmolib")})
            self.workers.require_equal(self._identity() | {"last step": self.last_step})
            if chief:
                for folder in (self.folder, self.checkpoints.folder):
                    remove_partial_files(folder)
                self._synchronize()
            self._copy_from_chief()
            callback_list = CallbackList(callbacks, model=self.bilm, scorer=self.scorer)
            self.bilm.stop_training = False
            callback_list.on_train_begin()
            self._replay_epochs(callbacks)
            with stop_on_interrupt(self.bilm, not self.workers.is_alone):
                self._take_steps(callback_list)
                if chief:
                    if not self.bilm.stop_training and self._epoch_steps > 0:
                        self._end_epoch(callback_list)
                    self.save()
                    callback_list.on_train_end(self.history[-1] if self.history else {})
                self.workers.any(False)  # the workers end together
        return self.weights_path

    def _copy_from_chief(self) -> None:
        if self.workers.is_alone:
            return
        copy = self.workers.from_chief
        self.step = int(self.workers.gather(np.array([[self.step]]))[0, 0])
        for variable in (*self.bilm.weights_by_name().values(), *self.optimizer.slots.values()):
            variable.assign(copy(variable.numpy()))
        self.state = tuple(copy(np.asarray(part)) for part in self.state)

    def _synchronize(self) -> None:
        """Make the state in memory and the latest checkpoint equal."""
        latest = self.checkpoints.latest()
        if latest is None:
            self._save_state()
        elif latest != self._saved_in:
            # Another process trained further, or an aborted step changed the state in memory.
            self._restore()
        path = self.folder / PARAMETERS
        with self._write_errors(path), atomic_write(path) as unfinished:
            unfinished.write_text(self.parameters.as_yaml(), encoding="utf-8")
        self._write_history()

    def _replay_epochs(self, callbacks: Sequence[Callback]) -> None:
        """Pass the logs of the epochs trained so far to `EarlyStopping` callbacks."""
        for callback in (each for each in callbacks if isinstance(each, EarlyStopping)):
            if callback.restore_best_weights:
                problem = "EarlyStopping cannot use restore_best_weights here"
                reason = "because checkpoints hold the latest weights"
                raise TrainingError(f"{problem}, {reason}: set it to False.")
            for line in self.history:
                callback.on_epoch_end(_epoch_index(line), dict(line))

    def _take_steps(self, callbacks: CallbackList) -> None:
        first, workers = self.step, self.workers
        if workers.any(self.bilm.stop_training):
            return
        state = tuple(part[:, :, self._own] for part in self.state)
        for batch in self.batches.read_ahead(first, self.last_step):
            if self._epoch_steps == 0 or self.step == first:
                callbacks.on_epoch_begin(self.step // self.steps_per_epoch)
            callbacks.on_train_batch_begin(self.step)
            self._saved_in = None
            started = time.perf_counter()
            self.optimizer.learning_rate.assign(self.learning_rate)
            result = self.training_step(batch, state, self.step, self._wishes(self.step + 1))
            losses, norm = np.asarray(result.losses), float(result.gradient_norm)
            self._epoch_seconds += time.perf_counter() - started
            self._gradient_norm = norm
            forward, backward = losses.tolist()
            if not all(map(math.isfinite, (forward, backward, norm))):
                raise self._divergence(f"losses {forward:g} forward and {backward:g} backward")
            state = result.state
            self.step += 1
            self._epoch_losses += losses
            self._epoch_steps += 1
            logs = {"loss_forward": forward, "loss_backward": backward, "gradient_norm": norm}
            callbacks.on_train_batch_end(self.step - 1, logs)
            # Several workers do what was wished before the step, so all do it after the same step.
            wishes = self._wishes(self.step) if workers.is_alone else np.asarray(result.wishes)
            stops, saves = wishes > 0.0
            ends_epoch = self.step % self.steps_per_epoch == 0
            if stops or saves or ends_epoch or self.step == self.last_step:
                self.state = tuple(map(workers.gather, state))
            if ends_epoch:
                if workers.is_chief:
                    self._end_epoch(callbacks)
                stops = workers.any(self.bilm.stop_training)
            if stops:
                self.bilm.stop_training = True
                return
            if saves and workers.is_chief:
                self._save_state()

    def _wishes(self, step: int) -> np.ndarray:
        """Return two numbers: whether to stop after `step` steps, and whether to save then."""
        steps, minutes = self.parameters.checkpoint_steps, self.parameters.checkpoint_minutes
        saves = steps is not None and step % steps == 0
        saves |= time.monotonic() - self._saved_at >= 60.0 * (minutes or math.inf)
        return np.array([self.bilm.stop_training, saves and self.workers.is_chief], np.float32)

    def _end_epoch(self, callbacks: CallbackList) -> None:
        """Score the model, add a line to the history, call the callbacks, and save.

        If the process is killed before the save is complete, the resumed run calls them again.
        """
        with np.errstate(over="ignore"):
            forward, backward = np.exp(self._epoch_losses / self._epoch_steps)
        targets = self._epoch_steps * self.parameters.batch_size * self.parameters.unroll_steps
        line = {
            "epoch": round(self.step / self.steps_per_epoch, 4),
            "step": self.step,
            "train_forward": forward,
            "train_backward": backward,
            "tokens_per_second": targets / self._epoch_seconds,
            "seconds": self._epoch_seconds,
            "vocabulary_size": len(self.corpus.vocabulary),
        }
        texts = {"heldout": self.corpus.heldout, "train_text": self.samples["train_text"]}
        for kind, text in texts.items():
            if text is not None:
                found, parts = self.perplexity_of(text), ("forward", "backward", "mean")
                line |= {f"{kind}_{part}": getattr(found, part) for part in parts}
        for name, value in line.items():
            if not math.isfinite(value):
                raise self._divergence(f"{name} is {value:g}")
        self.history.append({name: float(value) for name, value in line.items()})
        self._epoch_losses, self._epoch_steps, self._epoch_seconds = np.zeros(2), 0, 0.0
        self._saved_in = None
        callbacks.on_epoch_end(_epoch_index(line), dict(self.history[-1]))
        self.save()

    def heldout_perplexity(self) -> Perplexity | None:
        """Score the held-out text with the current weights; return None without such a text."""
        return None if self.corpus.heldout is None else self.perplexity_of(self.corpus.heldout)

    def perplexity_of(self, split: Split) -> Perplexity:
        """Score sentences with the current weights, without dropout."""
        return self.scorer.perplexity(windows_of_split(split, self.corpus, self.bilm.architecture))

    def history_frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.history)

    def save(self) -> None:
        """Write a checkpoint, the history and the weights, each completely or not at all.

        Raises:
            TrainingError: a weight is not finite, or a file cannot be written.
        """
        self._save_state()
        self._write_history()
        write_model(self.weights_path, self.stored_model(self.bilm.arrays()))

    def _save_state(self) -> None:
        """Write a checkpoint, unless one equals the state in memory."""
        if self._saved_in is not None:
            return
        arrays = self._state_arrays()
        for name, values in arrays.items():
            if not np.isfinite(values).all():
                raise self._divergence(f"{name} holds values that are not finite")
        epoch = {"epoch_steps": self._epoch_steps, "epoch_seconds": self._epoch_seconds}
        known = {"identity": self._identity(), "step": self.step, "history": self.history}
        metadata = CheckpointMetadata(**known | epoch)
        with self._write_errors(self.checkpoints.folder):
            self._saved_in = self.checkpoints.write(arrays, metadata)
        self._saved_at = time.monotonic()

    def _state_arrays(self) -> dict[str, np.ndarray]:
        arrays = {f"weights/{name}": values for name, values in self.bilm.arrays().items()}
        for name, slot in self.optimizer.slots.items():
            arrays[f"optimizer/{name}"] = slot.numpy()
        c, h = map(np.asarray, self.state)
        return arrays | {"state/c": c, "state/h": h, "epoch_losses": self._epoch_losses}

    def _restore(self) -> None:
        arrays, metadata, _ = self.checkpoints.read_latest()
        wanted = self._identity()
        if changed := [key for key in wanted if wanted[key] != metadata.identity.get(key)]:
            problem = f"{self.folder} holds a run that differs in {', '.join(changed)}"
            advice = "choose another run_dir, or delete the folder to retrain"
            raise TrainingError(f"{problem}: {advice}.")
        for name, variable in self.bilm.weights_by_name().items():
            variable.assign(arrays[f"weights/{name}"])
        for name, slot in self.optimizer.slots.items():
            slot.assign(arrays[f"optimizer/{name}"])
        self.state = tuple(keras.ops.convert_to_tensor(arrays[f"state/{part}"]) for part in "ch")
        self.step, self.history = metadata.step, list(metadata.history)
        self._epoch_losses = arrays["epoch_losses"]
        self._epoch_steps, self._epoch_seconds = metadata.epoch_steps, metadata.epoch_seconds
        self._saved_in = self.checkpoints.latest()

    def _identity(self) -> dict[str, Any]:
        pretrained = self.parameters.pretrained and Path(self.parameters.pretrained).name
        text = self.corpus.fingerprints
        return self.parameters.identity() | text | {"pretrained": pretrained}

    def stored_model(self, arrays: dict[str, np.ndarray]) -> StoredModel:
        """Return the model with these weights and the training record, ready to be stored."""
        corpus, sample = self.corpus, self.samples.get("heldout")
        # The record describes the text files, but does not contain the names of their folders.
        record = {
            "parameters": self.parameters.without_folders(),
            "texts": [
                {"name": Path(file["name"]).name} | {k: file[k] for k in ("side", "size", "sha256")}
                for file in corpus.record["made_from"]["files"]
            ],
            "counts": corpus.record["counts"],
            "sample": [] if sample is None else sentences_of(sample, corpus),
            "step": self.step,
            "history": [{k: line[k] for k in line if k not in SPEEDS} for line in self.history],
        }
        described = corpus.vocabulary, corpus.tokenizer, record, str(self.weights_path)
        return StoredModel(self.bilm.architecture, arrays, *described)

    def _write_history(self) -> None:
        with self._write_errors(self.history_path), atomic_write(self.history_path) as unfinished:
            self.history_frame().to_csv(unfinished, index=False)

    def _write_errors(self, place: Path):
        advice = f"training stopped at step {self.step}, so fix this and rerun; {self._last_good()}"
        return write_errors(place, TrainingError, advice)

    def _divergence(self, what: str) -> TrainingError:
        return TrainingError(
            f"Training diverged at step {self.step}: {what}, gradient norm "
            f"{self._gradient_norm:g}, learning_rate {self.learning_rate:g}; use a lower "
            f"learning_rate in another run_dir; {self._last_good()}."
        )

    def _last_good(self) -> str:
        path = self.checkpoints.latest()
        return f"the last good checkpoint is {path}" if path else "no checkpoint was written yet"


def _epoch_index(line: dict[str, float]) -> int:
    """Return the number of the epoch in a line of the history, counted from 0 as in Keras."""
    return math.ceil(line["epoch"]) - 1
