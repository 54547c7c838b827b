"""A page that shows a model while it learns, and answers questions about it meanwhile.

Training stays in the notebook's main thread and nothing here can change a number of it: the page
draws in threads of its own, from copies. Clicks and keys reach a busy kernel through its subshells;
whether they do is found out by calling out to the page and listening for an echo.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from statistics import median
from threading import Lock
from typing import TYPE_CHECKING, NoReturn

import ipywidgets
import keras
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes

from elmolib import plots
from elmolib.elmo import ElmoEmbedder
from elmolib.errors import WeightsError
from elmolib.plots.figure import new_axes
from elmolib.progress import heldout_text, progress_line
from elmolib.scoring import unigram_perplexity
from elmolib.weights import StoredModel
from elmolib.widgets import Latest, SentenceBox

if TYPE_CHECKING:
    from elmolib.training import Training

REDRAW_SECONDS = 1.0
"""The least time between two pictures of the same thing."""

SHARE = 0.02
"""Most of the time that may go into pictures and copies, so that they never slow training much."""

MOST_POINTS = 100
"""Points of a line within the epochs, or up to twice as many: few enough not to hide each other."""

DEAF_SECONDS = 6.0
"""A page without an echo for so long is taken not to reach the busy kernel."""

DEAF = (
    "This kernel hears no clicks and keys while it trains. To stop, press the kernel's own stop "
    "button, the square in the bar above: the run is saved all the same, and running this cell "
    "again goes on. The heatmap is drawn anew after every epoch."
)


class Pace:
    """Say when something may be done again: now and then, and never for more than its share.

    Args:
        seconds: the least time between two beginnings.
        share: the most of all time that it may keep a processor busy.
    """

    def __init__(self, seconds: float = REDRAW_SECONDS, share: float = SHARE) -> None:
        self._seconds = seconds
        self._share = share
        self._next = 0.0

    def is_due(self) -> bool:
        """Tell whether enough time has gone by."""
        return time.monotonic() >= self._next

    def hold(self) -> None:
        """Let nothing be due until what is due now was done."""
        self._next = math.inf

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Count the work of the block, which is done in this thread."""
        started, busy = time.monotonic(), time.thread_time()
        try:
            yield
        finally:
            cost = time.thread_time() - busy
            self._next = started + max(self._seconds, cost / self._share)


class ModelInTraining(ElmoEmbedder):
    """The model as it was a moment ago, for any thread to embed with.

    The thread that trains copies the weights between two steps; others work on the latest copy. So
    nobody sees half of a step, and training neither waits nor notices.

    Args:
        training: the run to look at.

    Attributes:
        step: the steps that the copy had been trained for.
    """

    def __init__(self, training: Training) -> None:
        self._training = training
        self._lock = Lock()
        self.copy_weights()
        self.step, arrays = self._copy
        self._take_over(
            StoredModel(
                training.bilm.options,
                dict(arrays),
                None,
                training.corpus.tokenizer,
                "the model in training",
            )
        )

    def copy_weights(self) -> None:
        """Copy what embedding needs; only for the thread that trains."""
        arrays = {
            name: np.asarray(variable.value).copy()
            for name, variable in self._training.bilm.named_variables().items()
            if not name.startswith("softmax/")
        }
        # One assignment, so that no other thread finds a step with another step's weights.
        self._copy = self._training.step, arrays

    def embed(
        self,
        sentences: str | Iterable[str | Sequence[str]],
        layers: str | int = "average",
        batch_size: int = 32,
        carry_state: bool = False,
        normalize: bool = False,
    ) -> np.ndarray | list[np.ndarray]:
        """Embed by the latest copy; see `ELMo.embed`."""
        with self._lock:
            self._use_latest_copy()
            return super().embed(sentences, layers, batch_size, carry_state, normalize)

    def heatmap(
        self,
        sentence: str | Sequence[str],
        layer: str | int = "top",
        other: str | Sequence[str] | None = None,
    ) -> Axes:
        """Draw a heatmap by the latest copy, and say of which step; see `ELMo.heatmap`."""
        axes = super().heatmap(sentence, layer, other)
        axes.set_title(f"{plots.layer_name(layer)}, after {self.step:,} steps")
        return axes

    def _use_latest_copy(self) -> None:
        step, arrays = self._copy
        if step == self.step:
            return
        variables = self._bilm.named_variables()
        for name, values in arrays.items():
            variables[name].assign(values)
        self._encoder.forget_words()
        self.step = step

    def _require_language_model(self) -> NoReturn:
        raise WeightsError(
            "The model in training is looked at without its softmax: predict with its weight file."
        )


