"""A heatmap as HTML. The browser draws the words, so words in any script are readable."""

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from unicodedata import east_asian_width

import matplotlib
import numpy as np
from matplotlib import image
from matplotlib.colors import to_hex

from elmolib.plots.fonts import shortened
from elmolib.plots.heatmaps import MOST_ANNOTATED, SIMILARITY_COLOURS

_COLOURS = matplotlib.colormaps[SIMILARITY_COLOURS]
_STYLE = f"<style>\n{Path(__file__).with_name('heatmap.css').read_text(encoding='utf-8')}</style>"

MAX_TOOLTIPS = 3600  # with more cells, each cell is too small to point at
MOST_LABELLED = 60  # with more words, only some of them have a label


def heatmap_html(rows: list[str], columns: list[str], similarities: np.ndarray, title: str) -> str:
    """Return a heatmap of cosines, float `(n_rows, n_columns)`, as HTML that fits any width."""
    if not similarities.size:
        return f"{_STYLE}<p>There are no words to compare.</p>"
    values, most = np.round(similarities, 2) + 0.0, max(similarities.shape)
    step = math.ceil(most / MOST_LABELLED)
    cells = ""
    if similarities.size <= MAX_TOOLTIPS:
        # To stay in the picture, tooltips in its left half extend to the right, others to the left.
        sides = ["left" if 2 * k + 1 < len(columns) else "right" for k in range(len(columns))]
        cells = "".join(
            f'<i tabindex="-1" class="{side}{" dark" if value <= 0.55 else ""}" '
            f'data-value="{escape(row)} · {escape(column)}  {value:.2f}">'
            f"{f'{value:.2f}' if most <= MOST_ANNOTATED else ''}</i>"
            for row, line in zip(rows, values, strict=True)
            for column, value, side in zip(columns, line, sides, strict=True)
        )
    # A character of double width counts as two Latin letters.
    widths = (sum(1 + (east_asian_width(c) in "WF") for c in shortened(word)) for word in columns)
    wide = len(columns) * (1 + max(widths)) > 48
    title, colours = escape(title), ",".join(map(to_hex, _COLOURS(np.linspace(0, 1, 9))))
    sizes = f"--most:{most};--step:{step};--columns:{len(columns)};--rows:{len(rows)}"
    return (
        f'{_STYLE}<div class="elmolib-heatmap" style="{sizes};--colours:{colours}">'
        f"<p><b>{title}</b><small>cosine similarity &le; 0 <u></u> 1</small></p><div><s></s>"
        f'<div class="columns{" upright" if wide else ""}">{_labels(columns, step, "column")}</div>'
        f'<div class="rows">{_labels(rows, step, "row")}</div>'
        f'<div class="cells" role="group" aria-label="{title}" '
        f'style="background-image:url({_png(similarities)})">{cells}</div></div></div>'
    )


def _labels(words: Sequence[str], step: int, axis: str) -> str:
    return "".join(
        f'<span style="grid-{axis}:{place + 1}/span {min(step, len(words) - place)}" '
        f'title="{escape(words[place])}"><bdi>{escape(shortened(words[place]))}</bdi></span>'
        for place in range(0, len(words), step)
    )


def _png(similarities: np.ndarray) -> str:
    """Return the colours of the cells as the URL of a picture with one pixel per cell."""
    with io.BytesIO() as file:
        pixels = _COLOURS(similarities.clip(0, 1), bytes=True)
        image.imsave(file, pixels, format="png", origin="upper")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
