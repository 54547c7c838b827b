"""Show the progress of a run, in the process that trains it or in any other process."""

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from elmolib.backend import is_live_notebook
from elmolib.live.progress import LINE_SECONDS, LOOK_SECONDS, read_progress
from elmolib.settings.parameters import ReportSettings, project_root

if TYPE_CHECKING:
    import keras

    from elmolib.training.loop import Training


def progress_callbacks(training: "Training") -> "list[keras.callbacks.Callback]":
    """Return the Keras callbacks that write the log and show it according to the key `progress`."""
    from elmolib.live.run_log import EpochLine, RunLog

    log = RunLog(training)
    if training.parameters.progress == "none":
        return [log]
    if shows_dashboard(training.parameters):
        from elmolib.live.dashboard import Dashboard

        return [log, Dashboard(log)]
    return [log, EpochLine(log)]


def shows_dashboard(settings: ReportSettings) -> bool:
    """Whether a run with these settings shows a dashboard instead of printing lines."""
    return settings.progress == "auto" and is_live_notebook()


def watch(run_dir: str | Path) -> None:
    """Show a run that trains in another process.

    In a notebook, this shows the dashboard of the run. The dashboard stays current while other
    cells run, until the next call of `watch`. Its heatmap uses the latest checkpoint. Outside a
    notebook, this prints a line per minute until the run ends. Ctrl-C does not stop the run. The
    folder `run_dir` is first looked up in the working directory, then in the project root. If no
    run has begun in this folder, raise a TrainingError.
    """
    folder = Path(run_dir).expanduser()
    if not folder.is_dir():
        folder = project_root() / folder
    progress = read_progress(folder)
    if not is_live_notebook():
        print(progress, flush=True)
        while progress.is_running:
            shown = time.monotonic()
            while progress.is_running and time.monotonic() - shown < LINE_SECONDS:
                time.sleep(LOOK_SECONDS)
                progress = read_progress(folder)
            print(progress, flush=True)
        return
    from IPython.display import display

    from elmolib.live.page import Watcher

    watcher = Watcher(folder)
    display(watcher.page)
    threading.Thread(target=watcher.keep_current, daemon=True).start()
