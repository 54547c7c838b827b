"""The sentence box: a notebook widget that draws a heatmap of the sentence that a person types."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

import ipywidgets

from elmolib import plots
from elmolib.embedder import ElmoEmbedder
from elmolib.embedding.cosine import cosine_similarities
from elmolib.errors import ElmolibError
from elmolib.live.heatmap_html import heatmap_html
from elmolib.live.throttle import Throttle

MAX_WORDS = 300  # the most words of a sentence that are drawn


class LatestOnly:
    """Do slow work in a separate thread, because all widgets share one thread for their callbacks.

    Of the requests that arrive while the thread works, only the latest is served. The argument of
    `work` is a function that returns False as soon as there is a newer request, so that `work` can
    stop early. If `work` raises an exception, `show_error` gets its message.
    """

    def __init__(self, work: Callable, show_error: Callable[[str], Any]) -> None:
        self._work, self._show_error = work, show_error
        self._latest = object()
        self._thread = ThreadPoolExecutor(max_workers=1)

    def request(self) -> None:
        """Request the work, and return at once."""
        request = self._latest = object()

        def is_wanted() -> bool:
            return self._latest is request

        self.then(lambda: is_wanted() and self._work(is_wanted))

    def then(self, function: Callable[[], Any]) -> None:
        """Call a function in the thread that does the work, after the work requested so far."""
        self._thread.submit(self._guard, function)

    def wait(self) -> None:
        self._thread.submit(lambda: None).result()

    def _guard(self, function: Callable[[], Any]) -> None:
        try:
            function()
        except Exception as error:
            self._show_error(str(error) or type(error).__name__)


class SentenceBox(ipywidgets.VBox):
    """A text box with a heatmap of the sentence that is typed.

    Pointing at a cell of the heatmap or clicking it shows a tooltip with its words and value. A
    person changes the widgets `sentence`, `layer` and `other`, the sentence of the columns. If
    `other` is empty, it is the same sentence. The buttons save the picture in `folder`. If the
    embedder has no model yet, an ElmolibError is raised.
    """

    def __init__(
        self,
        embedder: ElmoEmbedder,
        sentence: str = "The river bank was steep .",
        folder: str | Path = ".",
    ) -> None:
        self.embedder, self.folder = embedder, Path(folder)
        look = {"rows": 1, "layout": {"width": "auto", "max_width": "720px"}}
        self.sentence = ipywidgets.Textarea(sentence, placeholder="Type a sentence", **look)
        hint = "A second sentence to compare with (optional)"
        self.other = ipywidgets.Textarea(placeholder=hint, **look)
        top = embedder.n_layers
        options = [*((f"layer {n}", n) for n in range(top + 1)), ("average", "average")]
        self.layer = ipywidgets.ToggleButtons(options=options, style={"button_width": "auto"})
        self.layer.value = top
        self.picture = ipywidgets.HTML(layout={"max_width": "720px"})
        self.message = ipywidgets.HTML(layout={"min_height": "28px"})
        for part in ("sentence", "other", "layer", "message", "picture"):
            getattr(self, part).add_class(f"elmolib-{part}")
        self.save_buttons = []
        for suffix in (".png", ".svg"):
            look = {"description": f"Save {suffix[1:].upper()}", "icon": "download"}
            button = ipywidgets.Button(**look, layout={"width": "auto"})
            button.add_class("elmolib-save")
            button.on_click(partial(self._save_later, suffix))
            self.save_buttons.append(button)
        self._drawn: tuple[Any, ...] = ()  # the arguments of `plots.heatmap`
        self.drawing = Throttle(0.005)
        self._latest = LatestOnly(self._draw, self._show)
        # Draw at once, so that the picture is also in a notebook that is run without a browser.
        self.refresh()
        self.wait()
        for widget in (self.sentence, self.other, self.layer):
            widget.observe(lambda _: self.refresh(), "value")
        layout = {"flex_flow": "wrap", "align_items": "center"}
        controls = ipywidgets.HBox([self.layer, *self.save_buttons], layout=layout)
        super().__init__([self.sentence, self.other, controls, self.message, self.picture])

    def refresh(self) -> None:
        """Request a new picture after a change of the text or of the model."""
        self._latest.request()

    def wait(self) -> None:
        self._latest.wait()

    def save(self, suffix: str) -> Path:
        """Save the picture in `folder` as a new file, `.png` or `.svg`, and return its path.

        If it cannot be written, or if nothing has been drawn yet, raise an ElmolibError.
        """
        if not self._drawn:
            raise ElmolibError("There is no picture to save yet: wait until it is drawn.")
        paths = (self.folder / f"similarities_{number}{suffix}" for number in count(1))
        path = next(path for path in paths if not path.exists())
        *shown, title = self._drawn
        plots.save(plots.heatmap(*shown, title=title), path)
        return path

    def _draw(self, is_wanted: Callable[[], bool]) -> None:
        with self.drawing.measure():
            words = self.embedder.words(self.sentence.value)
            others = self.embedder.words(self.other.value) or words
            rows, columns, layer = words[:MAX_WORDS], others[:MAX_WORDS], self.layer.value
            vectors = self.embedder.embed([rows] if rows == columns else [rows, columns], layer)
            if not is_wanted():
                return
            title = self.embedder.heatmap_title(layer)
            similarities = cosine_similarities(vectors[0], vectors[-1])
            # A box that is too wide to fit beside a curve moves below it, where there is more room.
            self.layout.min_width = f"min(100%, {110 + 14 * len(columns)}px)"
            self.picture.value = heatmap_html(rows, columns, similarities, title)
            self._drawn = rows, vectors[0], columns, vectors[-1], title
            is_cut = max(len(words), len(others)) > MAX_WORDS
            self._show(f"Only the first {MAX_WORDS} words are drawn." if is_cut else "")

    def _save_later(self, suffix: str, _: ipywidgets.Button) -> None:
        self._latest.then(lambda: self._show(f"Saved as {self.save(suffix).absolute()}"))

    def _show(self, text: str) -> None:
        self.message.value = escape(text)
