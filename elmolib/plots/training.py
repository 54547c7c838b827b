"""How a model learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from elmolib.plots.figure import (
    BACKWARD_COLOUR,
    FORWARD_COLOUR,
    MEAN_COLOUR,
    THOUSANDS,
    new_axes,
    note,
)

if TYPE_CHECKING:
    import pandas as pd


def learning_curve(
    history: pd.DataFrame, unigram: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw perplexity over the epochs, on a logarithmic scale.

    Args:
        history: one row per epoch with the column `epoch` and any of `heldout_forward`,
            `heldout_backward`, `heldout_mean`, `train_forward` and `train_backward`.
        unigram: perplexity of word frequencies alone, to be beaten.
        ax: where to draw; None for a new figure.
    """
    ax = ax or new_axes()
    curves = {
        "heldout_mean": ("held out, mean", MEAN_COLOUR, "-"),
        "heldout_forward": ("held out, forward", FORWARD_COLOUR, "-"),
        "heldout_backward": ("held out, backward", BACKWARD_COLOUR, "-"),
        "train_forward": ("training, forward", FORWARD_COLOUR, ":"),
        "train_backward": ("training, backward", BACKWARD_COLOUR, ":"),
    }
    for column, (label, colour, style) in curves.items():
        if column in history:
            ax.plot(
                history["epoch"],
                history[column],
                color=colour,
                linestyle=style,
                marker="o",
                markersize=5,
                label=label,
            )
    if unigram is not None:
        ax.axhline(unigram, color="grey", linestyle="--", label="word frequencies alone")
    if not ax.lines:
        return note(ax, "No epoch is over yet.")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(THOUSANDS)
    ax.yaxis.set_minor_formatter(THOUSANDS)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="perplexity")
    ax.legend()
    return ax
