"""Linear probes: what one linear layer can predict from frozen vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from benchmarks.tasks.vectors import Embedder, single_layers, word_vectors
from elmolib.explore.tagging import TaggedSentence, Tags, tag_names
from elmolib.model.scalar_mix import ScalarMix

MIX = "mix"
"""Name that tables use for the learned mix of all layers."""

MAX_EPOCHS = 30
PATIENCE = 3
LEARNING_RATE = 1e-3

LARGEST_BATCH, SMALLEST_BATCH, STEPS_PER_EPOCH = 256, 16, 256
"""The batch size, between the two bounds, is chosen so that an epoch has this number of steps. If
there are too few examples even for the smallest batches, an epoch repeats the examples."""


class Labelled(NamedTuple):
    """Vectors `(n, layers, dim)`, and the class number of each vector, `(n,)`."""

    vectors: np.ndarray
    labels: np.ndarray


class ProbeResult(NamedTuple):
    """The result of a probe.

    Attributes:
        predicted: int64 `(n,)`, the most likely class of each test example.
        epochs: the number of epochs, chosen on the development examples.
        mix: float32 `(layers,)`, each layer's share of the learned mix.
    """

    predicted: np.ndarray
    epochs: int
    mix: np.ndarray


def linear_probe(
    training: Labelled, development: Labelled, test: np.ndarray, n_classes: int, seed: int = 0
) -> ProbeResult:
    """Train a softmax regression on vectors, and classify other vectors with it.

    Features are normalized to mean 0 and variance 1. Several layers are mixed by learned weights.

    Args:
        training: the training examples.
        development: the examples that decide when to stop. After `PATIENCE` epochs in which their
            accuracy has not improved, the best weights are restored.
        test: `(n, layers, dim)`, the vectors to classify.
        n_classes: the number of classes; they are numbered from 0.
        seed: the random seed of the initial weights and of the order of the examples.

    References:
        Peters et al. 2018, arXiv:1802.05365, section 5.3.
    """
    keras.utils.set_random_seed(seed)
    n_layers, dim = training.vectors.shape[1:]
    mix = LayerMix(n_layers)
    vectors = keras.Input((n_layers, dim))
    mixed = mix(normalization(training.vectors)(vectors))
    model = keras.Model(vectors, keras.layers.Dense(n_classes)(mixed))
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=16,
    )
    epochs = fit_until_best(model, _in_batches(training), development, MAX_EPOCHS)
    # `model.predict` would be compiled anew for each probe, and TensorFlow warns about that.
    scores = ops.convert_to_numpy(model(test))
    return ProbeResult(scores.argmax(axis=-1), epochs, mix.shares())


def _in_batches(examples: Labelled) -> dict:
    """Return arguments of `fit`; if there are few examples, they are repeated to fill an epoch."""
    n_examples = len(examples.labels)
    batch_size = min(LARGEST_BATCH, max(SMALLEST_BATCH, n_examples // STEPS_PER_EPOCH))
    times = -(-STEPS_PER_EPOCH * SMALLEST_BATCH // n_examples)
    vectors, labels = (np.concatenate([part] * times) if times > 1 else part for part in examples)
    return {"x": vectors, "y": labels, "batch_size": batch_size}


def fit_until_best(model: keras.Model, training: dict, development: object, max_epochs: int) -> int:
    """Train a model until its accuracy on development data stops rising; keep the best weights.

    Args:
        model: the model, which is compiled with the metric `accuracy`.
        training: the arguments of `fit` that give the training data.
        development: the argument `validation_data` of `fit`.
        max_epochs: the number of epochs after which training ends at the latest.

    Returns:
        the number of epochs after which the weights were best.
    """
    stopping = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=PATIENCE, restore_best_weights=True
    )
    arguments = training | {"validation_data": development, "epochs": max_epochs}
    model.fit(**arguments, callbacks=[stopping], verbose=0)
    return stopping.best_epoch + 1


class LayerMix:
    """Learned average of the layers in a tensor `(..., layers, dim)`; one layer is left as it is.

    Args:
        n_layers: the number of layers.
    """

    def __init__(self, n_layers: int) -> None:
        self._n_layers = n_layers
        self._mix = ScalarMix(n_layers) if n_layers > 1 else None

    def __call__(self, layers):
        """Average a tensor `(..., layers, dim)` over its layers: `(..., dim)`."""
        if self._mix is None:
            return layers[..., 0, :]
        return self._mix([layers[..., k, :] for k in range(self._n_layers)])

    def shares(self) -> np.ndarray:
        """Return each layer's share, float32 `(layers,)` with sum 1."""
        if self._mix is None:
            return np.ones(1, np.float32)
        return ops.convert_to_numpy(self._mix.layer_weights())