class StepLosses:
    """The losses of all steps so far as a line of bounded length.

    Each point is the mean of equally many steps. When there are too many points, two become one.

    Args:
        steps: those done before the line begins; it is as smooth as if it had begun with them.
    """

    def __init__(self, steps: int = 0) -> None:
        self._points = np.empty((0, 3))
        self._steps_per_point = 1
        while steps >= 2 * MOST_POINTS * self._steps_per_point:
            self._steps_per_point *= 2
        self._sum, self._n = np.zeros(3), 0

    def add(self, epoch: float, forward: float, backward: float) -> None:
        """Take in one step.

        Args:
            epoch: passes over the text by the end of the step, with a fraction.
            forward, backward: mean losses in nats.
        """
        self._sum += (epoch, forward, backward)
        self._n += 1
        if self._n < self._steps_per_point:
            return
        self._points = np.vstack([self._points, self._sum / self._n])
        self._sum, self._n = np.zeros(3), 0
        if len(self._points) == 2 * MOST_POINTS:
            self._points = self._points.reshape(-1, 2, 3).mean(axis=1)
            self._steps_per_point *= 2

    def frame(self) -> pd.DataFrame:
        """Return the line as perplexities, for `plots.learning_curve`."""
        epochs, forward, backward = self._points.T
        return pd.DataFrame(
            {"epoch": epochs, "train_forward": np.exp(forward), "train_backward": np.exp(backward)}
        )


def epochs_in_view(done: float, planned: float) -> float:
    """Choose how far a picture's axis goes, so that neither room nor the end is out of sight.

    Args:
        done: epochs so far, with a fraction.
        planned: epochs of the whole run.

    Returns:
        one of 1, 2, 5, 10, 20, 50 and so on, but no more than planned.
    """
    round_numbers = (step * 10**power for power in range(9) for step in (1, 2, 5))
    return min(planned, next(number for number in round_numbers if number >= done))


