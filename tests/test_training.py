"""Runs: the same seed, the same bytes, stopped or not; and what stops a run with a sentence."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from small_corpus import small_parameters

from elmolib.batches import Batches
from elmolib.bilm import BiLM
from elmolib.corpus import prepare_corpus
from elmolib.errors import TrainingError
from elmolib.scoring import evaluate, unigram_perplexity, windows_of_split
from elmolib.training import MAY_CHANGE, Training
from elmolib.weights import read_model

STEPS_PER_EPOCH = 60


class Until(keras.callbacks.Callback):
    """Does something once, when a step is done."""

    def __init__(self, step, act):
        super().__init__()
        self.step, self.act = step, act

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.step:
            self.act(self.model)


class Each(keras.callbacks.Callback):
    """Does something whenever a step is done."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def on_train_batch_end(self, batch, logs=None):
        self.act(self.model)


def stop(model):
    model.stop_training = True


def interrupt(_):
    signal.raise_signal(signal.SIGINT)


class Record(keras.callbacks.Callback):
    """Remembers what it was told."""

    def __init__(self):
        super().__init__()
        self.told, self.batch_logs, self.epoch_logs = [], [], []

    def on_train_begin(self, logs=None):
        self.told.append("train begins")

    def on_epoch_begin(self, epoch, logs=None):
        self.told.append(f"epoch {epoch} begins")

    def on_train_batch_end(self, batch, logs=None):
        self.batch_logs.append((batch, dict(logs)))

    def on_epoch_end(self, epoch, logs=None):
        self.told.append(f"epoch {epoch} ends")
        self.epoch_logs.append(dict(logs))

    def on_train_end(self, logs=None):
        self.told.append("train ends")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def make(folder):
    """Make a run in a folder of its own, over one common corpus."""

    def make(name, **changes) -> Training:
        places = {"run_dir": str(folder / name), "corpus_dir": str(folder / "corpus")}
        parameters = small_parameters(folder, **{**places, **changes})
        return Training(parameters, prepare_corpus(parameters))

    return make


@pytest.fixture(scope="module")
def whole(make) -> tuple[Training, Record]:
    """A run of two epochs that nothing disturbs."""
    training, record = make("whole"), Record()
    training.run([record])
    return training, record


def test_a_run_learns_and_says_so(whole):
    training, record = whole
    assert training.steps_per_epoch == STEPS_PER_EPOCH
    assert training.step == training.last_step == 2 * STEPS_PER_EPOCH
    assert record.told == [
        "train begins",
        *("epoch 0 begins", "epoch 0 ends", "epoch 1 begins", "epoch 1 ends"),
        "train ends",
    ]
    assert [batch for batch, _ in record.batch_logs] == list(range(2 * STEPS_PER_EPOCH))
    assert set(record.batch_logs[0][1]) == {"loss_forward", "loss_backward", "gradient_norm"}
    first, last = training.history
    assert last["heldout_mean"] < first["heldout_mean"] < unigram_perplexity(training.corpus) * 1.5
    assert last["heldout_mean"] < unigram_perplexity(training.corpus)
    assert record.epoch_logs == training.history


def test_the_history_is_what_it_says(whole):
    training, record = whole
    table = pd.read_csv(training.history_path)
    assert list(table.columns) == [
        *("epoch", "step", "train_forward", "train_backward", "tokens_per_second", "seconds"),
        *("vocabulary_size", "heldout_forward", "heldout_backward", "heldout_mean"),
    ]
    pd.testing.assert_frame_equal(table, training.history_frame())
    assert table["epoch"].tolist() == [1, 2]
    assert table["step"].tolist() == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]
    assert (table["vocabulary_size"] == len(training.corpus.vocabulary)).all()
    losses = [logs["loss_forward"] for _, logs in record.batch_logs[STEPS_PER_EPOCH:]]
    assert math.isclose(table["train_forward"][1], math.exp(np.mean(losses)), rel_tol=1e-5)
    mean = np.sqrt(table["heldout_forward"] * table["heldout_backward"])
    np.testing.assert_allclose(table["heldout_mean"], mean, rtol=1e-9)


def test_the_weight_file_holds_the_model_of_the_last_line(whole):
    training, _ = whole
    stored = read_model(training.weights_path)
    assert stored.vocabulary == training.corpus.vocabulary
    assert stored.tokenizer == training.corpus.tokenizer
    assert stored.options == training.parameters.options
    assert stored.record["step"] == training.step
    corpus = training.corpus
    windows = windows_of_split(
        corpus.heldout, corpus.lexicon, len(corpus.vocabulary), stored.options
    )
    again = evaluate(BiLM.from_arrays(stored.options, stored.arrays), windows)
    assert math.isclose(again.mean, training.history[-1]["heldout_mean"], rel_tol=1e-6)


def weights(training: Training) -> dict[str, bytes]:
    stored = read_model(training.weights_path)
    return {name: array.tobytes() for name, array in stored.arrays.items()}


