"""What vectors are worth for other tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elmolib.plots.figure import MARKERS, Picture

if TYPE_CHECKING:
    from elmolib.evaluation.results import Row

_WIDTH, _ROW_HEIGHT, _MARGIN = 4.2, 0.28, 0.9
_MOST_COLUMNS = 3


def task_figures(entries: Sequence[tuple[str, Row]]) -> Figure:
    """Draw the figures of a task with their intervals, a pair of axes for each set.

    Args:
        entries: figures, each with the name of its model. A model has one colour and one shape.

    Returns:
        a new figure; what lies to the right of the other's interval is better, for perplexities to
        the left.
    """
    sets = list(dict.fromkeys(row.data for _, row in entries))
    models = list(dict.fromkeys(model for model, _ in entries))
    systems = list(dict.fromkeys((model, row.system) for model, row in entries))
    n_columns = min(_MOST_COLUMNS, len(sets))
    n_rows = -(-len(sets) // n_columns)
    size = (_WIDTH * n_columns + 1.5, n_rows * (_ROW_HEIGHT * len(systems) + _MARGIN))
    figure = Picture(figsize=size, layout="constrained")
    axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
    for ax, data in zip(axes, sets, strict=False):
        _draw_set(ax, [each for each in entries if each[1].data == data], systems, models)
        ax.set_title(data)
    for ax in axes[len(sets) :]:
        ax.set_axis_off()
    return figure


def _draw_set(
    ax: Axes,
    entries: Sequence[tuple[str, Row]],
    systems: Sequence[tuple[str, str]],
    models: Sequence[str],
) -> None:
    colours = sns.color_palette("colorblind", len(models))
    for model, row in entries:
        scale = 1 if row.metric == "perplexity" else 100
        number = models.index(model)
        ax.errorbar(
            scale * row.value,
            systems.index((model, row.system)),
            xerr=[[scale * (row.value - row.low)], [scale * (row.high - row.value)]],
            fmt=MARKERS[number % len(MARKERS)],
            color=colours[number],
            capsize=3,
        )
    ax.set_yticks(range(len(systems)), [f"{model}, {system}" for model, system in systems])
    ax.set_ylim(len(systems) - 0.5, -0.5)
    metric = entries[0][1].metric
    ax.set_xlabel(metric if metric == "perplexity" else f"{metric} × 100")
    ax.grid(axis="x", alpha=0.4)
