"""How good a model is, and at what."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    Locator,
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from elmolib.plots.figure import (
    BACKWARD_COLOUR,
    COLOURS,
    FORWARD_COLOUR,
    MARKERS,
    Picture,
    all_digits,
    logarithmic,
    new_axes,
    note,
)
from elmolib.plots.heatmaps import layer_name

if TYPE_CHECKING:
    import pandas as pd

    from elmolib.evaluation.calibration import Calibration
    from elmolib.evaluation.runs import TrainedRun

SHAPES = dict(zip(COLOURS, MARKERS, strict=False))


def perplexities(table: pd.DataFrame, unigram: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw the perplexity of each direction and of both, with the range it might have fallen in.

    Args:
        table: as `elmolib.evaluation.sentences.perplexity_intervals` returns it.
        unigram: perplexity of word frequencies alone, to be beaten.
        ax: where to draw; None for a new figure.
    """
    ax = ax or new_axes(7.2, 2.8)
    for row, (name, values) in enumerate(table.iterrows()):
        ends = [[values["perplexity"] - values["low"]], [values["high"] - values["perplexity"]]]
        ax.errorbar(
            values["perplexity"],
            row,
            xerr=ends,
            fmt=SHAPES[name],
            color=COLOURS[name],
            markersize=7,
            capsize=5,
            linewidth=2,
        )
        label = f"{values['perplexity']:,.1f}  ({values['low']:,.1f} to {values['high']:,.1f})"
        ax.annotate(label, (values["high"], row), (10, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(table)), table.index)
    ax.set(ylim=(len(table) - 0.5, -0.5), xlabel="perplexity, and its 95% interval")
    if unigram is not None:
        ax.axvline(unigram, color="grey", linestyle="--")
        ax.annotate(
            "word frequencies alone",
            (unigram, len(table) - 0.6),
            (-5, 0),
            textcoords="offset points",
            ha="right",
            color="dimgrey",
        )
    ax.set_xlim(0, None)
    return ax


