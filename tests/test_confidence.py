"""Confidence intervals by drawing examples again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from elmolib.errors import ParameterError
from elmolib.evaluation.confidence import bootstrap, difference, ratio


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    examples = np.random.default_rng(1).normal(3.0, 2.0, size=4000)
    interval = bootstrap(examples)
    half = 1.96 * examples.std() / math.sqrt(len(examples))
    assert interval.value == pytest.approx(examples.mean())
    assert interval.low == pytest.approx(examples.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(examples.mean() + half, abs=0.1 * half)
    assert interval.n == 4000


def test_it_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(2)
    hits = 0
    for k in range(200):
        interval = bootstrap(generator.random(150) < 0.8, level=0.9, draws=300, seed=k)
        hits += interval.low <= 0.8 <= interval.high
    assert 0.83 <= hits / 200 <= 0.96


def test_any_statistic_can_be_drawn():
    pairs = np.array([[3, 4], [0, 1], [5, 5]])  # right words and words of three sentences
    assert bootstrap(pairs, ratio).value == 0.8
    assert bootstrap(np.full((9, 2), 2.0), ratio)[:3] == (1.0, 1.0, 1.0)


def test_a_difference_on_the_same_examples_is_surer_than_two_intervals():
    generator = np.random.default_rng(4)
    words = np.full(400, 10)
    one = generator.binomial(10, 0.7, size=400)
    other = one - (generator.random(400) < 0.3)
    right, less_right = (np.stack([counts, words], axis=1) for counts in (one, other))
    found = difference(right, less_right)
    assert found.value == pytest.approx((one.sum() - other.sum()) / 4000)
    assert 0 < found.low < found.value < found.high
    assert bootstrap(right, ratio).overlaps(bootstrap(less_right, ratio))


def test_the_same_seed_gives_the_same_interval():
    examples = np.arange(50) % 7
    assert bootstrap(examples, seed=3) == bootstrap(examples, seed=3)
    assert bootstrap(examples, seed=3) != bootstrap(examples, seed=4)


def test_many_examples_are_drawn_in_parts():
    interval = bootstrap(np.arange(300_000) % 2, draws=30)
    assert interval.low < 0.5 < interval.high


def test_overlap():
    low, high = bootstrap(np.arange(10) % 2), bootstrap(np.ones(10))
    assert low.overlaps(low)
    assert not low.overlaps(high)


def test_nothing_to_draw_from_and_a_bad_level():
    assert math.isnan(bootstrap(np.array([])).value)
    with pytest.raises(ParameterError, match=r"^level must lie between 0 and 1, not 95\.$"):
        bootstrap(np.ones(3), level=95)
