"""Training runs are reproducible, resume exactly, and are refused with one clear sentence."""

from __future__ import annotations

import hashlib
import math
import signal
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from small_corpus import small_parameters

from elmolib.corpus.prepare import prepare_corpus
from elmolib.errors import TrainingError
from elmolib.formats.readers import read_model
from elmolib.model.bilm import BiLM
from elmolib.scoring.heldout import unigram_perplexity
from elmolib.scoring.perplexity import Scorer, windows_of_split
from elmolib.settings.parameters import RECIPES
from elmolib.training.batches import Batches
from elmolib.training.loop import Training

STEPS_PER_EPOCH = 58


class Until(keras.callbacks.Callback):
    """Callback that calls a function after one step."""

    def __init__(self, step, act):
        super().__init__()
        self.step, self.act = step, act

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.step:
            self.act(self.model)


class Each(keras.callbacks.Callback):
    """Callback that calls a function after every step."""

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
    """Callback that records all calls to it."""

    def __init__(self):
        super().__init__()
        self.calls, self.batch_logs, self.epoch_logs = [], [], []

    def on_train_begin(self, logs=None):
        self.calls.append("train begins")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch} begins")

    def on_train_batch_end(self, batch, logs=None):
        self.batch_logs.append((batch, dict(logs)))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(f"epoch {epoch} ends")
        self.epoch_logs.append(dict(logs))

    def on_train_end(self, logs=None):
        self.calls.append("train ends")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def make(folder):
    """Create a run in its own folder; all runs share one corpus."""

    def make(name, **changes) -> Training:
        places = {"run_dir": str(folder / name), "corpus_dir": str(folder / "corpus")}
        parameters = small_parameters(folder, **{**places, **changes})
        return Training(parameters, prepare_corpus(parameters))

    return make


@pytest.fixture(scope="module")
def whole(make) -> tuple[Training, Record]:
    """Return an uninterrupted run of two epochs."""
    training, record = make("whole"), Record()
    training.run([record])
    return training, record


def test_a_run_learns_and_calls_its_callbacks(whole):
    training, record = whole
    assert training.steps_per_epoch == STEPS_PER_EPOCH
    assert training.step == training.last_step == 2 * STEPS_PER_EPOCH
    assert record.calls == [
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


def test_the_history_has_the_documented_columns(whole):
    training, record = whole
    table = pd.read_csv(training.history_path)
    assert list(table.columns) == [
        *("epoch", "step", "train_forward", "train_backward", "tokens_per_second", "seconds"),
        *("vocabulary_size", "heldout_forward", "heldout_backward", "heldout_mean"),
        *("train_text_forward", "train_text_backward", "train_text_mean"),
    ]
    pd.testing.assert_frame_equal(table, training.history_frame())
    assert table["epoch"].tolist() == [1, 2]
    assert table["step"].tolist() == [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH]
    assert (table["vocabulary_size"] == len(training.corpus.vocabulary)).all()
    losses = [logs["loss_forward"] for _, logs in record.batch_logs[STEPS_PER_EPOCH:]]
    assert math.isclose(table["train_forward"][1], math.exp(np.mean(losses)), rel_tol=1e-5)
    mean = np.sqrt(table["heldout_forward"] * table["heldout_backward"])
    np.testing.assert_allclose(table["heldout_mean"], mean, rtol=1e-9)


def test_the_weight_file_has_the_last_perplexity_of_the_history(whole):
    training, _ = whole
    stored = read_model(training.weights_path)
    assert stored.vocabulary == training.corpus.vocabulary
    assert stored.tokenizer == training.corpus.tokenizer
    assert stored.architecture == training.parameters.architecture
    assert stored.training_record["step"] == training.step
    corpus = training.corpus
    windows = windows_of_split(corpus.heldout, corpus, stored.architecture)
    again = Scorer(BiLM.from_arrays(stored.architecture, stored.arrays)).perplexity(windows)
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


def test_a_stopped_run_resumes_exactly(make, whole):
    before = signal.getsignal(signal.SIGINT)
    stopped = make("stopped")
    stopped.run([Until(20, interrupt)])
    assert signal.getsignal(signal.SIGINT) is before
    assert stopped.step == 21
    assert stopped.history == []
    assert weights(stopped) != weights(whole[0])

    # A callback stops the run a second time, at the last step of an epoch.
    stopped, record = make("stopped"), Record()
    assert stopped.step == 21
    stopped.run([Until(STEPS_PER_EPOCH - 1, stop), record])
    assert record.calls == ["train begins", "epoch 0 begins", "epoch 0 ends", "train ends"]
    assert stopped.step == STEPS_PER_EPOCH

    last = make("stopped")
    last.run()
    assert weights(last) == weights(whole[0])
    steady = [name for name in last.history[0] if name not in ("seconds", "tokens_per_second")]
    for line, wanted in zip(last.history, whole[0].history, strict=True):
        assert {name: line[name] for name in steady} == {name: wanted[name] for name in steady}


def test_a_finished_run_does_not_change(make, whole):
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


def test_the_learning_rate_decays_linearly_at_the_end(make, whole):
    rates = []
    training = make("falling", learning_rate_decay=0.25)
    training.run([Each(lambda _: rates.append(float(training.optimizer.learning_rate.numpy())))])
    n_steps = 2 * STEPS_PER_EPOCH
    line = np.linspace(0.5, 0.0, n_steps // 4, endpoint=False)
    np.testing.assert_allclose(rates, [*[0.5] * (n_steps - len(line)), *line], rtol=1e-6)
    # The falling rates change the weights. A stopped and resumed run ends with equal weights.
    assert weights(training) != weights(whole[0])
    stopped = make("falling in two", learning_rate_decay=0.25)
    stopped.run([Until(107, stop)])
    again = make("falling in two", learning_rate_decay=0.25)
    again.run()
    assert weights(again) == weights(training)
    with pytest.raises(TrainingError, match="differs in epochs"):
        make("falling", learning_rate_decay=0.25, epochs=3)


def test_the_learning_rate_of_the_default_recipe_rises_and_falls_in_lines(make):
    rates = []
    elmolib = {"recipe": "elmolib", "learning_rate": None, "learning_rate_warmup": 0.25}
    training = make("rising", **elmolib, learning_rate_decay=0.5, max_steps=40)
    training.run([Each(lambda _: rates.append(float(training.optimizer.learning_rate.numpy())))])
    highest = RECIPES["elmolib"]["learning_rate"]
    rising, falling = np.linspace(0, 1, 11)[1:], np.linspace(1, 0, 21)[:-1]
    wanted = highest * np.concatenate([rising, np.ones(10), falling])
    np.testing.assert_allclose(rates, wanted, rtol=1e-6)


def test_the_default_recipe_learns_and_resumes_exactly(make):
    elmolib = {"recipe": "elmolib", "learning_rate": 0.02, "learning_rate_decay": None}
    whole = make("elmolib", **elmolib)
    whole.run()
    assert whole.history[-1]["heldout_mean"] < unigram_perplexity(whole.corpus)
    make("elmolib in two", **elmolib).run([Until(70, stop)])
    again = make("elmolib in two", **elmolib)
    assert again.step == 71
    again.run()
    assert weights(again) == weights(whole)
    with pytest.raises(TrainingError, match="differs in recipe"):
        make("elmolib", **elmolib | {"recipe": "bilm-tf"})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"lstm_dim": 9}, "lstm_dim"),
        ({"seed": 5}, "seed"),
    ],
)
def test_a_run_with_other_parameters_is_refused(make, whole, changes, key):
    if key == "seed":
        # The seed also decides which sentences are held out, so another seed needs another corpus.
        changes = {**changes, "corpus_dir": str(whole[0].folder / "other corpus")}
    with pytest.raises(TrainingError, match=rf"differs in .*\b{key}\b") as caught:
        make("whole", **changes)
    assert str(whole[0].folder) in str(caught.value)


