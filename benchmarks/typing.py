"""Measure the delay from the last key to the heatmap, in JupyterLab and Chromium on two cores.

    python -m benchmarks.typing

The last word of a sentence of 15 words is typed at the speed of a fast typist. The result is the
time from the last key to the picture of the whole sentence, in four cases: with the model of the
package, in JupyterLab and on the page `docs/browser.md`, which needs no Python; with the tiny model
while it trains, and with the tiny model after training has stopped.
The measurement needs the extra `browser`, the programs chromium and npm, and about five minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks import machine
from benchmarks.jupyterlab import JupyterLab, chromium
from benchmarks.program import N_THREADS, ROOT

BEGINNING = "the bank by the old river was closed when she came to ask for "
MILLISECONDS_PER_KEY = 120
TIMEOUT = 180_000  # milliseconds

TRAINING = f"""
from elmolib import Parameters, Training, prepare_corpus
from elmolib.live.dashboard import Dashboard
from elmolib.live.run_log import RunLog

file = {str(ROOT / "params" / "tiny.yaml")!r}
params = Parameters.from_yaml(file, run_dir="run", epochs=1000, progress="none")
training = Training(params, prepare_corpus(params))
log = RunLog(training)
training.run([log, Dashboard(log)])
"""

EXPLORING = """
from elmolib import ElmoEmbedder
from elmolib.live.widgets import SentenceBox

SentenceBox(ElmoEmbedder.from_pretrained("en-tiny"))
"""

# Tooltips contain the words of the picture, so this script waits for the tooltip of the new word.
WAIT = """word => new Promise(found => {
    let pressed = 0;
    const keep = event => { pressed = event.timeStamp; };
    document.addEventListener("keydown", keep, true);
    const look = () => {
        const cell = document.querySelector(`.elmolib-picture [data-value^="${word} · ${word} "]`);
        if (!cell) return requestAnimationFrame(look);
        document.removeEventListener("keydown", keep, true);
        found(performance.now() - pressed);
    };
    look();
})"""


def main() -> int:
    """Measure the four cases and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", "--times", type=int, default=20, help="sentences typed in each case")
    parser.add_argument(
        "--cores",
        type=int,
        nargs="+",
        help="numbers of the two cores to use (default: the first two)",
    )
    given = parser.parse_args()
    machine.pin(N_THREADS, given.cores)
    with tempfile.TemporaryDirectory() as folder:
        measure_page(Path(folder), given.times)
    with (
        tempfile.TemporaryDirectory() as folder,
        lab(Path(folder)) as open_notebook,
    ):
        page = open_notebook("exploring")
        report("en-tiny", typed(page, given.times))
        page.close()
        page = open_notebook("training")
        # The button is enabled when the kernel can react to clicks during training.
        page.wait_for_selector(".elmolib-stop:enabled")
        page.wait_for_function("document.querySelector('.elmolib-status').textContent.match(/tok/)")
        report("tiny model, while it trains", typed(page, given.times))
        page.click(".elmolib-stop")
        page.wait_for_selector(".elmolib-status >> text=Stopped")
        report("tiny model", typed(page, given.times))
    return 0


def measure_page(folder: Path, n: int) -> None:
    """Build the site in a folder, and measure its page in the browser."""
    with site(folder) as address, chromium() as browser:
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(TIMEOUT)
        page.goto(f"{address}/browser/")
        page.wait_for_selector(".elmolib-picture table")
        report("en-tiny, without Python", typed(page, n))


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """Build the documentation in a folder, and serve it; yields its URL."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    subprocess.run(command, cwd=ROOT, check=True)
    handler = partial(_QuietHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _QuietHandler(SimpleHTTPRequestHandler):
    """Handler that prints nothing."""

    def log_message(self, *_: object) -> None:
        pass


def typed(page: Any, n: int) -> np.ndarray:
    """Type the last word of `n` sentences; return milliseconds from the last key to the picture."""
    box = page.locator(".elmolib-sentence textarea")
    found = []
    # The first two pictures are slower and do not count.
    for number in range(n + 2):
        box.fill(BEGINNING)
        time.sleep(1.0)
        word = "money" + "abcdefghijklmnopqrstuvwxyz"[number % 26] * (1 + number // 26)
        page.evaluate(f"void (window.answer = ({WAIT})({word!r}))")
        box.press_sequentially(word, delay=MILLISECONDS_PER_KEY)
        found.append(page.evaluate("window.answer"))
    return np.array(found[2:])


def report(case: str, milliseconds: np.ndarray) -> None:
    """Print the results of one case."""
    median, most = np.quantile(milliseconds, [0.5, 0.9])
    print(
        f"{case}: median {median:.0f} ms, 90th percentile {most:.0f} ms, "
        f"longest {milliseconds.max():.0f} ms, in {len(milliseconds)} sentences",
        flush=True,
    )


@contextmanager
def lab(folder: Path) -> Iterator[Any]:
    """Start JupyterLab and a browser; yields a function that opens a notebook and runs it."""
    for name, source in (("training", TRAINING), ("exploring", EXPLORING)):
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        notebook = new_notebook(cells=[new_code_cell(source)], metadata={"kernelspec": kernel})
        nbformat.write(notebook, folder / f"{name}.ipynb")
    server = JupyterLab(folder)
    try:
        with chromium() as browser:

            def open_notebook(name: str) -> Any:
                page = browser.new_page(viewport={"width": 1600, "height": 1000})
                page.set_default_timeout(TIMEOUT)
                page.goto(server.address(f"{name}.ipynb"))
                page.wait_for_selector(".jp-Spinner", state="detached")
                page.wait_for_selector("text=/\\| Idle/")
                page.get_by_role("menuitem", name="Run", exact=True).click()
                page.click('li[data-command="runmenu:run-all"]')
                page.wait_for_selector(".elmolib-picture")
                return page

            yield open_notebook
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
