"""Whether a model that gives its first choice 30% is right in 30% of such cases."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from elmolib.scoring import Scores

BINS = 15


class Calibration(NamedTuple):
    """How the probabilities of one direction's first choices compare with how often they are right.

    Attributes:
        table: a row per bin of probability that has predictions; columns low and high (the bin),
            confidence (mean probability of the first choices), accuracy (share of them that were
            right) and predictions.
        error: the expected calibration error, from 0 to 1: the mean distance of confidence and
            accuracy, every bin weighing as much as it has predictions.
    """

    table: pd.DataFrame
    error: float


def calibration(scores: Scores, direction: int, n_bins: int = BINS) -> Calibration:
    """Compare the probabilities of one direction's first choices with how often they are right.

    Args:
        scores: of held-out text.
        direction: 0 for forward, 1 for backward.
        n_bins: bins of equal width between the probabilities 0 and 1.

    Returns:
        Calibration: of that direction.

    References:
        Guo et al. 2017, On calibration of modern neural networks, arXiv:1706.04599, section 2.
    """
    confidence = np.exp(-scores.best_losses[direction].astype(np.float64))
    right = scores.best[direction] == scores.targets[direction]
    edges = np.linspace(0, 1, n_bins + 1)
    # A probability on an edge belongs to the bin below it.
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    predictions = np.bincount(bins, minlength=n_bins)
    used = np.flatnonzero(predictions)
    n = predictions[used]
    table = pd.DataFrame(
        {
            "low": edges[used],
            "high": edges[used + 1],
            "confidence": np.bincount(bins, confidence, n_bins)[used] / n,
            "accuracy": np.bincount(bins, right, n_bins)[used] / n,
            "predictions": n,
        }
    )
    distances = (table["confidence"] - table["accuracy"]).abs()
    return Calibration(table, float((distances * n).sum() / n.sum()))
