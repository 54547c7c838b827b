"""Bootstrap confidence intervals."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DRAWS = 1000


class Interval(NamedTuple):
    """A statistic of `n` examples, with the ends of its 95% confidence interval."""

    value: float
    low: float
    high: float
    n: int


def mean(drawn: np.ndarray) -> np.ndarray:
    """Return the mean of each draw; `drawn` has the shape (draws, examples)."""
    return drawn.mean(axis=1, dtype=np.float64)


def ratio(drawn: np.ndarray) -> np.ndarray:
    """In each draw (examples, 2), divide the sum of column 0 by the sum of column 1."""
    sums = drawn.sum(axis=1, dtype=np.float64)
    return sums[:, 0] / sums[:, 1]


def bootstrap(
    examples: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray] = mean, seed: int = 0
) -> Interval:
    """Estimate the 95% confidence interval of a statistic by resampling with replacement.

    The examples, numbers (examples,) or (examples, columns), must be independent: use one per
    sentence, not one per word, because a model's errors on the words of a sentence are not
    independent. Without examples, all values are NaN. `statistic` is a function from resampled
    examples (draws, examples[, columns]) to one number per draw (draws,).

    Example:
        >>> bootstrap(np.array([1, 1, 0, 1]))
        Interval(value=0.75, low=0.25, high=1.0, n=4)

    References:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    examples, n = np.asarray(examples), len(examples)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    generator = np.random.default_rng(seed)
    at_once = max(1, 2**22 // examples.size)  # limits memory
    sizes = (min(at_once, DRAWS - first) for first in range(0, DRAWS, at_once))
    found = [statistic(examples[generator.integers(n, size=(size, n))]) for size in sizes]
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return Interval(float(statistic(examples[np.newaxis])[0]), float(low), float(high), n)
