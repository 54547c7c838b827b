"""Whiten vectors, so that a few directions do not dominate their cosines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def whitening(mean: np.ndarray, covariance: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that transforms vectors to mean 0 and a covariance near the identity.

    A few directions with large values dominate the cosine of contextual vectors. After whitening,
    all directions count equally.

    Args:
        mean: float (dim,), mean of vectors of the same kind as those to whiten.
        covariance: float (dim, dim), covariance of these vectors.

    Returns:
        function that maps vectors (..., dim) to whitened vectors of the same shape.

    References:
        Huang et al. 2021, "WhiteningBERT", Findings of EMNLP, section 3.

    Example:
        >>> whiten = whitening(np.array([1.0, 1.0]), np.diag([100.0, 1.0]))
        >>> whiten(np.array([[1.0, 1.0]]))
        array([[0., 0.]])
    """
    variances, directions = np.linalg.eigh(covariance)
    # Vectors hardly vary in some directions; scaling these up to variance 1 would amplify noise.
    matrix = directions / np.sqrt(np.maximum(variances, 0) + 0.01 * variances.mean())
    return lambda vectors: (vectors - mean) @ matrix
