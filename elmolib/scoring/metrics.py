"""Metrics of scored text: accuracy, calibration, and losses by sentence and by word frequency.

If a function takes `scores` and `corpus`, but the scores do not cover the whole held-out text of
the corpus, it raises a `CorpusError`. All intervals are 95% bootstrap intervals over sentences.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support

from elmolib.corpus.prepared import PreparedCorpus, require_heldout
from elmolib.corpus.stream import FORWARD
from elmolib.errors import CorpusError
from elmolib.scoring.confidence import bootstrap, ratio
from elmolib.scoring.heldout import DIRECTIONS, unigram_log_probabilities
from elmolib.scoring.perplexity import Scores
from elmolib.text.vocabulary import BOS, EOS, SPECIAL_WORDS, UNK

LENGTHS = (1, 6, 11, 16, 21, 31, 41)  # the number of words at which each band begins


class MacroScores(NamedTuple):
    """Precision, recall and F1 of one direction's first choices, averaged over `n_words` words."""

    precision: float  # how often a word was correct where it was chosen; 0 if it never was
    recall: float  # how often a word was chosen where it was correct
    f1: float
    n_words: int


class Calibration(NamedTuple):
    """A comparison of the probabilities and the accuracy of one direction's first choices.

    `table` has a row per non-empty bin of probability. Its columns are low and high (the edges of
    the bin), confidence (the mean probability), accuracy, and predictions (their number).
    """

    table: pd.DataFrame
    error: float  # expected calibration error: mean distance between confidence and accuracy


def accuracy_table(scores: Scores) -> pd.DataFrame:
    """Return, per direction, the fraction of targets among the top 1, 5, 10 and 100 words."""
    columns = {f"top {k}": (scores.ranks < k).mean(axis=1) for k in (1, 5, 10, 100)}
    return pd.DataFrame(columns, list(DIRECTIONS))


def macro_scores(targets: np.ndarray, best: np.ndarray, min_targets: int) -> MacroScores:
    """Average precision, recall and F1 of the first choices over the frequent words.

    `targets` and `best` have the vocabulary ids of the correct words and of the first choices,
    integers (targets,). A word is frequent if it is a target at least `min_targets` times; sentence
    ends and `<UNK>` never are. If no word is frequent, all averages are NaN.
    """
    words = np.flatnonzero(np.bincount(targets) >= min_targets)
    words = words[words >= len(SPECIAL_WORDS)]
    if len(words) == 0:
        return MacroScores(math.nan, math.nan, math.nan, 0)
    how = {"labels": words, "average": "macro", "zero_division": 0}
    precision, recall, f1, _ = precision_recall_fscore_support(targets, best, **how)
    return MacroScores(float(precision), float(recall), float(f1), len(words))


def calibration(scores: Scores, n_bins: int = 15) -> dict[str, Calibration]:
    """Compare the probabilities of each direction's first choices with their accuracy.

    The `n_bins` bins of probability are equally wide. A value on an edge belongs to the lower bin.
    See Guo et al. 2017, On calibration of modern neural networks, arXiv:1706.04599, section 2.
    """
    edges, found = np.linspace(0, 1, n_bins + 1), {}
    for name, d in DIRECTIONS.items():
        # Rounding can make a probability larger than 1.
        confidence = np.exp(-scores.best_losses[d].astype(np.float64)).clip(max=1)
        right = scores.best[d] == scores.targets[d]
        bins = pd.cut(confidence, edges, labels=False, include_lowest=True)
        groups = pd.DataFrame({"confidence": confidence, "accuracy": right}).groupby(bins)
        table = groups.mean().assign(predictions=groups.size())
        table.insert(0, "low", edges[table.index])
        table.insert(1, "high", edges[table.index + 1])
        distances = (table["confidence"] - table["accuracy"]).abs()
        error = float(np.average(distances, weights=table["predictions"]))
        found[name] = Calibration(table, error)
    return found


def perplexity_table(scores: Scores, corpus: PreparedCorpus) -> pd.DataFrame:
    """Compare the perplexity of each direction with the perplexity of the unigram model.

    The rows of the table are forward, backward, mean and unigram. The columns are perplexity, low
    and high (the ends of its interval), sentences, targets (per direction) and vocabulary.
    """
    targets = _sentence_targets(scores, corpus)
    losses = _sums(scores.losses, targets)  # (2, sentences), including the sentence ends
    unigram = -unigram_log_probabilities(corpus)[scores.targets[FORWARD]]
    columns = {name: losses[d] for name, d in DIRECTIONS.items()}
    columns |= {"mean": losses.mean(axis=0), "unigram": _sums(unigram, targets)}
    rows = {}
    for name, column in columns.items():
        found = bootstrap(np.stack([column, targets], axis=1), ratio)
        rows[name] = (*np.exp(found[:3]), found.n)
    names = ["perplexity", "low", "high", "sentences"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=names)
    return table.assign(targets=targets.sum(), vocabulary=len(corpus.vocabulary))


