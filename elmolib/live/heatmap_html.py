"""A heatmap as HTML. The browser draws the words, so words in any script are readable."""

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from unicodedata import east_asian_width

import matplotlib
import numpy as np
from matplotlib import colors, image

from elmolib.plots.fonts import shortened
from elmolib.plots.heatmaps import MOST_ANNOTATED, SIMILARITY_COLOURS

MAX_TOOLTIPS = 3600  # with more cells, each cell is too small to point at
MOST_LABELLED = 60  # with more words, only some of them have a label


def heatmap_html(
    rows: Sequence[str], columns: Sequence[str], similarities: np.ndarray, title: str
) -> str:
    """Return a heatmap as HTML that fits any width, with each cell's words and value as a tooltip.

    `similarities` are cosines, float `(n_rows, n_columns)`.
    """
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
    title, place = escape(title), f"--most:{most};--step:{step};--columns:{len(columns)}"
    return (
        f'{_STYLE}<div class="elmolib-heatmap" style="{place};--rows:{len(rows)}">'
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
    colours = matplotlib.colormaps[SIMILARITY_COLOURS](similarities.clip(0, 1), bytes=True)
    with io.BytesIO() as file:
        image.imsave(file, colours, format="png", origin="upper")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


_COLOURS = ",".join(
    map(colors.to_hex, matplotlib.colormaps[SIMILARITY_COLOURS](np.linspace(0, 1, 9)))
)
_STYLE = f"""<style>
.elmolib-picture {{ margin: 0; }}
.elmolib-picture, .elmolib-picture > .widget-html-content {{ width: 100%; height: auto; }}
.elmolib-heatmap {{ container-type: inline-size; line-height: 1.15; max-width: 720px; }}
.elmolib-heatmap p {{ display: flex; justify-content: space-between; gap: 8px; margin: 4px; }}
.elmolib-heatmap u {{ display: inline-block; width: 80px; height: 10px;
  background: linear-gradient(to right, {_COLOURS}); }}
.elmolib-heatmap > div {{ --cell: calc(76cqw / var(--most)); display: grid; gap: 3px;
  grid-template-columns: fit-content(24%) minmax(0, 1fr);
  --row: clamp(12px / var(--step), var(--cell), 48px); }}
.elmolib-heatmap .columns, .elmolib-heatmap .rows, .elmolib-heatmap .cells {{ display: grid; }}
.elmolib-heatmap .columns, .elmolib-heatmap .cells {{
  grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); }}
.elmolib-heatmap .rows, .elmolib-heatmap .cells {{
  grid-template-rows: repeat(var(--rows), var(--row)); }}
.elmolib-heatmap span {{ white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }}
.elmolib-heatmap .rows span {{ text-align: end; align-self: center; line-height: 1;
  font-size: clamp(8px, var(--row) * var(--step) * .85, 13px); }}
.elmolib-heatmap .columns span {{ align-self: end; text-align: center; font-size: 13px; }}
.elmolib-heatmap .columns.upright span {{ writing-mode: vertical-rl; text-align: end;
  justify-self: center; line-height: 1; overflow: visible;
  font-size: clamp(8px, 76cqw / var(--columns) * var(--step) * .85, 13px); }}
.elmolib-heatmap .cells {{ background-size: 100% 100%; image-rendering: pixelated; }}
.elmolib-heatmap i {{ position: relative; display: grid; place-content: center; color: black;
  font-style: normal; font-size: clamp(7px, 76cqw / var(--columns) * .3, 12px); }}
.elmolib-heatmap i.dark {{ color: white; }}
.elmolib-heatmap i:hover, .elmolib-heatmap i:focus {{ outline: 2px solid white; z-index: 1; }}
.elmolib-heatmap i:hover::after, .elmolib-heatmap i:focus::after {{
  content: attr(data-value); position: absolute; bottom: calc(100% + 4px); z-index: 2;
  width: max-content; max-width: 320px; white-space: pre-wrap; overflow-wrap: anywhere;
  padding: 2px 8px; border-radius: 3px; font-size: 13px; line-height: 1.5;
  color: white; background: #222; pointer-events: none; }}
.elmolib-heatmap i.left::after {{ left: 0; }}
.elmolib-heatmap i.right::after {{ right: 0; }}
.elmolib-sentence textarea, .elmolib-other textarea {{ field-sizing: content; resize: none;
  font-family: inherit; }}
.elmolib-curve {{ aspect-ratio: 4 / 3; }}
.elmolib-status > div, .elmolib-advice > div {{ line-height: 1.5;
  font-variant-numeric: tabular-nums; }}
</style>"""
