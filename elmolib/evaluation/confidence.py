"""How far a figure could have come out otherwise, had other examples been drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from elmolib.errors import ParameterError

DRAWS = 1000

_NUMBERS_AT_ONCE = 2**22


class Interval(NamedTuple):
    """A figure and the range it would fall into with other examples of the same kind.

    Attributes:
        value: the figure over all examples.
        low: lower end of the range.
        high: upper end.
        n: number of examples.
    """

    value: float
    low: float
    high: float
    n: int

    def overlaps(self, other: Interval) -> bool:
        """Tell whether two ranges have a point in common."""
        return self.low <= other.high and other.low <= self.high


def bootstrap(
    examples: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Estimate a figure's confidence interval by drawing its examples again, with replacement.

    What is drawn must be independent: give one example per sentence, not one per word, where the
    words of a sentence go right or wrong together.

    Args:
        examples: numbers (examples,) or (examples, columns), what each example adds to the figure.
        statistic: function from drawn examples (draws, examples[, columns]) to figures (draws,);
            None for the mean of each draw.
        level: share of all draws that the interval holds, between its percentiles.
        draws: how many times as many examples as there are are drawn.
        seed: of the draws.

    Returns:
        Interval: all NaN where there are no examples.

    Raises:
        ParameterError: `level` is no share between 0 and 1.

    Example:
        >>> bootstrap(np.array([1, 1, 0, 1]))  # right, right, wrong, right
        Interval(value=0.75, low=0.25, high=1.0, n=4)

    References:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    if not 0 < level < 1:
        raise ParameterError(f"level must lie between 0 and 1, not {level!r}.")
    examples = np.asarray(examples)
    n = len(examples)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    statistic = statistic or _mean
    generator = np.random.default_rng(seed)
    figures: list[np.ndarray] = []
    at_once = max(1, _NUMBERS_AT_ONCE // examples.size)
    for first in range(0, draws, at_once):
        chosen = generator.integers(n, size=(min(at_once, draws - first), n))
        figures.append(np.asarray(statistic(examples[chosen])))
    low, high = np.quantile(np.concatenate(figures), [(1 - level) / 2, (1 + level) / 2])
    value = float(np.asarray(statistic(examples[np.newaxis]))[0])
    return Interval(value, float(low), float(high), n)


def difference(right: np.ndarray, other: np.ndarray, seed: int = 0) -> Interval:
    """Tell how much more often one system is right than another on the same examples.

    Far smaller differences can be told from chance so than by two intervals of their own, as what
    is hard for one system mostly is for the other.

    Args:
        right: integers (examples, 2), right words and words of each sentence.
        other: the same of the other system.
        seed: of the draws.
    """
    return bootstrap(np.stack([right[:, 0] - other[:, 0], right[:, 1]], axis=1), ratio, seed=seed)


def ratio(drawn: np.ndarray) -> np.ndarray:
    """Divide two columns summed over the examples, such as right words and words of sentences.

    Args:
        drawn: numbers (draws, examples, 2).

    Returns:
        float64 (draws,).
    """
    sums = drawn.sum(axis=1, dtype=np.float64)
    return sums[:, 0] / sums[:, 1]


def _mean(drawn: np.ndarray) -> np.ndarray:
    return drawn.mean(axis=1, dtype=np.float64)