def loss_by_length(scores: Scores, corpus: PreparedCorpus) -> pd.DataFrame:
    """Compute the mean loss in short and long sentences.

    The table has a row per non-empty band of sentence lengths. The columns are forward and backward
    (nats per target), forward_low, forward_high, backward_low and backward_high (the ends of the
    intervals), sentences, and targets (of both directions together).
    """
    n_targets = _sentence_targets(scores, corpus)
    band_of_sentence = np.searchsorted(LENGTHS, n_targets - 1, side="right") - 1
    bands = np.tile(np.repeat(band_of_sentence, n_targets), (2, 1))
    names = [f"{low}-{high - 1}" for low, high in pairwise(LENGTHS)] + [f"{LENGTHS[-1]}+"]
    table = _loss_by_band(scores, corpus, bands, dict(enumerate(names)))
    return table.rename_axis("words in the sentence")


def loss_by_frequency(scores: Scores, corpus: PreparedCorpus) -> pd.DataFrame:
    """Compute the mean loss over rare and frequent words.

    The table has a row per non-empty band of counts in the training text, from the most frequent
    words to the rarest, then `<UNK>` and sentence ends. It has the columns of `loss_by_length` (a
    sentence counts in each band that it has a word of) and unigram, the loss of the unigram model.
    """
    # `<S>` is the sentence end of the backward direction, so count it as `</S>`.
    targets = np.where(scores.targets == BOS, EOS, scores.targets)  # (2, targets)
    counts = corpus.lexicon.counts[: len(corpus.vocabulary)]
    band_of_word = np.log10(np.maximum(counts, 1)).astype(int)
    names = {k: f"{10**k:,}+" for k in range(int(band_of_word.max()), -1, -1)}
    band_of_word[[UNK, EOS]] = -1, -2
    names |= {-1: "<UNK>", -2: "sentence end"}
    bands = band_of_word[targets]
    table = _loss_by_band(scores, corpus, bands, names)
    unigram = pd.Series(-unigram_log_probabilities(corpus)[targets.ravel()])
    table["unigram"] = unigram.groupby(bands.ravel()).mean().rename(names)
    return table.rename_axis("times in training")


def _loss_by_band(
    scores: Scores, corpus: PreparedCorpus, bands: np.ndarray, names: dict[int, str]
) -> pd.DataFrame:
    """Compute the mean loss over the targets of each band; `bands` are integers (2, targets)."""
    n_targets = _sentence_targets(scores, corpus)
    sentence = np.repeat(np.arange(len(n_targets)), n_targets)
    rows = {}
    for band, band_name in names.items():
        chosen = bands == band
        if not chosen.any():
            continue
        row: dict[str, float] = {}
        for name, d in DIRECTIONS.items():
            mine = sentence[chosen[d]]
            sums = [np.bincount(mine, scores.losses[d, chosen[d]]), np.bincount(mine)]
            found = bootstrap(np.stack(sums, axis=1)[sums[1] > 0], ratio)
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows[band_name] = row | {"sentences": found.n, "targets": int(chosen.sum())}
    return pd.DataFrame.from_dict(rows, orient="index")


def _sentence_targets(scores: Scores, corpus: PreparedCorpus) -> np.ndarray:
    """Count each sentence's predictions per direction: its words and its end."""
    targets = np.diff(require_heldout(corpus).bounds) + 1
    n_scores, n_targets = scores.losses.shape[1], targets.sum()
    if n_targets != n_scores:
        found = f"There are scores of {n_scores:,} predictions per direction"
        text = f"the held-out text of {corpus.path} has {n_targets:,}"
        raise CorpusError(f"{found}, but {text}: score the whole text.")
    return targets


def _sums(values: np.ndarray, n_targets: np.ndarray) -> np.ndarray:
    """Sum `values` (..., targets) per sentence; both directions read sentences in file order."""
    return np.add.reduceat(values.astype(np.float64), np.cumsum(n_targets) - n_targets, axis=-1)
