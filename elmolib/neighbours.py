"""Nearest neighbours of words in their context."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from elmolib.embedding import SentenceEncoder
from elmolib.errors import ParameterError
from elmolib.similarity import unit_length

if TYPE_CHECKING:
    from gensim.models import KeyedVectors

WORDS_AT_ONCE = 2**13
"""Vectors of a large corpus that are compared, and in memory, at a time."""


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
        self._vectors = unit_length(np.concatenate([layers[layer] for layers in encoded]))

    def nearest(self, sentence: Sequence[str], n: int = 5) -> list[list[Neighbour]]:
        """Find the words most like each word of a sentence.

        Args:
            sentence: its words.
            n: neighbours to name: different words, each where it is most similar.

        Returns:
            list[list[Neighbour]]: for each word of the sentence, by falling similarity.
        """
        (layers,) = self._encoder.encode([sentence])
        similarities = unit_length(layers[self._layer]) @ self._vectors.T  # (words, pool)
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


class Nearest(NamedTuple):
    """What is like a word in its sentence, beside what word2vec holds for like it anywhere.

    Attributes:
        word: the word asked for.
        in_context: words in sentences, by falling similarity.
        word2vec: pairs of a word and its similarity; none for a word that stands in the corpus
            only once or never.
    """

    word: str
    in_context: list[Neighbour]
    word2vec: list[tuple[str, float]]

    def __str__(self) -> str:
        """The two lists, each neighbour in context with its sentence."""
        others = ", ".join(f"{word} {similarity:.2f}" for word, similarity in self.word2vec)
        lines = [f"{self.word} by word2vec: {others or '(too rare)'}", f"{self.word} in context:"]
        for word, similarity, sentence, position in self.in_context:
            marked = [*sentence[:position], f"[{word}]", *sentence[position + 1 :]]
            lines.append(f"  {similarity:.2f}  {' '.join(marked)}")
        return "\n".join(lines)


def beside_word2vec(
    encoder: SentenceEncoder,
    asked: Sequence[tuple[str, Sequence[str]]],
    sentences: Sequence[list[str]],
    word2vec: KeyedVectors,
    n: int = 5,
    layer: int = -1,
) -> list[Nearest]:
    """Set what is like a word in its sentence beside what word2vec holds for like it anywhere.

    Args:
        encoder: of a model.
        asked: pairs of a word and the words of a sentence with it; where it comes twice, the first
            is meant.
        sentences: the words of each, among which to look; they are embedded only once.
        word2vec: as `elmolib.word2vec.word2vec` gives it.
        n: neighbours of each kind.
        layer: whose vectors to compare.

    Returns:
        list[Nearest]: one for each pair.

    Raises:
        ParameterError: a word does not stand in its sentence.

    References:
        Peters et al. 2018, arXiv:1802.05365, table 4.
    """
    from elmolib.word2vec import word2vec_neighbours

    lines = [
        (list(words), layers[layer])
        for words, layers in zip(sentences, encoder.encode(sentences), strict=True)
    ]
    found = []
    for (word, sentence), layers in zip(
        asked, encoder.encode([sentence for _, sentence in asked]), strict=True
    ):
        if word not in sentence:
            raise ParameterError(f"{word!r} is no word of the sentence {' '.join(sentence)!r}.")
        position = list(sentence).index(word)
        in_context = nearest_places(layers[layer, position], lines, n, (sentence, position))
        found.append(Nearest(word, in_context, word2vec_neighbours(word2vec, word, n)))
    return found


def nearest_places(
    vector: np.ndarray,
    lines: Iterable[tuple[list[str], np.ndarray]],
    n: int,
    but_not: tuple[Sequence[str], int],
) -> list[Neighbour]:
    """Find the words in context that are most like one, in one pass that keeps no vectors.

    Args:
        vector: of the word asked for, float `(dim,)`.
        lines: words and vectors `(n_words, dim)` of each sentence; a sentence that comes again
            counts once.
        n: how many to find.
        but_not: a sentence and a position in it, which is the word asked for itself.

    Returns:
        list[Neighbour]: by falling similarity, the earlier first among equals.

    References:
        Peters et al. 2018, arXiv:1802.05365, table 4.
    """
    unit = unit_length(vector)
    found: list[Neighbour] = []
    for block in _blocks(lines):
        places = [(words, i) for words, _ in block for i in range(len(words))]
        vectors = np.concatenate([part for _, part in block]).astype(np.float32)
        similarities = unit_length(vectors) @ unit
        taken = {(tuple(sentence), position) for _, _, sentence, position in found}
        taken.add((tuple(but_not[0]), but_not[1]))
        worst = found[n - 1].similarity if len(found) == n else -np.inf
        n_better = 0
        for index in np.argsort(-similarities, kind="stable"):
            similarity = float(similarities[index])
            if n_better == n or similarity <= worst:
                break
            words, position = places[index]
            key = tuple(words), position
            if key not in taken:
                taken.add(key)
                n_better += 1
                found.append(Neighbour(words[position], similarity, words, position))
        found = sorted(found, key=lambda neighbour: -neighbour.similarity)[:n]
    return found


def _blocks(
    lines: Iterable[tuple[list[str], np.ndarray]],
) -> Iterator[list[tuple[list[str], np.ndarray]]]:
    """Sentences together that have words enough for one product of matrices to be worth it."""
    block, n_words = [], 0
    for words, vectors in lines:
        if words:
            block.append((words, vectors))
            n_words += len(words)
        if n_words >= WORDS_AT_ONCE:
            yield block
            block, n_words = [], 0
    if block:
        yield block
