"""Nearest neighbours of words in their context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from elmolib.embedding import SentenceEncoder


class Neighbour(NamedTuple):
    """A word in a sentence that is like the one asked for.

    Attributes:
        word: the word.
        similarity: cosine of the two vectors.
        sentence: the words that it stands among.
        position: where it stands among them.
    """

    word: str
    similarity: float
    sentence: list[str]
    position: int


class ContextNeighbours:
    """The words of some sentences by their vectors in context.

    Args:
        encoder: of a model.
        sentences: the words of each.
        layer: whose vectors to compare.

    Example:
        >>> neighbours = ContextNeighbours(encoder, sentences)
        >>> neighbours.nearest(["The", "river", "bank"], n=1)[2][0].word
        'shore'

    References:
        Peters et al. 2018, arXiv:1802.05365, table 4.
    """

    def __init__(
        self, encoder: SentenceEncoder, sentences: Sequence[list[str]], layer: int = -1
    ) -> None:
        self._encoder = encoder
        self._layer = layer
        self._sentences = sentences
        self._places = [(s, i) for s, words in enumerate(sentences) for i in range(len(words))]
        encoded = encoder.encode(sentences)
        self._vectors = _unit(np.concatenate([layers[layer] for layers in encoded]))

    def nearest(self, sentence: Sequence[str], n: int = 5) -> list[list[Neighbour]]:
        """Find the words most like each word of a sentence.

        Args:
            sentence: its words.
            n: neighbours to name: different words, each where it is most similar.

        Returns:
            list[list[Neighbour]]: for each word of the sentence, by falling similarity.
        """
        (layers,) = self._encoder.encode([sentence])
        similarities = _unit(layers[self._layer]) @ self._vectors.T  # (words, pool)
        return [self._best(row, n) for row in similarities]

    def _best(self, similarities: np.ndarray, n: int) -> list[Neighbour]:
        found: dict[str, Neighbour] = {}
        for index in np.argsort(-similarities, kind="stable"):
            s, position = self._places[index]
            word = self._sentences[s][position]
            if word not in found:
                found[word] = Neighbour(
                    word, float(similarities[index]), self._sentences[s], position
                )
            if len(found) == n:
                break
        return list(found.values())


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, np.finfo(np.float32).tiny)
