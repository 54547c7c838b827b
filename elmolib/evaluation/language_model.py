"""What a model makes of held-out text, beyond its perplexity."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from elmolib.batches import BACKWARD, FORWARD
from elmolib.bilm import BiLM
from elmolib.corpus import RECORD, PreparedCorpus, Split
from elmolib.errors import CorpusError, WeightsError
from elmolib.parameters import Parameters
from elmolib.scoring import (
    Scores,
    evaluate,
    score,
    unigram_perplexity,
    windows_of_split,
)
from elmolib.vocabulary import SPECIAL_WORDS
from elmolib.weights import read_model

DIRECTIONS = {"forward": FORWARD, "backward": BACKWARD}

EXAMPLE_WORDS = 8
"""Example sentences are about so long: their table still fits on a screen."""


class Run(NamedTuple):
    """What a training run left in its folder.

    Attributes:
        bilm: the model.
        corpus: the text it was trained on.
        history: one row per epoch, as in `history.csv`.
    """

    bilm: BiLM
    corpus: PreparedCorpus
    history: pd.DataFrame


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


def load_run(parameters: Parameters) -> Run:
    """Read the model, text and history of a run.

    Args:
        parameters: those of the run.

    Raises:
        CorpusError: its text is not prepared yet, or is another one by now.
        WeightsError: it is not trained yet.
    """
    corpus_path, weights_path = parameters.corpus_path, parameters.run_path / "elmo.h5"
    if not (corpus_path / RECORD).is_file():
        raise CorpusError(
            f"There is no prepared text in {corpus_path}: run notebooks/01_prepare.ipynb and "
            "notebooks/02_train.ipynb with these parameters first."
        )
    if not weights_path.is_file():
        raise WeightsError(
            f"There is no {weights_path}: run notebooks/02_train.ipynb with these parameters first."
        )
    corpus, stored = PreparedCorpus(corpus_path), read_model(weights_path)
    if stored.vocabulary != corpus.vocabulary:
        raise CorpusError(
            f"{weights_path} was trained on other words than those of {corpus_path}: choose "
            "another run_dir, or remove the folder to train anew."
        )
    history = pd.read_csv(parameters.run_path / "history.csv")
    return Run(BiLM.from_arrays(stored.options, stored.arrays), corpus, history)


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
    return split.select(np.arange(n) * split.n_sentences // n)


def sentences_of(split: Split, corpus: PreparedCorpus) -> list[list[str]]:
    """Return the words of all sentences of a split."""
    words = corpus.lexicon.words(split.ids)
    return [words[start:end] for start, end in itertools.pairwise(split.bounds.tolist())]


def example_sentences(corpus: PreparedCorpus, n: int = 3) -> list[list[str]]:
    """Return the words of `n` held-out sentences, those nearest to `EXAMPLE_WORDS` in length."""
    heldout = require_heldout(corpus)
    chosen = np.argsort(np.abs(np.diff(heldout.bounds) - EXAMPLE_WORDS), kind="stable")[:n]
    return sentences_of(heldout.select(chosen), corpus)


def heldout_sentence(bilm: BiLM, corpus: PreparedCorpus) -> str:
    """Say how a model's held-out perplexity compares with that of word frequencies alone."""
    if corpus.heldout is None:
        return "No text is held out, so there is nothing to measure perplexity on."
    windows = windows_of_split(corpus.heldout, corpus.lexicon, len(corpus.vocabulary), bilm.options)
    return (
        f"held-out {evaluate(bilm, windows)}\n"
        f"word frequencies alone, over the same words: {unigram_perplexity(corpus):.2f}"
    )


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
