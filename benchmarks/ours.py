"""elmolib, run as its users run it: `python -m benchmarks.ours TASK SETTINGS`, see `Program`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from threading import Event, Thread

import numpy as np

from benchmarks.machine import family_memory, forget_peak_memory, memory, peak_memory, product_rate
from benchmarks.program import Orders

# --- Training


def train(settings: dict, orders: Orders) -> None:
    """Train, as many steps as are ordered at a time."""
    import keras

    from elmolib.corpus import prepare_corpus
    from elmolib.parameters import Parameters
    from elmolib.training import Training

    class Rounds(keras.callbacks.Callback):
        """Takes the time of as many steps as are ordered."""

        def on_train_begin(self, logs=None) -> None:
            self._wait()

        def on_train_batch_end(self, batch, logs=None) -> None:
            if self.uncounted:
                self.uncounted = False
                self.started = time.perf_counter()
                return
            self.steps_left -= 1
            if self.steps_left == 0:
                seconds = time.perf_counter() - self.started
                orders.answer(seconds=seconds, memory=memory(), peak_memory=peak_memory())
                self._wait()

        def _wait(self) -> None:
            self.steps_left = orders.next()["steps"]
            # One step is not counted, for it comes after a pause, in which its batch was made.
            self.uncounted = True

    parameters = Parameters.from_mapping(settings["parameters"])
    training = Training(parameters, prepare_corpus(parameters))
    orders.next()
    orders.answer(**_facts(training))
    training.run([Rounds()])


def _facts(training) -> dict:
    """What the first batches hold, on average."""
    batches = [training.batches[step] for step in range(5)]
    return {
        "vocabulary": len(training.corpus.vocabulary),
        "words": float(np.mean([sum(map(len, batch.characters)) for batch in batches])),
        "columns": float(np.mean([_mean_columns(batch.characters) for batch in batches])),
        "slots": int(batches[0].words.size),
    }


def _mean_columns(groups: tuple[np.ndarray, ...]) -> float:
    """Columns of characters per word, over groups of different width."""
    return sum(group.size for group in groups) / sum(map(len, groups))


def one_step(settings: dict, orders: Orders) -> None:
    """Take the training step that bilm-tf took, from the same weights with the same samples."""
    from elmolib.adagrad import Adagrad
    from elmolib.bilm import BiLM
    from elmolib.options import BiLMOptions
    from elmolib.training_step import TrainingStep

    options = BiLMOptions.from_json(settings["options"])
    with np.load(settings["theirs"], allow_pickle=False) as file:
        theirs = dict(file)
    before = {
        name.removeprefix("before/"): array
        for name, array in theirs.items()
        if name.startswith("before/")
    }
    bilm = BiLM.from_arrays(options, before)
    optimizer = Adagrad(bilm.named_variables(), settings["options"]["learning_rate"], 1.0)
    step = TrainingStep(bilm, optimizer, settings["options"]["all_clip_norm_val"])
    batch = batch_of(theirs, options.widest_filter)
    result = step(batch, bilm.initial_state(batch.words.shape[1]), 0)
    orders.next()
    np.savez(
        settings["written"],
        losses=np.asarray(result.losses),
        **{f"after/{name}": np.asarray(v.value) for name, v in bilm.named_variables().items()},
    )
    orders.answer(written=settings["written"])


def batch_of(theirs: dict[str, np.ndarray], widest_filter: int):
    """Make our form of a batch out of bilm-tf's, every word once, grouped and trimmed."""
    from elmolib.batches import Batch, group_by_length

    spelled, targets, negatives = (theirs[key] for key in ("characters", "targets", "negatives"))
    distinct, words = np.unique(spelled.reshape(-1, spelled.shape[-1]), axis=0, return_inverse=True)
    rows, places = np.unique(
        np.concatenate([targets.ravel(), negatives.ravel()]), return_inverse=True
    )
    groups, place = group_by_length(distinct, widest_filter)
    return Batch(
        characters=groups,
        words=place[words].reshape(targets.shape).astype(np.int32),
        rows=rows.astype(np.int64),
        targets=places[: targets.size].reshape(targets.shape).astype(np.int32),
        weights=np.ones(targets.shape[1:], np.float32),
        negatives=places[targets.size :].reshape(negatives.shape).astype(np.int32),
        log_expected_targets=np.log(theirs["expected_targets"]),
        log_expected_negatives=np.log(theirs["expected_negatives"]),
    )


