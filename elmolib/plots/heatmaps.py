"""How similar the words of a sentence are to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elmolib.plots.figure import Picture, new_axes, note
from elmolib.plots.fonts import (
    drawable,
    families_for,
    script_of,
    shortened,
    width_in_columns,
    write,
)
from elmolib.plots.layout import QuickLayout
from elmolib.similarity import cosine_similarities

# Readable without colour vision and in grey: its lightness rises evenly.
SIMILARITY_COLOURS = "viridis"

SMALLEST_FONT, LARGEST_FONT = 7.0, 12.0
"""Points."""

MOST_ANNOTATED = 12
"""Up to so many words, a heatmap has room for the numbers too."""


def layer_name(layer: int | str) -> str:
    """Call a layer what the title of a picture calls it."""
    names = {"average": "average of all layers", "top": "top layer", 0: "layer 0: no context"}
    return names.get(layer, f"layer {layer}")


def heatmap(
    words: Sequence[str],
    vectors: np.ndarray,
    other_words: Sequence[str] | None = None,
    other_vectors: np.ndarray | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the cosine similarities of words as a square of colours.

    The colours mean the same in every such picture: the lightest is 1, the darkest 0 and below.

    Args:
        words: of one sentence, the rows.
        vectors: float array (n_words, features).
        other_words: of a second sentence, the columns; None for the same sentence again.
        other_vectors: float array (n_other_words, features).
        ax: where to draw; None for a new figure.
        title: what stands above.

    Returns:
        the axes drawn in. Without words they hold a note that says so.
    """
    if other_words is None or other_vectors is None:
        other_words, other_vectors = words, vectors
    if ax is None:
        scale = _scale(max(len(words), len(other_words)))
        ax = new_axes(7.2 * scale, 6.4 * scale, QuickLayout())
    if title:
        # At a fixed height, or all words would be measured once more to find one.
        write(ax.set_title("", y=1.0), title)
    if not len(words) or not len(other_words):
        return note(ax, "There are no words to compare.")
    similarities = cosine_similarities(vectors, other_vectors)
    colour_cells(ax, similarities)
    undrawn = label_axis(ax, other_words, "x") | label_axis(ax, words, "y")
    if max(similarities.shape) <= MOST_ANNOTATED:
        size = 11 if len(other_words) <= 8 else 9
        for (row, column), value in np.ndenumerate(similarities):
            # Adding zero makes a minus zero a plain one.
            write_cell(ax, row, column, f"{round(value, 2) + 0.0:.2f}", value, size)
    admit(ax, undrawn)
    return ax


def layer_heatmaps(words: Sequence[str], layers: Sequence[np.ndarray]) -> Figure:
    """Draw the heatmaps of all layers side by side.

    Args:
        words: of one sentence.
        layers: for each layer a float array (n_words, features), as `ELMo.get_elmo` gives them.

    Returns:
        a new figure with one picture per layer, from the characters to the top.
    """
    scale = _scale(len(words))
    figure = Picture(figsize=(6.6 * scale * len(layers), 5.8 * scale), layout="constrained")
    for number, ax in enumerate(figure.subplots(1, len(layers), squeeze=False)[0]):
        heatmap(words, layers[number], ax=ax, title=layer_name(number))
    return figure


def _scale(n_words: int) -> float:
    """How much larger than usual a square has to be for so many words to be read."""
    return float(np.clip(n_words / 25, 1.0, 1.6))


def label_axis(ax: Axes, words: Sequence[str], which: str) -> set[str]:
    """Write words along an axis, as large as fits, and return the scripts that could not be."""
    inches = ax.get_window_extent().size[0 if which == "x" else 1] / ax.figure.dpi
    room = 72 * inches / len(words)
    size = float(np.clip(room * 0.8, SMALLEST_FONT, LARGEST_FONT))
    every = max(1, round(SMALLEST_FONT * 1.1 / room))
    places = range(0, len(words), every)
    labels = [shortened(words[place]) for place in places]
    families, undrawn = families_for("".join(labels))
    labels = [drawable(label, families) for label in labels]
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_ticks(places, labels)
    # So an empty label is not given a place below all words, which would be measured for it.
    axis.set_label_coords(*((0.5, 0.0) if which == "x" else (0.0, 0.5)))
    widest = max(map(width_in_columns, labels)) * size * 0.62
    for text in axis.get_ticklabels():
        text.set(parse_math=False, fontsize=size, fontfamily=families)
        if which == "x" and widest > room:
            text.set(rotation=90 if room < 2 * size else 45)
            if room >= 2 * size:
                text.set(ha="right", rotation_mode="anchor")
    return {script_of(character) for character in undrawn}


def colour_cells(ax: Axes, similarities: np.ndarray) -> None:
    """Fill axes with coloured cells, and say beside them what the colours mean."""
    image = ax.imshow(
        similarities, cmap=SIMILARITY_COLOURS, vmin=0, vmax=1, interpolation="nearest"
    )
    ax.set_aspect("auto")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax, label="cosine similarity", shrink=0.8, extend="min")
    bar.outline.set_visible(False)


def write_cell(
    ax: Axes, row: int, column: int, content: str, value: float, size: float
) -> set[str]:
    """Write into a cell, dark on light and light on dark; return the scripts that could not be."""
    colour = "black" if value > 0.55 else "white"
    text = ax.text(column, row, "", ha="center", va="center", color=colour, fontsize=size)
    # Inside the axes it needs no room, and to find out would take as long as to draw.
    text.set_in_layout(False)
    return write(text, content)


def admit(ax: Axes, undrawn: set[str]) -> None:
    """Say below a figure which scripts it could not write."""
    if undrawn:
        ax.figure.supxlabel(what_is_undrawn(undrawn), fontsize=9)


def what_is_undrawn(scripts: set[str]) -> str:
    """Name scripts that no font is there for, and what to do."""
    return f"No font here can draw {', '.join(sorted(scripts))}: install one such as Noto."
