from __future__ import annotations

import numpy as np

from benchmarks.tasks.whitening import whitening
from elmolib.embedding.cosine import unit_length


def test_whitened_cosines_are_those_of_the_inverse_covariance():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(5, 5))
    vectors = rng.normal(size=(400, 5)) * [30, 3, 1, 1, 0.5] @ directions + 20
    mean, covariance = vectors.mean(axis=0), np.cov(vectors, rowvar=False)
    units = unit_length(whitening(mean, covariance)(vectors))

    noise = 0.01 * np.trace(covariance) / 5
    metric = np.linalg.inv(covariance + noise * np.eye(5))
    products = (vectors - mean) @ metric @ (vectors - mean).T
    lengths = np.sqrt(np.diag(products))
    np.testing.assert_allclose(units @ units.T, products / np.outer(lengths, lengths), atol=1e-9)


def test_whitened_vectors_have_the_same_variance_in_all_directions():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(20_000, 4)) @ rng.normal(size=(4, 4)) + [9, 0, 0, -9]
    whitened = whitening(vectors.mean(axis=0), np.cov(vectors, rowvar=False))(vectors)
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-9)
    covariance = np.cov(whitened, rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    assert (np.diag(covariance) <= 1).all() and np.diag(covariance).max() > 0.97


def test_a_direction_without_variance_whitens_to_finite_numbers():
    vectors = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    whitened = whitening(vectors.mean(axis=0), np.cov(vectors, rowvar=False))(vectors)
    assert np.isfinite(whitened).all()
    np.testing.assert_array_equal(whitened[:, np.abs(whitened).argmin(axis=1)[0]], 0)
