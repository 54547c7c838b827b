"""Score the held-out text of a prepared corpus, and compute a baseline from word frequencies."""

import math

import numpy as np

from elmolib.corpus.prepared import PreparedCorpus, Split, require_heldout, spread_sentences
from elmolib.corpus.stream import BACKWARD, FORWARD
from elmolib.errors import CorpusError
from elmolib.formats.weights import StoredModel
from elmolib.model.bilm import BiLM
from elmolib.scoring.perplexity import Scorer, Scores, windows_of_split
from elmolib.text.vocabulary import EOS, UNK

DIRECTIONS = {"forward": FORWARD, "backward": BACKWARD}


def score_heldout(scorer: Scorer, corpus: PreparedCorpus, n_targets: int | None = None) -> Scores:
    """Score held-out text with the full softmax, carrying the state from sentence to sentence.

    With `n_targets`, score about so many targets per direction, from evenly spread sentences. If
    there is no held-out text, or softmax and vocabulary differ in size, raise a CorpusError.
    """
    heldout, size = require_heldout(corpus), scorer.vocabulary_size
    if size != len(corpus.vocabulary):
        found = f"the vocabulary of {corpus.path} has {len(corpus.vocabulary)}"
        advice = "score the corpus that the model was trained on"
        raise CorpusError(f"The model predicts {size} words, but {found}: {advice}.")
    if n_targets is not None:
        heldout = spread_sentences(heldout, n_targets)
    return scorer.score(windows_of_split(heldout, corpus, scorer.bilm.architecture))


def score_model(model: StoredModel, corpus: PreparedCorpus) -> Scores:
    """Score held-out text with a stored model; raise a CorpusError if its vocabulary differs."""
    if model.vocabulary != corpus.vocabulary:
        raise CorpusError(
            f"{model.source} has another vocabulary than {corpus.path}: set run_dir to the folder "
            "of the run that trained the model, or choose a new run_dir to retrain."
        )
    return score_heldout(Scorer(BiLM.from_arrays(model.architecture, model.arrays)), corpus)


def unigram_perplexity(corpus: PreparedCorpus) -> float:
    """Compute the held-out perplexity of a model that knows only how frequent each word is.

    The frequencies are the counts of words and sentence ends in the training text plus one.
    """
    words = np.bincount(corpus.heldout.ids, minlength=len(corpus.vocabulary))
    heldout = _target_counts(words, corpus.heldout, corpus)
    return math.exp(-(heldout * unigram_log_probabilities(corpus)).sum() / heldout.sum())


def unigram_log_probabilities(corpus: PreparedCorpus) -> np.ndarray:
    """Return the log probability of each vocabulary id as a target, float64 (vocabulary_size,)."""
    counts = _target_counts(np.asarray(corpus.lexicon.counts), corpus.train, corpus)
    return np.log(counts + 1.0) - np.log(counts.sum() + len(counts))


def _target_counts(word_counts: np.ndarray, split: Split, corpus: PreparedCorpus) -> np.ndarray:
    """Count how often each vocabulary id is a target; `word_counts` is indexed by lexicon id."""
    size = len(corpus.vocabulary)
    counts = word_counts[:size].astype(np.int64)
    counts[UNK] += word_counts[size:].sum()
    counts[EOS] += split.n_sentences
    return counts
