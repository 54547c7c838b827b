"""What the two language models expected at each place of a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from keras import ops

from elmolib.bilm import BiLM
from elmolib.embedding import SentenceEncoder
from elmolib.errors import WeightsError
from elmolib.scoring import full_softmax_losses
from elmolib.vocabulary import BOS, EOS, SPECIAL_WORDS, Vocabulary

LOGITS = 2**24
"""Numbers in the largest block of logits: memory stays bounded whatever the vocabulary."""


class Expected(NamedTuple):
    """The words that one direction held for most probable.

    Attributes:
        words: for each place of the sentence, `top_k` words by falling probability.
        probabilities: float32 (n_words, top_k).
    """

    words: list[list[str]]
    probabilities: np.ndarray


class Prediction(NamedTuple):
    """What was expected in one sentence.

    Attributes:
        sentence: its words.
        forward: at each word, from the words before it alone.
        backward: at each word, from the words after it alone.
        substitutes: for each word, others that fit among all the rest: a word's probability is
            the product of its forward and its backward one, over the sum of these products for
            all words of the vocabulary but `<S>`, `</S>` and `<UNK>`. The word that stands there
            is left out of the list, not of the sum.

    References:
        Amrami and Goldberg 2018, arXiv:1808.08518, for substitutes by both directions.
    """

    sentence: list[str]
    forward: Expected
    backward: Expected
    substitutes: Expected

    def __str__(self) -> str:
        """The sentence above each direction's first choices, in columns."""
        rows = [
            ["", *self.sentence],
            ["forward", *(words[0] for words in self.forward.words)],
            ["backward", *(words[0] for words in self.backward.words)],
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def table(self) -> pd.DataFrame:
        """Lay out each direction's words, and the substitutes, in a column per word."""
        rows = {
            "forward": self.forward,
            "backward": self.backward,
            "substitutes": self.substitutes,
        }
        return pd.DataFrame(
            [
                [
                    " | ".join(f"{word} {p:.0%}" for word, p in zip(words, row, strict=True))
                    for words, row in zip(expected.words, expected.probabilities, strict=True)
                ]
                for expected in rows.values()
            ],
            index=list(rows),
            columns=self.sentence,
        )


def predict(
    bilm: BiLM,
    vocabulary: Vocabulary,
    sentences: Sequence[Sequence[str]],
    top_k: int = 1,
    encoder: SentenceEncoder | None = None,
) -> list[Prediction]:
    """Ask both language models for every word of some sentences.

    Each sentence is read on its own, from zero state, between `<S>` and `</S>`.

    Args:
        bilm: a model with a softmax.
        vocabulary: the words of its softmax.
        sentences: the words of each.
        top_k: words to name at each place.
        encoder: of `bilm`, if there is one already.

    Returns:
        list[Prediction]: one for each sentence.

    Raises:
        WeightsError: the model has no softmax.

    Example:
        >>> prediction, = predict(bilm, vocabulary, [["The", "river", "bank"]], top_k=3)
        >>> prediction.forward.words[1]  # after "The"
        ['<UNK>', 'first', 'same']
    """
    _require_softmax(bilm)
    encoder = encoder or SentenceEncoder(bilm)
    dim = bilm.options.projection_dim
    softmax = ops.convert_to_numpy(bilm.softmax_W), ops.convert_to_numpy(bilm.softmax_b)
    predictions = []
    for sentence, layers in zip(sentences, encoder.encode(sentences, boundaries=True), strict=True):
        top = layers[-1]  # (n_words + 2, 2 * projection)
        before, after = top[:-2, :dim], top[2:, dim:]
        predictions.append(_predict(list(sentence), before, after, softmax, vocabulary, top_k))
    return predictions


class LogProbability(NamedTuple):
    """How probable a sentence is.

    Attributes:
        forward: natural logarithm of the probability of its words and its end, in reading order.
        backward: the same from the last word to the beginning of the sentence.
        mean: of the two.
        n_targets: predictions per direction; `exp(-mean / n_targets)` is the perplexity.
    """

    forward: float
    backward: float
    mean: float
    n_targets: int


def log_probability(
    bilm: BiLM, vocabulary: Vocabulary, sentence: Sequence[str], encoder: SentenceEncoder
) -> LogProbability:
    """Ask both language models how probable one sentence is, from zero state.

    Args:
        bilm: a model with a softmax.
        vocabulary: the words of its softmax; any other word has the probability of `<UNK>`.
        sentence: its words.
        encoder: of `bilm`.

    Returns:
        LogProbability: in both directions.

    Raises:
        WeightsError: the model has no softmax.
    """
    _require_softmax(bilm)
    (layers,) = encoder.encode([sentence], boundaries=True)
    dim = bilm.options.projection_dim
    ids = [vocabulary[word] for word in sentence]
    directions = (layers[-1, :-1, :dim], [*ids, EOS]), (layers[-1, 1:, dim:], [BOS, *ids])
    forward, backward = (
        -float(
            full_softmax_losses(outputs, np.array(targets), bilm.softmax_W, bilm.softmax_b).sum(
                dtype=np.float64
            )
        )
        for outputs, targets in directions
    )
    return LogProbability(forward, backward, (forward + backward) / 2, len(ids) + 1)


def _require_softmax(bilm: BiLM) -> None:
    if bilm.softmax_W is None:
        raise WeightsError("The model has no softmax, so it predicts no words.")


def _predict(
    sentence: list[str],
    before: np.ndarray,
    after: np.ndarray,
    softmax: tuple[np.ndarray, np.ndarray],
    vocabulary: Vocabulary,
    top_k: int,
) -> Prediction:
    n_known, n_marks = len(vocabulary), len(SPECIAL_WORDS)
    forward, backward = (_Choices(vocabulary, min(top_k, n_known)) for _ in range(2))
    substitutes = _Choices(vocabulary, min(top_k, max(0, n_known - n_marks - 1)))
    rows = max(1, LOGITS // (2 * n_known))
    for first in range(0, len(sentence), rows):
        places = slice(first, first + rows)
        from_before = _log_probabilities(before[places], *softmax)
        from_after = _log_probabilities(after[places], *softmax)
        forward.add(from_before)
        backward.add(from_after)
        both = from_before + from_after
        both[:, :n_marks] = -np.inf
        both = _normalised(both)
        for row, word in zip(both, sentence[places], strict=True):
            row[vocabulary[word]] = -np.inf
        substitutes.add(both)
    return Prediction(sentence, forward.all(), backward.all(), substitutes.all())


class _Choices:
    """Gathers the most probable words, some places of a sentence at a time."""

    def __init__(self, vocabulary: Vocabulary, top_k: int) -> None:
        self._vocabulary = vocabulary
        self._top_k = top_k
        self._words: list[list[str]] = []
        self._probabilities = [np.empty((0, top_k), np.float32)]

    def add(self, log_probabilities: np.ndarray) -> None:
        # A stable sort names the more frequent of two equally probable words first.
        best = np.argsort(-log_probabilities, axis=1, kind="stable")[:, : self._top_k]
        self._words += [[self._vocabulary.words[i] for i in row] for row in best]
        self._probabilities.append(np.exp(np.take_along_axis(log_probabilities, best, axis=1)))

    def all(self) -> Expected:
        return Expected(self._words, np.concatenate(self._probabilities))


def _log_probabilities(outputs: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Natural logarithms (places, vocabulary)."""
    return _normalised(outputs @ W.T + b)


def _normalised(logits: np.ndarray) -> np.ndarray:
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits
