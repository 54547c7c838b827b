"""What a model makes of held-out text, beyond its perplexity."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from elmolib.batches import BACKWARD, FORWARD
from elmolib.bilm import BiLM
from elmolib.corpus import PreparedCorpus, Split
from elmolib.errors import CorpusError
from elmolib.scoring import (
    Scores,
    score,
    unigram_log_probabilities,
    unigram_perplexity,
    windows_of_split,
)
from elmolib.vocabulary import BOS, EOS, SPECIAL_WORDS, UNK

DIRECTIONS = {"forward": FORWARD, "backward": BACKWARD}


class MacroScores(NamedTuple):
    """Precision, recall and F1 of one direction's first choices, a plain mean over words.

    Attributes:
        precision: of all places where a word was the first choice, the share where it stood. 0
            for a word that never was.
        recall: of all places where a word stood, the share where it was the first choice.
        f1: their harmonic mean, word by word.
        n_words: how many words the mean is over.
    """

    precision: float
    recall: float
    f1: float
    n_words: int


def score_heldout(bilm: BiLM, corpus: PreparedCorpus, n_targets: int | None = None) -> Scores:
    """Score held-out text with the full softmax, the state carried from sentence to sentence.

    Args:
        bilm: the model, with the softmax of the corpus' vocabulary.
        corpus: the prepared text.
        n_targets: about how many targets per direction, from sentences spread evenly over the
            text; None for all of them.

    Returns:
        Scores: of all targets, arrays (2, targets); see `elmolib.scoring.Scores`.

    Raises:
        CorpusError: nothing is held out, or the model's softmax has another size.
    """
    heldout = require_heldout(corpus)
    if bilm.vocabulary_size != len(corpus.vocabulary):
        raise CorpusError(
            f"The model predicts {bilm.vocabulary_size} words, but the vocabulary of {corpus.path} "
            f"has {len(corpus.vocabulary)}: score the corpus that the model was trained on."
        )
    if n_targets is not None:
        heldout = spread_sentences(heldout, n_targets)
    windows = windows_of_split(heldout, corpus.lexicon, len(corpus.vocabulary), bilm.options)
    parts = list(score(bilm, windows))
    return Scores(*(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)))


def require_heldout(corpus: PreparedCorpus) -> Split:
    """Return the held-out sentences.

    Raises:
        CorpusError: there are none.
    """
    if corpus.heldout is None or corpus.heldout.n_sentences == 0:
        raise CorpusError(f"{corpus.path} holds no text out: set heldout_text or heldout_fraction.")
    return corpus.heldout


def spread_sentences(split: Split, n_targets: int) -> Split:
    """Take sentences at equal distances, about `n_targets` words and sentence ends together.

    Args:
        split: sentences of a prepared corpus.
        n_targets: how many predictions per direction they are to give.

    Returns:
        Split: whole sentences in their order, one at least; all if there are no more than that.
    """
    available = split.n_words + split.n_sentences
    n = max(1, min(split.n_sentences, split.n_sentences * n_targets // available))
    return select_sentences(split, np.arange(n) * split.n_sentences // n)


def select_sentences(split: Split, which: np.ndarray) -> Split:
    """Copy some sentences of a split, by their numbers."""
    parts = [split.ids[split.bounds[k] : split.bounds[k + 1]] for k in which]
    return Split(
        np.concatenate(parts), np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    )


def sentences_of(split: Split, corpus: PreparedCorpus) -> list[list[str]]:
    """Return the words of all sentences of a split."""
    words = corpus.lexicon.words(split.ids)
    return [words[start:end] for start, end in itertools.pairwise(split.bounds.tolist())]


def accuracy(ranks: np.ndarray, k: int) -> float:
    """Share of targets that were among the `k` most probable words."""
    return float(np.mean(ranks < k))


def macro_scores(targets: np.ndarray, best: np.ndarray, min_targets: int) -> MacroScores:
    """Compare first choices with targets over the frequent words.

    Args:
        targets: integers (targets,), vocabulary ids.
        best: integers (targets,), the most probable word at each.
        min_targets: words that are a target less often are left out; so are sentence ends and
            `<UNK>`, which are no words.

    Returns:
        MacroScores: all NaN where no word is frequent enough.
    """
    size = int(max(targets.max(), best.max())) + 1
    stood = np.bincount(targets, minlength=size)
    chosen = np.bincount(best, minlength=size)
    right = np.bincount(targets[targets == best], minlength=size)
    words = np.flatnonzero(stood >= min_targets)
    words = words[words >= len(SPECIAL_WORDS)]
    if len(words) == 0:
        return MacroScores(math.nan, math.nan, math.nan, 0)
    stood, chosen, right = stood[words], chosen[words], right[words]
    return MacroScores(
        precision=float(np.mean(right / np.maximum(chosen, 1))),
        recall=float(np.mean(right / stood)),
        f1=float(np.mean(2 * right / (chosen + stood))),
        n_words=len(words),
    )


def perplexity_table(scores: Scores, corpus: PreparedCorpus) -> pd.DataFrame:
    """Lay the perplexity of each direction beside that of the unigram model.

    Args:
        scores: of the whole held-out text.
        corpus: the same text.

    Returns:
        DataFrame: rows forward, backward, mean of both, unigram; columns loss (nats per target),
            perplexity, targets (per direction), vocabulary.
    """
    losses = scores.losses.mean(axis=1, dtype=np.float64)
    rows = {"forward": losses[FORWARD], "backward": losses[BACKWARD], "mean": losses.mean()}
    rows["unigram"] = math.log(unigram_perplexity(corpus))
    return pd.DataFrame(
        {
            "loss": rows,
            "perplexity": {name: math.exp(loss) for name, loss in rows.items()},
            "targets": scores.losses.shape[1],
            "vocabulary": len(corpus.vocabulary),
        }
    )


def accuracy_table(scores: Scores, ks: tuple[int, ...] = (1, 5, 10, 100)) -> pd.DataFrame:
    """Share of targets among the `k` most probable words: a row per direction, a column per k."""
    return pd.DataFrame(
        {
            f"top {k}": {name: accuracy(scores.ranks[d], k) for name, d in DIRECTIONS.items()}
            for k in ks
        }
    )


def loss_by_frequency(scores: Scores, corpus: PreparedCorpus) -> pd.DataFrame:
    """Mean loss over rare and frequent words, for both directions and the unigram model.

    Args:
        scores: of held-out text.
        corpus: whose training counts decide how frequent a word is.

    Returns:
        DataFrame: a row per band that has targets, from the most frequent words to the rarest,
            then `<UNK>` and the ends of sentences; columns forward, backward, unigram (nats per
            target) and targets (of both directions).
    """
    # Backward, a sentence ends at its `<S>`, which is as frequent as `</S>` forward.
    targets = np.where(scores.targets == BOS, EOS, scores.targets)
    unigram = -unigram_log_probabilities(corpus)[targets]
    decade = np.log10(np.maximum(corpus.lexicon.counts[: len(corpus.vocabulary)], 1)).astype(int)
    decade[[EOS, UNK]] = -1, -2
    rows = {}
    for band in sorted(set(decade.tolist()), key=lambda band: (band < 0, -abs(band))):
        in_band = decade[targets] == band
        if in_band.any():
            rows[_band_name(band)] = {
                "forward": _mean(scores.losses[FORWARD], in_band[FORWARD]),
                "backward": _mean(scores.losses[BACKWARD], in_band[BACKWARD]),
                "unigram": _mean(unigram, in_band),
                "targets": int(in_band.sum()),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("times in training")


def _mean(losses: np.ndarray, chosen: np.ndarray) -> float:
    return float(losses[chosen].mean(dtype=np.float64)) if chosen.any() else math.nan


def _band_name(decade: int) -> str:
    if decade < 0:
        return {-1: "sentence end", -2: "<UNK>"}[decade]
    return f"{10**decade:,} to {10 ** (decade + 1) - 1:,}"
