"""What can be read off vectors with one linear layer."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from elmolib.layers.scalar_mix import ScalarMix

MOST_EPOCHS = 30
PATIENCE = 3
LARGEST_BATCH, SMALLEST_BATCH, STEPS_PER_EPOCH = 256, 16, 256
"""Batches are as large as they can be for so many steps of an epoch, within these bounds. Examples
too few for that are gone through several times in an epoch."""
LEARNING_RATE = 1e-3

_STEPS_AT_ONCE = 16


class Labelled(NamedTuple):
    """Vectors (n, layers, dim) and the number of the class of each (n,)."""

    vectors: np.ndarray
    labels: np.ndarray


class Learnt(NamedTuple):
    """What a model trained on vectors says of the test examples.

    Attributes:
        predicted: int64 (n,), the likeliest class of each.
        epochs: passes over the training examples, chosen on the development examples.
        mix: float32 (layers,), each layer's share of the learnt mix.
    """

    predicted: np.ndarray
    epochs: int
    mix: np.ndarray


def linear_probe(
    training: Labelled, development: Labelled, test: np.ndarray, n_classes: int, seed: int = 0
) -> Learnt:
    """Train a softmax regression on vectors, and classify others with it.

    Each feature is first shifted and scaled to mean 0 and variance 1 over the training vectors.
    Several layers are mixed by learnt weights.

    Args:
        training: what is learnt from.
        development: what decides when to stop: after `PATIENCE` epochs without a better accuracy
            on it, the best weights are taken back.
        test: (n, layers, dim), what to classify.
        n_classes: how many classes there are, numbered from 0.
        seed: of the first weights and of the order of examples.

    References:
        Peters et al. 2018, arXiv:1802.05365, section 5.3: linear classifiers on frozen layers.
    """
    keras.utils.set_random_seed(seed)
    n_layers, dim = training.vectors.shape[1:]
    mix = LayerMix(n_layers)
    vectors = keras.Input((n_layers, dim))
    mixed = mix(normalisation(training.vectors)(vectors))
    model = keras.Model(vectors, keras.layers.Dense(n_classes)(mixed))
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=_STEPS_AT_ONCE,
    )
    epochs = fit_until_best(model, _in_batches(training), development, MOST_EPOCHS)
    # `predict` would be compiled anew for each probe, and TensorFlow complains of that.
    scores = ops.convert_to_numpy(model(test))
    return Learnt(scores.argmax(axis=-1), epochs, mix.shares())


def _in_batches(examples: Labelled) -> dict:
    """Give the arguments of `fit` for an epoch of enough steps."""
    n_examples = len(examples.labels)
    batch_size = min(LARGEST_BATCH, max(SMALLEST_BATCH, n_examples // STEPS_PER_EPOCH))
    times = -(-STEPS_PER_EPOCH * SMALLEST_BATCH // n_examples)
    vectors, labels = examples
    if times > 1:
        vectors, labels = np.concatenate([vectors] * times), np.concatenate([labels] * times)
    return {"x": vectors, "y": labels, "batch_size": batch_size}


def fit_until_best(
    model: keras.Model, training: dict, development: object, most_epochs: int
) -> int:
    """Train a compiled model while it gets better on development data, and keep the best weights.

    Args:
        model: compiled with the metric `accuracy`.
        training: arguments of `fit` that give the training data.
        development: what `fit` takes as `validation_data`.
        most_epochs: end there in any case.

    Returns:
        number of epochs that the kept weights were trained for.
    """
    stopping = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=PATIENCE, restore_best_weights=True
    )
    model.fit(
        **training,
        validation_data=development,
        epochs=most_epochs,
        callbacks=[stopping],
        verbose=0,
    )
    return stopping.best_epoch + 1


class LayerMix:
    """The learnt average of layers that lie side by side in one tensor (..., layers, dim).

    Args:
        n_layers: how many there are; a single one is left as it is.
    """

    def __init__(self, n_layers: int) -> None:
        self._n_layers = n_layers
        self._mix = ScalarMix(n_layers) if n_layers > 1 else None

    def __call__(self, layers):
        """Mix the layers into one tensor (..., dim)."""
        if self._mix is None:
            return layers[..., 0, :]
        return self._mix([layers[..., k, :] for k in range(self._n_layers)])

    def shares(self) -> np.ndarray:
        """Return each layer's share: float32 (layers,) with sum 1."""
        if self._mix is None:
            return np.ones(1, np.float32)
        return ops.convert_to_numpy(self._mix.layer_weights())


def normalisation(vectors: np.ndarray) -> keras.layers.Layer:
    """Make the layer that gives all features mean 0 and variance 1."""
    mean = vectors.mean(axis=0, dtype=np.float32)
    # Squares of half-precision numbers are too coarse, and a copy of all is too large.
    squares = sum(
        np.square(block.astype(np.float32)).sum(axis=0, dtype=np.float64)
        for block in np.array_split(vectors, 1 + len(vectors) // 4096)
    )
    variance = np.maximum(squares / len(vectors) - np.square(mean.astype(np.float64)), 1e-8)
    return keras.layers.Normalization(
        axis=(-2, -1), mean=mean, variance=variance.astype(np.float32)
    )
