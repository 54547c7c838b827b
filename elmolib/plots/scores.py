"""Pictures of the learning curve of a model, and of its word predictions."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from elmolib.plots.figure import (
    COLOURS,
    MARKERS,
    SHAPES,
    Picture,
    new_axes,
    perplexity_ticks,
    show_message,
    style,
)
from elmolib.plots.heatmaps import layer_name

if TYPE_CHECKING:
    from elmolib.scoring.metrics import Calibration
    from elmolib.scoring.runs import TrainedRun

BASELINE = "word frequencies alone"


@style()
def learning_curve(
    history: pd.DataFrame,
    unigram: float | None = None,
    ax: Axes | None = None,
    *,
    steps: pd.DataFrame | None = None,
    epochs: float | None = None,
) -> Figure:
    """Draw perplexity over the epochs: solid lines for held-out text, dotted for training text.

    Args:
        history: a table with a row per epoch, the column `epoch`, and any of the perplexities
            `heldout_forward`, `heldout_backward`, `heldout_mean` and `train_text_mean`.
        unigram: the baseline, which is the perplexity of word frequencies alone.
        steps: such a table of steps, scored on samples. If there is one, `history` has only points.
        epochs: the end of the axis; None means the last epoch drawn.
    """
    ax = ax or new_axes()
    kinds = [("heldout", name, f"held out, {name}", "-") for name in COLOURS]
    handles = []
    for kind, name, label, look in [*kinds, ("train_text", "mean", "training, mean", ":")]:
        column, style_of = f"{kind}_{name}", {"color": COLOURS[name], "markersize": 5}
        tables = (history, pd.DataFrame() if steps is None else steps)
        both = (table.reindex(columns=["epoch", column]).dropna() for table in tables)
        ends, within = (table.to_numpy().T for table in both)
        if within.size:
            handles += ax.plot(*within, look, label=label, **style_of)
            ax.plot(*ends, "o", **style_of)
        elif ends.size:
            handles += ax.plot(*ends, f"o{look}", label=label, **style_of)
    if not ax.lines and unigram is None:
        return show_message(ax, "No epoch is finished yet.")
    if unigram is not None:
        ax.axhline(unigram, color="grey", linestyle="--", label=BASELINE)
        look = {"textcoords": "offset points", "ha": "right", "va": "top", "color": "dimgrey"}
        ax.annotate(BASELINE, (1, unigram), (0, -3), ax.get_yaxis_transform(), size=9, **look)
    ax.set_yscale("log")
    perplexity_ticks(ax.yaxis, *ax.get_ylim())
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set(xlabel="epoch", ylabel="perplexity")
    if epochs is not None:
        ax.set_xlim(0, epochs * 1.02)
    # Put the legend above the axes, where it hides no line.
    look = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False}
    ax.legend(handles=handles, ncols=2, fontsize=9, **look)
    return ax.get_figure(root=True)


@style()
def perplexities(table: pd.DataFrame, unigram: float, ax: Axes | None = None) -> Figure:
    """Draw the first rows of `elmolib.scoring.metrics.perplexity_table`, and the baseline."""
    ax = ax or new_axes(7.2, 2.8)
    for row, (name, values) in enumerate(table.iterrows()):
        value, low, high = values[["perplexity", "low", "high"]]
        look = {"fmt": SHAPES[name], "color": COLOURS[name], "capsize": 5, "linewidth": 2}
        ax.errorbar(value, row, xerr=[[value - low], [high - value]], markersize=7, **look)
        label = f"{value:,.1f}  ({low:,.1f} to {high:,.1f})"
        ax.annotate(label, (high, row), (10, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(table)), table.index)
    ax.set(ylim=(len(table) - 0.5, -0.5), xlabel="perplexity, and its 95% interval")
    ax.axvline(unigram, color="grey", linestyle="--")
    look = {"textcoords": "offset points", "ha": "right", "color": "dimgrey"}
    ax.annotate(BASELINE, (unigram, len(table) - 0.6), (-5, 0), **look)
    ax.set_xlim(0, None)
    return ax.get_figure(root=True)


@style()
def loss_by_length(table: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draw the table of `elmolib.scoring.metrics.loss_by_length`, in nats and perplexity."""
    ax = ax or new_axes(8.4, 4.2)
    if not len(table):
        return show_message(ax, "There are no sentences to score.")
    places = np.arange(len(table))
    for shift, name in ((-0.06, "forward"), (0.06, "backward")):
        look = {"marker": SHAPES[name], "color": COLOURS[name], "capsize": 4, "label": name}
        ax.errorbar(places + shift, table[name], yerr=_ends(table, name), **look)
    names = [f"{band}\n{n:,}" for band, n in zip(table.index, table["sentences"], strict=True)]
    ax.set_xticks(places, names)
    return _label_losses(ax, "words in the sentence, and how many sentences")


