"""Draw the figures of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elmolib.plots.figure import MARKERS, Picture, style

if TYPE_CHECKING:
    from benchmarks.tasks.results import Row

_WIDTH, _ROW_HEIGHT, _MARGIN = 4.2, 0.28, 0.9
_MAX_COLUMNS = 3


@style()
def task_figures(entries: Sequence[tuple[str, Row]]) -> Figure:
    """Draw the figures of a task with their confidence intervals, one panel per dataset.

    Args:
        entries: pairs of a model's name and a row. Each model gets one colour and one marker.

    Returns:
        a new Matplotlib figure. Higher values are better, except for perplexity.
    """
    datasets = list(dict.fromkeys(row.data for _, row in entries))
    models = list(dict.fromkeys(model for model, _ in entries))
    systems = list(dict.fromkeys((model, row.system) for model, row in entries))
    n_columns = min(_MAX_COLUMNS, len(datasets))
    n_rows = -(-len(datasets) // n_columns)
    figure = Picture(_WIDTH * n_columns + 1.5, n_rows * (_ROW_HEIGHT * len(systems) + _MARGIN))
    axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
    for ax, data in zip(axes, datasets, strict=False):
        _draw_dataset(ax, [each for each in entries if each[1].data == data], systems, models)
        ax.set_title(data)
    for ax in axes[len(datasets) :]:
        ax.set_axis_off()
    return figure


def _draw_dataset(
    ax: Axes,
    entries: Sequence[tuple[str, Row]],
    systems: Sequence[tuple[str, str]],
    models: Sequence[str],
) -> None:
    colors = sns.color_palette("colorblind", len(models))
    for model, row in entries:
        number = models.index(model)
        ax.errorbar(
            row.scale * row.value,
            systems.index((model, row.system)),
            xerr=[[row.scale * (row.value - row.low)], [row.scale * (row.high - row.value)]],
            fmt=MARKERS[number % len(MARKERS)],
            color=colors[number],
            capsize=3,
        )
    ax.set_yticks(range(len(systems)), [f"{model}, {system}" for model, system in systems])
    ax.set_ylim(len(systems) - 0.5, -0.5)
    _, first = entries[0]
    ax.set_xlabel(first.metric if first.scale == 1 else f"{first.metric} × {first.scale}")
    ax.grid(axis="x", alpha=0.4)
