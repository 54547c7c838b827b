"""Held-out losses sentence by sentence: how sure a perplexity is, and what is hard to predict."""

from __future__ import annotations

import numpy as np
import pandas as pd

from elmolib.corpus import PreparedCorpus
from elmolib.errors import CorpusError
from elmolib.evaluation.confidence import bootstrap, ratio
from elmolib.evaluation.language_model import DIRECTIONS, require_heldout
from elmolib.scoring import Scores, unigram_log_probabilities
from elmolib.vocabulary import BOS, EOS, UNK

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
    _require_all(scores, corpus)
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
        rows[_length_name(k)] = row | {"sentences": int((band == k).sum())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("words in the sentence")


def loss_by_frequency(scores: Scores, corpus: PreparedCorpus, seed: int = 0) -> pd.DataFrame:
    """Mean loss over rare and frequent words, for both directions and the unigram model.

    Args:
        scores: of the whole held-out text.
        corpus: the same text, whose training counts decide how frequent a word is.
        seed: of the draws.

    Returns:
        DataFrame: a row per band that has targets, from the most frequent words to the rarest,
            then `<UNK>` and the ends of sentences; columns forward, backward, unigram (nats per
            target), forward_low, forward_high, backward_low, backward_high (ends of the 95%
            intervals over the sentences that have such a word) and targets (of both directions).

    Raises:
        CorpusError: the scores are not those of the whole held-out text.
    """
    _require_all(scores, corpus)
    n_targets = _targets(corpus)
    sentence = np.repeat(np.arange(len(n_targets)), n_targets)
    # Backward, a sentence ends at its `<S>`, which is as frequent as `</S>` forward.
    targets = np.where(scores.targets == BOS, EOS, scores.targets)
    unigram = -unigram_log_probabilities(corpus)[targets]
    decade = np.log10(np.maximum(corpus.lexicon.counts[: len(corpus.vocabulary)], 1)).astype(int)
    decade[[EOS, UNK]] = -1, -2
    rows = {}
    for band in sorted(set(decade.tolist()), key=lambda band: (band < 0, -abs(band))):
        chosen = decade[targets] == band
        if not chosen.any():
            continue
        row: dict[str, float] = {"unigram": float(unigram[chosen].mean())}
        for name, d in DIRECTIONS.items():
            losses = scores.losses[d, chosen[d]]
            found = bootstrap(_summed(losses, sentence[chosen[d]]), ratio, seed=seed)
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows[_frequency_name(band)] = row | {"targets": int(chosen.sum())}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("times in training")


def _summed(losses: np.ndarray, sentence: np.ndarray) -> np.ndarray:
    """Sums and numbers of the losses of each sentence that has any."""
    numbers = np.bincount(sentence)
    sums = np.bincount(sentence, weights=losses)
    return np.stack([sums, numbers], axis=1)[numbers > 0]


def _require_all(scores: Scores, corpus: PreparedCorpus) -> None:
    n_scores, n_targets = scores.losses.shape[1], _targets(corpus).sum()
    if n_targets != n_scores:
        raise CorpusError(
            f"There are scores of {n_scores:,} predictions per direction, but the text held out "
            f"in {corpus.path} has {n_targets:,}: score the whole of it."
        )


def _targets(corpus: PreparedCorpus) -> np.ndarray:
    """Predictions per held-out sentence and direction: its words and its end."""
    return np.diff(require_heldout(corpus).bounds) + 1


def _frequency_name(decade: int) -> str:
    if decade < 0:
        return {-1: "sentence end", -2: "<UNK>"}[decade]
    return f"{10**decade:,}+"


def _length_name(k: int) -> str:
    if k == len(LENGTHS) - 1:
        return f"{LENGTHS[k]}+"
    return f"{LENGTHS[k]}-{LENGTHS[k + 1] - 1}"
