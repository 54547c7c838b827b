"""The one thing that every task asks of a model: vectors for the words of sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

AVERAGE, MIX = "average", "mix"


class Embedder(Protocol):
    """Anything that gives vectors to the words of sentences.

    `elmolib.embedding.SentenceEncoder` is one, and so is `ElmoEmbedder(path).encoder`; the
    baselines are others.
    """

    def encode_each(
        self, sentences: Sequence[Sequence[str]], /
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each sentence's place and its array (layers, words, dim), in any order."""


class WordVectors(NamedTuple):
    """The vectors of all words of some sentences.

    Attributes:
        values: float16 (words, layers, dim), which is precise enough for what is learnt from them.
        bounds: int64 (sentences + 1,), where the words of each sentence begin.
    """

    values: np.ndarray
    bounds: np.ndarray


def word_vectors(embedder: Embedder, sentences: Sequence[Sequence[str]]) -> WordVectors:
    """Embed all words of sentences, at least one."""
    bounds = np.cumsum([0, *map(len, sentences)], dtype=np.int64)
    values: np.ndarray = np.empty(0, np.float16)
    for place, layers in embedder.encode_each(sentences):
        if not values.size:
            values = np.empty((bounds[-1], len(layers), layers.shape[2]), np.float16)
        values[bounds[place] : bounds[place + 1]] = layers.transpose(1, 0, 2)
    return WordVectors(values, bounds)


def sentence_vectors(embedder: Embedder, sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """Give each sentence the mean of its words' vectors.

    Args:
        embedder: of the words.
        sentences: the words of each; one sentence at least.

    Returns:
        float32 (sentences, layers, dim), zeros for a sentence without words.
    """
    means: np.ndarray = np.empty(0, np.float32)
    for place, layers in embedder.encode_each(sentences):
        if not means.size:
            means = np.zeros((len(sentences), len(layers), layers.shape[2]), np.float32)
        if sentences[place]:
            means[place] = layers.mean(axis=1)
    return means


def single_layers(vectors: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Name each layer of vectors (n, layers, dim), as they are given to a probe (n, 1, dim)."""
    n_layers = vectors.shape[1]
    for k in range(n_layers):
        yield layer_name(k, n_layers), vectors[:, k : k + 1]


def with_average(vectors: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Name each layer of vectors (n, layers, dim), and their average: arrays (n, dim)."""
    for name, layer in single_layers(vectors):
        yield name, layer[:, 0]
    if vectors.shape[1] > 1:
        yield AVERAGE, vectors.mean(axis=1, dtype=np.float32)


def layer_name(number: int, n_layers: int) -> str:
    """Name a layer in tables; vectors that have but one layer need no number."""
    return f"layer {number}" if n_layers > 1 else "vector"


def layer_below(system: str) -> str | None:
    """Name the system that differs from another in reading the next lower LSTM layer, if any."""
    found = re.match(r"layer (\d+)(.*)", system)
    if found is None or found[1] in "01":
        return None
    return f"layer {int(found[1]) - 1}{found[2]}"
