"""Configuration and vectors that several tasks share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.tasks.vectors import Embedder, WordVectors, single_layers
from elmolib.embedding.cosine import unit_length

AVERAGE = "average"
LSTM = "LSTM classifier"

WORDNET = Path("/usr/share/wordnet")
"""Where the package `wordnet-base` of Debian and Ubuntu installs WordNet 3.0."""

RADIUS = 5
"""Number of words on each side of a word; gensim's word2vec has the same window."""


class TaskConfig(NamedTuple):
    """What a task needs in addition to an embedder.

    Attributes:
        data: the folder with the datasets, laid out as in docs/evaluation.md.
        wordnet: the folder with `index.*` and `data.*` of WordNet 3.0.
        seed: the random seed of the task.
    """

    data: Path
    wordnet: Path = WORDNET
    seed: int = 0


def with_average(vectors: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the vectors (n, dim) of each layer, then of the average of all layers.

    Args:
        vectors: floats (n, layers, dim).
    """
    for name, layer in single_layers(vectors):
        yield name, layer[:, 0]
    if vectors.shape[1] > 1:
        yield AVERAGE, vectors.mean(axis=1, dtype=np.float32)


def vectors_at(
    embedder: Embedder, sentences: Sequence[Sequence[str]], positions: Sequence[int]
) -> np.ndarray:
    """Embed the word at the given position of each sentence: float32 (sentences, layers, dim)."""
    vectors: list[np.ndarray] = [np.empty(0)] * len(sentences)
    for k, layers in embedder.encode_each(sentences):
        vectors[k] = layers[:, positions[k]]
    return np.stack(vectors)


def cosine_of_pairs(vectors: np.ndarray) -> np.ndarray:
    """Return the cosine of vectors 0 and 1, of vectors 2 and 3, and so on."""
    return (unit_length(vectors[::2]) * unit_length(vectors[1::2])).sum(axis=1)


def split_vectors(vectors: WordVectors, sizes: Sequence[int]) -> list[WordVectors]:
    """Split the vectors of sentences into consecutive groups of sentences, without copying.

    Args:
        vectors: the vectors of all sentences.
        sizes: the number of sentences in each group.
    """
    parts, first = [], 0
    for size in sizes:
        bounds = vectors.bounds[first : first + size + 1]
        parts.append(WordVectors(vectors.values[bounds[0] : bounds[-1]], bounds - bounds[0]))
        first += size
    return parts


class WindowMean:
    """Replace the vector of a word by the mean of the vectors of the word and its neighbours.

    This is the simplest way to make vectors depend on context.

    Args:
        embedder: the embedder that computes the vectors of words.
        radius: the number of words on each side.
    """

    def __init__(self, embedder: Embedder, radius: int = RADIUS) -> None:
        self._embedder = embedder
        self._radius = radius

    def encode_each(self, sentences: Sequence[Sequence[str]]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the index of each sentence and its float32 array (layers, words, dim)."""
        for k, layers in self._embedder.encode_each(sentences):
            means = np.empty_like(layers)
            for word in range(layers.shape[1]):
                first, end = max(0, word - self._radius), word + self._radius + 1
                means[:, word] = layers[:, first:end].mean(axis=1)
            yield k, means
