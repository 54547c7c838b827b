"""How good a model is, and at what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from elmolib.plots.figure import BACKWARD_COLOUR, FORWARD_COLOUR, new_axes, note
from elmolib.plots.heatmaps import layer_name

if TYPE_CHECKING:
    import pandas as pd


def loss_by_frequency(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how well words are predicted by how often they stood in the training text.

    Args:
        table: as `elmolib.evaluation.loss_by_frequency` returns it.
        ax: where to draw; None for a new figure.
    """
    ax = ax or new_axes()
    if not len(table):
        return note(ax, "There are no targets to score.")
    columns = {
        "unigram": ("word frequencies alone", "lightgrey"),
        "forward": ("forward", FORWARD_COLOUR),
        "backward": ("backward", BACKWARD_COLOUR),
    }
    places = np.arange(len(table))
    for k, (column, (label, colour)) in enumerate(columns.items()):
        ax.bar(places + 0.27 * (k - 1), table[column], width=0.27, color=colour, label=label)
    share = table["targets"] / table["targets"].sum()
    ax.set_xticks(places, [f"{band}\n{s:.0%}" for band, s in zip(table.index, share, strict=True)])
    ax.tick_params(axis="x", length=0, labelsize=10)
    ax.set(xlabel="times in the training text, and share of the targets", ylabel="nats per target")
    ax.legend()
    return ax


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
