"""Find the nearest neighbours of words, in context and with word2vec."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from elmolib.embedding.cosine import unit_length
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.sentences import position_of
from elmolib.errors import needs_extras

if TYPE_CHECKING:
    import pandas as pd
    from gensim.models import KeyedVectors

WORDS_AT_ONCE = 2**13  # the number of words whose vectors are compared at a time
CONTEXT = 42  # the number of characters that a table shows on each side of a word

Line = tuple[list[str], np.ndarray]
"""The words of a sentence and their vectors, float `(n_words, dim)`."""


class Query(NamedTuple):
    """A word whose neighbours are wanted."""

    sentence: Sequence[str]
    position: int  # index of the word in `sentence`, from 0
    vector: np.ndarray  # float (dim,)


class Neighbour(NamedTuple):
    """A word in context that is similar to another word in context."""

    word: str
    similarity: float  # cosine of the vectors of both words
    sentence: list[str]
    position: int  # index of `word` in `sentence`, from 0


class Nearest(NamedTuple):
    """The nearest neighbours of a word, in its context and by word2vec, which ignores context."""

    word: str
    in_context: list[Neighbour]  # by falling similarity
    # Words with their similarities; empty if `word` is too rare, None if gensim is not installed.
    word2vec: list[tuple[str, float]] | None

    def __str__(self) -> str:
        others = [f"{word} {similarity:.2f}" for word, similarity in self.word2vec or ()]
        none = "(too rare)" if self.word2vec == [] else "(needs pip install 'elmolib[notebooks]')"
        by_word2vec = ", ".join(others) or none
        lines = [f"{self.word} by word2vec: {by_word2vec}", f"{self.word} in context:"]
        for word, similarity, sentence, position in self.in_context:
            marked = [*sentence[:position], f"[{word}]", *sentence[position + 1 :]]
            lines.append(f"  {similarity:.2f}  {' '.join(marked)}")
        return "\n".join(lines)

    @needs_extras()
    def table(self) -> "pd.DataFrame":
        """Return both lists side by side, with the text before and after a neighbour in context."""
        import pandas as pd

        by_word2vec = pd.DataFrame(self.word2vec or [], columns=["by word2vec", "cosine"])
        rows = []
        for word, similarity, sentence, position in self.in_context:
            before, after = " ".join(sentence[:position]), " ".join(sentence[position + 1 :])
            rows.append((similarity, before[-CONTEXT:], word, after[:CONTEXT]))
        columns = ["cosine in context", "before", "word", "after"]
        table = pd.concat([by_word2vec, pd.DataFrame(rows, columns=columns)], axis=1).round(2)
        return table.astype(object).where(table.notna(), "")


def context_neighbours(
    encoder: SentenceEncoder,
    asked: Sequence[tuple[str | int, Sequence[str]]],
    lines: Iterable[Line],
    word2vec: "KeyedVectors | None",
    n: int = 5,
    layers: str | int = "top",
) -> list[Nearest]:
    """Find the `n` nearest neighbours of each word, in its context and by word2vec.

    Args:
        asked: pairs of a word (or its position from 0) and the words of its sentence. If a word is
            not in its sentence, raise a ParameterError.
        lines: the sentences to search in, from `embedded_lines` with the same `layers`.
        word2vec: the result of `word2vec_or_none`.
        layers: "average" of all layers, "top", or a layer number.
    """
    pick = encoder.picker(layers)
    sentences = [sentence for _, sentence in asked]
    positions = [position_of(word, list(sentence)) for word, sentence in asked]
    vectors = [pick(each)[i] for i, each in zip(positions, encoder.encode(sentences), strict=True)]
    queries = list(map(Query, sentences, positions, vectors))
    found = []
    for query, in_context in zip(queries, find_neighbours(queries, lines, n), strict=True):
        word = query.sentence[query.position]
        similar: list[tuple[str, float]] | None = None
        if word2vec is not None:
            similar = word2vec.most_similar(word, topn=n) if word in word2vec else []
        found.append(Nearest(word, in_context, similar))
    return found


def word2vec_or_none(
    sentences: Iterable[Sequence[str]], cache: Path | None = None
) -> "KeyedVectors | None":
    """Call `elmolib.explore.word2vec.word2vec`; without gensim, return None."""
    if find_spec("gensim") is None:
        return None
    from elmolib.explore.word2vec import word2vec

    return word2vec(sentences, cache)


def embedded_lines(
    encoder: SentenceEncoder, sentences: Sequence[list[str]], layers: str | int = "top"
) -> Iterator[Line]:
    """Iterate over the words and vectors of sentences, perhaps not in the given order."""
    pick = encoder.picker(layers)
    return ((sentences[k], pick(each)) for k, each in encoder.encode_each(sentences))


def find_neighbours(
    queries: Sequence[Query], lines: Iterable[Line], n: int, different_words: bool = False
) -> list[list[Neighbour]]:
    """Find the `n` words in context that are most similar to each query, in one pass over `lines`.

    A word is not its own neighbour. Repeated sentences are ignored, and with `different_words`,
    so are all occurrences of a word except the most similar one. Equally similar neighbours are in
    the order of `lines`. Table 4 of the ELMo paper, arXiv:1802.05365, has such neighbours.
    """

    def best(query: Query, candidates: Iterable[Neighbour]) -> list[Neighbour]:
        kept: dict[object, Neighbour] = {}
        for neighbour in candidates:
            if len(kept) == n:
                break
            place = tuple(neighbour.sentence), neighbour.position
            if place != (tuple(query.sentence), query.position):
                kept.setdefault(neighbour.word if different_words else place, neighbour)
        return list(kept.values())

    found: list[list[Neighbour]] = [[] for _ in queries]
    units = unit_length(np.array([query.vector for query in queries]))  # (queries, dim)
    for block in _blocks(lines) if queries else ():
        places = [(words, i) for words, _ in block for i in range(len(words))]
        vectors = np.concatenate([part for _, part in block]).astype(np.float32)
        similarities = units @ unit_length(vectors).T  # (queries, places)
        for k, query in enumerate(queries):
            order = np.argsort(-similarities[k], kind="stable")
            near = ((float(similarities[k, index]), *places[index]) for index in order)
            new = (Neighbour(words[i], cosine, words, i) for cosine, words, i in near)
            # Both lists are sorted by similarity, so `best` needs only their first few neighbours.
            merged = heapq.merge(found[k], new, key=lambda neighbour: -neighbour.similarity)
            found[k] = best(query, merged)
    return found


def _blocks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield groups of sentences of about `WORDS_AT_ONCE` words each."""
    block, n_words = [], 0
    for words, vectors in lines:
        block.append((words, vectors))
        n_words += len(words)
        if n_words >= WORDS_AT_ONCE:
            yield block
            block, n_words = [], 0
    if block:
        yield block