def test_the_same_seed_gives_the_same_weights(make, whole):
    again = make("again")
    again.run()
    assert weights(again) == weights(whole[0])
    other = make("other-seed", seed=1, corpus_dir=None, max_steps=3)
    other.run()
    assert weights(other) != weights(whole[0])


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(make, whole):
    before = signal.getsignal(signal.SIGINT)
    stopped = make("stopped")
    stopped.run([Until(20, interrupt)])
    assert signal.getsignal(signal.SIGINT) is before
    assert stopped.step == 21
    assert stopped.history == []
    assert weights(stopped) != weights(whole[0])

    # Once more, with an epoch's last step, and by a callback.
    stopped, record = make("stopped"), Record()
    assert stopped.step == 21
    stopped.run([Until(STEPS_PER_EPOCH - 1, stop), record])
    assert record.told == ["train begins", "epoch 0 begins", "epoch 0 ends", "train ends"]
    assert stopped.step == STEPS_PER_EPOCH

    last = make("stopped")
    last.run()
    assert weights(last) == weights(whole[0])
    steady = [name for name in last.history[0] if name not in ("seconds", "tokens_per_second")]
    for line, wanted in zip(last.history, whole[0].history, strict=True):
        assert {name: line[name] for name in steady} == {name: wanted[name] for name in steady}


def test_a_finished_run_is_left_as_it_is(make, whole):
    again, record = make("whole"), Record()
    assert again.step == again.last_step
    again.run([record])
    assert record.batch_logs == []
    assert weights(again) == weights(whole[0])
    assert len(again.history) == 2


def test_epochs_may_be_added(make, whole):
    make("longer", epochs=1).run()
    longer = make("longer", epochs=2)
    assert longer.step == STEPS_PER_EPOCH
    longer.run()
    assert weights(longer) == weights(whole[0])


def test_max_steps_ends_early_with_a_line_of_history(make):
    training = make("few-steps", max_steps=7)
    assert training.last_step == 7
    training.run()
    assert training.step == 7
    assert [line["epoch"] for line in training.history] == [round(7 / STEPS_PER_EPOCH, 4)]
    assert make("more-steps", max_steps=10**6).last_step == 2 * STEPS_PER_EPOCH


def test_the_learning_rate_falls_in_a_line_over_the_last_part_of_the_run(make, whole):
    rates = []
    training = make("falling", learning_rate_decay=0.25)
    training.run([Each(lambda _: rates.append(float(training.optimizer.learning_rate.numpy())))])
    n_steps = 2 * STEPS_PER_EPOCH
    line = np.linspace(0.5, 0.0, n_steps // 4, endpoint=False)
    np.testing.assert_allclose(rates, [*[0.5] * (n_steps - len(line)), *line], rtol=1e-6)
    # The steps went by that rate, and a run that was stopped on the way down ends the same.
    assert weights(training) != weights(whole[0])
    stopped = make("falling in two", learning_rate_decay=0.25)
    stopped.run([Until(107, stop)])
    again = make("falling in two", learning_rate_decay=0.25)
    again.run()
    assert weights(again) == weights(training)
    with pytest.raises(TrainingError, match="differs in epochs"):
        make("falling", learning_rate_decay=0.25, epochs=3)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"lstm_dim": 9}, "lstm_dim"),
        ({"seed": 5}, "seed"),
    ],
)
def test_another_run_is_not_mistaken_for_this_one(make, whole, changes, key):
    if key == "seed":
        # The seed also decides which sentences are held out.
        changes = {**changes, "corpus_dir": str(whole[0].folder / "other corpus")}
    with pytest.raises(TrainingError, match=rf"differs in .*\b{key}\b") as caught:
        make("whole", **changes)
    assert str(whole[0].folder) in str(caught.value)


def test_a_run_older_than_a_parameter_goes_on_as_its_default_says(make, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr("elmolib.training.MAY_CHANGE", {*MAY_CHANGE, "precision"})
        make("older", max_steps=3).run()
    assert make("older").step == 3
    monkeypatch.setattr("elmolib.training.has_bfloat16", lambda: True)
    with pytest.raises(TrainingError, match="differs in precision"):
        make("older", precision="bfloat16")


def test_divergence_is_told_and_the_last_good_weights_kept(make):
    training = make("diverged")
    good = Until(9, lambda _: training.save())
    bad = Until(
        10, lambda model: model.softmax_b.assign(np.full(model.vocabulary_size, np.nan, np.float32))
    )
    with pytest.raises(TrainingError, match=r"diverged at step 11: losses nan.*learning_rate 0\.5"):
        training.run([good, bad])
    arrays = read_model(training.weights_path).arrays
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_the_full_softmax_can_be_trained(make):
    training = make("full-softmax", n_negatives=None, epochs=1)
    training.run()
    line = training.history[-1]
    assert line["heldout_mean"] < unigram_perplexity(training.corpus) * 1.5
    assert line["heldout_mean"] < len(training.corpus.vocabulary)


def test_without_held_out_text_there_is_no_held_out_perplexity(make, folder):
    training = make("no-heldout", heldout_fraction=None, max_steps=2, corpus_dir=None)
    training.run()
    assert training.heldout_perplexity() is None
    assert "heldout_mean" not in pd.read_csv(training.history_path)


def test_too_little_text_and_too_many_negatives_are_refused(make):
    with pytest.raises(TrainingError, match=r"fewer than one batch of batch_size 4000"):
        make("short", batch_size=4000)
    with pytest.raises(TrainingError, match=r"n_negatives is 5000, but the vocabulary has only"):
        make("negatives", n_negatives=5000)


def test_all_predictions_of_an_epoch_are_trained_on(whole):
    """The first epoch's batches are those of the corpus, all of them."""
    training, _ = whole
    batches = Batches.of(training.corpus, training.parameters)
    counted = sum(batches[step].weights.sum() for step in range(STEPS_PER_EPOCH))
    assert counted == training.corpus.train.n_words + training.corpus.train.n_sentences
