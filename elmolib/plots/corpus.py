"""A text and its words, before any model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, PercentFormatter

from elmolib.plots.figure import THOUSANDS, new_axes, note
from elmolib.plots.heatmaps import admit, label_axis

KINDS = {"small letters": str.islower, "capital letters": str.isupper, "digits": str.isdigit}
OTHER_LETTERS, OTHERS = "other letters", "punctuation and other signs"


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
    power = _power(ranks[shown], frequencies[shown])
    ax.loglog(ranks[shown], frequencies[shown], label=f"this text: about 1 / rank^{power:.2f}")
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


def characters(counts: Mapping[str, int], n: int = 60, ax: Axes | None = None) -> Axes:
    """Draw how frequent the characters of a text are, the most frequent first.

    Args:
        counts: how often each character stands there, by falling count.
        n: most characters to draw.
        ax: where to draw; None for a new figure.
    """
    ax = ax or new_axes(12.0, 4.2)
    counts = dict(counts)
    total = sum(counts.values())
    if not total:
        return note(ax, "There are no characters to count.")
    shown = list(counts.items())[:n]
    kinds = [_kind(character) for character, _ in shown]
    colours = dict(
        zip([*KINDS, OTHER_LETTERS, OTHERS], sns.color_palette("colorblind"), strict=False)
    )
    ax.bar(range(len(shown)), [c / total for _, c in shown], color=[colours[k] for k in kinds])
    handles = [Patch(color=colour, label=kind) for kind, colour in colours.items() if kind in kinds]
    rest = total - sum(count for _, count in shown)
    if rest:
        left_out = f"{len(counts) - len(shown):,} more characters: {rest / total:.1%} of the text"
        handles.append(Patch(alpha=0, label=left_out))
    ax.legend(handles=handles)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
    ax.set(xlim=(-0.7, len(shown) - 0.3), ylabel="share of all characters")
    ax.tick_params(axis="x", length=0)
    admit(ax, label_axis(ax, [character for character, _ in shown], "x"))
    return ax


def _kind(character: str) -> str:
    for name, is_one in KINDS.items():
        if is_one(character):
            return name
    return OTHER_LETTERS if character.isalpha() else OTHERS


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


def _power(ranks: np.ndarray, frequencies: np.ndarray) -> float:
    """The slope of a straight line through both logarithms, where words are not too few to tell."""
    frequent = frequencies >= 5
    if frequent.sum() < 2:
        return np.nan
    slope, _ = np.polyfit(np.log(ranks[frequent]), np.log(frequencies[frequent]), 1)
    return -slope


def _sorted_counts(counts: Iterable[int]) -> np.ndarray:
    values = _integers(counts)
    return np.sort(values[values > 0])[::-1]


def _integers(values: Iterable[int]) -> np.ndarray:
    return np.asarray(values if isinstance(values, np.ndarray) else list(values), np.int64)
