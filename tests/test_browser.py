"""Use the notebooks in JupyterLab through a browser, as a person would.

Screenshots go into `build/screenshots`.
"""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from small_corpus import made_up_sentences, small_parameters

from benchmarks.jupyterlab import TIMEOUT, JupyterLab, chromium, until
from elmolib.live.progress import read_steps

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTHS = 800, 1024, 1440, 1920
LARGE, SMALL = {"width": 1600, "height": 1000}, {"width": 800, "height": 700}

SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
    # Load all cells, even those outside the window.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


# This script finds outputs, and parts of outputs, that are too small for their content.
SCROLLBARS = """() => [...document.querySelectorAll(
    ".jp-OutputArea-child, .jp-OutputArea-child *:not(textarea)")].filter(e => {
        const style = getComputedStyle(e), scrolls = ["auto", "scroll"];
        return scrolls.includes(style.overflowX) && e.scrollWidth > e.clientWidth
            || scrolls.includes(style.overflowY) && e.scrollHeight > e.clientHeight;
    }).map(e => `${e.className}: ${e.scrollWidth}x${e.scrollHeight} in ` +
        `${e.clientWidth}x${e.clientHeight}`)"""

# This script records the positions and heights of the dashboard's parts in every frame.
NOTE_PLACES = """() => {
    window.places = new Set();
    const note = () => {
        const top = document.querySelector(".elmolib-dashboard").getBoundingClientRect().top;
        window.places.add(["dashboard", "curve", "sentence", "picture"].map(name => {
            const place = document.querySelector(`.elmolib-${name}`).getBoundingClientRect();
            return [name, place.top - top, place.height].map(x => x.toFixed?.(0) ?? x).join(" ");
        }).join(", "));
        requestAnimationFrame(note);
    };
    note();
}"""


