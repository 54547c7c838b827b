"""The interface of a model that the tasks use: vectors for the words of sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np


class Embedder(Protocol):
    """Computes vectors for the words of sentences.

    Examples are `ElmoEmbedder(path).encoder` and `benchmarks.tasks.baselines.Word2VecEmbedder`.
    """

    def encode_each(
        self, sentences: Sequence[Sequence[str]], /
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each sentence's index and its array `(layers, n_words, dim)`, in any order."""


class WordVectors(NamedTuple):
    """The vectors of all words of some sentences.

    Attributes:
        values: float16 `(words, layers, dim)`, which is precise enough for the tasks.
        bounds: int64 `(sentences + 1,)`; the words of sentence k are `bounds[k]:bounds[k + 1]`.
    """

    values: np.ndarray
    bounds: np.ndarray


def word_vectors(embedder: Embedder, sentences: Sequence[Sequence[str]]) -> WordVectors:
    """Embed all words of one or more sentences."""
    bounds = np.cumsum([0, *map(len, sentences)], dtype=np.int64)
    values: np.ndarray = np.empty(0, np.float16)
    for place, layers in embedder.encode_each(sentences):
        if not values.size:
            values = np.empty((bounds[-1], len(layers), layers.shape[2]), np.float16)
        values[bounds[place] : bounds[place + 1]] = layers.transpose(1, 0, 2)
    return WordVectors(values, bounds)


def single_layers(vectors: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each layer's name and vectors `(n, 1, dim)`, from vectors `(n, layers, dim)`."""
    n_layers = vectors.shape[1]
    for k in range(n_layers):
        yield f"layer {k}" if n_layers > 1 else "vector", vectors[:, k : k + 1]
