"""How alike vectors are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors `(..., dim)` to the Euclidean length 1; one of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def cosine_similarities(vectors: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Compare every vector with every other.

    Args:
        vectors: float array (n, features).
        others: float array (m, features), or None for `vectors` themselves.

    Returns:
        float array (n, m), from -1 to 1; 0 where a vector is zero.

    Example:
        >>> cosine_similarities(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]))
        array([[1., 1., 0.],
               [1., 1., 0.],
               [0., 0., 1.]])
    """
    rows, columns = (unit_length(part) for part in (vectors, vectors if others is None else others))
    return np.clip(rows @ columns.T, -1.0, 1.0)


def mean_similarity(vectors: np.ndarray) -> float:
    """Average the cosine of all pairs of different vectors.

    Args:
        vectors: float (n, features), at least two.

    Returns:
        float: from -1 to 1.

    Example:
        >>> mean_similarity(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]))
        0.3333333333333333
    """
    units = unit_length(vectors.astype(np.float64))
    # The squared length of the sum holds every pair twice, and every vector with itself.
    with_itself = (units**2).sum()
    n = len(units)
    return float(((units.sum(axis=0) ** 2).sum() - with_itself) / (n * (n - 1)))


def whitening(mean: np.ndarray, covariance: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function that gives vectors the mean 0 and about the covariance 1.

    Contextual vectors share a few directions in which all of them are long, and the cosine tells
    little but those. Whitened, every direction counts alike.

    Args:
        mean: float (dim,), of vectors like those that will be whitened.
        covariance: float (dim, dim), of the same.

    Returns:
        function of vectors (..., dim) that returns as many.

    References:
        Huang et al. 2021, "WhiteningBERT", Findings of EMNLP, section 3.

    Example:
        >>> whiten = whitening(np.array([1.0, 1.0]), np.diag([100.0, 1.0]))
        >>> whiten(np.array([[1.0, 1.0]]))
        array([[0., 0.]])
    """
    variances, directions = np.linalg.eigh(covariance)
    # Directions that hardly vary hold little but noise.
    matrix = directions / np.sqrt(np.maximum(variances, 0) + 0.01 * variances.mean())
    return lambda vectors: (vectors - mean) @ matrix
