"""A small recurrent reader on frozen vectors, where one linear layer per word is too little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np

from elmolib.evaluation.probe import LayerMix, Learnt, fit_until_best, normalisation
from elmolib.evaluation.vectors import WordVectors

UNITS = 64
DROPOUT = 0.3
MOST_EPOCHS = 12
BATCH_SIZE = 32
LEARNING_RATE = 2e-3


class Examples(NamedTuple):
    """Sentences and what is to be said of them.

    Attributes:
        vectors: of their words.
        labels: class numbers, of all words one after the other or one for each sentence.
    """

    vectors: WordVectors
    labels: np.ndarray


def read_words(
    training: Examples, development: Examples, test: WordVectors, n_classes: int, seed: int = 0
) -> Learnt:
    """Train a bidirectional LSTM on vectors to class every word, and class the words of others.

    Layers are mixed by learnt weights. Each feature is first shifted and scaled to mean 0 and
    variance 1. `development` decides how many epochs it is trained for.

    Args:
        training: with a label per word.
        development: with a label per word.
        test: what to class.
        n_classes: how many classes there are, numbered from 0.
        seed: of the first weights, of what is dropped and of the order of sentences.

    Returns:
        Learnt: a class for each word of `test`.
    """
    return _read(training, development, test, n_classes, seed, per_word=True)


def read_sentences(
    training: Examples, development: Examples, test: WordVectors, n_classes: int, seed: int = 0
) -> Learnt:
    """Do the same as `read_words` for sentences: the largest of each LSTM feature is classed."""
    return _read(training, development, test, n_classes, seed, per_word=False)


def _read(
    training: Examples,
    development: Examples,
    test: WordVectors,
    n_classes: int,
    seed: int,
    per_word: bool,
) -> Learnt:
    keras.utils.set_random_seed(seed)
    n_layers, dim = training.vectors.values.shape[1:]
    vectors = keras.Input((None, n_layers, dim))
    present = keras.Input((None,), dtype="bool")
    mix = LayerMix(n_layers)
    scaled = normalisation(training.vectors.values)(vectors)
    mixed = keras.layers.Dropout(DROPOUT)(mix(scaled))
    lstm = keras.layers.LSTM(UNITS, return_sequences=True)
    read = keras.layers.Bidirectional(lstm)(mixed, mask=present)
    if not per_word:
        # Where there is no word, no feature may be the largest.
        absent = 1.0 - keras.ops.cast(present, read.dtype)[..., None]
        read = keras.layers.GlobalMaxPooling1D()(read - 10.0 * absent)
    scores = keras.layers.Dense(n_classes)(keras.layers.Dropout(DROPOUT)(read))
    model = keras.Model([vectors, present], scores)
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )
    epochs = fit_until_best(
        model,
        {"x": _Batches(training.vectors, training.labels, per_word, seed)},
        _Batches(development.vectors, development.labels, per_word),
        MOST_EPOCHS,
    )
    return Learnt(_predicted(model, test, per_word), epochs, mix.shares())


def _predicted(model: keras.Model, test: WordVectors, per_word: bool) -> np.ndarray:
    n_words, n_sentences = len(test.values), len(test.bounds) - 1
    given = np.zeros(n_words if per_word else n_sentences, np.int64)
    batches = _Batches(test, given, per_word)
    for places, (inputs, _, _) in zip(batches.places, batches, strict=True):
        best = model.predict_on_batch(inputs).argmax(axis=-1)
        for row, place in zip(best, places, strict=True):
            first, end = test.bounds[place], test.bounds[place + 1]
            if per_word:
                given[first:end] = row[: end - first]
            else:
                given[place] = row
    return given


class _Batches(keras.utils.PyDataset):
    """Sentences of about one length side by side; with a seed, in another order every epoch."""

    def __init__(
        self, vectors: WordVectors, labels: np.ndarray, per_word: bool, seed: int | None = None
    ) -> None:
        super().__init__()
        self._vectors, self._labels, self._per_word = vectors, labels, per_word
        self._random = None if seed is None else np.random.default_rng(seed)
        lengths = np.diff(vectors.bounds)
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] > 0]
        self.places = [
            order[first : first + BATCH_SIZE] for first in range(0, len(order), BATCH_SIZE)
        ]
        # Of a length that its first two batches share, Keras takes all others to be.
        self.places = [*self.places[-1:], *self.places[:-1]]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple:
        places = self.places[index]
        bounds = self._vectors.bounds
        longest = int((bounds[places + 1] - bounds[places]).max())
        vectors = np.zeros((len(places), longest, *self._vectors.values.shape[1:]), np.float32)
        present = np.zeros((len(places), longest), bool)
        labels = np.zeros(present.shape if self._per_word else len(places), np.int32)
        for k, place in enumerate(places):
            words = slice(bounds[place], bounds[place + 1])
            length = words.stop - words.start
            vectors[k, :length] = self._vectors.values[words]
            present[k, :length] = True
            if self._per_word:
                labels[k, :length] = self._labels[words]
            else:
                labels[k] = self._labels[place]
        weights = present if self._per_word else np.ones(len(places))
        return (vectors, present), labels, weights.astype(np.float32)

    def on_epoch_end(self) -> None:
        if self._random is not None:
            self._random.shuffle(self.places)


def split_vectors(vectors: WordVectors, sizes: Sequence[int]) -> list[WordVectors]:
    """Cut vectors into those of consecutive groups of sentences, without copying them.

    Args:
        vectors: of all sentences.
        sizes: sentences of each group.
    """
    parts, first = [], 0
    for size in sizes:
        bounds = vectors.bounds[first : first + size + 1]
        parts.append(WordVectors(vectors.values[bounds[0] : bounds[-1]], bounds - bounds[0]))
        first += size
    return parts
