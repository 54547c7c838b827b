"""What a model makes of words in their sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from elmolib.plots.figure import MARKERS, Picture, new_axes, note
from elmolib.plots.fonts import shortened, width_in_columns, write
from elmolib.plots.heatmaps import (
    admit,
    colour_cells,
    label_axis,
    layer_name,
    what_is_undrawn,
    write_cell,
)

if TYPE_CHECKING:
    from elmolib.neighbours import Nearest, Neighbour
    from elmolib.occurrences import Occurrences, SelfSimilarity, Senses
    from elmolib.prediction import Expected, Prediction

# Their lightness rises evenly, so they can be told apart in grey.
PROBABILITY_COLOURS = sns.color_palette("light:#01665e", as_cmap=True)

CONTEXT_COLUMNS = 42
"""Letters of a sentence that are shown on each side of a neighbour."""


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


def concordance(
    sentences: Sequence[str], found: Sequence[Nearest], *, width: float = 12.0
) -> Figure:
    """Set out a word's neighbours in context, each in its sentence, beside word2vec's.

    Args:
        sentences: those asked about, one for each of `found`.
        found: as `elmolib.neighbours.beside_word2vec` gives them.
        width: of the figure in inches.

    Returns:
        a new figure, one block per sentence: on the left word2vec's words, on the right the
        neighbours in context one below the other.

    References:
        Peters et al. 2018, arXiv:1802.05365, table 4.
    """
    n_lines = [max(len(nearest.in_context), len(nearest.word2vec), 1) for nearest in found]
    heights = [n + 2.2 for n in n_lines] or [2.0]
    figure = Picture(figsize=(width, 0.27 * sum(heights)), layout="constrained")
    blocks = figure.subplots(
        len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    if not len(found):
        note(blocks[0], "There are no words to look for.")
        return figure
    undrawn = set()
    for ax, sentence, nearest, height in zip(blocks, sentences, found, heights, strict=True):
        ax.set(xlim=(0, 1), ylim=(height - 0.6, -0.6))
        ax.set_axis_off()
        undrawn |= _concordance_block(ax, sentence, nearest)
    admit(blocks[-1], undrawn)
    return figure


def _concordance_block(ax: Axes, sentence: str, nearest: Nearest) -> set[str]:
    undrawn = _line(ax, 0.0, 0, f"{nearest.word}  in  \u201c{sentence}\u201d", size=13)
    _line(ax, 0.0, 1, "word2vec, in any sentence", color="dimgrey")
    _line(ax, 0.24, 1, "this model, in context", color="dimgrey")
    ax.axhline(0.5, color="lightgrey", linewidth=1)
    if not nearest.word2vec:
        _line(ax, 0.0, 2, "(too rare)", color="grey")
    for row, (word, similarity) in enumerate(nearest.word2vec, start=2):
        _line(ax, 0.0, row, f"{similarity:.2f}", color="grey")
        undrawn |= _line(ax, 0.045, row, shortened(word))
    for row, (word, similarity, words, position) in enumerate(nearest.in_context, start=2):
        _line(ax, 0.24, row, f"{similarity:.2f}", color="grey")
        before, after = _around(words, position)
        half = 0.0055 * width_in_columns(word) + 0.008
        undrawn |= _line(ax, 0.62 - half, row, before, ha="right")
        undrawn |= _line(ax, 0.62, row, word, ha="center", color="#b04000")
        undrawn |= _line(ax, 0.62 + half, row, after)
    return undrawn


def _line(ax: Axes, x: float, row: int, content: str, size: float = 11, **style) -> set[str]:
    """Write into a line of a block, from `x` on unless `style` says otherwise."""
    return write(ax.text(x, row, "", va="center", fontsize=size, clip_on=True, **style), content)


def _around(words: Sequence[str], position: int) -> tuple[str, str]:
    """The words before and after a position, as many as there is room for."""
    before, after = "", ""
    for word in reversed(words[:position]):
        if width_in_columns(before) + width_in_columns(word) >= CONTEXT_COLUMNS:
            before = f"\N{HORIZONTAL ELLIPSIS} {before}"
            break
        before = f"{word} {before}".strip()
    for word in words[position + 1 :]:
        if width_in_columns(after) + width_in_columns(word) >= CONTEXT_COLUMNS:
            after = f"{after} \N{HORIZONTAL ELLIPSIS}"
            break
        after = f"{after} {word}".strip()
    return before, after


def expected_words(prediction: Prediction, *, words_per_line: int = 8) -> Figure:
    """Draw what each direction expected at each word of a sentence, as strips of words.

    Args:
        prediction: as `ELMo.predict` gives it.
        words_per_line: of the sentence; a longer one goes on below.

    Returns:
        a new figure. Each line of the sentence has the forward direction's words above, those of
        the backward direction below, the most probable ones next to it. A frame stands around a
        word that was guessed right.
    """
    sentence = prediction.sentence
    starts = range(0, len(sentence), words_per_line)
    top_k = prediction.forward.probabilities.shape[1]
    columns = min(words_per_line, max(len(sentence), 1))
    figure = Picture(
        figsize=(2.2 + 1.45 * columns, 0.5 + max(len(starts), 1) * (0.42 * (2 * top_k + 1) + 0.3)),
        layout="constrained",
    )
    axes = figure.subplots(max(len(starts), 1), 1, squeeze=False)[:, 0]
    if not sentence:
        note(axes[0], "There are no words to expect.")
        return figure
    norm = PowerNorm(0.5, 0, 1)
    undrawn = set()
    for ax, start in zip(axes, starts, strict=True):
        places = range(start, min(start + words_per_line, len(sentence)))
        undrawn |= _strip(ax, prediction, places, columns, norm)
    bar = figure.colorbar(
        ScalarMappable(norm, PROBABILITY_COLOURS),
        ax=axes.tolist(),
        label="probability",
        pad=0.01,
        aspect=30,
    )
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    bar.outline.set_visible(False)
    admit(axes[-1], undrawn)
    return figure


def _strip(
    ax: Axes, prediction: Prediction, places: range, columns: int, norm: PowerNorm
) -> set[str]:
    """One line of a sentence between what the two directions expected."""
    top_k = prediction.forward.probabilities.shape[1]
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(2 * top_k + 0.5, -0.5))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xticks([])
    above = "from the words\nbefore \N{RIGHTWARDS ARROW}"
    below = "from the words\n\N{LEFTWARDS ARROW} after"
    ax.set_yticks([(top_k - 1) / 2, (3 * top_k + 1) / 2], [above, below])
    undrawn = set()
    for column, place in enumerate(places):
        word = prediction.sentence[place]
        text = ax.text(column, top_k, "", ha="center", va="center", fontsize=13)
        undrawn |= write(text, shortened(word))
        for rank in range(top_k):
            for expected, row in (
                (prediction.forward, top_k - 1 - rank),
                (prediction.backward, top_k + 1 + rank),
            ):
                undrawn |= _expected_cell(ax, expected, place, rank, column, row, word, norm)
    return undrawn


def _expected_cell(
    ax: Axes,
    expected: Expected,
    place: int,
    rank: int,
    column: int,
    row: int,
    stands: str,
    norm: PowerNorm,
) -> set[str]:
    word, probability = expected.words[place][rank], expected.probabilities[place, rank]
    is_right = word == stands
    ax.add_patch(
        Rectangle(
            (column - 0.47, row - 0.46),
            0.94,
            0.92,
            facecolor=PROBABILITY_COLOURS(norm(probability)),
            edgecolor="black" if is_right else "none",
            linewidth=2,
        )
    )
    colour = "black" if norm(probability) < 0.6 else "white"
    text = ax.text(column, row, "", ha="center", va="center", color=colour, fontsize=10)
    return write(text, f"{shortened(word)} {_percent(probability)}")


def _percent(probability: float) -> str:
    return "<1%" if probability < 0.005 else f"{probability:.0%}"


def occurrence_maps(found: Occurrences, senses: Senses) -> Figure:
    """Draw the places of one word as points in a plane, one panel per layer.

    Args:
        found: as `elmolib.occurrences.occurrences` gives them.
        senses: their groups, as `elmolib.occurrences.senses` gives them; each has its colour and
            shape, and the example nearest to its centre in the legend.

    Returns:
        a new figure. Points that are close have like vectors; the planes are those in which the
        vectors of each layer, scaled to the length 1, differ most.
    """
    from elmolib.occurrences import in_two_dimensions
    from elmolib.similarity import unit_length

    n_layers, n_places, _ = found.vectors.shape
    n_groups = len(senses.examples)
    figure = Picture(figsize=(4.4 * n_layers, 4.4 + 0.3 * n_groups), layout="constrained")
    for number, ax in enumerate(figure.subplots(1, n_layers, squeeze=False)[0]):
        ax.set(title=layer_name(number), xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color="lightgrey")
        points = in_two_dimensions(unit_length(found.vectors[number]))
        for group in range(n_groups):
            chosen = points[senses.labels == group]
            ax.scatter(
                *chosen.T, s=36, marker=MARKERS[group % len(MARKERS)], alpha=0.75, linewidths=0
            )
        if np.abs(points).max() < 1e-5:
            ax.set(xlim=(-1, 1), ylim=(-1, 1))
            ax.set_xlabel(f"all {n_places:,} places are one point")
        else:
            ax.set_aspect("equal", adjustable="datalim")
    _legend_of_groups(figure, found, senses)
    return figure


def _legend_of_groups(figure: Figure, found: Occurrences, senses: Senses) -> None:
    points = figure.axes[-1].collections
    legend = figure.legend(
        points, [" "] * len(points), loc="outside lower left", frameon=False, alignment="left"
    )
    sizes = np.bincount(senses.labels)
    undrawn = set()
    for text, size, example in zip(legend.get_texts(), sizes, senses.examples, strict=True):
        undrawn |= write(text, f"{size:,} like \u201c{found.snippet(example)}\u201d")
    # A text of its own below the figure would lie upon the legend.
    if undrawn:
        legend.set_title(what_is_undrawn(undrawn), prop={"size": 9})


def self_similarity(measured: SelfSimilarity, ax: Axes | None = None) -> Axes:
    """Draw how alike the vectors of each word are in all its sentences, by layer.

    Args:
        measured: as `elmolib.occurrences.self_similarity` gives it.
        ax: where to draw; None for a new figure.

    References:
        Ethayarajh 2019, arXiv:1909.00512, figure 2.
    """
    ax = ax or new_axes(8.0, 5.0)
    table = measured.table
    if not len(table):
        return note(ax, "There are no words to compare.")
    layers = range(table.shape[1])
    ax.plot(layers, table.to_numpy().T, marker="o", markersize=5)
    ends = table.iloc[:, -1].to_numpy()
    bottom, top = min(0.0, table.to_numpy().min()), max(1.0, table.to_numpy().max())
    ax.set(ylim=(bottom - 0.04, top + 0.04), xlim=(-0.1, len(layers) - 1 + 0.1))
    undrawn = set()
    for word, line, end, height in zip(
        table.index, ax.lines, ends, _spread(ends, 0.05), strict=True
    ):
        text = ax.annotate(
            "",
            (len(layers) - 1, end),
            xytext=(len(layers) - 0.88, height),
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": line.get_color()},
        )
        undrawn |= write(text, shortened(str(word)))
    ax.axhline(0, color="grey", linewidth=1, linestyle="--")
    names = [
        f"{layer_name(layer)}\nrandom words: {measured.baseline[layer]:.2f}".replace(": no", "\nno")
        for layer in layers
    ]
    ax.set_xticks(layers, names)
    ax.set(ylabel="cosine between places, above random words")
    admit(ax, undrawn)
    return ax


def _spread(values: np.ndarray, least: float) -> np.ndarray:
    """Move values apart until each two differ by about `least`, each as little as need be."""
    order = np.argsort(values, kind="stable")
    spread = values[order].astype(float)
    for _ in range(100):
        push = np.maximum(least - np.diff(spread), 0) / 2
        spread[:-1] -= push
        spread[1:] += push
    return spread[np.argsort(order)]