def normalization(vectors: np.ndarray) -> keras.layers.Layer:
    """Create the layer that scales features to mean 0 and variance 1 over these vectors."""
    mean = vectors.mean(axis=0, dtype=np.float32)
    # Squares in float16 are too inexact, and a float32 copy of all vectors is too large.
    squares = sum(
        np.square(block.astype(np.float32)).sum(axis=0, dtype=np.float64)
        for block in np.array_split(vectors, 1 + len(vectors) // 4096)
    )
    variance = np.maximum(squares / len(vectors) - np.square(mean.astype(np.float64)), 1e-8)
    return keras.layers.Normalization(
        axis=(-2, -1), mean=mean, variance=variance.astype(np.float32)
    )


def probe_layers(
    split: Sequence[np.ndarray], labels: Sequence[np.ndarray], n_classes: int, seed: int
) -> Iterator[tuple[str, ProbeResult]]:
    """Train a linear probe on each layer, and on the learned mix of all layers.

    Args:
        split: vectors `(n, layers, dim)` of the training, development and test examples.
        labels: class numbers `(n,)` of the training and development examples.
        n_classes: the number of classes, numbered from 0.
        seed: the random seed of the initial weights and of the order of the examples.
    """
    systems = [dict(single_layers(part)) for part in split]
    if len(systems[0]) > 1:
        systems = [each | {MIX: part} for each, part in zip(systems, split, strict=True)]
    for system in systems[0]:
        train, dev, test = (each[system] for each in systems)
        examples = Labelled(train, labels[0]), Labelled(dev, labels[1])
        yield system, linear_probe(*examples, test, n_classes, seed)


class Treebank(NamedTuple):
    """Tagged sentences for training, for choosing settings, and for the final test."""

    training: Sequence[TaggedSentence]
    development: Sequence[TaggedSentence]
    test: Sequence[TaggedSentence]


class ProbedTags(NamedTuple):
    """How well a probe tags the test sentences of a treebank.

    Attributes:
        right: int `(sentences, 2)`: the number of words with the correct tag, and the number of all
            words, in each test sentence.
        epochs, mix: as in `ProbeResult`.
    """

    right: np.ndarray
    epochs: int
    mix: np.ndarray


def probe_tags(embedder: Embedder, treebank: Treebank, seed: int = 0) -> dict[str, ProbedTags]:
    """Predict tags from vectors, with a probe on each layer and on the mix of layers."""
    names = tag_names(treebank.training)
    # A tag that does not occur in training becomes tag 0 here, and counts as wrong below.
    number = {name: k for k, name in enumerate(names)}
    labels = [
        np.array([number.get(tag, 0) for sentence in part for tag in sentence.tags], np.int32)
        for part in treebank
    ]
    vectors = word_vectors(embedder, [s.words for part in treebank for s in part]).values
    split = np.split(vectors, np.cumsum([len(part) for part in labels])[:2])
    found = {}
    for system, learned in probe_layers(split, labels, len(names), seed):
        tags = iter([names[k] for k in learned.predicted])
        predicted = [[next(tags) for _ in sentence.words] for sentence in treebank.test]
        right = count_right(predicted, treebank.test)
        found[system] = ProbedTags(right, learned.epochs, learned.mix)
    return found


def count_right(given: Sequence[Tags], truth: Sequence[TaggedSentence]) -> np.ndarray:
    """Count the words with the correct tag, and all words, in each sentence: int (sentences, 2)."""
    pairs = zip(given, truth, strict=True)
    return np.array([(sum(map(str.__eq__, tags, s.tags)), len(s.tags)) for tags, s in pairs])
