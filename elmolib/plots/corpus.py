"""A text and its words, before any model."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from elmolib.plots.figure import THOUSANDS, new_axes, note


def sentence_lengths(lengths: Iterable[int], ax: Axes | None = None) -> Axes:
    """Draw how many sentences have how many words.

    Args:
        lengths: words of each sentence.
        ax: where to draw; None for a new figure.
    """
    ax = _histogram(lengths, None, ax)
    ax.set(xlabel="words in a sentence", ylabel="sentences")
    return ax


def word_lengths(
    lengths: Iterable[int],
    counts: Iterable[int] | None = None,
    max_characters: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how many words have how many bytes.

    Args:
        lengths: bytes of each word in UTF-8.
        counts: how often each word occurs; None for once.
        max_characters: bytes of a word that the model reads, its two marks included, to be marked.
        ax: where to draw; None for a new figure.
    """
    ax = _histogram(lengths, counts, ax)
    ax.set(xlabel="bytes in a word", ylabel="running words" if counts is not None else "words")
    if max_characters is not None and max_characters - 2 <= ax.get_xlim()[1]:
        ax.axvline(max_characters - 2 + 0.5, color="black", linestyle=":", label="cut here")
        ax.legend()
    return ax


def zipf(counts: Iterable[int], ax: Axes | None = None) -> Axes:
    """Draw words' frequencies by rank, both logarithmic, beside Zipf's law.

    Args:
        counts: how often each word occurs, in any order.
        ax: where to draw; None for a new figure.

    References:
        Zipf 1949: the frequency of the word of rank r is about proportional to 1 / r.
    """
    ax = ax or new_axes()
    frequencies = _sorted_counts(counts)
    if not len(frequencies):
        return note(ax, "There are no words to count.")
    ranks = np.arange(1, len(frequencies) + 1)
    # Millions of points would say no more than these.
    shown = np.unique(np.geomspace(1, len(ranks), 500).astype(np.int64)) - 1
    ax.loglog(ranks[shown], frequencies[shown], label="this text")
    middle = len(ranks[shown]) // 3
    constant = frequencies[shown][middle] * ranks[shown][middle]
    ax.loglog(
        ranks[shown],
        constant / ranks[shown],
        color="grey",
        linestyle=":",
        label="Zipf's law: 1 / rank",
    )
    ax.set(xlabel="rank of the word", ylabel="times it occurs", ylim=(0.7, None))
    ax.legend()
    return ax


def coverage(
    counts: Iterable[int], vocabulary_size: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw what share of the running text the most frequent words make up.

    Args:
        counts: how often each word occurs, in any order.
        vocabulary_size: words of the vocabulary, to be marked.
        ax: where to draw; None for a new figure.
    """
    ax = ax or new_axes()
    frequencies = _sorted_counts(counts)
    if not len(frequencies):
        return note(ax, "There are no words to count.")
    shares = np.cumsum(frequencies) / frequencies.sum()
    shown = np.unique(np.geomspace(1, len(shares), 500).astype(np.int64))
    ax.semilogx(shown, shares[shown - 1])
    if vocabulary_size is not None:
        size = min(max(vocabulary_size, 1), len(shares))
        ax.axvline(size, color="black", linestyle=":")
        ax.plot(size, shares[size - 1], "o", color="black")
        ax.annotate(
            f"{vocabulary_size:,} words cover {shares[size - 1]:.1%}",
            (size, 0.04),
            xytext=(-8, 0),
            textcoords="offset points",
            ha="right",
        )
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set(xlabel="most frequent words", ylabel="share of the running text", ylim=(0, 1.02))
    return ax


def _histogram(lengths: Iterable[int], weights: Iterable[int] | None, ax: Axes | None) -> Axes:
    ax = ax or new_axes()
    values = _integers(lengths)
    if not len(values):
        return note(ax, "There is nothing to count.")
    counts = np.bincount(values, None if weights is None else _integers(weights))
    cumulated = np.cumsum(counts)
    median = int(np.searchsorted(cumulated, cumulated[-1] / 2))
    # A few very long ones would squeeze all others into a corner.
    last = int(np.searchsorted(cumulated, 0.995 * cumulated[-1]))
    ax.bar(np.arange(last + 1), counts[: last + 1], width=1.0, linewidth=0)
    ax.axvline(median, color="black", linestyle="--", label=f"median {median}")
    longest = int(values.max())
    if longest > last:
        ax.plot([], [], " ", label=f"longest {longest:,}, not shown")
    ax.yaxis.set_major_formatter(THOUSANDS)
    ax.set_xlim(-0.5, last + 0.5)
    ax.legend()
    return ax


def _sorted_counts(counts: Iterable[int]) -> np.ndarray:
    values = _integers(counts)
    return np.sort(values[values > 0])[::-1]


def _integers(values: Iterable[int]) -> np.ndarray:
    return np.asarray(values if isinstance(values, np.ndarray) else list(values), np.int64)
