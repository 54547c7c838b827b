"""How a model learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from elmolib.plots.figure import COLOURS, logarithmic, new_axes, note

if TYPE_CHECKING:
    import pandas as pd


def learning_curve(
    history: pd.DataFrame,
    unigram: float | None = None,
    ax: Axes | None = None,
    *,
    steps: pd.DataFrame | None = None,
    epochs: float | None = None,
) -> Axes:
    """Draw perplexity over the epochs, on a logarithmic scale.

    Solid lines are for held-out text, dotted ones for the training text. The mean of the training
    text is that of both directions' losses, as it is for held-out text.

    Args:
        history: one row per epoch with the column `epoch` and any of `heldout_forward`,
            `heldout_backward`, `heldout_mean`, `train_forward` and `train_backward`.
        unigram: perplexity of word frequencies alone, to be beaten.
        ax: where to draw; None for a new figure.
        steps: what happened within the epochs, to be drawn in place of the training columns of
            `history`: the columns `epoch`, with fractions, `train_forward` and `train_backward`.
        epochs: of the whole run, so that the axis is there before the lines are; None for as many
            as there are.

    Returns:
        the axes drawn in. Without a single row they hold a note that says so.
    """
    ax = ax or new_axes()
    # The mean comes last, and so on top.
    colours = dict(reversed(COLOURS.items()))
    for name, colour in colours.items():
        if f"heldout_{name}" in history and len(history):
            values = history[f"heldout_{name}"]
            style = {"marker": "o", "markersize": 5, "label": f"held out, {name}"}
            ax.plot(history["epoch"], values, color=colour, **style)
    train = _with_mean(history if steps is None else steps)
    marker = "o" if steps is None else ""
    for name, colour in colours.items():
        if f"train_{name}" in train:
            style = {"marker": marker, "markersize": 5, "label": f"training, {name}"}
            ax.plot(train["epoch"], train[f"train_{name}"], ":", color=colour, **style)
    # The directions stand side by side above the axes, where they hide no line.
    handles = sorted(ax.lines, key=lambda line: str(line.get_label()).rpartition(", ")[2])
    if unigram is not None:
        ax.axhline(unigram, color="grey", linestyle="--", label="word frequencies alone")
    if not any(len(line.get_xdata()) for line in ax.lines):
        return note(ax, "No epoch is over yet.")
    logarithmic(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set(xlabel="epoch", ylabel="perplexity")
    if epochs is not None:
        ax.set_xlim(0, epochs * 1.02)
    ax.legend(
        handles=handles,
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        frameon=False,
        fontsize=9,
    )
    if unigram is not None:
        ax.annotate(
            "word frequencies alone",
            (1, unigram),
            (0, -3),
            xycoords=ax.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=9,
            color="dimgrey",
        )
    return ax


def _with_mean(table: pd.DataFrame) -> pd.DataFrame:
    if not {"train_forward", "train_backward"} <= set(table):
        return table
    # The exponential of the mean of two losses.
    return table.assign(train_mean=np.sqrt(table["train_forward"] * table["train_backward"]))
