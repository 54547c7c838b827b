"""A small LSTM classifier on frozen vectors, for tasks that need more than a linear layer."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np

from benchmarks.tasks.probe import LayerMix, ProbeResult, fit_until_best, normalization
from benchmarks.tasks.vectors import WordVectors

UNITS = 64
DROPOUT = 0.3
MAX_EPOCHS = 12
BATCH_SIZE = 32
LEARNING_RATE = 2e-3


class Examples(NamedTuple):
    """Sentences with their labels.

    Attributes:
        vectors: the vectors of the sentences' words.
        labels: class numbers, one for each word or one for each sentence.
    """

    vectors: WordVectors
    labels: np.ndarray


def classify_words(
    training: Examples, development: Examples, test: WordVectors, n_classes: int, seed: int = 0
) -> ProbeResult:
    """Train a bidirectional LSTM to classify every word, and classify the test words.

    Each feature is scaled to mean 0 and variance 1; then the layers are mixed with learned weights.
    Training stops when the accuracy on `development` no longer rises.

    Args:
        training: sentences to learn from, with a label per word.
        development: sentences that decide when to stop, with a label per word.
        test: the vectors of the words to classify.
        n_classes: the number of classes, numbered from 0.
        seed: the random seed of the initial weights, of dropout and of the order of sentences.

    Returns:
        a class for each word of `test`.
    """
    return _classify(training, development, test, n_classes, seed, per_word=True)


def classify_sentences(
    training: Examples, development: Examples, test: WordVectors, n_classes: int, seed: int = 0
) -> ProbeResult:
    """Classify sentences like `classify_words`, from each LSTM feature's maximum over words."""
    return _classify(training, development, test, n_classes, seed, per_word=False)


def _classify(
    training: Examples,
    development: Examples,
    test: WordVectors,
    n_classes: int,
    seed: int,
    per_word: bool,
) -> ProbeResult:
    keras.utils.set_random_seed(seed)
    n_layers, dim = training.vectors.values.shape[1:]
    vectors = keras.Input((None, n_layers, dim))  # (batch, time, layers, dim)
    present = keras.Input((None,), dtype="bool")  # (batch, time)
    mix = LayerMix(n_layers)
    scaled = normalization(training.vectors.values)(vectors)
    mixed = keras.layers.Dropout(DROPOUT)(mix(scaled))  # (batch, time, dim)
    lstm = keras.layers.LSTM(UNITS, return_sequences=True)
    read = keras.layers.Bidirectional(lstm)(mixed, mask=present)  # (batch, time, 2 * UNITS)
    if not per_word:
        # Padded positions must not influence the maximum of a feature.
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
        MAX_EPOCHS,
    )
    return ProbeResult(_predict(model, test, per_word), epochs, mix.shares())


def _predict(model: keras.Model, test: WordVectors, per_word: bool) -> np.ndarray:
    n_words, n_sentences = len(test.values), len(test.bounds) - 1
    predicted = np.zeros(n_words if per_word else n_sentences, np.int64)
    batches = _Batches(test, predicted, per_word)
    for sentences, (inputs, _, _) in zip(batches.sentences, batches, strict=True):
        best = model.predict_on_batch(inputs).argmax(axis=-1)
        for row, k in zip(best, sentences, strict=True):
            first, end = test.bounds[k], test.bounds[k + 1]
            if per_word:
                predicted[first:end] = row[: end - first]
            else:
                predicted[k] = row
    return predicted


class _Batches(keras.utils.PyDataset):
    """Batches of sentences of similar length. With a seed, each epoch has another order."""

    def __init__(
        self, vectors: WordVectors, labels: np.ndarray, per_word: bool, seed: int | None = None
    ) -> None:
        super().__init__()
        self._vectors, self._labels, self._per_word = vectors, labels, per_word
        self._random = None if seed is None else np.random.default_rng(seed)
        lengths = np.diff(vectors.bounds)
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] > 0]
        self.sentences = [
            order[first : first + BATCH_SIZE] for first in range(0, len(order), BATCH_SIZE)
        ]
        # Put the last batch first, so that the first two batches differ in shape. Otherwise Keras
        # expects all batches to have the same shape.
        self.sentences = [*self.sentences[-1:], *self.sentences[:-1]]

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> tuple:
        sentences = self.sentences[index]
        bounds = self._vectors.bounds
        longest = int((bounds[sentences + 1] - bounds[sentences]).max())
        shape = (len(sentences), longest)
        vectors = np.zeros((*shape, *self._vectors.values.shape[1:]), np.float32)
        present = np.zeros(shape, bool)
        labels = np.zeros(shape if self._per_word else len(sentences), np.int32)
        for row, k in enumerate(sentences):
            words = slice(bounds[k], bounds[k + 1])
            length = words.stop - words.start
            vectors[row, :length] = self._vectors.values[words]
            present[row, :length] = True
            if self._per_word:
                labels[row, :length] = self._labels[words]
            else:
                labels[row] = self._labels[k]
        weights = present if self._per_word else np.ones(len(sentences))
        return (vectors, present), labels, weights.astype(np.float32)

    def on_epoch_end(self) -> None:
        if self._random is not None:
            self._random.shuffle(self.sentences)
