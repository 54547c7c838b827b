"""The dashboard, which shows a model while it trains and reacts to clicks and typed text.

Training runs in the main thread of the notebook. The dashboard draws in other threads, from copies,
so it cannot change the results. Clicks and typed text reach a busy kernel only through subshells,
which some kernels lack. A hidden widget, the probe, tests whether clicks arrive.
"""

import time

import ipywidgets
import keras
from IPython.display import display

from elmolib.live.page import ModelInTraining, RunPage, let_subshells_answer
from elmolib.live.run_log import RunLog, print_transfer
from elmolib.live.throttle import Throttle

PROBE_SECONDS = 6.0  # if the probe does not answer within this time, clicks do not arrive

CANNOT_CLICK = (
    "This kernel cannot handle clicks while training. To stop, press the kernel's own stop button, "
    "the square in the toolbar above: the run is saved all the same, and running this cell again "
    "resumes it."
)


class Dashboard(keras.callbacks.Callback):
    """Show a run in JupyterLab while it trains, in one widget that is updated, a `RunPage`.

    The Stop button stops training after the current step and saves the run. It is disabled until
    the probe answers. In the list of callbacks, `log` must come before the dashboard.
    """

    def __init__(self, log: RunLog) -> None:
        super().__init__()
        self.log, self.training = log, log.training
        self._updating = Throttle()
        self.page = RunPage()
        # Display the page here. Later, Jupyter could drop the output because the cell has ended, or
        # put the output of a thread below another cell.
        display(self.page)

    def on_train_begin(self, logs: dict | None = None) -> None:
        print_transfer(self.training)
        self._started = time.monotonic()
        self._waits_for_click = True
        if self.page.children:
            display(self.page)
        self._model = ModelInTraining(self.training)
        self.page.fill(self._model, self.training.parameters, self._stop)
        # The probe is a counter: the kernel starts it, and the browser answers with a count.
        self._probe = ipywidgets.Play(max=10**6, interval=10**6, layout={"display": "none"})
        self._probe.observe(self._probe_answered, "value")
        self.page.children = (*self.page.children, self._probe)
        let_subshells_answer(self.page)
        self._redraw()
        self.page.wait()
        self.page.show(self.log.progress, "Starting: the first step takes some seconds.")

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self._updating.is_due():
            with self._updating.measure():
                self._model.copy_weights()
                self._show_progress()
        if self.log.scored_at != self._drawn_at and self.page.drawing.is_due():
            self._request_curve()
        if self.page.box.drawing.is_due():
            self.page.box.refresh()
        if self.training.step % self.training.steps_per_epoch == 0:
            self.page.show(self.log.progress, "End of the epoch: scoring the held-out text.")

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._redraw()
        self._show_progress()

    def on_train_end(self, logs: dict | None = None) -> None:
        self._waits_for_click = False
        left = self.training.last_step - self.training.step
        self.page.show(self.log.progress, f"saved as {self.training.weights_path}")
        self.page.show_advice("Run this cell again to resume." if left else "")
        self._redraw()
        self.page.wait()

    def _stop(self) -> None:
        self.training.bilm.stop_training = True

    def _probe_answered(self, _: dict) -> None:
        # An answer that arrives after training does not prove that clicks arrive during training.
        if self._waits_for_click:
            self._waits_for_click = self.page.stop.disabled = False
            self.page.show_advice("")

    def _show_progress(self) -> None:
        self.page.show(self.log.update())
        if self._waits_for_click:
            self._probe.playing = False
            self._probe.playing = True
            has_waited = time.monotonic() - self._started > PROBE_SECONDS
            self.page.show_advice(CANNOT_CLICK if has_waited else "")

    def _redraw(self) -> None:
        self._model.copy_weights()
        self.page.box.refresh()
        self._request_curve()

    def _request_curve(self) -> None:
        self._drawn_at = self.log.scored_at
        # Both tables are copies, because training continues while they are drawn.
        tables = self.training.history_frame(), self.log.frame()
        self.page.request_curve(*tables, self.log.progress)