class Lab:
    """A separate JupyterLab with a copy of the notebooks, and a browser to use it."""

    def __init__(self, folder: Path, root: Path, browser: Any) -> None:
        self.folder = folder
        self.pictures = root / "build" / "screenshots"
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.browser = browser
        self._write_notebooks(root)
        self.server = JupyterLab(folder)
        for plugin, values in SETTINGS.items():
            self.set(plugin, values)

    def set(self, plugin: str, values: dict[str, object]) -> None:
        """Write the settings of a JupyterLab plugin, for pages opened from now on."""
        file = self.server.settings / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))

    def _write_notebooks(self, root: Path) -> None:
        """Copy the notebooks, with the parameters of a run that does not end by itself."""
        shutil.copytree(root / "notebooks", self.folder / "notebooks")
        (self.folder / "params").mkdir()
        (self.folder / "text.txt").write_text("\n".join(made_up_sentences(1500)) + "\n")
        changes = {"epochs": 10_000, "progress": "auto"}
        parameters = small_parameters(self.folder, run_dir="runs/small", text="text.txt", **changes)
        for path in (self.folder / "notebooks").glob("*.ipynb"):
            notebook = parameterize_notebook(load_notebook_node(str(path)), parameters.to_json())
            nbformat.write(notebook, path)

    def open(self, name: str) -> Notebook:
        """Open a notebook and wait until its kernel is ready."""
        page = self.browser.new_page(viewport=LARGE)
        page.set_default_timeout(1000 * TIMEOUT)
        page.goto(self.server.address(f"notebooks/{name}.ipynb"))
        if not _gets_ready(page):
            # On a busy machine, JupyterLab sometimes does not notice that its kernel is ready.
            page.reload()
            assert _gets_ready(page)
        # Hide the file browser, which takes most of a small window.
        page.keyboard.press("Control+b")
        return Notebook(page, self.pictures)

    def close_all(self) -> None:
        """Close the pages and shut down their kernels, even busy ones."""
        for context in self.browser.contexts:
            context.close()
        for kernel in self._ask("GET"):
            self._ask("DELETE", f"/{kernel['id']}")

    def _ask(self, method: str, path: str = "") -> Any:
        address = f"http://127.0.0.1:{self.server.port}/api/kernels{path}"
        headers = {"Authorization": f"token {self.server.token}"}
        request = urllib.request.Request(address, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return json.loads(answer.read() or "null")


def _gets_ready(page: Any) -> bool:
    from playwright.sync_api import TimeoutError

    page.wait_for_selector(".jp-Cell")
    page.wait_for_selector(".jp-Spinner", state="detached")
    try:
        page.wait_for_selector("text=/\\| Idle/", timeout=1000 * TIMEOUT / 3)
    except TimeoutError:
        return False
    return True


class Notebook:
    """A browser page with a notebook."""

    def __init__(self, page: Any, pictures: Path) -> None:
        self.page = page
        self._pictures = pictures

    def is_laid_out(self) -> bool:
        """Whether the dashboard has kept its width for half a second."""
        width = "document.querySelector('.elmolib-dashboard').getBoundingClientRect().width"
        before = self.page.evaluate(width)
        self.page.wait_for_timeout(500)
        return self.page.evaluate(width) == before

    def run_all(self) -> None:
        """Choose Run All Cells from the menu."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.click('li[data-command="runmenu:run-all"]')

    def is_busy(self) -> bool:
        """Whether a cell is running or queued."""
        return "[*]" in "".join(self.page.locator(".jp-InputPrompt").all_text_contents())

    def wait_until_done(self) -> None:
        """Wait until all cells have run, without an error."""
        until(lambda: not self.is_busy(), "all cells have run")
        errors = self.page.locator('[data-mime-type="application/vnd.jupyter.stderr"]')
        assert errors.all_text_contents() == []
        counts = self.page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
        assert all(re.search(r"\[\d+\]", count) for count in counts)

    def part(self, name: str) -> Any:
        """Find an element by the CSS class `elmolib-` and its name."""
        return self.page.locator(f".elmolib-{name}")

    def picture(self, name: str) -> str:
        """Return the HTML of the heatmap, or the URL of a picture; new pictures have new URLs."""
        image = self.part(name)
        assert image.count() == 1
        if name == "picture":
            return image.inner_html()
        # The width is 0 for a moment between two pictures, and stays 0 if a picture is broken.
        until(lambda: image.evaluate("image => image.naturalWidth") > 0, f"{name} is a picture")
        return image.get_attribute("src")

    def picture_widths(self) -> list[int]:
        """Return the widths of all pictures in outputs, in pixels; a broken picture has width 0."""
        pictures = self.page.locator(".jp-OutputArea-output img")
        return pictures.evaluate_all("all => all.map(image => image.naturalWidth)")

    def changes(self, name: str, act: Callable[[], object] = lambda: None) -> None:
        """Call `act`, and wait until an element's picture has changed."""
        before = self.picture(name)
        act()
        until(lambda: self.picture(name) != before, f"{name} changes")

    def heatmap_text(self) -> str:
        """Return the heatmap's title and its tooltips."""
        cells = self.part("picture").locator("[aria-label]")
        values = cells.locator("i").evaluate_all("all => all.map(cell => cell.dataset.value)")
        return "\n".join([cells.get_attribute("aria-label"), *values])

    def redraws(self, act: Callable[[], object], *texts: str) -> None:
        """Call `act`, and wait for a new heatmap with the given texts in its title and tooltips."""
        before = self.picture("picture")
        act()
        until(
            lambda: all(text in self.heatmap_text() for text in texts), f"the heatmap shows {texts}"
        )
        until(lambda: self.picture("picture") != before, "the picture is another one")

    def assert_no_scrollbars(self) -> None:
        """Require that no output has a scrollbar in a window of any width."""
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 1000})
            self.page.wait_for_timeout(300)
            assert self.page.evaluate(SCROLLBARS) == [], f"at {width} px"
        self.page.set_viewport_size(LARGE)

    def screenshot(self, name: str, part: str) -> None:
        """Take screenshots with an element in view, in a large and a small window."""
        for size, window in (("small", SMALL), ("large", LARGE)):
            self.page.set_viewport_size(window)
            self.part(part).first.evaluate("part => part.scrollIntoView()")
            self.page.screenshot(path=self._pictures / f"{name}_{size}.png")

    def screenshot_of_all(self, name: str) -> None:
        """Take a screenshot of the whole notebook."""
        inside = self.page.locator(".jp-Notebook .jp-WindowedPanel-outer")
        end = ".jp-Notebook .jp-Cell:last-of-type"
        height = 1000
        # Set the size twice, because the new window size changes the heights of the pictures.
        for _ in range(2):
            self.page.set_viewport_size({"width": 1100, "height": height})
            inside.evaluate("notebook => notebook.scrollTo(0, 0)")
            until(lambda: all(self.picture_widths()), "all pictures are there")
            box = self.page.locator(end).last.bounding_box()
            height = int(box["y"] + box["height"]) + 40
        self.page.set_viewport_size({"width": 1100, "height": height})
        self.page.screenshot(path=self._pictures / f"{name}.png")
        self.page.set_viewport_size(LARGE)


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory, root) -> Iterator[Lab]:
    with chromium() as browser:
        lab = Lab(tmp_path_factory.mktemp("lab"), root, browser)
        yield lab
        lab.server.stop()


