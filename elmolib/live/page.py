"""The widget that shows a training run in JupyterLab, in the training kernel or in another one."""

import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets
import pandas as pd
from comm import get_comm_manager
from comm.base_comm import BaseComm

from elmolib import plots
from elmolib.embedder import ElmoEmbedder
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.numpy_runtime import NumpyRuntime
from elmolib.errors import ElmolibError
from elmolib.formats.weights import StoredModel
from elmolib.live.progress import LOOK_SECONDS, Progress, read_progress, read_steps, request_stop
from elmolib.live.throttle import Throttle
from elmolib.live.widgets import LatestOnly, SentenceBox
from elmolib.plots.figure import new_axes
from elmolib.scoring.runs import read_history
from elmolib.settings.parameters import Parameters, ReportSettings
from elmolib.settings.run_folder import PARAMETERS, PICTURES
from elmolib.text.tokenizer import Tokenizer
from elmolib.training.checkpoint import Checkpoints, read_layers

if TYPE_CHECKING:
    from elmolib.training.loop import Training


def visible_epochs(done: float, planned: float) -> float:
    """Return the end of the epoch axis: `done` rounded up to 1, 2, 5, ...; at most `planned`."""
    round_numbers = (step * 10**power for power in range(9) for step in (1, 2, 5))
    return min(planned, next(number for number in round_numbers if number >= done))


class RunPage(ipywidgets.VBox):
    """The page of a run: perplexities, speed, time left, a sentence box and a Stop button.

    The page is empty until `fill` is called, so it can be displayed before the model exists.
    """

    def fill(self, model: "ModelInTraining", settings: ReportSettings, stop: Callable) -> None:
        """Make and show the widgets. The heatmap shows `model`; the Stop button calls `stop`."""
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
        # The box is beside the curve in a wide window, and below the curve in a narrow window.
        sides = [ipywidgets.VBox([self.curve]), self.box]
        for side in sides:
            side.layout.flex, side.layout.max_width = "1 1 440px", "720px"
        pictures = ipywidgets.HBox(sides, layout={"flex_flow": "row wrap"})
        self.children = [head, self.bar, pictures]
        self.add_class("elmolib-dashboard")
        for part in ("stop", "status", "advice", "curve"):
            getattr(self, part).add_class(f"elmolib-{part}")

    def show(self, progress: Progress, more: str = "") -> None:
        self.bar.max, self.bar.value = progress.last_step, progress.step
        self.status.value = escape(" | ".join(filter(None, (str(progress), more))))
        if progress.state != "running":
            self.stop.disabled, self.stop.description = True, "Stop"

    def show_advice(self, text: str) -> None:
        self.advice.value = escape(text)

    def request_curve(self, history: pd.DataFrame, steps: pd.DataFrame, progress: Progress) -> None:
        """Request a new learning curve; `plots.learning_curve` describes the two tables."""
        self.lines = history, steps, progress
        self.latest_curve.request()

    def wait(self) -> None:
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


class ModelInTraining(ElmoEmbedder):
    """A copy of the model after `step` steps. One other thread draws heatmaps with it.

    The training thread copies the weights between two steps, so a drawing never uses half-updated
    weights, and training never waits for it.
    """

    def __init__(self, training: "Training") -> None:
        self._training = training
        self.copy_weights()
        self.step, arrays = self._copy
        self._load(training.stored_model(dict(arrays)), "numpy")

    def copy_weights(self) -> None:
        """Copy the weights; only the training thread may call this."""
        weights = self._training.bilm.arrays(softmax=False)
        arrays = {name: values.copy() for name, values in weights.items()}
        # Assign both at once, so that another thread never gets the step of a different copy.
        self._copy = self._training.step, arrays

    def embed(self, *args: Any, **kwargs: Any) -> Any:
        step, arrays = self._copy
        if step != self.step:
            self._encoder = SentenceEncoder(NumpyRuntime(self._encoder.architecture, arrays))
            self.step = step
        return super().embed(*args, **kwargs)

    def heatmap_title(self, layer: str | int) -> str:
        return f"{super().heatmap_title(layer)}, after {self.step:,} steps"


class ModelOnDisk(ModelInTraining):
    """The latest checkpoint of a run that another process trains."""

    def __init__(self, parameters: Parameters) -> None:
        self._checkpoints = Checkpoints(parameters.run_path, keep=1)
        self._path: Path | None = None
        self.read_latest()
        self.step, arrays = self._copy
        rules = {name: getattr(parameters, name) for name in Tokenizer.model_fields}
        tokenizer, architecture = Tokenizer(**rules), parameters.architecture
        self._load(StoredModel(architecture, dict(arrays), tokenizer=tokenizer), "numpy")

    def read_latest(self) -> bool:
        """Read the latest checkpoint; return whether it is new."""
        path, before = self._checkpoints.latest(), self._path
        if path != before and path is not None:
            self._copy, self._path = read_layers(path), path
        return self._path != before


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
    """A widget's channel to the browser that gives a message to the subshell that it names.

    ipykernel 7.4 gives it to the shell that last wrote to the widget, which is busy with training.
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
