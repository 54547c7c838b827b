"""Held-out losses sentence by sentence: how sure a perplexity is, and where sentences are hard."""

from __future__ import annotations

import numpy as np
import pandas as pd

from elmolib.corpus import PreparedCorpus
from elmolib.errors import CorpusError
from elmolib.evaluation.confidence import bootstrap, ratio
from elmolib.evaluation.language_model import DIRECTIONS, require_heldout
from elmolib.scoring import Scores

LENGTHS = (1, 6, 11, 16, 21, 31, 41)
"""Words of the shortest sentence in each band of lengths; the last one is open."""


def sentence_losses(scores: Scores, corpus: PreparedCorpus) -> np.ndarray:
    """Sum the losses of each held-out sentence, its end included.

    Args:
        scores: of the whole held-out text.
        corpus: the same text.

    Returns:
        float64 (sentences, 2), nats per direction.

    Raises:
        CorpusError: the scores are not those of the whole held-out text.
    """
    targets = _targets(corpus)
    if targets.sum() != scores.losses.shape[1]:
        raise CorpusError(
            f"There are scores of {scores.losses.shape[1]:,} predictions per direction, but the "
            f"text held out in {corpus.path} has {targets.sum():,}: score the whole of it."
        )
    # Both directions go through the sentences in the order of the text.
    starts = np.cumsum(targets) - targets
    return np.add.reduceat(scores.losses.astype(np.float64), starts, axis=1).T


def perplexity_intervals(scores: Scores, corpus: PreparedCorpus, seed: int = 0) -> pd.DataFrame:
    """Say how far each perplexity could have come out otherwise with other held-out sentences.

    Args:
        scores: of the whole held-out text.
        corpus: the same text.
        seed: of the draws.

    Returns:
        DataFrame: rows forward, backward and mean of both; columns perplexity, low and high (ends
            of the 95% interval, sentences drawn again with replacement) and sentences.

    Raises:
        CorpusError: the scores are not those of the whole held-out text.
    """
    losses, targets = sentence_losses(scores, corpus), _targets(corpus)
    columns = {name: losses[:, d] for name, d in DIRECTIONS.items()} | {"mean": losses.mean(axis=1)}
    rows = {}
    for name, column in columns.items():
        found = bootstrap(
            np.stack([column, targets], axis=1), lambda drawn: np.exp(ratio(drawn)), seed=seed
        )
        rows[name] = {
            "perplexity": found.value,
            "low": found.low,
            "high": found.high,
            "sentences": found.n,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def loss_by_length(scores: Scores, corpus: PreparedCorpus, seed: int = 0) -> pd.DataFrame:
    """Mean loss in short and long sentences, for both directions.

    Args:
        scores: of the whole held-out text.
        corpus: the same text.
        seed: of the draws.

    Returns:
        DataFrame: a row per band of lengths (in words) that has sentences; columns forward,
            backward (nats per target), forward_low, forward_high, backward_low, backward_high
            (ends of the 95% intervals) and sentences.

    Raises:
        CorpusError: the scores are not those of the whole held-out text.
    """
    losses, targets = sentence_losses(scores, corpus), _targets(corpus)
    band = np.searchsorted(LENGTHS, targets - 1, side="right") - 1
    rows = {}
    for k in np.unique(band):
        row: dict[str, float] = {}
        for name, d in DIRECTIONS.items():
            examples = np.stack([losses[band == k, d], targets[band == k]], axis=1)
            found = bootstrap(examples, ratio, seed=seed)
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows[_band_name(k)] = row | {"sentences": int((band == k).sum())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("words in the sentence")


def _targets(corpus: PreparedCorpus) -> np.ndarray:
    """Predictions per held-out sentence and direction: its words and its end."""
    return np.diff(require_heldout(corpus).bounds) + 1


def _band_name(k: int) -> str:
    if k == len(LENGTHS) - 1:
        return f"{LENGTHS[k]}+"
    return f"{LENGTHS[k]}-{LENGTHS[k + 1] - 1}"
