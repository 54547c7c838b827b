"""Measure how soon the heatmap follows the last key, in JupyterLab and Chromium on two cores.

    python -m benchmarks.typing

A sentence of 15 words is typed to its end, as fast as a fast typist types. The clock starts with
the last key and stops when the page holds the picture of the whole sentence: with the model of the
package, with the tiny model while it trains, and when it has stopped. It needs the extra `browser`,
the program chromium, and some five minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_notebook

from benchmarks import machine
from benchmarks.jupyterlab import JupyterLab, chromium
from benchmarks.program import N_THREADS, ROOT

BEGINNING = "the bank by the old river was closed when she came to ask for "
MILLISECONDS_PER_KEY = 120
PATIENCE = 180_000  # milliseconds after which something has gone wrong

TRAINING = f"""
from elmolib import Parameters, Training, prepare_corpus
from elmolib.dashboard import Dashboard

file = {str(ROOT / "params" / "tiny.yaml")!r}
params = Parameters.from_yaml(file, run_dir="run", epochs=1000, progress="none")
training = Training(params, prepare_corpus(params))
training.run([Dashboard(training)])
"""

EXPLORING = """
from elmolib import ElmoEmbedder
from elmolib.widgets import sentence_box

sentence_box(ElmoEmbedder.from_pretrained("en-tiny"))
"""

# The cells over the picture name its words, and are changed after it.
WAIT = """word => new Promise(found => {
    let pressed = 0;
    const keep = event => { pressed = event.timeStamp; };
    document.addEventListener("keydown", keep, true);
    const before = document.querySelector(".elmolib-image").src;
    const look = () => {
        const image = document.querySelector(".elmolib-image");
        const cell = document.querySelector(`.elmolib-cells [data-value^="${word} · ${word} "]`);
        const is_there = cell && image.src !== before && image.complete && image.naturalWidth > 0;
        if (!is_there) return requestAnimationFrame(look);
        document.removeEventListener("keydown", keep, true);
        found(performance.now() - pressed);
    };
    look();
})"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-n", "--times", type=int, default=20, help="sentences typed in each case")
    parser.add_argument("--cores", type=int, nargs="+", help="their numbers; the first two else")
    given = parser.parse_args()
    machine.pin(N_THREADS, given.cores)
    with (
        tempfile.TemporaryDirectory() as folder,
        lab(Path(folder)) as open_notebook,
    ):
        page = open_notebook("exploring")
        tell("en-tiny", typed(page, given.times))
        page.close()
        page = open_notebook("training")
        # Once the button can be pressed, the busy kernel hears the page.
        page.wait_for_selector(".elmolib-stop:enabled")
        page.wait_for_function("document.querySelector('.elmolib-status').textContent.match(/tok/)")
        tell("tiny model, while it trains", typed(page, given.times))
        page.click(".elmolib-stop")
        page.wait_for_selector(".elmolib-status >> text=Stopped")
        tell("tiny model", typed(page, given.times))
    return 0


def typed(page: Any, n: int) -> np.ndarray:
    """Type the end of a sentence again and again; milliseconds from the last key to its picture."""
    box = page.locator(".elmolib-sentence input")
    found = []
    # The first pictures are slower, and what a person does first is to look at them.
    for number in range(n + 2):
        box.fill(BEGINNING)
        time.sleep(1.0)
        word = "money" + "abcdefghijklmnopqrstuvwxyz"[number % 26] * (1 + number // 26)
        page.evaluate(f"void (window.answer = ({WAIT})({word!r}))")
        box.press_sequentially(word, delay=MILLISECONDS_PER_KEY)
        found.append(page.evaluate("window.answer"))
    return np.array(found[2:])


def tell(case: str, milliseconds: np.ndarray) -> None:
    """Print the figures of a case."""
    median, most = np.quantile(milliseconds, [0.5, 0.9])
    print(
        f"{case}: median {median:.0f} ms, 90th percentile {most:.0f} ms, "
        f"longest {milliseconds.max():.0f} ms, of {len(milliseconds)}",
        flush=True,
    )


@contextmanager
def lab(folder: Path) -> Iterator[Any]:
    """Start JupyterLab and a browser; gives what opens a notebook and runs it."""
    for name, source in (("training", TRAINING), ("exploring", EXPLORING)):
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        notebook = new_notebook(cells=[new_code_cell(source)], metadata={"kernelspec": kernel})
        nbformat.write(notebook, folder / f"{name}.ipynb")
    server = JupyterLab(folder)
    try:
        with chromium() as browser:

            def open_notebook(name: str) -> Any:
                page = browser.new_page(viewport={"width": 1600, "height": 1000})
                page.set_default_timeout(PATIENCE)
                page.goto(server.address(f"{name}.ipynb"))
                page.wait_for_selector(".jp-Spinner", state="detached")
                page.wait_for_selector("text=/\\| Idle/")
                page.get_by_role("menuitem", name="Run", exact=True).click()
                page.click('li[data-command="runmenu:run-all"]')
                page.wait_for_selector(".elmolib-image")
                return page

            yield open_notebook
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
