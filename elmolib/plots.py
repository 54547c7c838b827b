"""Pictures as plain functions: data in, Axes or Figure out.

Nothing here touches pyplot's hidden current figure, so any thread may draw. Figures show
themselves as the last expression of a notebook's cell: `heatmap(...).figure`.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from elmolib.errors import ElmolibError
from elmolib.files import replacing

if TYPE_CHECKING:
    import pandas as pd

    from elmolib.neighbours import Neighbour

sns.set_theme(
    context="notebook",
    style="ticks",
    palette="colorblind",
    rc={"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 100},
)

FORWARD_COLOUR, BACKWARD_COLOUR, MEAN_COLOUR = sns.color_palette("colorblind")[:3]

# Readable without colour vision and in grey: its lightness rises evenly.
SIMILARITY_COLOURS = "viridis"

LONGEST_LABEL = 16
"""Columns of a word that a heatmap shows; of a longer word it shows the beginning."""

SMALLEST_FONT, LARGEST_FONT = 7.0, 12.0
"""Points."""

MOST_ANNOTATED = 12
"""Up to so many words, a heatmap has room for the numbers too."""

BOX = "\N{WHITE SQUARE}"
"""Stands for a character that no font can draw."""


class Picture(Figure):
    """A figure that notebooks can show without pyplot."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """Draw a figure as the bytes of a PNG file.

    Args:
        figure: any figure.
    """
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    with io.BytesIO() as file:
        # `savefig` would draw twice.
        canvas.print_png(file)
        return file.getvalue()


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure to a file, whole or not at all.

    Args:
        figure: any figure.
        path: ends in `.png` or `.svg`; replaced if it exists.

    Raises:
        ElmolibError: the path ends in something else, or cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".svg"):
        raise ElmolibError(f"{path} must end in .png or .svg, the two forms of a picture.")
    try:
        with replacing(path) as unfinished:
            figure.savefig(unfinished, format=suffix[1:], dpi=150)
    except OSError as error:
        raise ElmolibError(f"{path} cannot be written: {error.strerror}.") from None


def cosine_similarities(vectors: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Compare every vector with every other.

    Args:
        vectors: float array (n, features).
        others: float array (m, features), or None for `vectors` themselves.

    Returns:
        float array (n, m), from -1 to 1; 0 where a vector is zero.

    Example:
        >>> cosine_similarities(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]))
        array([[1., 1., 0.],
               [1., 1., 0.],
               [0., 0., 1.]])
    """
    rows, columns = (
        _unit_length(part) for part in (vectors, vectors if others is None else others)
    )
    return np.clip(rows @ columns.T, -1.0, 1.0)


