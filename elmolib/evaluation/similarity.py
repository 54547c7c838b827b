"""How alike are two sentences? The cosine of their mean vectors beside the judgement of people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elmolib.errors import TextError
from elmolib.evaluation.confidence import bootstrap
from elmolib.evaluation.reading import member
from elmolib.evaluation.results import Row, row
from elmolib.evaluation.setting import Setting
from elmolib.evaluation.vectors import Embedder, sentence_vectors, with_average
from elmolib.similarity import unit_length
from elmolib.text import Tokenizer

TASK = "sentence similarity"


class Source(NamedTuple):
    """Where the test pairs of a set are, and in which columns of its lines."""

    archive: str
    file: str
    columns: tuple[int, int, int]
    language: str


SETS = {
    "STS benchmark": Source("similarity/stsbenchmark.zip", "*/sts-test.csv", (4, 5, 6), "en"),
    "RO-STS": Source("similarity/RO-STS.zip", "*/text-similarity/RO-STS.test.tsv", (0, 1, 2), "ro"),
}


class Pair(NamedTuple):
    """The words of two sentences, and how alike people held them to be, from 0 to 5."""

    first: list[str]
    second: list[str]
    score: float


def read_pairs(data: Path, name: str) -> list[Pair]:
    """Read the test pairs of one of `SETS`.

    Raises:
        TextError: a line lacks a column or its score is no number.
    """
    source = SETS[name]
    tokenizer = Tokenizer(language=source.language)
    pairs = []
    lines = member(data / source.archive, source.file).splitlines()
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        try:
            score, first, second = (fields[column] for column in source.columns)
            pairs.append(Pair(tokenizer.words(first), tokenizer.words(second), float(score)))
        except (IndexError, ValueError):
            raise TextError(
                f"{data / source.archive}, {source.file}, line {number}: no scored pair."
            ) from None
    return pairs


def measure(embedder: Embedder | None, setting: Setting, data: str) -> list[Row]:
    """Correlate the cosine of mean vectors with the judgement of people.

    Nothing is learnt, so only the test pairs are read.

    Args:
        embedder: of the vectors; None for the share of words that both sentences have.
        setting: the data and the seed.
        data: one of `SETS`.

    Returns:
        Pearson's correlation, per layer and for their average.
    """
    pairs = read_pairs(setting.data, data)
    scores = np.array([pair.score for pair in pairs])
    if embedder is None:
        guesses = {"shared words": np.array([_shared(pair) for pair in pairs])}
    else:
        guesses = _cosines(embedder, pairs)
    return [
        row(
            TASK,
            data,
            system,
            "Pearson",
            bootstrap(np.stack([guess, scores], axis=1), pearson, seed=setting.seed),
            "pairs",
            setting.seed,
        )
        for system, guess in guesses.items()
    ]


def pearson(drawn: np.ndarray) -> np.ndarray:
    """Correlate two columns: floats (draws, examples, 2) to floats (draws,)."""
    centred = drawn - drawn.mean(axis=1, keepdims=True)
    products = (centred[..., 0] * centred[..., 1]).sum(axis=1)
    return products / np.sqrt(np.prod(np.square(centred).sum(axis=1), axis=1))


def _shared(pair: Pair) -> float:
    first, second = ({word.lower() for word in words} for words in (pair.first, pair.second))
    return len(first & second) / max(1, len(first | second))


def _cosines(embedder: Embedder, pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    means = sentence_vectors(embedder, [words for pair in pairs for words in pair[:2]])
    return {
        name: (unit_length(layer[::2]) * unit_length(layer[1::2])).sum(axis=1)
        for name, layer in with_average(means)
    }