def test_divergence_keeps_the_last_good_weights(make):
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


def test_too_little_text_is_refused(make):
    with pytest.raises(TrainingError, match=r"fewer than one batch needs, batch_size 4000"):
        make("short", batch_size=4000)


def test_all_predictions_of_an_epoch_are_trained_on(whole):
    """The batches of the first epoch contain every target of the training text."""
    training, _ = whole
    corpus, parameters = training.corpus, training.parameters
    batches = Batches(corpus, parameters.architecture, parameters)
    counted = sum(batches[step].weights.sum() for step in range(STEPS_PER_EPOCH))
    assert counted == training.corpus.train.n_words + training.corpus.train.n_sentences


def test_equal_runs_in_different_folders_write_the_same_file(tmp_path):
    weights = []
    for name in ("here", "there/deep down"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        words = folder / "words.txt"
        words.write_text("<S>\n</S>\n<UNK>\nriver\nbank\nthe\na\n.\n!\nwas\nsteep\nmoney\n")
        (folder / "tagged.conllu").touch()
        changes = {"vocabulary_file": str(words), "min_count": 1, "max_steps": 3}
        changes |= {"corpus_dir": str(folder / "c"), "tagged_text": str(folder / "tagged.conllu")}
        parameters = small_parameters(folder, **changes)
        weights.append(Training(parameters, prepare_corpus(parameters)).run())
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in weights)
    assert first == second
    assert str(tmp_path).encode() not in weights[0].read_bytes()
    record = read_model(weights[0]).training_record
    text = (tmp_path / "here/text.txt").read_bytes()
    found = {"name": "text.txt", "side": "train", "size": len(text)}
    assert record["texts"] == [found | {"sha256": hashlib.sha256(text).hexdigest()}]
    assert record["parameters"]["text"] == "text.txt"
    lines = text.decode().splitlines()
    assert record["sample"] and all(" ".join(words) in lines for words in record["sample"])
    assert record["counts"]["sentences"]["train"] + record["counts"]["sentences"]["heldout"] == 150
