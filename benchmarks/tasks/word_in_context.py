"""Word-in-Context: does a word mean the same in two sentences?"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.tasks.archives import member
from benchmarks.tasks.common import TaskConfig, cosine_of_pairs, vectors_at, with_average
from benchmarks.tasks.results import Row
from benchmarks.tasks.vectors import Embedder
from elmolib.errors import TextError
from elmolib.scoring.confidence import bootstrap
from elmolib.text.lines import split_lines

TASK, DATA = "word in context", "WiC"
ARCHIVE = "wsd/WiC_dataset.zip"


class Pair(NamedTuple):
    """Two sentences that share a word, the word's positions, and whether it means the same."""

    first: list[str]
    second: list[str]
    positions: tuple[int, int]
    same: bool


def read_pairs(archive: Path, part: str) -> list[Pair]:
    """Read the part "train", "dev" or "test".

    Raises:
        TextError: a line does not have the five columns of the dataset's README.
    """
    data = split_lines(member(archive, f"*/{part}.data.txt"))
    gold = member(archive, f"*/{part}.gold.txt").split()
    pairs = []
    for number, (line, answer) in enumerate(zip(data, gold, strict=True), start=1):
        try:
            _, _, positions, first, second = line.split("\t")
            a, b = map(int, positions.split("-"))
        except ValueError:
            raise TextError(
                f"{archive}, {part}.data.txt, line {number} is not a pair of WiC."
            ) from None
        pairs.append(Pair(first.split(), second.split(), (a, b), answer == "T"))
    return pairs


def measure(embedder: Embedder | None, config: TaskConfig) -> list[Row]:
    """Predict the same meaning if the cosine of the two vectors reaches a threshold.

    Args:
        embedder: the embedder to measure; None for the development pairs' most frequent answer.
        config: the data folder and the seed.

    Returns:
        accuracy on the test pairs, for each layer and for the average of the layers. The threshold
        is the best one on the development pairs; the training pairs are not used.
    """
    development, test = (read_pairs(config.data / ARCHIVE, part) for part in ("dev", "test"))
    same = np.array([pair.same for pair in test])
    known_same = np.array([pair.same for pair in development])
    if embedder is None:
        majority = known_same.mean() >= 0.5
        return [_row("majority answer", same == majority, config.seed)]
    pairs = development + test
    sentences = [sentence for pair in pairs for sentence in (pair.first, pair.second)]
    vectors = vectors_at(embedder, sentences, [k for pair in pairs for k in pair.positions])
    rows = []
    for system, layer in with_average(vectors):
        known, unknown = np.split(cosine_of_pairs(layer), [len(development)])
        threshold = best_threshold(known, known_same)
        right = (unknown >= threshold) == same
        notes = {"n_training": len(development), "threshold": round(threshold, 4)}
        rows.append(_row(system, right, config.seed, **notes))
    return rows


def best_threshold(values: np.ndarray, truth: np.ndarray) -> float:
    """Find the threshold with the most correct answers; of equally good thresholds, the lowest.

    Args:
        values: floats (n,), to compare with the threshold.
        truth: booleans (n,): whether the value should reach the threshold.
    """
    candidates = np.append(np.unique(values), np.inf)
    right = [np.mean((values >= candidate) == truth) for candidate in candidates]
    return float(candidates[int(np.argmax(right))])


def _row(system: str, right: np.ndarray, seed: int, **notes) -> Row:
    interval = bootstrap(right, seed=seed)
    return Row.of(TASK, DATA, system, "accuracy", interval, "pairs", seed, **notes)
