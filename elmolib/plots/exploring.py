"""What a model makes of words in their sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from elmolib.plots.figure import new_axes, note
from elmolib.plots.fonts import shortened
from elmolib.plots.heatmaps import admit, colour_cells, label_axis, write_cell

if TYPE_CHECKING:
    from elmolib.neighbours import Neighbour


def neighbours(
    words: Sequence[str], found: Sequence[Sequence[Neighbour]], ax: Axes | None = None
) -> Axes:
    """Draw a table of each word's nearest neighbours, coloured like a heatmap.

    Args:
        words: of one sentence, the rows.
        found: for each word its neighbours, the most similar first.
        ax: where to draw; None for a new figure.

    Returns:
        the axes drawn in. Without neighbours they hold a note that says so.
    """
    n_columns = max(map(len, found), default=0)
    if ax is None:
        size = (2.6 + 2.0 * n_columns, 1.2 + 0.42 * len(words))
        ax = new_axes(*size)
    if not n_columns:
        return note(ax, "There are no neighbours to show.")
    similarities = np.full((len(words), n_columns), np.nan)
    for row, nearest in enumerate(found):
        similarities[row, : len(nearest)] = [neighbour.similarity for neighbour in nearest]
    colour_cells(ax, similarities)
    undrawn = label_axis(ax, words, "y")
    for row, nearest in enumerate(found):
        for column, neighbour in enumerate(nearest):
            content = f"{shortened(neighbour.word)}  {neighbour.similarity:.2f}"
            undrawn |= write_cell(ax, row, column, content, neighbour.similarity, 10)
    ax.set_xticks(range(n_columns), [f"nearest {column + 1}" for column in range(n_columns)])
    ax.xaxis.tick_top()
    admit(ax, undrawn)
    return ax