class Dashboard(keras.callbacks.Callback):
    """Show a run in JupyterLab while it trains, in one place that redraws itself.

    There are perplexities, speed and time left; a box whose heatmap follows what is typed, by the
    weights of that moment, and is drawn anew after every epoch; and a button that ends training
    after the current step, with everything saved.

    Args:
        training: the run to show.

    Attributes:
        page: the widget that holds all others.
        stop: the button; it can be pressed once the page is known to reach the busy kernel.
        status: where training is, how fast it goes, and what is left.
        advice: how to stop a kernel that hears no clicks while it trains.
        bar: the share of all steps that is done.
        curve: the perplexities, as PNG.
        box: the sentence and its heatmap.

    Example:
        >>> training.run([Dashboard(training)])

        which `Training.run` does by itself in JupyterLab unless `progress` says otherwise.
    """

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training
        self.losses = StepLosses(training.step)
        self._seconds: deque[float] = deque(maxlen=50)
        self._telling, self._drawing, self._copying = Pace(), Pace(), Pace()
        self._latest = Latest(self._draw, pause=0)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Show the page."""
        training = self.training
        heldout = training.corpus.heldout
        self._unigram = unigram_perplexity(training.corpus) if heldout else None
        self._before = training.history_frame()
        self._model = ModelInTraining(training)
        self._begun = time.monotonic()
        self._last_step_at: float | None = None
        self._keep_lines()
        self._make_page()
        self._is_training = True
        display(self.page)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Take in one step, and redraw if it is time."""
        now = time.monotonic()
        # The first step is compiled, which says nothing of the speed of all others.
        if self._last_step_at is not None:
            self._seconds.append(now - self._last_step_at)
        self._last_step_at = now
        epoch = self.training.step / self.training.steps_per_epoch
        self.losses.add(epoch, logs["loss_forward"], logs["loss_backward"])
        if self._copying.is_due():
            with self._copying.spent():
                self._model.copy_weights()
        if self._telling.is_due():
            with self._telling.spent():
                self._show_progress()
        if self._drawing.is_due():
            self._drawing.hold()
            self._redraw()
        if self.training.step % self.training.steps_per_epoch == 0:
            self._say("The epoch is over: the held-out text is being scored.")

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Redraw everything, by the weights of the epoch's end."""
        self._redraw_all()
        self._show_progress()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Say where the weights are, and leave the page as it is by the last of them."""
        training = self.training
        self._is_training = False
        self.stop.disabled = True
        self.stop.description = "Stop"
        self.bar.value = training.step
        left = training.last_step - training.step
        done = f"Stopped with {left:,} steps to go" if left else "Finished"
        parts = f"{done}, after {training.step:,} steps", heldout_text(logs or {})
        self._say(" | ".join(filter(None, (*parts, f"saved as {training.weights_path}"))))
        self.advice.value = "Run this cell again to go on." if left else ""
        self._redraw_all()
        self._latest.wait()
        self.box.wait()

    def _make_page(self) -> None:
        training = self.training
        self.stop = ipywidgets.Button(
            description="Stop", icon="stop", disabled=True, layout={"width": "120px"}
        )
        self.stop.on_click(self._stop)
        self.status, self.advice = ipywidgets.HTML(), ipywidgets.HTML()
        self.bar = ipywidgets.IntProgress(
            training.step, 0, training.last_step, layout={"width": "auto"}
        )
        self.curve = ipywidgets.Image(format="png", layout={"width": "100%"})
        self.box = SentenceBox(
            self._model, training.parameters.sentence, folder=training.folder / "pictures"
        )
        # Set playing by the kernel, a player counts in the browser and tells the kernel: an echo.
        self._echo = ipywidgets.Play(max=10**6, interval=10**6, layout={"display": "none"})
        self._echo.observe(self._hear, "value")
        self._is_heard = False
        self._draw()
        self._say("Getting ready: the first step takes some seconds.")
        self.page = self._arranged()
        _let_subshells_hear(self.page)

    def _arranged(self) -> ipywidgets.VBox:
        head = ipywidgets.HBox([self.stop, self.status], layout={"flex_flow": "wrap"})
        # Side by side where there is room, else one below the other.
        pictures = ipywidgets.HBox(
            [ipywidgets.VBox([self.curve]), self.box], layout={"flex_flow": "row wrap"}
        )
        for picture in pictures.children:
            picture.layout.flex, picture.layout.max_width = "1 1 440px", "720px"
        page = ipywidgets.VBox([head, self.bar, self.advice, pictures, self._echo])
        page.add_class("elmolib-dashboard")
        for part in ("stop", "status", "advice", "curve"):
            getattr(self, part).add_class(f"elmolib-{part}")
        return page

    def _stop(self, _: ipywidgets.Button) -> None:
        self.training.bilm.stop_training = True
        self.stop.disabled = True
        self.stop.description = "Stopping"

    def _hear(self, _: dict) -> None:
        # What waited until the cell was over is no sign that clicks reach it.
        if self._is_training and not self._is_heard:
            self._is_heard = True
            self.stop.disabled = False
            self.advice.value = ""

    def _show_progress(self) -> None:
        training = self.training
        self.bar.value = training.step
        if self._seconds:
            self._say(progress_line(training, median(self._seconds)))
        if not self._is_heard:
            self._echo.playing = False
            self._echo.playing = True
            is_deaf = time.monotonic() - self._begun > DEAF_SECONDS
            self.advice.value = DEAF if is_deaf else ""

    def _say(self, text: str) -> None:
        self.status.value = escape(text)

    def _redraw_all(self) -> None:
        self._model.copy_weights()
        self.box.refresh()
        self._redraw()

    def _redraw(self) -> None:
        self._keep_lines()
        self._latest.ask()

    def _keep_lines(self) -> None:
        """Copy what is to be drawn, for training goes on meanwhile."""
        lines = [self._before, self.losses.frame()]
        steps = pd.concat([line for line in lines if len(line)] or lines)
        self._lines = self.training.history_frame(), steps

    def _draw(self) -> None:
        with self._drawing.spent():
            try:
                self.curve.value = plots.png(self._curve().figure)
            # What a thread raises is shown nowhere else.
            except Exception as error:
                self.advice.value = escape(str(error) or type(error).__name__)

    def _curve(self) -> Axes:
        history, steps = self._lines
        epochs = epochs_in_view(
            steps["epoch"].max() if len(steps) else 0,
            self.training.last_step / self.training.steps_per_epoch,
        )
        axes = new_axes(7.2, 5.4)
        return plots.learning_curve(history, self._unigram, axes, steps=steps, epochs=epochs)


def _let_subshells_hear(widget: ipywidgets.Widget) -> None:
    """Let clicks on a widget, and on all inside it, go to the subshell that the page sends them to.

    Since version 7.4, ipykernel sends them to the shell that has last written to the widget
    instead, which is the one that trains. A kernel without this route takes no notice.
    """
    widget.comm._reply_subshell_for = None
    for child in getattr(widget, "children", ()):
        _let_subshells_hear(child)
