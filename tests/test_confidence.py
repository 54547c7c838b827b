"""Bootstrap confidence intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.tasks.results import difference
from elmolib.scoring.confidence import bootstrap, ratio


def test_the_interval_of_a_mean_agrees_with_the_normal_approximation():
    examples = np.random.default_rng(1).normal(3.0, 2.0, size=4000)
    interval = bootstrap(examples)
    half = 1.96 * examples.std() / math.sqrt(len(examples))
    assert interval.value == pytest.approx(examples.mean())
    assert interval.low == pytest.approx(examples.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(examples.mean() + half, abs=0.1 * half)
    assert interval.n == 4000


def test_coverage_is_the_confidence_level():
    generator = np.random.default_rng(2)
    hits = 0
    for k in range(200):
        interval = bootstrap(generator.random(150) < 0.8, seed=k)
        hits += interval.low <= 0.8 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_any_statistic_can_be_bootstrapped():
    pairs = np.array([[3, 4], [0, 1], [5, 5]])  # correct words and all words of three sentences
    assert bootstrap(pairs, ratio).value == 0.8
    assert bootstrap(np.full((9, 2), 2.0), ratio)[:3] == (1.0, 1.0, 1.0)


def test_a_paired_difference_is_more_sensitive_than_two_intervals():
    generator = np.random.default_rng(4)
    words = np.full(400, 10)
    one = generator.binomial(10, 0.7, size=400)
    other = one - (generator.random(400) < 0.3)
    right, less_right = (np.stack([counts, words], axis=1) for counts in (one, other))
    found = difference(right, less_right)
    assert found.value == pytest.approx((one.sum() - other.sum()) / 4000)
    assert 0 < found.low < found.value < found.high
    # The intervals of both systems overlap, but the interval of their difference excludes 0.
    assert bootstrap(right, ratio).low < bootstrap(less_right, ratio).high


def test_the_same_seed_gives_the_same_interval():
    examples = np.arange(50) % 7
    assert bootstrap(examples, seed=3) == bootstrap(examples, seed=3)
    assert bootstrap(examples, seed=3) != bootstrap(examples, seed=4)


def test_many_examples_are_resampled_in_parts(monkeypatch):
    monkeypatch.setattr("elmolib.scoring.confidence.DRAWS", 30)
    interval = bootstrap(np.arange(300_000) % 2)
    assert interval.low < 0.5 < interval.high


def test_without_examples_there_is_no_interval():
    assert math.isnan(bootstrap(np.array([])).value)
