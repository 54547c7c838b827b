"""Sentence similarity: the cosine of mean vectors compared with human scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.tasks.archives import member
from benchmarks.tasks.common import TaskConfig, cosine_of_pairs, with_average
from benchmarks.tasks.results import Row
from benchmarks.tasks.vectors import Embedder
from benchmarks.tasks.whitening import whitening
from elmolib.errors import TextError
from elmolib.scoring.confidence import bootstrap
from elmolib.text.lines import split_lines
from elmolib.text.tokenizer import Tokenizer

TASK = "sentence similarity"


class Source(NamedTuple):
    """A dataset: its archive, its files by part, and the columns of score and sentences."""

    archive: str
    file_of: str
    columns: tuple[int, int, int]
    language: str


SETS = {
    "STS benchmark": Source("similarity/stsbenchmark.zip", "*/sts-{}.csv", (4, 5, 6), "en"),
    "RO-STS": Source("similarity/RO-STS.zip", "*/text-similarity/RO-STS.{}.tsv", (0, 1, 2), "ro"),
}


class Pair(NamedTuple):
    """The words of two sentences, and their similarity from 0 to 5 in human judgement."""

    first: list[str]
    second: list[str]
    score: float


def read_pairs(data: Path, name: str, part: str = "test") -> list[Pair]:
    """Read one part of a dataset in `SETS`.

    Args:
        data: the folder with the datasets.
        name: the name of the dataset.
        part: "test" or "train".

    Raises:
        TextError: a line lacks a column, or its score is not a number.
    """
    source = SETS[name]
    tokenizer = Tokenizer(language=source.language)
    pairs = []
    file = source.file_of.format(part)
    lines = split_lines(member(data / source.archive, file))
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        try:
            score, first, second = (fields[column] for column in source.columns)
            pairs.append(Pair(tokenizer.words(first), tokenizer.words(second), float(score)))
        except (IndexError, ValueError):
            raise TextError(
                f"{data / source.archive}, {file}, line {number} is not a pair with a score."
            ) from None
    return pairs


def measure(embedder: Embedder | None, config: TaskConfig, data: str) -> list[Row]:
    """Correlate the cosine of two sentences' mean vectors with human scores.

    Nothing is learned from the scores. Each layer is also measured after whitening, for which the
    sentences of the training pairs give the mean and covariance.

    Args:
        embedder: the embedder to measure; None for the baseline, the fraction of words in common.
        config: the data folder and the seed.
        data: a name in `SETS`.

    Returns:
        Pearson's correlation, for each layer and for their average.
    """
    pairs = read_pairs(config.data, data)
    scores = np.array([pair.score for pair in pairs])
    if embedder is None:
        similarities = {"word overlap": np.array([_overlap(pair) for pair in pairs])}
    else:
        similarities = _cosines(embedder, pairs, read_pairs(config.data, data, "train"))
    rows = []
    for system, values in similarities.items():
        examples = np.stack([values, scores], axis=1)
        interval = bootstrap(examples, pearson, seed=config.seed)
        rows.append(Row.of(TASK, data, system, "Pearson", interval, "pairs", config.seed))
    return rows


def pearson(drawn: np.ndarray) -> np.ndarray:
    """Return the correlation of the two columns of each bootstrap draw (draws, examples, 2)."""
    centered = drawn - drawn.mean(axis=1, keepdims=True)
    products = (centered[..., 0] * centered[..., 1]).sum(axis=1)
    return products / np.sqrt(np.prod(np.square(centered).sum(axis=1), axis=1))


def sentence_vectors(embedder: Embedder, sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the mean of each sentence's word vectors.

    Args:
        embedder: the embedder that computes the vectors of words.
        sentences: one or more sentences, each a sequence of words.

    Returns:
        float32 (sentences, layers, dim); a sentence without words has zeros.
    """
    means: np.ndarray = np.empty(0, np.float32)
    for k, layers in embedder.encode_each(sentences):
        if not means.size:
            means = np.zeros((len(sentences), len(layers), layers.shape[2]), np.float32)
        if sentences[k]:
            means[k] = layers.mean(axis=1)
    return means


def _overlap(pair: Pair) -> float:
    first, second = ({word.lower() for word in words} for words in (pair.first, pair.second))
    return len(first & second) / max(1, len(first | second))


def _cosines(
    embedder: Embedder, pairs: Sequence[Pair], training: Sequence[Pair]
) -> dict[str, np.ndarray]:
    means, training_means = (
        sentence_vectors(embedder, [words for pair in part for words in pair[:2]])
        for part in (pairs, training)
    )
    others = dict(with_average(training_means))
    plain, whitened = {}, {}
    for name, layer in with_average(means):
        whiten = whitening(others[name].mean(axis=0), np.cov(others[name], rowvar=False))
        plain[name] = cosine_of_pairs(layer)
        whitened[f"{name}, whitened"] = cosine_of_pairs(whiten(layer))
    return plain | whitened
