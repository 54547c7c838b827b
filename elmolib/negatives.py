"""The words that sampled softmax compares a target with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Negatives(NamedTuple):
    """A sample of different word ids and the number of draws that it took."""

    ids: np.ndarray
    n_draws: int


def log_uniform_probability(ids: np.ndarray, vocabulary_size: int) -> np.ndarray:
    """Probability of drawing each id: `log((id + 2) / (id + 1)) / log(vocabulary_size + 1)`.

    Close to the frequency of words that are numbered by falling frequency (Zipf's law).
    """
    return np.log1p(1.0 / (ids + 1.0)) / np.log1p(vocabulary_size)


def sample_negatives(n: int, vocabulary_size: int, rng: np.random.Generator) -> Negatives:
    """Draw word ids from the log-uniform distribution until `n` different ones are found.

    Args:
        n: how many; at most `vocabulary_size`.
        vocabulary_size: number of words; ids are 0 to `vocabulary_size - 1`.
        rng: source of randomness.

    Returns:
        ids int64 (n,) in the order in which they were first drawn, and the number of draws.

    References:
        TensorFlow's `log_uniform_candidate_sampler` with `unique=True`.
    """
    draws = np.empty(0, np.int64)
    while True:
        uniform = rng.random(2 * n)
        drawn = np.exp(uniform * np.log1p(vocabulary_size)).astype(np.int64) - 1
        # Rounding in exp can reach the number just past the last id.
        draws = np.concatenate([draws, np.minimum(drawn, vocabulary_size - 1)])
        ids, first = np.unique(draws, return_index=True)
        if len(ids) >= n:
            order = np.argsort(first)[:n]
            return Negatives(ids[order], int(first[order[-1]]) + 1)


def log_expected_count(ids: np.ndarray, vocabulary_size: int, n_draws: int) -> np.ndarray:
    """Logarithm of the probability that an id is among `n_draws` draws, float32."""
    p = log_uniform_probability(ids, vocabulary_size)
    return np.log(-np.expm1(n_draws * np.log1p(-p))).astype(np.float32)
