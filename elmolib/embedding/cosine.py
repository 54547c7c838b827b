"""Cosine similarities of vectors."""

import numpy as np


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors `(..., dim)` to Euclidean length 1; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def cosine_similarities(vectors: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Return the cosine similarities (n, m) of `vectors` (n, dim) with `others` (m, dim).

    By default, `others` is `vectors`. The similarity with a zero vector is 0.
    """
    rows, columns = (unit_length(part) for part in (vectors, vectors if others is None else others))
    return np.clip(rows @ columns.T, -1.0, 1.0)


def mean_similarity(vectors: np.ndarray) -> float:
    """Average the cosine similarity over all pairs of different rows of `vectors` (n, dim)."""
    units = unit_length(vectors.astype(np.float64))
    # The squared length of the sum contains all products of pairs, even of a vector with itself.
    with_itself = (units**2).sum()
    n = len(units)
    return float(((units.sum(axis=0) ** 2).sum() - with_itself) / (n * (n - 1)))
