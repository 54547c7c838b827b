"""Pictures of a text and its words."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from elmolib.plots.figure import PALETTE, PLAIN_NUMBERS, new_axes, show_message, style
from elmolib.plots.fonts import note_missing_fonts
from elmolib.plots.heatmaps import label_axis

# Kinds of characters and their tests. A character is of the first kind whose test it passes.
KINDS = {
    "small letters": str.islower,
    "capital letters": str.isupper,
    "digits": str.isdigit,
    "other letters": str.isalpha,
    "punctuation and other signs": lambda character: True,
}

MOST_POINTS = 500  # the most points of a line over all words; more would look the same


@style()
def sentence_lengths(lengths: Sequence[int], ax: Axes | None = None) -> Figure:
    """Draw a histogram of the lengths of sentences in words."""
    return _histogram(lengths, None, ax or new_axes(), "words in a sentence", "sentences")


@style()
def word_lengths(
    lengths: Sequence[int], counts: Sequence[int], max_characters: int, ax: Axes | None = None
) -> Figure:
    """Draw a histogram of the lengths of words in bytes of UTF-8.

    `counts` has how often each word occurs. A line shows the limit `max_characters`, which includes
    a mark at each end of a word; longer words are cut.
    """
    ax = ax or new_axes()
    figure = _histogram(lengths, counts, ax, "bytes in a word", "tokens")
    if ax.patches and max_characters - 2 <= ax.get_xlim()[1]:
        ax.axvline(max_characters - 2 + 0.5, color="black", linestyle=":", label="cut here")
        ax.legend()
    return figure


@style()
def zipf(counts: Sequence[int], ax: Axes | None = None) -> Figure:
    """Draw the frequencies of words, given in any order, by rank on logarithmic axes.

    A line shows Zipf's law (1949): the frequency is about proportional to 1 / rank.
    """
    ax = ax or new_axes()
    frequencies = _sorted_counts(counts)
    if not len(frequencies):
        return show_message(ax, "There are no words to count.")
    ranks = np.unique(np.geomspace(1, len(frequencies), MOST_POINTS).astype(np.int64))
    frequencies = frequencies[ranks - 1]
    label, frequent = "this text", frequencies >= 5
    if frequent.sum() > 1:
        slope, _ = np.polyfit(np.log(ranks[frequent]), np.log(frequencies[frequent]), 1)
        label += f": about 1 / rank^{-slope:.2f}"
    ax.loglog(ranks, frequencies, label=label)
    middle = len(ranks) // 3
    law = frequencies[middle] * ranks[middle] / ranks
    ax.loglog(ranks, law, color="grey", linestyle=":", label="Zipf's law: 1 / rank")
    ax.set(xlabel="rank of the word", ylabel="times it occurs", ylim=(0.7, None))
    ax.legend()
    return ax.get_figure(root=True)


@style()
def coverage(
    counts: Sequence[int], vocabulary_size: int | None = None, ax: Axes | None = None
) -> Figure:
    """Draw the share of the tokens that the n most frequent words cover; mark `vocabulary_size`."""
    ax = ax or new_axes()
    frequencies = _sorted_counts(counts)
    if not len(frequencies):
        return show_message(ax, "There are no words to count.")
    shares = np.cumsum(frequencies) / frequencies.sum()
    shown = np.unique(np.geomspace(1, len(shares), MOST_POINTS).astype(np.int64))
    ax.semilogx(shown, shares[shown - 1])
    if vocabulary_size is not None:
        size = min(max(vocabulary_size, 1), len(shares))
        ax.axvline(size, color="black", linestyle=":")
        ax.plot(size, shares[size - 1], "o", color="black")
        label = f"{vocabulary_size:,} words cover {shares[size - 1]:.1%}"
        ax.annotate(label, (size, 0.04), (-8, 0), textcoords="offset points", ha="right")
    ax.xaxis.set_major_formatter(PLAIN_NUMBERS)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set(xlabel="most frequent words", ylabel="share of the tokens", ylim=(0, 1.02))
    return ax.get_figure(root=True)


@style()
def characters(counts: Mapping[str, int], n: int = 60, ax: Axes | None = None) -> Figure:
    """Draw the frequencies of the first `n` characters of `counts`, sorted by falling count."""
    ax, counts = ax or new_axes(12.0, 4.2), dict(counts)  # `counts` may be a pandas Series
    total = sum(counts.values())
    if not total:
        return show_message(ax, "There are no characters to count.")
    shown = list(counts)[:n]
    kinds = [next(kind for kind, is_one in KINDS.items() if is_one(c)) for c in shown]
    colours = dict(zip(KINDS, PALETTE, strict=False))
    shares = [counts[character] / total for character in shown]
    ax.bar(range(len(shown)), shares, color=[colours[kind] for kind in kinds])
    handles = [Patch(color=colour, label=kind) for kind, colour in colours.items() if kind in kinds]
    if len(counts) > len(shown):
        rest = f"{len(counts) - len(shown):,} more characters: {1 - sum(shares):.1%} of the text"
        handles.append(Patch(alpha=0, label=rest))
    ax.legend(handles=handles)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    ax.set(xlim=(-0.7, len(shown) - 0.3), ylabel="share of all characters")
    ax.tick_params(axis="x", length=0)
    label_axis(ax, shown, "x")
    return note_missing_fonts(ax.get_figure(root=True), shown)


def _histogram(
    values: Sequence[int], weights: Sequence[int] | None, ax: Axes, xlabel: str, ylabel: str
) -> Figure:
    """Draw a histogram of whole numbers and their median."""
    if not len(values):
        return show_message(ax, f"There are no {ylabel} to count.")
    counts = np.bincount(values, weights)
    cumulative = np.cumsum(counts)
    median = int(np.searchsorted(cumulative, cumulative[-1] / 2))
    # Leave out the longest 0.5%, because they would make all other bars too narrow.
    last = int(np.searchsorted(cumulative, 0.995 * cumulative[-1]))
    ax.bar(np.arange(last + 1), counts[: last + 1], width=1.0, linewidth=0)
    ax.axvline(median, color="black", linestyle="--", label=f"median {median}")
    if (longest := int(max(values))) > last:
        ax.plot([], [], " ", label=f"longest {longest:,}, not shown")
    ax.yaxis.set_major_formatter(PLAIN_NUMBERS)
    ax.set(xlim=(-0.5, last + 0.5), xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax.get_figure(root=True)


def _sorted_counts(counts: Sequence[int]) -> np.ndarray:
    values = np.asarray(counts, np.int64)
    return np.sort(values[values > 0])[::-1]