@pytest.fixture
def lab(jupyterlab) -> Iterator[Lab]:
    """The JupyterLab of all tests; after each test, its pages and kernels are closed."""
    yield jupyterlab
    jupyterlab.close_all()


def test_dashboard_answers_and_stops_while_training(lab):
    notebook = lab.open("02_train")
    notebook.run_all()
    notebook.part("dashboard").wait_for()
    notebook.part("picture").wait_for()
    notebook.page.set_viewport_size({"width": 1024, "height": 1000})
    until(notebook.is_laid_out, "JupyterLab has laid out the page for its new size")
    notebook.page.evaluate(NOTE_PLACES)
    until(notebook.part("stop").is_enabled, "clicks reach the busy kernel")
    status = notebook.part("status").inner_text
    until(lambda: "held-out perplexity" in status(), "an epoch has ended")
    for _ in range(2):
        notebook.changes("curve")
    notebook.changes("picture")
    assert len(notebook.page.evaluate("[...window.places]")) == 1, "nothing moves while training"
    notebook.page.set_viewport_size(LARGE)
    sentence = notebook.part("sentence").locator("textarea")
    notebook.redraws(lambda: sentence.fill("money in the bank ."), "layer 1", "money · bank")
    layer_0 = notebook.part("layer").get_by_text("layer 0")
    notebook.redraws(layer_0.click, "layer 0: no context", "money · bank")
    assert notebook.is_busy()
    until(lambda: "tokens/s" in status(), "the speed is shown")
    notebook.assert_no_scrollbars()
    notebook.screenshot("train", "dashboard")
    notebook.part("stop").click()
    until(lambda: "Stopped" in status(), "training has stopped")
    weights = lab.folder / "runs" / "small" / "elmo.h5"
    assert str(weights) in status()
    first = weights.read_bytes()
    notebook.wait_until_done()
    notebook.screenshot("train_stopped", "dashboard")
    # The sentence box still works, with the weights that training had when it was interrupted.
    notebook.redraws(lambda: sentence.fill("the bear saw the boat ."), "bear · boat")
    notebook.screenshot_of_all("02_train")
    notebook.redraws(lambda: sentence.fill(numbered(40)), "word39 · word39")
    notebook.screenshot("train_40_words", "dashboard")
    notebook.assert_no_scrollbars()
    notebook.run_all()
    until(lambda: "tokens/s" in status(), "training resumes")
    until(notebook.part("stop").is_enabled, "clicks reach the busy kernel again")
    notebook.part("stop").click()
    notebook.wait_until_done()
    assert weights.read_bytes() != first


def test_a_run_is_watched_after_a_reload_and_resumes(lab):
    source = 'import elmolib\nelmolib.watch("runs/small")'
    cell = new_code_cell(source, id="watch")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[cell], metadata=kernel), lab.folder / "watch.ipynb")
    run = lab.folder / "runs" / "small"
    training = lab.open("02_train")
    training.run_all()
    training.part("dashboard").wait_for()
    until(lambda: "tokens/s" in training.part("status").inner_text(), "training has begun")
    training.page.reload()
    watching = lab.open("../watch")
    watching.run_all()
    watching.part("dashboard").wait_for()
    status = watching.part("status").inner_text
    for _ in range(2):
        watching.changes("curve")
        assert "tokens/s" in status()
    watching.screenshot("watch", "dashboard")
    until(watching.part("stop").is_enabled, "the run is known to train")
    watching.part("stop").click()
    until(lambda: "Stopped" in status(), "training has stopped")
    until(
        lambda: "Start the training again" in watching.part("advice").inner_text(),
        "the advice says how to resume",
    )
    before = read_steps(run)
    again = lab.open("02_train")
    again.run_all()
    until(lambda: "tokens/s" in status(), "the watching page shows that the run resumes")
    watching.changes("curve")
    watching.part("stop").click()
    until(lambda: "Stopped" in status(), "training has stopped again")
    after = read_steps(run)
    assert after[: len(before)].equals(before)
    assert after["step"].is_monotonic_increasing
    assert after["step"].iloc[-1] > before["step"].iloc[-1]


