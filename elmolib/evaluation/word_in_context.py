"""Does a word mean the same in two sentences? Word-in-Context, by one threshold."""

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
from elmolib.evaluation.vectors import Embedder, with_average
from elmolib.similarity import unit_length

TASK, DATA = "word in context", "WiC"
ARCHIVE = "wsd/WiC_dataset.zip"


class Pair(NamedTuple):
    """Two sentences with one word in common, and whether it means the same in both."""

    first: list[str]
    second: list[str]
    places: tuple[int, int]
    same: bool


def read_pairs(archive: Path, part: str) -> list[Pair]:
    """Read the part "train", "dev" or "test".

    Raises:
        TextError: a line has not the five columns that the README of the set names.
    """
    data = member(archive, f"*/{part}.data.txt").splitlines()
    gold = member(archive, f"*/{part}.gold.txt").split()
    pairs = []
    for number, (line, answer) in enumerate(zip(data, gold, strict=True), start=1):
        try:
            _, _, places, first, second = line.split("\t")
            a, b = map(int, places.split("-"))
        except ValueError:
            raise TextError(f"{archive}, {part}.data.txt, line {number}: no WiC pair.") from None
        pairs.append(Pair(first.split(), second.split(), (a, b), answer == "T"))
    return pairs


def measure(embedder: Embedder | None, setting: Setting) -> list[Row]:
    """Call two uses the same where the cosine of their vectors reaches a threshold.

    Args:
        embedder: of the vectors; None for the commoner answer of the development pairs.
        setting: the data and the seed.

    Returns:
        accuracy on the test pairs, per layer and for their average. The threshold is the one that
        does best on the development pairs; the training pairs are not used.
    """
    development, test = (read_pairs(setting.data / ARCHIVE, part) for part in ("dev", "test"))
    same = np.array([pair.same for pair in test])
    if embedder is None:
        commoner = np.mean([pair.same for pair in development]) >= 0.5
        interval = bootstrap(same == commoner, seed=setting.seed)
        return [row(TASK, DATA, "commonest answer", "accuracy", interval, "pairs", setting.seed)]
    rows = []
    cosines = _cosines(embedder, development + test)
    truth = np.array([pair.same for pair in development])
    for system, values in cosines.items():
        known, unknown = np.split(values, [len(development)])
        threshold = best_threshold(known, truth)
        interval = bootstrap((unknown >= threshold) == same, seed=setting.seed)
        rows.append(
            row(
                TASK,
                DATA,
                system,
                "accuracy",
                interval,
                "pairs",
                setting.seed,
                n_training=len(development),
                threshold=round(threshold, 4),
            )
        )
    return rows


def best_threshold(values: np.ndarray, truth: np.ndarray) -> float:
    """Find the value from which on most answers are right if they are True, the lowest of equals.

    Args:
        values: floats (n,).
        truth: booleans (n,), the right answers.
    """
    candidates = np.append(np.unique(values), np.inf)
    right = [np.mean((values >= candidate) == truth) for candidate in candidates]
    return float(candidates[int(np.argmax(right))])


def _cosines(embedder: Embedder, pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """Compare the word's two vectors: floats (pairs,) by the name of the layer."""
    sentences = [sentence for pair in pairs for sentence in (pair.first, pair.second)]
    places = [place for pair in pairs for place in pair.places]
    vectors: list[np.ndarray] = [np.empty(0)] * len(sentences)
    for k, layers in embedder.encode_each(sentences):
        vectors[k] = layers[:, places[k]]
    return {
        name: (unit_length(layer[::2]) * unit_length(layer[1::2])).sum(axis=1)
        for name, layer in with_average(np.stack(vectors))
    }
