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
from elmolib.vocabulary import Vocabulary

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
    """

    sentence: list[str]
    forward: Expected
    backward: Expected

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
        """Lay out each direction's words and probabilities in a column per word."""
        directions = {"forward": self.forward, "backward": self.backward}
        return pd.DataFrame(
            [
                [
                    " | ".join(f"{word} {p:.0%}" for word, p in zip(words, row, strict=True))
                    for words, row in zip(expected.words, expected.probabilities, strict=True)
                ]
                for expected in directions.values()
            ],
            index=list(directions),
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
    if bilm.softmax_W is None:
        raise WeightsError("The model has no softmax, so it predicts no words.")
    encoder = encoder or SentenceEncoder(bilm)
    dim = bilm.options.projection_dim
    softmax = ops.convert_to_numpy(bilm.softmax_W), ops.convert_to_numpy(bilm.softmax_b)
    predictions = []
    for sentence, layers in zip(sentences, encoder.encode(sentences, boundaries=True), strict=True):
        top = layers[-1]  # (n_words + 2, 2 * projection)
        before, after = top[:-2, :dim], top[2:, dim:]
        predictions.append(
            Prediction(
                list(sentence),
                _most_probable(before, softmax, vocabulary, top_k),
                _most_probable(after, softmax, vocabulary, top_k),
            )
        )
    return predictions


def _most_probable(
    outputs: np.ndarray,
    softmax: tuple[np.ndarray, np.ndarray],
    vocabulary: Vocabulary,
    top_k: int,
) -> Expected:
    W, b = softmax
    top_k = min(top_k, len(b))
    words: list[list[str]] = []
    probabilities = np.empty((len(outputs), top_k), np.float32)
    rows = max(1, LOGITS // len(b))
    for first in range(0, len(outputs), rows):
        logits = outputs[first : first + rows] @ W.T + b  # (rows, vocabulary)
        logits -= logits.max(axis=1, keepdims=True)
        # A stable sort names the more frequent of two equally probable words first.
        best = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
        chosen = np.exp(np.take_along_axis(logits, best, axis=1))
        probabilities[first : first + rows] = chosen / np.exp(logits).sum(axis=1, keepdims=True)
        words += [[vocabulary.words[i] for i in row] for row in best]
    return Expected(words, probabilities)