def loss_by_length(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how well the words of short and of long sentences are predicted.

    Args:
        table: as `elmolib.evaluation.sentences.loss_by_length` returns it.
        ax: where to draw; None for a new figure.
    """
    ax = ax or new_axes(8.4, 4.2)
    if not len(table):
        return note(ax, "There are no sentences to score.")
    places = np.arange(len(table))
    for shift, name in ((-0.06, "forward"), (0.06, "backward")):
        low, high = table[name] - table[f"{name}_low"], table[f"{name}_high"] - table[name]
        ax.errorbar(
            places + shift,
            table[name],
            yerr=[low, high],
            marker=SHAPES[name],
            color=COLOURS[name],
            capsize=4,
            label=name,
        )
    names = [f"{band}\n{n:,}" for band, n in zip(table.index, table["sentences"], strict=True)]
    ax.set_xticks(places, names)
    ax.set(xlabel="words in the sentence, and how many sentences", ylabel="nats per target")
    _perplexity_axis(ax)
    ax.legend()
    return ax


def reliability(found: Mapping[str, Calibration]) -> Figure:
    """Draw how often first choices are right by the probability that the model gave them.

    Args:
        found: by the names forward and backward, as
            `elmolib.evaluation.calibration.calibration` returns them.

    Returns:
        a new figure: above, the reliability diagram, on whose diagonal a model is that knows how
        sure it may be; below, what share of all predictions was given such a probability.

    References:
        Guo et al. 2017, arXiv:1706.04599, figure 1.
    """
    figure = Picture(figsize=(6.4, 6.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    above.plot([0, 1], [0, 1], color="grey", linestyle="--", label="as sure as it may be")
    for shift, (name, calibration) in zip((-1, 1), found.items(), strict=False):
        table = calibration.table
        above.plot(
            table["confidence"],
            table["accuracy"],
            marker=SHAPES[name],
            color=COLOURS[name],
            label=f"{name}: off by {calibration.error:.1%} on average",
        )
        width = (table["high"] - table["low"]) * 0.4
        below.bar(
            (table["low"] + table["high"]) / 2 + shift * width / 2,
            table["predictions"] / table["predictions"].sum(),
            width=width,
            color=COLOURS[name],
        )
    above.set(ylabel="share that was right", xlim=(0, 1), ylim=(0, 1))
    above.legend(loc="upper left")
    below.set(xlabel="probability of the first choice", ylabel="predictions")
    for axis in (above.xaxis, above.yaxis, below.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


def runs(compared: Sequence[TrainedRun]) -> Figure:
    """Draw the held-out perplexity of several runs over their epochs and over time.

    Args:
        compared: as `elmolib.evaluation.runs.read_runs` returns them.

    Returns:
        a new figure. Lines over different vocabularies cannot be compared, so its size is named.
    """
    figure = Picture(figsize=(11.0, 4.6), layout="constrained")
    by_epoch, by_time = figure.subplots(1, 2, sharey=True)
    shown = [run for run in compared if "heldout_mean" in run.history and len(run.history)]
    if not shown:
        note(by_time, "")
        note(by_epoch, "No run has an epoch with held-out text yet.")
        return figure
    for run, marker in zip(shown, itertools.cycle(MARKERS), strict=False):
        label = f"{run.name} ({run.vocabulary_size:,} words)"
        minutes = run.history["seconds"].cumsum() / 60
        for ax, x in ((by_epoch, run.history["epoch"]), (by_time, minutes)):
            ax.plot(x, run.history["heldout_mean"], marker=marker, label=label)
    logarithmic(by_epoch)
    by_epoch.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    by_epoch.set(xlabel="epoch", ylabel="held-out perplexity, mean of both")
    by_time.set(xlabel="minutes of training")
    for text in by_epoch.legend().get_texts():
        text.set_parse_math(False)
    return figure


def loss_by_frequency(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how well words are predicted by how often they stood in the training text.

    Args:
        table: as `elmolib.evaluation.loss_by_frequency` returns it.
        ax: where to draw; None for a new figure.
    """
    ax = ax or new_axes(8.4, 4.2)
    if not len(table):
        return note(ax, "There are no targets to score.")
    columns = {
        "unigram": ("word frequencies alone", "lightgrey"),
        "forward": ("forward", FORWARD_COLOUR),
        "backward": ("backward", BACKWARD_COLOUR),
    }
    places = np.arange(len(table))
    for k, (column, (label, colour)) in enumerate(columns.items()):
        at = places + 0.27 * (k - 1)
        ax.bar(at, table[column], width=0.27, color=colour, label=label)
        if f"{column}_low" in table:
            low, high = table[column] - table[f"{column}_low"], table[f"{column}_high"]
            ends = [low, high - table[column]]
            ax.errorbar(at, table[column], ends, fmt="none", ecolor="black", capsize=3)
    share = table["targets"] / table["targets"].sum()
    ax.set_xticks(places, [f"{band}\n{s:.0%}" for band, s in zip(table.index, share, strict=True)])
    ax.tick_params(axis="x", length=0, labelsize=10)
    ax.set(xlabel="times in the training text, and share of the targets", ylabel="nats per target")
    _perplexity_axis(ax)
    ax.legend()
    return ax


def _perplexity_axis(ax: Axes) -> None:
    """Say at the right which perplexities the nats at the left are."""
    # Where an axis has an end at zero, its logarithm would raise a warning.
    tiny = np.finfo(float).tiny
    right = ax.secondary_yaxis(
        "right", functions=(np.exp, lambda value: np.log(np.maximum(value, tiny)))
    )
    right.set_ylabel("perplexity")
    low, high = np.exp(ax.get_ylim())
    right.yaxis.set_major_locator(_ticks_between(low, high))
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter(all_digits())


def _ticks_between(low: float, high: float) -> Locator:
    """Where numbers stand on an axis that is logarithmic in one way or another."""
    if high < 4 * low:
        return MaxNLocator(5)
    return LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,), numticks=20)


def layer_weights(weights: Iterable[float], ax: Axes | None = None) -> Axes:
    """Draw which layers of a biLM a task has learnt to read, as in figure 2 of the ELMo paper.

    Args:
        weights: each layer's share of the mix, the character CNN first.
        ax: where to draw; None for a new figure.
    """
    ax = ax or new_axes(5.0, 3.6)
    weights = np.asarray(weights)
    places = range(len(weights))
    bars = ax.bar(places, weights, width=0.6, color=FORWARD_COLOUR)
    ax.set_xticks(places, [layer_name(layer).replace(": ", "\n") for layer in places])
    # The line of the average must not strike a number through.
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    ax.bar_label(bars, [f"{weight:.0%}" for weight in weights], padding=4, bbox=behind)
    even = 1 / len(weights)
    ax.axhline(even, color="grey", linestyle="--", linewidth=1, zorder=0)
    # Outside the bars, where no number of theirs can stand.
    ax.text(1.01, even, "average", va="center", transform=ax.get_yaxis_transform(), color="grey")
    ax.tick_params(axis="x", length=0)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set(ylabel="share of the mix")
    ax.margins(y=0.12)
    return ax