def _unit_length(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def layer_name(layer: int | str) -> str:
    """Call a layer what the title of a picture calls it."""
    names = {"average": "average of all layers", "top": "top layer", 0: "layer 0: no context"}
    return names.get(layer, f"layer {layer}")


# --- Heatmaps


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
        ax = _axes(7.2 * scale, 6.4 * scale)
    if title:
        _text_of(ax.set_title(""), title)
    if not len(words) or not len(other_words):
        return _note(ax, "There are no words to compare.")
    similarities = cosine_similarities(vectors, other_vectors)
    _colour(ax, similarities)
    undrawn = _label(ax, other_words, "x") | _label(ax, words, "y")
    if max(similarities.shape) <= MOST_ANNOTATED:
        size = 11 if len(other_words) <= 8 else 9
        for (row, column), value in np.ndenumerate(similarities):
            # Adding zero makes a minus zero a plain one.
            _write_cell(ax, row, column, f"{round(value, 2) + 0.0:.2f}", value, size)
    _admit(ax, undrawn)
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


def _label(ax: Axes, words: Sequence[str], which: str) -> set[str]:
    """Write words along an axis, as large as fits, and return the scripts that could not be."""
    inches = ax.get_window_extent().size[0 if which == "x" else 1] / ax.figure.dpi
    room = 72 * inches / len(words)
    size = float(np.clip(room * 0.8, SMALLEST_FONT, LARGEST_FONT))
    every = max(1, round(SMALLEST_FONT * 1.1 / room))
    places = range(0, len(words), every)
    labels = [_short(words[place]) for place in places]
    families, undrawn = _families("".join(labels))
    labels = [_drawable(label, families) for label in labels]
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_ticks(places, labels)
    widest = max(map(_columns, labels)) * size * 0.62
    for text in axis.get_ticklabels():
        text.set(parse_math=False, fontsize=size, fontfamily=families)
        if which == "x" and widest > room:
            text.set(rotation=90 if room < 2 * size else 45)
            if room >= 2 * size:
                text.set(ha="right", rotation_mode="anchor")
    return {_script(character) for character in undrawn}


def _colour(ax: Axes, similarities: np.ndarray) -> None:
    image = ax.imshow(
        similarities, cmap=SIMILARITY_COLOURS, vmin=0, vmax=1, interpolation="nearest"
    )
    ax.set_aspect("auto")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = ax.figure.colorbar(image, ax=ax, label="cosine similarity", shrink=0.8, extend="min")
    bar.outline.set_visible(False)


def _write_cell(
    ax: Axes, row: int, column: int, content: str, value: float, size: float
) -> set[str]:
    """Write into a cell, dark on light and light on dark; return the scripts that could not be."""
    colour = "black" if value > 0.55 else "white"
    text = ax.text(column, row, "", ha="center", va="center", color=colour, fontsize=size)
    # Inside the axes it needs no room, and to find out would take as long as to draw.
    text.set_in_layout(False)
    return _text_of(text, content)


def _admit(ax: Axes, undrawn: set[str]) -> None:
    if undrawn:
        ax.figure.supxlabel(
            f"No font here can draw {', '.join(sorted(undrawn))}: install one such as Noto.",
            fontsize=9,
        )


def _note(ax: Axes, text: str) -> Axes:
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    return ax


# --- Words of any script


def _text_of(text: Text, content: str) -> set[str]:
    """Write any words into a text of a figure; return the scripts that could not be."""
    families, undrawn = _families(content)
    # Dollar signs are only dollar signs.
    text.set(text=_drawable(content, families), parse_math=False, fontfamily=families)
    return {_script(character) for character in undrawn}


def _short(word: str) -> str:
    columns = 0
    for end, character in enumerate(word):
        columns += _columns(character)
        if columns > LONGEST_LABEL:
            return word[:end] + "\N{HORIZONTAL ELLIPSIS}"
    return word


def _columns(text: str) -> int:
    """How wide a text is, Chinese characters counting twice and marks above letters nothing."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _drawable(text: str, families: Sequence[str]) -> str:
    """Put boxes for what no font can draw; left as it is, each would raise a warning."""
    drawn = frozenset().union(*map(_characters_of, families))
    return "".join(
        character if ord(character) in drawn else "" if _is_invisible(character) else BOX
        for character in text
    )


def _families(text: str) -> tuple[list[str], set[str]]:
    """Choose fonts that together can draw a text.

    Returns:
        names of font families, the usual one first, and the characters that none can draw.
    """
    families = [_usual_family()]
    missing = {
        c for c in text if not _is_invisible(c) and ord(c) not in _characters_of(families[0])
    }
    for family in _other_families() if missing else ():
        found = {c for c in missing if ord(c) in _characters_of(family)}
        if found:
            families.append(family)
            missing -= found
        if not missing:
            break
    return families, missing


def _is_invisible(character: str) -> bool:
    # Joiners, variation selectors and control characters have no shape of their own.
    return unicodedata.category(character) in ("Cf", "Cc", "Mn")


def _script(character: str) -> str:
    """Name a character's script by the first word of its Unicode name, as in CJK or THAI."""
    if unicodedata.category(character)[0] in "SC":
        return "symbols"
    return unicodedata.name(character).split(" ")[0]


@lru_cache(maxsize=1)
def _usual_family() -> str:
    return get_font(findfont(FontProperties())).family_name


@lru_cache(maxsize=1)
def _other_families() -> tuple[str, ...]:
    """All families that might help out, those made for many scripts first."""
    # Last Resort draws the name of the script in place of every character there is.
    names = {font.name for font in _upright_fonts() if not font.name.startswith("Last Resort")}
    return tuple(sorted(names, key=lambda name: ("Noto Sans" not in name, "CJK" in name, name)))


@lru_cache(maxsize=4096)
def _characters_of(family: str) -> frozenset[int]:
    path = next(font.fname for font in _upright_fonts() if font.name == family)
    return frozenset(get_font(path).get_charmap())


def _upright_fonts() -> list[FontEntry]:
    return [f for f in fontManager.ttflist if f.style == "normal" and f.weight in ("normal", 400)]


# --- A text and its words


def sentence_lengths(lengths: Iterable[int], ax: Axes | None = None) -> Axes:
    """Draw how many sentences have how many words.

    Args:
        lengths: words of each sentence.
        ax: where to draw; None for a new figure.
    """
    ax = _histogram(lengths, None, ax)
    ax.set(xlabel="words in a sentence", ylabel="sentences")
    return ax


def word_lengths(
    lengths: Iterable[int],
    counts: Iterable[int] | None = None,
    max_characters: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how many words have how many bytes.

    Args:
        lengths: bytes of each word in UTF-8.
        counts: how often each word occurs; None for once.
        max_characters: bytes of a word that the model reads, its two marks included, to be marked.
        ax: where to draw; None for a new figure.
    """
    ax = _histogram(lengths, counts, ax)
    ax.set(xlabel="bytes in a word", ylabel="running words" if counts is not None else "words")
    if max_characters is not None and max_characters - 2 <= ax.get_xlim()[1]:
        ax.axvline(max_characters - 2 + 0.5, color="black", linestyle=":", label="cut here")
        ax.legend()
    return ax


def zipf(counts: Iterable[int], ax: Axes | None = None) -> Axes:
    """Draw words' frequencies by rank, both logarithmic, beside Zipf's law.

    Args:
        counts: how often each word occurs, in any order.
        ax: where to draw; None for a new figure.

    References:
        Zipf 1949: the frequency of the word of rank r is about proportional to 1 / r.
    """
    ax = ax or _axes()
    frequencies = _sorted_counts(counts)
    if not len(frequencies):
        return _note(ax, "There are no words to count.")
    ranks = np.arange(1, len(frequencies) + 1)
    # Millions of points would say no more than these.
    shown = np.unique(np.geomspace(1, len(ranks), 500).astype(np.int64)) - 1
    ax.loglog(ranks[shown], frequencies[shown], label="this text")
    middle = len(ranks[shown]) // 3
    constant = frequencies[shown][middle] * ranks[shown][middle]
    ax.loglog(
        ranks[shown],
        constant / ranks[shown],
        color="grey",
        linestyle=":",
        label="Zipf's law: 1 / rank",
    )
    ax.set(xlabel="rank of the word", ylabel="times it occurs", ylim=(0.7, None))
    ax.legend()
    return ax


def coverage(
    counts: Iterable[int], vocabulary_size: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw what share of the running text the most frequent words make up.

    Args:
        counts: how often each word occurs, in any order.
        vocabulary_size: words of the vocabulary, to be marked.
        ax: where to draw; None for a new figure.
    """
    ax = ax or _axes()
    frequencies = _sorted_counts(counts)
    if not len(frequencies):
        return _note(ax, "There are no words to count.")
    shares = np.cumsum(frequencies) / frequencies.sum()
    shown = np.unique(np.geomspace(1, len(shares), 500).astype(np.int64))
    ax.semilogx(shown, shares[shown - 1])
    if vocabulary_size is not None:
        size = min(max(vocabulary_size, 1), len(shares))
        ax.axvline(size, color="black", linestyle=":")
        ax.plot(size, shares[size - 1], "o", color="black")
        ax.annotate(
            f"{vocabulary_size:,} words cover {shares[size - 1]:.1%}",
            (size, 0.04),
            xytext=(-8, 0),
            textcoords="offset points",
            ha="right",
        )
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set(xlabel="most frequent words", ylabel="share of the running text", ylim=(0, 1.02))
    return ax


def _histogram(lengths: Iterable[int], weights: Iterable[int] | None, ax: Axes | None) -> Axes:
    ax = ax or _axes()
    values = _integers(lengths)
    if not len(values):
        return _note(ax, "There is nothing to count.")
    counts = np.bincount(values, None if weights is None else _integers(weights))
    cumulated = np.cumsum(counts)
    median = int(np.searchsorted(cumulated, cumulated[-1] / 2))
    # A few very long ones would squeeze all others into a corner.
    last = int(np.searchsorted(cumulated, 0.995 * cumulated[-1]))
    ax.bar(np.arange(last + 1), counts[: last + 1], width=1.0, linewidth=0)
    ax.axvline(median, color="black", linestyle="--", label=f"median {median}")
    longest = int(values.max())
    if longest > last:
        ax.plot([], [], " ", label=f"longest {longest:,}, not shown")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlim(-0.5, last + 0.5)
    ax.legend()
    return ax


def _sorted_counts(counts: Iterable[int]) -> np.ndarray:
    values = _integers(counts)
    return np.sort(values[values > 0])[::-1]


def _integers(values: Iterable[int]) -> np.ndarray:
    return np.asarray(values if isinstance(values, np.ndarray) else list(values), np.int64)


# --- Training


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
    ax = ax or _axes()
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
        return _note(ax, "No epoch is over yet.")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="perplexity")
    ax.legend()
    return ax


def _axes(width: float = 7.2, height: float = 4.2) -> Axes:
    return Picture(figsize=(width, height), layout="constrained").add_subplot()


# --- Reports


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
        ax = _axes(*size)
    if not n_columns:
        return _note(ax, "There are no neighbours to show.")
    similarities = np.full((len(words), n_columns), np.nan)
    for row, nearest in enumerate(found):
        similarities[row, : len(nearest)] = [neighbour.similarity for neighbour in nearest]
    _colour(ax, similarities)
    undrawn = _label(ax, words, "y")
    for row, nearest in enumerate(found):
        for column, neighbour in enumerate(nearest):
            content = f"{_short(neighbour.word)}  {neighbour.similarity:.2f}"
            undrawn |= _write_cell(ax, row, column, content, neighbour.similarity, 10)
    ax.set_xticks(range(n_columns), [f"nearest {column + 1}" for column in range(n_columns)])
    ax.xaxis.tick_top()
    _admit(ax, undrawn)
    return ax


def loss_by_frequency(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how well words are predicted by how often they stood in the training text.

    Args:
        table: as `elmolib.evaluation.loss_by_frequency` returns it.
        ax: where to draw; None for a new figure.
    """
    ax = ax or _axes()
    if not len(table):
        return _note(ax, "There are no targets to score.")
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
    ax = ax or _axes(5.0, 3.6)
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
