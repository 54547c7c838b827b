"""Widgets for notebooks: each wires plain functions to what a person types and clicks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from threading import Lock, Thread
from typing import TYPE_CHECKING

import ipywidgets

from elmolib import plots

if TYPE_CHECKING:
    from elmolib.elmo import ELMo

PAUSE_SECONDS = 0.1
"""How long a person stops typing before the picture follows."""

MOST_WORDS = 300
"""Longer texts are drawn up to here: a picture has no room for more."""


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
        layer: the choice of layers.
        image: the picture, as PNG.
        message: what went wrong with the last sentence, if anything.
    """

    def __init__(self, embedder: ELMo, sentence: str = "", layer: int | str | None = None) -> None:
        self.embedder = embedder
        numbers = range(embedder.n_layers + 1)
        self.sentence = ipywidgets.Text(
            sentence,
            placeholder="Type a sentence",
            continuous_update=True,
            layout=ipywidgets.Layout(width="100%", max_width="720px"),
        )
        self.layer = ipywidgets.ToggleButtons(
            options=[*((f"layer {n}", n) for n in numbers), ("average", "average")],
            value=embedder.n_layers if layer is None else layer,
            style={"button_width": "auto"},
        )
        self.message = ipywidgets.Label()
        # A picture of steady width and proportions keeps the page from jumping.
        self.image = ipywidgets.Image(
            format="png", layout=ipywidgets.Layout(width="720px", max_width="100%")
        )
        for part in ("sentence", "layer", "message", "image"):
            getattr(self, part).add_class(f"elmolib-{part}")
        # A figure is full of cycles, so drawing many calls for the garbage collector, which would
        # need half a second each time to walk through all that TensorFlow has ever made.
        gc.freeze()
        self._rendering = Lock()
        self._latest = Latest(self.render_now)
        # Drawn before the first message goes out, so that a notebook run headless stores it.
        self.render_now()
        self.sentence.observe(self._ask, "value")
        self.layer.observe(self._ask, "value")
        super().__init__([self.sentence, self.layer, self.message, self.image])

    def render_now(self) -> None:
        """Draw the sentence that stands in the box, and return when the picture is there."""
        with self._rendering:
            try:
                words = self.embedder.words(self.sentence.value)
                axes = self.embedder.heatmap(words[:MOST_WORDS], self.layer.value)
                self.image.value = plots.png(axes.figure)
                too_many = f"Only the first {MOST_WORDS} words are drawn."
                self.message.value = too_many if len(words) > MOST_WORDS else ""
            # What a thread raises is shown nowhere else.
            except Exception as error:
                self.message.value = str(error) or type(error).__name__

    def wait(self) -> None:
        """Wait until the picture shows what was typed."""
        self._latest.wait()

    def _ask(self, _: dict) -> None:
        self._latest.ask()


def sentence_box(
    embedder: ELMo,
    sentence: str = "The river bank was steep .",
    layer: int | str | None = None,
) -> SentenceBox:
    """Make a box whose heatmap follows what is typed.

    Args:
        embedder: a trained `ELMo` or an `ElmoEmbedder`.
        sentence: what stands in the box at first.
        layer: the layer drawn at first: a number, or "average"; None for the top one.

    Returns:
        the widget, with its first picture; `render_now()` draws without waiting for a browser.

    Raises:
        ElmolibError: the embedder has no model yet.

    Example:
        >>> sentence_box(ElmoEmbedder("runs/tiny/elmo.h5"))
    """
    return SentenceBox(embedder, sentence, layer)
