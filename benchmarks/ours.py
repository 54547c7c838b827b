"""Tasks that run elmolib as its users do; `Program` starts them."""

from __future__ import annotations

import json
import os
import time
from itertools import islice
from pathlib import Path
from threading import Event, Thread

import numpy as np
from threadpoolctl import threadpool_info

from benchmarks import machine
from benchmarks.machine import family_memory, forget_peak_memory, memory, peak_memory
from benchmarks.program import Requests, run
from elmolib.formats.names import hdf5_arrays, weight_shapes
from elmolib.formats.options import architecture_from_options

# Modules that load Keras are imported within functions, so tasks without Keras start faster.


def train(settings: dict, requests: Requests) -> None:
    """Train, and answer each request with the time of the requested number of steps.

    A worker other than the chief answers no request for steps, and ends after the chief.
    """
    os.environ |= settings.get("environment", {})
    import keras

    from elmolib.corpus.prepare import prepare_corpus
    from elmolib.settings.parameters import Parameters
    from elmolib.training.loop import Training
    from elmolib.training.workers import join

    class Rounds(keras.callbacks.Callback):
        """Callback that answers each request with the time of the requested number of steps."""

        def on_train_begin(self, logs=None) -> None:
            self._wait()

        def on_train_batch_end(self, batch, logs=None) -> None:
            if self.uncounted:
                self.uncounted = False
                self.started = time.perf_counter(), time.process_time()
                return
            self.steps_left -= 1
            if self.steps_left == 0:
                now = time.perf_counter(), time.process_time()
                names = ("seconds", "processor_seconds")
                spent = dict(zip(names, np.subtract(now, self.started).tolist(), strict=True))
                requests.answer(**spent, memory=memory(), peak_memory=peak_memory())
                self._wait()

        def _wait(self) -> None:
            self.steps_left = requests.next()["steps"]
            # The first step is not timed, because its batch was made before the request.
            self.uncounted = True

    parameters = Parameters.from_mapping(settings["parameters"])
    workers = join()
    corpus = workers.chief_first(lambda: prepare_corpus(parameters))
    training = Training(parameters, corpus, workers)
    requests.next()
    requests.answer(**_batch_sizes(training))
    training.run([Rounds()])


def _batch_sizes(training) -> dict:
    """Return the mean number of words, word width and number of positions of five batches."""
    batches = [training.batches[step] for step in range(5)]
    return {
        "vocabulary": len(training.corpus.vocabulary),
        "words": float(np.mean([sum(map(len, batch.characters)) for batch in batches])),
        "columns": float(np.mean([_mean_columns(batch.characters) for batch in batches])),
        "slots": int(batches[0].words.size),
    }


def _mean_columns(groups: tuple[np.ndarray, ...]) -> float:
    """Return the mean width of a word in characters; the words of a group have equal width."""
    return sum(group.size for group in groups) / sum(map(len, groups))


def one_step(settings: dict, requests: Requests) -> None:
    """Repeat a training step of bilm-tf with the same weights, batch and sampled words."""
    from elmolib.model.bilm import BiLM
    from elmolib.training.adagrad import Adagrad
    from elmolib.training.step import TrainingStep

    options = settings["options"]
    architecture, size = architecture_from_options(options), options["n_tokens_vocab"]
    with np.load(settings["theirs"], allow_pickle=False) as file:
        theirs = dict(file)
    stored, shapes = (of(architecture, size) for of in (hdf5_arrays, weight_shapes))
    before = {
        name: theirs[f"before/{array.name}"].reshape(shapes[name]) for name, array in stored.items()
    }
    bilm = BiLM.from_arrays(architecture, before)
    optimizer = Adagrad(bilm.weights_by_name(), options["learning_rate"], 1.0)
    step = TrainingStep(bilm, optimizer, options["all_clip_norm_val"])
    batch = batch_of(theirs, architecture.widest_filter)
    result = step(batch, bilm.initial_state(batch.words.shape[2]), 0)
    requests.next()
    after = {
        f"after/{stored[name].name}": array.reshape(stored[name].shape)
        for name, array in bilm.arrays().items()
    }
    np.savez(settings["written"], losses=np.asarray(result.losses), **after)
    requests.answer(written=settings["written"])


