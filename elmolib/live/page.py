"""The widget that shows a training run in JupyterLab, in the training kernel or in another one."""

import time
from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets
import pandas as pd
from comm import get_comm_manager
from comm.base_comm import BaseComm

from elmolib import plots
from elmolib.errors import ElmolibError
from elmolib.live.model_in_training import ModelInTraining, ModelOnDisk
from elmolib.live.progress import LOOK_SECONDS, Progress, read_progress, read_steps, request_stop
from elmolib.live.throttle import Throttle
from elmolib.live.widgets import LatestOnly, SentenceBox
from elmolib.plots.figure import new_axes
from elmolib.scoring.runs import read_history
from elmolib.settings.parameters import Parameters, ReportSettings
from elmolib.settings.run_folder import PARAMETERS, PICTURES


def visible_epochs(done: float, planned: float) -> float:
    """Return the end of the epoch axis: `done` rounded up to 1, 2, 5, ...; at most `planned`."""
    round_numbers = (step * 10**power for power in range(9) for step in (1, 2, 5))
    return min(planned, next(number for number in round_numbers if number >= done))


class RunPage(ipywidgets.VBox):
    """The page of a run: perplexities, speed, time left, a sentence box and a Stop button.

    The page is empty until `fill` is called, so it can be displayed before the model exists.
    """

    def fill(
        self, model: ModelInTraining, settings: ReportSettings, stop: Callable[[], object]
    ) -> None:
        """Make and show the widgets `stop`, `status`, `advice`, `bar`, `curve` and `box`.

        Args:
            model: the model that the heatmap shows.
            settings: the settings of the run. The page uses the folder and the sentence in them.
            stop: the function that the Stop button calls. The button is disabled at first.
        """
        self.stop = ipywidgets.Button(description="Stop", icon="stop", disabled=True)
        self.stop.on_click(lambda _: self._stop(stop))
        self.status, self.advice = ipywidgets.HTML(), ipywidgets.HTML()
        self.bar = ipywidgets.IntProgress(layout={"width": "auto"})
        self.curve = ipywidgets.Image(format="png", layout={"width": "100%", "margin": "0"})
        self.box = SentenceBox(model, settings.sentence, folder=settings.run_path / PICTURES)
        self.drawing = Throttle()
        self.latest_curve = LatestOnly(self._draw_curve, self.show_advice)
        # With a minimum height, text of another length does not move the widgets below it.
        layout = {"flex": "1 1 320px", "min_height": "112px"}
        lines = ipywidgets.VBox([self.status, self.advice], layout=layout)
        head = ipywidgets.HBox([self.stop, lines], layout={"flex_flow": "wrap"})
        sides = [ipywidgets.VBox([self.curve]), self.box]
        for side in sides:
            side.layout.flex, side.layout.max_width = "1 1 440px", "720px"
        # The box is beside the curve in a wide window, and below the curve in a narrow window.
        pictures = ipywidgets.HBox(sides, layout={"flex_flow": "row wrap"})
        self.children = [head, self.bar, pictures]
        self.add_class("elmolib-dashboard")
        for part in ("stop", "status", "advice", "curve"):
            getattr(self, part).add_class(f"elmolib-{part}")

    def show(self, progress: Progress, more: str = "") -> None:
        """Show the progress of the run, followed by the text `more`."""
        self.bar.max, self.bar.value = progress.last_step, progress.step
        self.status.value = escape(" | ".join(filter(None, (str(progress), more))))
        if progress.state != "running":
            self.stop.disabled, self.stop.description = True, "Stop"

    def show_advice(self, text: str) -> None:
        """Show a line of text below the status."""
        self.advice.value = escape(text)

    def request_curve(self, history: pd.DataFrame, steps: pd.DataFrame, progress: Progress) -> None:
        """Request a new learning curve; `plots.learning_curve` describes the two tables."""
        self.lines = history, steps, progress
        self.latest_curve.request()

    def wait(self) -> None:
        """Wait until the pictures are drawn."""
        self.latest_curve.wait()
        self.box.wait()

    def _stop(self, stop: Callable[[], object]) -> None:
        self.stop.disabled, self.stop.description = True, "Stopping"
        stop()

    def _draw_curve(self, _: Callable[[], bool]) -> None:
        with self.drawing.measure():
            history, steps, p = self.lines
            epochs = visible_epochs(p.step / p.steps_per_epoch, p.last_step / p.steps_per_epoch)
            ax = new_axes(7.2, 5.4)
            curve = plots.learning_curve(history, p.unigram, ax, steps=steps, epochs=epochs)
            self.curve.value = plots.png(curve)


class Watcher:
    """Read the files in the folder of a run, and show the run on the widget `page`."""

    _latest: "Watcher | None" = None  # the only watcher that still updates its page

    def __init__(self, folder: Path) -> None:
        self.folder, self.page = folder, RunPage()
        # The folder may have been moved since the run began.
        parameters = Parameters.from_yaml(folder / PARAMETERS, run_dir=str(folder.absolute()))
        self._model = ModelOnDisk(parameters)
        self._shown: Progress | None = None
        self.page.fill(self._model, parameters, lambda: request_stop(folder))
        Watcher._latest = self
        self.update()

    def keep_current(self) -> None:
        """Update the page regularly, until a newer watcher exists."""
        while Watcher._latest is self:
            time.sleep(LOOK_SECONDS)
            try:
                self.update()
            except ElmolibError as error:
                self.page.show_advice(str(error))

    def update(self) -> None:
        """Read the files of the run and show what has changed."""
        progress, page = read_progress(self.folder), self.page
        page.show(progress)
        if page.stop.description != "Stopping":
            page.stop.disabled = not progress.is_running
        resumes = not progress.is_running and progress.state != "finished"
        page.show_advice("Start the training again to resume it." if resumes else "")
        if progress == self._shown:
            return
        self._shown = progress
        page.request_curve(read_history(self.folder), read_steps(self.folder), progress)
        if self._model.read_latest():
            page.box.refresh()


class _DirectComm(BaseComm):
    """A widget's channel to the browser (comm) that gives each message to the correct subshell.

    ipykernel 7.4 gives a message to the shell that last wrote to the widget. This shell is busy
    with training. A comm of this class gives a message to the subshell that the message names.
    """

    def __init__(self, comm: BaseComm) -> None:
        self._comm = comm
        super().__init__(comm.target_name, comm_id=comm.comm_id, primary=False)

    def publish_msg(self, *args, **kwargs) -> None:
        self._comm.publish_msg(*args, **kwargs)


def let_subshells_answer(widget: ipywidgets.Widget) -> None:
    """Let subshells handle the clicks on a widget and on all widgets in it."""
    widget.comm = _DirectComm(widget.comm)
    get_comm_manager().register_comm(widget.comm)
    for child in getattr(widget, "children", ()):
        let_subshells_answer(child)
