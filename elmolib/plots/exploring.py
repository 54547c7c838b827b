"""Pictures of the vectors of words in their sentences."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elmolib.plots.figure import MARKERS, Picture, new_axes, show_message, style
from elmolib.plots.fonts import missing_fonts, note_missing_fonts, shortened, write
from elmolib.plots.heatmaps import layer_name

if TYPE_CHECKING:
    from elmolib.explore.occurrences import Occurrences, SelfSimilarity, Senses


@style()
def occurrence_maps(found: "Occurrences", senses: "Senses") -> Figure:
    """Draw the results of `elmolib.explore.occurrences.occurrences` and `senses`.

    A panel shows one layer: each occurrence of the word is a point of `Occurrences.maps`. The
    legend shows the most typical occurrence of each group.
    """
    maps = found.maps()
    figure = Picture(4.4 * len(maps), 4.4 + 0.3 * len(senses.examples))
    for number, ax in enumerate(figure.subplots(1, len(maps), squeeze=False)[0]):
        ax.set(title=layer_name(number), xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="lightgrey")
        for group in range(len(senses.examples)):
            points = maps[number][senses.labels == group]
            marker = MARKERS[group % len(MARKERS)]
            ax.scatter(*points.T, s=36, marker=marker, alpha=0.75, linewidths=0)
        if np.abs(maps[number]).max() < 1e-5:
            ax.set(xlim=(-1, 1), ylim=(-1, 1))
            ax.set_xlabel(f"all {len(found.positions):,} occurrences are one point")
        else:
            ax.set_aspect("equal", adjustable="datalim")
    examples = [found.snippet(example) for example in senses.examples]
    empty = [" "] * len(examples)
    legend = figure.legend(ax.collections, empty, loc="outside lower left", frameon=False)
    legend.set_alignment("left")
    sizes = np.bincount(senses.labels)
    for text, size, example in zip(legend.get_texts(), sizes, examples, strict=True):
        write(text, f"{size:,} like \u201c{example}\u201d")
    # Put the message above the legend: below the figure, it would cover the legend.
    if message := missing_fonts(examples):
        legend.set_title(message, prop={"size": 9})
    return figure


@style()
def self_similarity(measured: "SelfSimilarity", ax: Axes | None = None) -> Figure:
    """Draw `elmolib.explore.occurrences.self_similarity`, as in arXiv:1909.00512, figure 2."""
    ax = ax or new_axes(8.0, 5.0)
    values = measured.table.to_numpy()
    if not len(values):
        return show_message(ax, "There are no words to compare.")
    top, ends = values.shape[1] - 1, values[:, -1]
    lines = ax.plot(range(top + 1), values.T, marker="o", markersize=5)
    ax.set(xlim=(-0.1, top + 0.1), ylabel="cosine between occurrences, above random words")
    ax.set_ylim(min(0.0, values.min()) - 0.04, max(1.0, values.max()) + 0.04)
    words = list(map(str, measured.table.index))
    for word, line, end, height in zip(words, lines, ends, _spread(ends, 0.05), strict=True):
        arrow = {"arrowstyle": "-", "color": line.get_color()}
        look = {"va": "center", "annotation_clip": False, "arrowprops": arrow}
        write(ax.annotate("", (top, end), (top + 0.12, height), **look), shortened(word))
    ax.axhline(0, color="grey", linewidth=1, linestyle="--")
    names = [layer_name(layer).replace(": no", ":\nno") for layer in range(top + 1)]
    ticks = zip(names, measured.baseline, strict=True)
    ax.set_xticks(range(top + 1), [f"{name}\nrandom words: {value:.2f}" for name, value in ticks])
    return note_missing_fonts(ax.get_figure(root=True), words)


def _spread(values: np.ndarray, least: float) -> np.ndarray:
    """Move values apart a little, until neighbouring values differ by about `least` or more."""
    order = np.argsort(values, kind="stable")
    spread = values[order].astype(float)
    for _ in range(100):
        push = np.maximum(least - np.diff(spread), 0) / 2
        spread[:-1] -= push
        spread[1:] += push
    return spread[np.argsort(order)]
