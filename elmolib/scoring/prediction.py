"""Predict the words of a sentence with both language models, and compute its probability."""

from collections.abc import Sequence
from html import escape
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from elmolib.embedding.encoder import SentenceEncoder
from elmolib.errors import needs_extras
from elmolib.scoring.softmax import BLOCK, Softmax, log_normalize
from elmolib.text.vocabulary import BOS, EOS, SPECIAL_WORDS

if TYPE_CHECKING:
    import pandas as pd


class Expected(NamedTuple):
    """The most probable words at each position of a sentence, the most probable first."""

    words: list[list[str]]  # `top_k` per position
    probabilities: np.ndarray  # float32 (n_words, top_k)


class Prediction(NamedTuple):
    """Predictions for one sentence.

    `substitutes` are other words that fit the whole context. Their probability is the product of
    the forward and the backward probability, normalized over all words except `<S>`, `</S>` and
    `<UNK>`. The word in the sentence is part of the normalization, but is not listed. See Amrami
    and Goldberg 2018, arXiv:1808.08518.
    """

    sentence: list[str]
    forward: Expected  # from the words before each position
    backward: Expected  # from the words after each position
    substitutes: Expected

    def __str__(self) -> str:
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

    def _repr_html_(self) -> str:
        """Return a table. Correct words are bold; more probable words have a darker background."""
        forward, backward = (zip(*each, strict=True) for each in (self.forward, self.backward))
        rows = [
            f"<td>{_html(before, word)}</td><th>{escape(word)}</th><td>{_html(after, word)}</td>"
            for before, word, after in zip(forward, self.sentence, backward, strict=True)
        ]
        head = "<th>from the words before</th><th>word</th><th>from the words after</th>"
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

    @needs_extras()
    def table(self) -> "pd.DataFrame":
        """Return a table with the rows forward, backward and substitutes, and a column per word."""
        import pandas as pd

        rows = [
            [
                " | ".join(f"{word} {p:.0%}" for word, p in zip(words, row, strict=True))
                for words, row in zip(*expected, strict=True)
            ]
            for expected in self[1:]
        ]
        return pd.DataFrame(rows, index=self._fields[1:], columns=self.sentence)


def _html(expected: tuple[list[str], np.ndarray], right: str) -> str:
    return "&ensp;".join(
        f'<span style="background: rgba(1, 102, 94, {p**0.5 * 0.6:.2f}); padding: 2px">'
        f"{f'<b>{escape(word)}</b>' if word == right else escape(word)} "
        f"{'&lt;1%' if p < 0.005 else f'{p:.0%}'}</span>"
        for word, p in zip(*expected, strict=True)
    )


class LogProbability(NamedTuple):
    """The log probability of a sentence and its end. The perplexity is exp(-mean / n_targets)."""

    forward: float  # in nats
    backward: float
    mean: float
    n_targets: int  # predictions per direction


def predict(
    encoder: SentenceEncoder, softmax: Softmax, sentences: Sequence[Sequence[str]], top_k: int = 1
) -> list[Prediction]:
    """List the `top_k` most probable words at each position of some sentences (lists of words).

    Each sentence is read on its own, from zero state, between `<S>` and `</S>`.
    """
    encoded = encoder.encode(sentences, boundaries=True)
    return [
        _predict(list(sentence), layers[-1], softmax, top_k)
        for sentence, layers in zip(sentences, encoded, strict=True)
    ]


def log_probability(
    encoder: SentenceEncoder, softmax: Softmax, sentence: Sequence[str]
) -> LogProbability:
    """Compute the log probability of one sentence under both language models, from zero state.

    Words outside the vocabulary count as `<UNK>`. `encoder` and `softmax` belong to one model.
    """
    (layers,) = encoder.encode([sentence], boundaries=True)
    dim = encoder.architecture.projection_dim
    ids = [softmax.vocabulary[word] for word in sentence]
    directions = (layers[-1, :-1, :dim], [*ids, EOS]), (layers[-1, 1:, dim:], [BOS, *ids])
    forward, backward = (
        -float(softmax.losses(outputs, np.array(targets)).sum(dtype=np.float64))
        for outputs, targets in directions
    )
    return LogProbability(forward, backward, (forward + backward) / 2, len(ids) + 1)


def _predict(sentence: list[str], top: np.ndarray, softmax: Softmax, top_k: int) -> Prediction:
    dim = top.shape[1] // 2
    before, after = top[:-2, :dim], top[2:, dim:]  # (words, projection)
    vocabulary, n_marks = softmax.vocabulary, len(SPECIAL_WORDS)
    n_substitutes = max(0, len(vocabulary) - n_marks - 1)
    # Predict the words in blocks: their probabilities take less memory than the softmax weights.
    rows = max(16, BLOCK // len(vocabulary))
    blocks = []
    for first in range(0, max(1, len(sentence)), rows):
        block = slice(first, first + rows)
        forward, backward = map(softmax.log_probabilities, (before[block], after[block]))
        both = forward + backward
        both[:, :n_marks] = -np.inf
        both = log_normalize(both)
        for row, word in zip(both, sentence[block], strict=True):
            row[vocabulary[word]] = -np.inf
        kinds = (forward, top_k), (backward, top_k), (both, min(top_k, n_substitutes))
        blocks.append([_most_probable(logs, softmax, k) for logs, k in kinds])
    expected = []
    for parts in zip(*blocks, strict=True):
        words, probabilities = zip(*parts, strict=True)
        expected.append(Expected(list(chain(*words)), np.concatenate(probabilities)))
    return Prediction(sentence, *expected)


def _most_probable(log_probabilities: np.ndarray, softmax: Softmax, k: int) -> Expected:
    # If two words are equally probable, a stable sort lists the more frequent word first.
    best = np.argsort(-log_probabilities, axis=1, kind="stable")[:, :k]
    words = [[softmax.vocabulary.words[i] for i in row] for row in best]
    return Expected(words, np.exp(np.take_along_axis(log_probabilities, best, axis=1)))
