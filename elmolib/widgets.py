"""Widgets for notebooks: each wires plain functions to what a person types and clicks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
from matplotlib.axes import Axes

from elmolib import plots
from elmolib.errors import ElmolibError

if TYPE_CHECKING:
    from elmolib.elmo import ELMo

PAUSE_SECONDS = 0.02
"""How long a person stops typing before the picture follows."""

MOST_WORDS = 300
"""Longer texts are drawn up to here: a picture has no room for more."""

MOST_CELLS = 3600
"""Up to so many cells tell their value; with more, each is too small to be pointed at."""


class Latest:
    """Do slow work in a thread of its own, for the latest request only.

    Requests that come while work is done, or shortly one after the other, end in one more run.
    Widgets share one thread for their callbacks, so none of them may be slow.

    Args:
        work: what to do; it finds out for itself what is wanted by now.
        pause: seconds without a request before work begins.
    """

    def __init__(self, work: Callable[[], None], pause: float = PAUSE_SECONDS) -> None:
        self._work = work
        self._pause = pause
        self._lock = Lock()
        self._thread: Thread | None = None
        self._wanted = False
        self._due = 0.0

    def ask(self) -> None:
        """Ask for a run; returns at once."""
        with self._lock:
            self._wanted = True
            self._due = time.monotonic() + self._pause
            if self._thread is None:
                self._thread = Thread(target=self._run, daemon=True)
                self._thread.start()

    def is_asked(self) -> bool:
        """Tell whether another run was asked for since the last one began."""
        return self._wanted

    def wait(self) -> None:
        """Wait until everything asked for so far is done."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                pause = self._due - time.monotonic()
                if pause <= 0:
                    self._wanted = False
            if pause > 0:
                time.sleep(pause)
            else:
                self._work()


class SentenceBox(ipywidgets.VBox):
    """A box to type a sentence into, and under it a heatmap; see `sentence_box`.

    Attributes:
        sentence: the text widget.
        other: the text widget of a second sentence; empty compares the first with itself.
        layer: the choice of layers.
        image: the picture, as PNG.
        cells: lies over the picture and tells the value of the cell under the mouse.
        save_buttons: one per form of a file.
        message: where a picture was saved, or what went wrong with the last sentence.
    """

    def __init__(
        self,
        embedder: ELMo,
        sentence: str = "",
        layer: int | str | None = None,
        other: str = "",
        folder: str | Path = ".",
    ) -> None:
        self.embedder = embedder
        self.folder = Path(folder)
        self.sentence = _text_box(sentence, "Type a sentence")
        self.other = _text_box(other, "and another to compare it with, or nothing")
        numbers = range(embedder.n_layers + 1)
        self.layer = ipywidgets.ToggleButtons(
            options=[*((f"layer {n}", n) for n in numbers), ("average", "average")],
            value=embedder.n_layers if layer is None else layer,
            style={"button_width": "auto"},
        )
        self.image = ipywidgets.Image(format="png", layout={"width": "100%", "grid_area": "one"})
        self.cells = ipywidgets.HTML(layout={"grid_area": "one", "margin": "0"})
        self.message = ipywidgets.HTML()
        for part in ("sentence", "other", "layer", "message", "image", "cells"):
            getattr(self, part).add_class(f"elmolib-{part}")
        self._savers = [Latest(partial(self._save, form), pause=0) for form in ("PNG", "SVG")]
        self.save_buttons = [
            _save_button(form, saver)
            for form, saver in zip(("PNG", "SVG"), self._savers, strict=True)
        ]
        # Two children in one area of a grid lie one above the other.
        self._picture = ipywidgets.GridBox(
            [self.image, self.cells], layout={"grid_template_areas": '"one"', "width": "100%"}
        )
        self._axes: Axes | None = None
        self._rendering = Lock()
        self._latest = Latest(lambda: self._draw(lambda: not self._latest.is_asked()))
        # A figure is full of cycles, so drawing many calls for the garbage collector, which would
        # need half a second each time to walk through all that TensorFlow has ever made.
        gc.freeze()
        # Drawn before the first message goes out, so that a notebook run headless stores it.
        self.render_now()
        for widget in (self.sentence, self.other, self.layer):
            widget.observe(self._ask, "value")
        choices = ipywidgets.HBox(
            [self.layer, *self.save_buttons],
            layout={"flex_flow": "wrap", "align_items": "center"},
        )
        super().__init__([self.sentence, self.other, choices, self.message, self._picture])

    def render_now(self) -> None:
        """Draw what stands in the box, and return when the picture is there."""
        self._draw(lambda: True)

    def _draw(self, is_wanted: Callable[[], bool]) -> None:
        with self._rendering:
            try:
                self._render(is_wanted)
            # What a thread raises is shown nowhere else.
            except Exception as error:
                self._say(str(error) or type(error).__name__)

    def refresh(self) -> None:
        """Draw the same sentence anew before long, because the model has changed."""
        self._latest.ask()

    def save(self, suffix: str) -> Path:
        """Write the picture into a new file in the box's folder.

        Args:
            suffix: `.png` or `.svg`.

        Returns:
            the file.

        Raises:
            ElmolibError: it cannot be written, or no picture has been drawn yet.
        """
        with self._rendering:
            if self._axes is None:
                raise ElmolibError("There is no picture to save yet.")
            path = _new_path(self.folder, suffix)
            plots.save(self._axes.figure, path)
        return path

    def wait(self) -> None:
        """Wait until the picture shows what was typed, and is saved if that was asked for."""
        for work in (self._latest, *self._savers):
            work.wait()

    def _render(self, is_wanted: Callable[[], bool]) -> None:
        words = self.embedder.words(self.sentence.value)
        others = self.embedder.words(self.other.value) or None
        rows, columns = words[:MOST_WORDS], others and others[:MOST_WORDS]
        axes = self.embedder.heatmap(rows, self.layer.value, columns)
        picture = plots.png_if_wanted(axes.figure, is_wanted)
        if picture is None:
            return
        # No larger than it is drawn, for letters to stay sharp, and smaller in a small window.
        self._picture.layout.max_width = f"{axes.figure.bbox.width:.0f}px"
        self.image.value = picture
        self.cells.value = value_cells(axes, rows, columns or rows)
        self._axes = axes
        longest = max(len(words), len(others or ()))
        self._say(f"Only the first {MOST_WORDS} words are drawn." if longest > MOST_WORDS else "")

    def _say(self, text: str) -> None:
        self.message.value = escape(text)

    def _ask(self, _: dict) -> None:
        self._latest.ask()

    def _save(self, form: str) -> None:
        try:
            self._say(f"Saved as {self.save(f'.{form.lower()}').absolute()}")
        except Exception as error:
            self._say(str(error) or type(error).__name__)