@style()
def loss_by_frequency(table: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draw the table of `elmolib.scoring.metrics.loss_by_frequency`, in nats and perplexity."""
    ax = ax or new_axes(8.4, 4.2)
    if not len(table):
        return show_message(ax, "There are no targets to score.")
    places = np.arange(len(table))
    for k, name in enumerate(("unigram", "forward", "backward")):
        x, colour = places + 0.27 * (k - 1), COLOURS.get(name, "lightgrey")
        ax.bar(x, table[name], width=0.27, color=colour, label=BASELINE if k == 0 else name)
        if f"{name}_low" in table:
            ax.errorbar(x, table[name], _ends(table, name), fmt="none", ecolor="black", capsize=3)
    share = table["targets"] / table["targets"].sum()
    ax.set_xticks(places, [f"{band}\n{s:.0%}" for band, s in zip(table.index, share, strict=True)])
    ax.tick_params(axis="x", length=0, labelsize=10)
    return _label_losses(ax, "times in the training text, and share of the targets")


def _ends(table: pd.DataFrame, name: str) -> list[pd.Series]:
    return [table[name] - table[f"{name}_low"], table[f"{name}_high"] - table[name]]


def _label_losses(ax: Axes, xlabel: str) -> Figure:
    """Label the axes. The left axis shows nats; the right axis shows the equivalent perplexity."""
    ax.set(xlabel=xlabel, ylabel="nats per target")
    ax.legend()
    tiny = np.finfo(float).tiny  # an axis may end at 0, and log(0) gives a warning
    right = ax.secondary_yaxis("right", functions=(np.exp, lambda x: np.log(np.maximum(x, tiny))))
    right.set_ylabel("perplexity")
    perplexity_ticks(right.yaxis, *np.exp(ax.get_ylim()))
    return ax.get_figure(root=True)


@style()
def reliability(found: Mapping[str, "Calibration"]) -> Figure:
    """Draw the result of `elmolib.scoring.metrics.calibration`: accuracy above, predictions below.

    The upper axes are a reliability diagram, as in figure 1 of Guo et al. 2017, arXiv:1706.04599.
    """
    figure = Picture(6.4, 6.8)
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    above.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfect calibration")
    for shift, (name, (table, error)) in zip((-0.5, 0.5), found.items(), strict=False):
        look = {"marker": SHAPES[name], "color": COLOURS[name]}
        label = f"{name}: off by {error:.1%} on average"
        above.plot(table["confidence"], table["accuracy"], label=label, **look)
        width, middle = 0.4 * (table["high"] - table["low"]), (table["low"] + table["high"]) / 2
        shares = table["predictions"] / table["predictions"].sum()
        below.bar(middle + shift * width, shares, width=width, color=COLOURS[name])
    above.set(ylabel="share that was right", xlim=(0, 1), ylim=(0, 1))
    above.legend(loc="upper left")
    below.set(xlabel="probability of the first choice", ylabel="predictions")
    for axis in (above.xaxis, above.yaxis, below.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


@style()
def runs(compared: Sequence["TrainedRun"]) -> Figure:
    """Draw the result of `elmolib.scoring.runs.read_runs`: held-out perplexity by epoch and time.

    Only perplexities over equal vocabularies can be compared, so the legend has their sizes.
    """
    figure = Picture(11.0, 4.6)
    by_epoch, by_time = figure.subplots(1, 2, sharey=True)
    shown = [run for run in compared if "heldout_mean" in run.history and len(run.history)]
    if not shown:
        show_message(by_time, "")
        return show_message(by_epoch, "No run has an epoch with held-out text yet.")
    for run, marker in zip(shown, itertools.cycle(MARKERS), strict=False):
        label = f"{run.name} ({run.vocabulary_size:,} words)"
        minutes = run.history["seconds"].cumsum() / 60
        for ax, x in ((by_epoch, run.history["epoch"]), (by_time, minutes)):
            ax.plot(x, run.history["heldout_mean"], marker=marker, label=label)
    by_epoch.set_yscale("log")
    perplexity_ticks(by_epoch.yaxis, *by_epoch.get_ylim())
    by_epoch.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    by_epoch.set(xlabel="epoch", ylabel="held-out perplexity, mean of both")
    by_time.set(xlabel="minutes of training")
    for text in by_epoch.legend().get_texts():
        text.set_parse_math(False)
    return figure


@style()
def layer_weights(weights: Iterable[float], ax: Axes | None = None) -> Figure:
    """Draw the layers' shares of a task's mix (0 to 1), as in figure 2 of the ELMo paper."""
    ax = ax or new_axes(5.0, 3.6)
    weights = np.asarray(weights)
    places = range(len(weights))
    bars = ax.bar(places, weights, width=0.6, color=COLOURS["forward"])
    ax.set_xticks(places, [layer_name(layer).replace(": ", "\n") for layer in places])
    # A white box keeps each number readable where the line of the average crosses it.
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    ax.bar_label(bars, [f"{weight:.0%}" for weight in weights], padding=4, bbox=box)
    average = 1 / len(weights)
    ax.axhline(average, color="grey", linestyle="--", linewidth=1, zorder=0)
    ax.text(1.01, average, "average", va="center", transform=ax.get_yaxis_transform(), color="grey")
    ax.tick_params(axis="x", length=0)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set(ylabel="share of the mix")
    ax.margins(y=0.12)
    return ax.get_figure(root=True)