# --- Prediction


def predict(settings: dict, orders: Orders) -> None:
    """Embed sentences; the words known from an earlier round are forgotten where ordered."""
    from elmolib import ElmoEmbedder

    encoder = ElmoEmbedder(settings["folder"]).encoder
    sentences = json.loads(Path(settings["sentences"]).read_text())
    size = settings["batch_size"]
    while True:
        order = orders.next()
        if "written" in order:
            np.savez(order["written"], *encoder.encode(sentences[:size], size))
            orders.answer(peak_memory=peak_memory())
            continue
        if order["forget"]:
            encoder.forget_words()
        started = time.perf_counter()
        encoder.encode(sentences, size)
        orders.answer(seconds=time.perf_counter() - started, peak_memory=peak_memory())


# --- Scoring, preparing


def evaluate(settings: dict, orders: Orders) -> None:
    """Score the beginning of the text with a model that has learnt nothing."""
    from itertools import islice

    from elmolib.bilm import BiLM
    from elmolib.corpus import prepare_corpus
    from elmolib.parameters import Parameters
    from elmolib.scoring import evaluate, windows_of_split

    parameters = Parameters.from_mapping(settings["parameters"])
    corpus = prepare_corpus(parameters)
    size = len(corpus.vocabulary)
    bilm = BiLM(parameters.options, size)
    windows = list(
        islice(
            windows_of_split(corpus.train, corpus.lexicon, size, parameters.options),
            settings["windows"],
        )
    )
    orders.next()
    forget_peak_memory()
    before = memory()
    evaluate(bilm, windows[:1])
    started = time.perf_counter()
    result = evaluate(bilm, windows)
    orders.answer(
        seconds=time.perf_counter() - started,
        targets=result.n_targets,
        memory_before=before,
        peak_memory=peak_memory(),
    )


def prepare(settings: dict, orders: Orders) -> None:
    """Prepare a corpus, and see how much memory all processes take together."""
    from elmolib.corpus import prepare_corpus
    from elmolib.parameters import Parameters

    parameters = Parameters.from_mapping(settings["parameters"])
    done, largest = Event(), [0]

    def watch() -> None:
        while not done.wait(0.05):
            largest[0] = max(largest[0], family_memory())

    orders.next()
    watcher = Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    corpus = prepare_corpus(parameters)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    started = time.perf_counter()
    prepare_corpus(parameters)
    orders.answer(
        seconds=seconds,
        seconds_when_prepared=time.perf_counter() - started,
        peak_memory=largest[0],
        words=corpus.train.n_words,
        distinct_words=len(corpus.lexicon),
    )


# --- The machine


def product(settings: dict, orders: Orders) -> None:
    """Find out what the machine can do at best, whenever ordered."""
    while True:
        orders.answer(rate=product_rate(orders.next()["seconds"]))


def bare(settings: dict, orders: Orders) -> None:
    """Import TensorFlow."""
    import tensorflow  # noqa: F401

    orders.next()
    orders.answer(peak_memory=peak_memory())


TASKS = {
    "train": train,
    "one_step": one_step,
    "predict": predict,
    "evaluate": evaluate,
    "prepare": prepare,
    "product": product,
    "bare": bare,
}

if __name__ == "__main__":
    TASKS[sys.argv[1]](json.loads(sys.argv[2]), Orders())