def sentence_box(
    embedder: ELMo,
    sentence: str = "The river bank was steep .",
    layer: int | str | None = None,
    other: str = "",
    folder: str | Path = ".",
) -> SentenceBox:
    """Make a box whose heatmap follows what is typed.

    A cell of the picture tells its value when the mouse is on it or it is clicked.

    Args:
        embedder: a trained `ELMo` or an `ElmoEmbedder`.
        sentence: what stands in the box at first.
        layer: the layer drawn at first: a number, or "average"; None for the top one.
        other: a second sentence, for the columns; empty for the same one again.
        folder: where the buttons save the picture.

    Returns:
        the widget, with its first picture; `render_now()` draws without waiting for a browser.

    Raises:
        ElmolibError: the embedder has no model yet.

    Example:
        >>> sentence_box(ElmoEmbedder("runs/tiny/elmo.h5"))
    """
    return SentenceBox(embedder, sentence, layer, other, folder)


def value_cells(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Make the HTML that lies over a heatmap and tells each cell's words and value.

    Args:
        axes: of a heatmap, drawn already, for only then is it known where its cells are.
        rows, columns: the words of the heatmap.

    Returns:
        cells for an area as large as the figure, whatever its size on the screen; without cells
        where there is no word, or more than `MOST_CELLS` of them.
    """
    if not 0 < len(rows) * len(columns) <= MOST_CELLS:
        return ""
    similarities = np.asarray(axes.images[0].get_array())
    place = axes.get_position()
    # What a cell tells begins or ends with it, so that it never sticks out of the picture.
    sides = ["left" if 2 * k + 1 < len(columns) else "right" for k in range(len(columns))]
    cells = "".join(
        f'<i tabindex="-1" class="{side}" '
        f'data-value="{escape(row)} · {escape(column)}  {value + 0.0:.2f}"></i>'
        for row, values in zip(rows, similarities.round(2), strict=True)
        for column, value, side in zip(columns, values, sides, strict=True)
    )
    return (
        f"<style>{_CELL_STYLE}</style>"
        f'<div role="group" aria-label="{escape(axes.get_title())}" style="left:{place.x0:.3%};'
        f"top:{1 - place.y1:.3%};width:{place.width:.3%};"
        f"height:{place.height:.3%};grid-template:repeat({len(rows)},1fr)/"
        f'repeat({len(columns)},1fr)">{cells}</div>'
    )


_CELL_STYLE = """
.elmolib-cells { position: relative; height: auto; }
.elmolib-cells .widget-html-content { position: absolute; inset: 0; }
.elmolib-cells .widget-html-content > div { position: absolute; display: grid; }
.elmolib-cells i { position: relative; font-style: normal; }
.elmolib-cells i:hover, .elmolib-cells i:focus { outline: 2px solid white; z-index: 1; }
.elmolib-cells i:hover::after, .elmolib-cells i:focus::after {
  content: attr(data-value); position: absolute; bottom: calc(100% + 4px); z-index: 2;
  width: max-content; max-width: 320px; white-space: pre-wrap; overflow-wrap: anywhere;
  padding: 2px 8px; border-radius: 3px; font-size: 13px; line-height: 1.5;
  color: white; background: #222; pointer-events: none;
}
.elmolib-cells i.left::after { left: 0; }
.elmolib-cells i.right::after { right: 0; }
"""


def _text_box(value: str, placeholder: str) -> ipywidgets.Text:
    return ipywidgets.Text(
        value,
        placeholder=placeholder,
        continuous_update=True,
        layout=ipywidgets.Layout(width="auto", max_width="720px"),
    )


def _save_button(form: str, saver: Latest) -> ipywidgets.Button:
    button = ipywidgets.Button(
        description=f"Save {form}", icon="download", layout={"width": "auto"}
    )
    button.add_class("elmolib-save")
    button.on_click(lambda _: saver.ask())
    return button


def _new_path(folder: Path, suffix: str) -> Path:
    """Name the next picture of a folder, for none to be written over."""
    paths = (folder / f"similarities_{number}{suffix}" for number in count(1))
    return next(path for path in paths if not path.exists())