def batch_of(theirs: dict[str, np.ndarray], widest_filter: int):
    """Convert a batch of bilm-tf to elmolib's form: distinct words, grouped by length."""
    from elmolib.text.characters import group_by_length
    from elmolib.training.batches import Batch

    characters, targets, expected_targets = (
        np.swapaxes(theirs[key], 1, 2) for key in ("characters", "targets", "expected_targets")
    )  # (2, time, batch, ...)
    negatives = theirs["negatives"]
    distinct, words = np.unique(
        characters.reshape(-1, characters.shape[-1]), axis=0, return_inverse=True
    )
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
        n_weighted=np.float32(targets[0].size),
        negatives=places[targets.size :].reshape(negatives.shape).astype(np.int32),
        log_expected_targets=np.log(expected_targets),
        log_expected_negatives=np.log(theirs["expected_negatives"]),
    )


def predict(settings: dict, requests: Requests) -> None:
    """Embed sentences; clear the word cache first if the request says so."""
    from elmolib import ElmoEmbedder
    from elmolib.embedding.encoder import SentenceEncoder
    from elmolib.embedding.words import Remembered, WordVectors

    options = {name: settings[name] for name in ("runtime", "precision") if name in settings}
    if "precision" in settings:
        options["calibrate"] = json.loads(Path(settings["calibrate"]).read_text())
    encoder = ElmoEmbedder(settings["folder"], **options).encoder
    if settings.get("remembers"):
        # `remember` would store a file beside the model, and the other programs would use it too.
        words = json.loads(Path(settings["frequent"]).read_text())
        vectors = WordVectors(encoder.runtime, 0).of(words)
        encoder = SentenceEncoder(encoder.runtime, remembered=Remembered(words, vectors, ""))
    size = settings["batch_size"]
    while True:
        request = requests.next()
        sentences = json.loads(Path(request["sentences"]).read_text())
        if "written" in request:
            np.savez(request["written"], *encoder.encode(sentences[:size], size))
            requests.answer(peak_memory=peak_memory())
            continue
        if request["forget"]:
            encoder.forget_words()
        started, cpu_started = time.perf_counter(), time.process_time()
        encoder.encode(sentences, size)
        requests.answer(
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - cpu_started,
            peak_memory=peak_memory(),
            blas=[library.get("architecture") for library in threadpool_info()],
        )


def evaluate(settings: dict, requests: Requests) -> None:
    """Score the beginning of the text with an untrained model."""
    from elmolib.corpus.prepare import prepare_corpus
    from elmolib.model.bilm import BiLM
    from elmolib.scoring.perplexity import Scorer, windows_of_split
    from elmolib.settings.parameters import Parameters

    parameters = Parameters.from_mapping(settings["parameters"])
    corpus = prepare_corpus(parameters)
    architecture, size = parameters.architecture, len(corpus.vocabulary)
    bilm = BiLM(architecture, size)
    windows = windows_of_split(corpus.train, corpus, architecture)
    first = list(islice(windows, settings["windows"]))
    requests.next()
    forget_peak_memory()
    before = memory()
    scorer = Scorer(bilm)
    scorer.perplexity(first[:1])
    started = time.perf_counter()
    result = scorer.perplexity(first)
    requests.answer(
        seconds=time.perf_counter() - started,
        targets=result.n_targets,
        memory_before=before,
        peak_memory=peak_memory(),
    )


def prepare(settings: dict, requests: Requests) -> None:
    """Prepare a corpus, and measure the peak memory of all processes together."""
    from elmolib.corpus.prepare import prepare_corpus
    from elmolib.settings.parameters import Parameters

    parameters = Parameters.from_mapping(settings["parameters"])
    done, largest = Event(), [0]

    def watch() -> None:
        while not done.wait(0.05):
            largest[0] = max(largest[0], family_memory())

    requests.next()
    watcher = Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    corpus = prepare_corpus(parameters)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    started = time.perf_counter()
    prepare_corpus(parameters)
    requests.answer(
        seconds=seconds,
        seconds_when_prepared=time.perf_counter() - started,
        peak_memory=largest[0],
        words=corpus.train.n_words,
        distinct_words=len(corpus.lexicon),
    )


def matmul(settings: dict, requests: Requests) -> None:
    """Measure the speed of large matrix products, once per request."""
    while True:
        requests.answer(rate=machine.matmul_rate(**requests.next()))


def bare(settings: dict, requests: Requests) -> None:
    """Import TensorFlow and do nothing else."""
    import tensorflow  # noqa: F401

    while True:
        requests.next()
        requests.answer(peak_memory=peak_memory())


if __name__ == "__main__":
    run(
        *(train, one_step, predict, evaluate, prepare, matmul, bare),
        preload=("elmolib.training.loop", "elmolib.corpus.prepare", "elmolib.scoring.perplexity"),
    )
