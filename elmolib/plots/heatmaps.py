"""Heatmaps of the similarities of words."""

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elmolib.embedding.cosine import cosine_similarities
from elmolib.plots.figure import Picture, new_axes, show_message, style
from elmolib.plots.fonts import drawable, families_for, note_missing_fonts, shortened, write

SIMILARITY_COLOURS = "viridis"  # readable in grey, because its lightness rises evenly
SMALLEST_FONT, LARGEST_FONT = 7.0, 12.0  # points
MOST_ANNOTATED = 12  # with more words than this, cells are too small for numbers


def layer_name(layer: int | str) -> str:
    names = {"average": "average of all layers", "top": "top layer", 0: "layer 0: no context"}
    return names.get(layer, f"layer {layer}")


@style()
def heatmap(
    words: Sequence[str],
    vectors: np.ndarray,
    other_words: Sequence[str] | None = None,
    other_vectors: np.ndarray | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the cosine similarities of the words of a sentence, or of two sentences.

    The rows are `words`, the columns `other_words` (default: `words`). Their vectors are float
    `(n_words, features)`. The lightest colour means 1, the darkest means 0 or less.
    """
    if other_words is None or other_vectors is None:
        other_words, other_vectors = words, vectors
    scale = _scale(max(len(words), len(other_words)))
    ax = ax or new_axes(7.2 * scale, 6.4 * scale)
    if title:
        # Without a fixed height, Matplotlib would measure all labels again to place the title.
        write(ax.set_title("", y=1.0), title)
    if not len(words) or not len(other_words):
        return show_message(ax, "There are no words to compare.")
    similarities = cosine_similarities(vectors, other_vectors)
    look = {"cmap": SIMILARITY_COLOURS, "xticklabels": False, "yticklabels": False}
    if max(similarities.shape) <= MOST_ANNOTATED:
        # Adding 0 turns -0.00 into 0.00.
        look |= {"annot": similarities.round(2) + 0.0, "fmt": ".2f"}
        look["annot_kws"] = {"fontsize": 11 if len(other_words) <= 8 else 9}
    look["cbar_kws"] = {"label": "cosine similarity", "shrink": 0.8, "extend": "min"}
    sns.heatmap(similarities, vmin=0, vmax=1, ax=ax, rasterized=True, **look)
    for text in ax.texts:
        text.set_in_layout(False)  # the text is inside the axes: the layout need not measure it
    ax.tick_params(length=0)
    label_axis(ax, other_words, "x")
    label_axis(ax, words, "y")
    return note_missing_fonts(ax.get_figure(root=True), [*words, *other_words, title or ""])


@style()
def layer_heatmaps(words: Sequence[str], layers: Sequence[np.ndarray]) -> Figure:
    """Draw a heatmap of each layer that `ELMo.get_elmo` returns, float `(n_words, features)`."""
    scale = _scale(len(words))
    figure = Picture(6.6 * scale * len(layers), 5.8 * scale)
    for number, ax in enumerate(figure.subplots(1, len(layers), squeeze=False)[0]):
        heatmap(words, layers[number], ax=ax, title=layer_name(number))
    return figure


def _scale(n_words: int) -> float:
    """Return the factor by which a heatmap is enlarged, so that many words stay readable."""
    return float(np.clip(n_words / 25, 1.0, 1.6))


def label_axis(ax: Axes, words: Sequence[str], which: str) -> None:
    """Label the axis "x" or "y" with words in the largest font that fits. Skip words if needed."""
    axis, extent = (ax.xaxis if which == "x" else ax.yaxis), ax.get_window_extent()
    room = 72 * (extent.width if which == "x" else extent.height) / ax.figure.dpi / len(words)
    size = float(np.clip(room * 0.8, SMALLEST_FONT, LARGEST_FONT))
    places = range(0, len(words), max(1, round(SMALLEST_FONT * 1.1 / room)))
    labels = [shortened(words[place]) for place in places]
    families, _ = families_for("".join(labels))
    middles = [place + 0.5 for place in places]
    axis.set_ticks(middles, [drawable(label, families) for label in labels])
    # Without fixed coordinates, Matplotlib would measure all labels to place the axis's own label.
    axis.set_label_coords(0, 0)
    # Chinese, Japanese and Korean characters are twice as wide as others.
    widest = 0.62 * size * max(sum(1 + (c >= "\u2e80") for c in label) for label in labels)
    for text in axis.get_ticklabels():
        text.set(parse_math=False, fontsize=size, fontfamily=families)
        if which == "x" and widest > room >= 2 * size:
            text.set(rotation=45, ha="right", rotation_mode="anchor")
        elif which == "x" and widest > room:
            text.set(rotation=90)