def test_kernel_that_cannot_handle_clicks_is_stopped_by_its_own_button(lab):
    subshells = "apputils-extension/kernels-settings"
    lab.set(subshells, {"commsOverSubshells": "disabled"})
    notebook = lab.open("02_train")
    lab.set(subshells, {})
    notebook.run_all()
    notebook.part("dashboard").wait_for()
    until(
        lambda: "cannot handle clicks" in notebook.part("advice").inner_text(),
        "the dashboard says so",
    )
    assert notebook.part("stop").is_disabled()
    notebook.screenshot("train_without_clicks", "dashboard")
    notebook.page.click('[data-command="notebook:interrupt-kernel"]')
    until(lambda: "Stopped" in notebook.part("status").inner_text(), "training has stopped")
    # The page shows one widget after the other, so the advice may follow the status.
    until(
        lambda: "cannot handle clicks" not in notebook.part("advice").inner_text(),
        "the advice about clicks has gone",
    )
    notebook.wait_until_done()


def test_sentence_box_follows_typing_and_clicks(lab):
    notebook = lab.open("04_explore")
    notebook.run_all()
    notebook.wait_until_done()
    notebook.screenshot_of_all("04_explore")
    notebook.assert_no_scrollbars()
    sentence = notebook.part("sentence").locator("textarea")
    sentence.fill("")
    notebook.changes("picture", lambda: sentence.press_sequentially("every river was deep ."))
    notebook.redraws(lambda: sentence.press("Backspace"), "layer 1", "every · deep")
    notebook.redraws(notebook.part("layer").get_by_text("average").click, "average", "river · was")
    other = notebook.part("other").locator("textarea")
    notebook.redraws(lambda: other.fill("the deep blue boat"), "every · blue", "river · boat")
    cell = notebook.part("picture").locator('[data-value^="river · boat"]')
    cell.hover()
    shown = cell.evaluate("cell => getComputedStyle(cell, '::after').content")
    assert re.fullmatch(r'"river · boat  -?[01]\.\d\d"', shown)
    # A click keeps the tooltip open.
    cell.click()
    notebook.screenshot("box_compares", "sentence")
    notebook.redraws(lambda: other.fill(""), "every · deep", "river · was")
    for n_words in (40, 1):
        words, last = numbered(n_words), f"word{n_words - 1}"
        notebook.redraws(lambda words=words: sentence.fill(words), f"{last} · {last}")
        notebook.screenshot(f"box_{n_words}_words", "sentence")
        notebook.assert_no_scrollbars()
        assert_readable(notebook, n_words)
    scripts = "河岸 很 陡 नदी का किनारा الضفة 👩‍👧 🏔"
    notebook.redraws(lambda: sentence.fill(scripts), "河岸 · 🏔")
    notebook.screenshot("box_scripts", "sentence")
    # A heatmap of 200 words has too many cells for tooltips.
    notebook.changes("picture", lambda: sentence.fill(numbered(200)))
    notebook.screenshot("box_200_words", "sentence")
    notebook.part("save").get_by_text("SVG").click()
    until(lambda: "Saved as" in notebook.part("message").inner_text(), "the picture is saved")
    path = Path(notebook.part("message").inner_text().removeprefix("Saved as "))
    assert path.is_relative_to(lab.folder / "runs")
    assert path.read_text(encoding="utf-8").startswith("<?xml")


def assert_readable(notebook: Notebook, n_words: int) -> None:
    """Require that both axes have each word as a large label, and that no two labels overlap.

    The sentence must be visible in its box as a whole.
    """
    for width in WIDTHS:
        notebook.page.set_viewport_size({"width": width, "height": 1000})
        notebook.page.wait_for_timeout(300)
        for axis, start, end in (("columns", "left", "right"), ("rows", "top", "bottom")):
            labels = notebook.part("picture").locator(f".{axis} bdi")
            boxes = labels.evaluate_all(
                "all => all.map(label => [label.getBoundingClientRect().toJSON(), "
                "parseFloat(getComputedStyle(label).fontSize)])"
            )
            assert labels.all_text_contents() == numbered(n_words).split()
            assert min(size for _, size in boxes) >= 9, f"{axis} at {width} px"
            places = [box for box, _ in boxes]
            assert all(a[end] <= b[start] + 1 for a, b in zip(places, places[1:], strict=False))
        box = notebook.part("sentence").locator("textarea")
        assert box.evaluate("box => box.scrollHeight <= box.clientHeight + 1")
    notebook.page.set_viewport_size(LARGE)


def numbered(n_words: int) -> str:
    """Return a sentence of different words."""
    return " ".join(f"word{n}" for n in range(n_words))


@pytest.mark.parametrize("name", ["01_prepare", "03_evaluate", "05_probe", "06_tagger"])
def test_other_notebooks_run_and_show_pictures(lab, name):
    notebook = lab.open(name)
    notebook.run_all()
    notebook.wait_until_done()
    assert notebook.picture_widths()
    assert min(notebook.picture_widths()) > 0
    notebook.assert_no_scrollbars()
    notebook.screenshot_of_all(name)
