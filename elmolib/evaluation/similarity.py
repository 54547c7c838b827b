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
from elmolib.similarity import unit_length, whitening
from elmolib.text import Tokenizer

TASK = "sentence similarity"


class Source(NamedTuple):
    """Where the pairs of a set are, `test` and `train`, and in which columns of its lines."""

    archive: str
    file_of: str
    columns: tuple[int, int, int]
    language: str


SETS = {
    "STS benchmark": Source("similarity/stsbenchmark.zip", "*/sts-{}.csv", (4, 5, 6), "en"),
    "RO-STS": Source("similarity/RO-STS.zip", "*/text-similarity/RO-STS.{}.tsv", (0, 1, 2), "ro"),
}


class Pair(NamedTuple):
    """The words of two sentences, and how alike people held them to be, from 0 to 5."""

    first: list[str]
    second: list[str]
    score: float


def read_pairs(data: Path, name: str, part: str = "test") -> list[Pair]:
    """Read pairs of one of `SETS`.

    Args:
        data: folder with the evaluation sets.
        name: of the set.
        part: "test" or "train".

    Raises:
        TextError: a line lacks a column or its score is no number.
    """
    source = SETS[name]
    tokenizer = Tokenizer(language=source.language)
    pairs = []
    file = source.file_of.format(part)
    lines = member(data / source.archive, file).splitlines()
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        try:
            score, first, second = (fields[column] for column in source.columns)
            pairs.append(Pair(tokenizer.words(first), tokenizer.words(second), float(score)))
        except (IndexError, ValueError):
            raise TextError(
                f"{data / source.archive}, {file}, line {number}: no scored pair."
            ) from None
    return pairs


def measure(embedder: Embedder | None, setting: Setting, data: str) -> list[Row]:
    """Correlate the cosine of mean vectors with the judgement of people.

    Nothing is learnt of what people judged. Each layer is also tried whitened, over the sentences
    of the training pairs.

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
        others = read_pairs(setting.data, data, "train")
        guesses = _cosines(embedder, pairs, others)
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


def _cosines(
    embedder: Embedder, pairs: Sequence[Pair], others: Sequence[Pair]
) -> dict[str, np.ndarray]:
    means, like_them = (
        sentence_vectors(embedder, [words for pair in part for words in pair[:2]])
        for part in (pairs, others)
    )
    learnt = dict(with_average(like_them))
    plain, whitened = {}, {}
    for name, layer in with_average(means):
        whiten = whitening(learnt[name].mean(axis=0), np.cov(learnt[name], rowvar=False))
        plain[name] = _cosine_of_pairs(layer)
        whitened[f"{name}, whitened"] = _cosine_of_pairs(whiten(layer))
    return plain | whitened


def _cosine_of_pairs(vectors: np.ndarray) -> np.ndarray:
    """Compare each even row of vectors with the next."""
    return (unit_length(vectors[::2]) * unit_length(vectors[1::2])).sum(axis=1)
