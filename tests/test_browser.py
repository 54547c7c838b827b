"""The notebooks in JupyterLab, as a person uses them in a browser.

Screenshots of all that is seen go into `build/screenshots`.
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
from evaluation_sets import write_one_word, write_similarity, write_word_in_context
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from small_corpus import made_up_sentences, small_parameters

from benchmarks.jupyterlab import ENOUGH, JupyterLab, chromium, until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LARGE, SMALL = {"width": 1600, "height": 1000}, {"width": 800, "height": 700}

SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
    # Cells out of sight are there too.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


class Lab:
    """A JupyterLab of its own with a copy of the notebooks, and a browser before it."""

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
        """Write the settings of a part of JupyterLab, for pages opened from now on."""
        file = self.server.settings / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))

    def _write_notebooks(self, root: Path) -> None:
        """Copy the notebooks, with parameters of a run that is too long to wait for."""
        shutil.copytree(root / "notebooks", self.folder / "notebooks")
        (self.folder / "params").mkdir()
        (self.folder / "text.txt").write_text("\n".join(made_up_sentences(1500)) + "\n")
        for write in (write_one_word, write_similarity, write_word_in_context):
            write(self.folder / "sets")
        changes = {"epochs": 10_000, "progress": "auto", "evaluation_data": "sets"}
        parameters = small_parameters(self.folder, run_dir="runs/small", text="text.txt", **changes)
        for path in (self.folder / "notebooks").glob("*.ipynb"):
            notebook = parameterize_notebook(load_notebook_node(str(path)), parameters.to_json())
            nbformat.write(notebook, path)

    def open(self, name: str) -> Notebook:
        """Open a notebook whose kernel is ready."""
        page = self.browser.new_page(viewport=LARGE)
        page.set_default_timeout(1000 * ENOUGH)
        page.goto(self.server.address(f"notebooks/{name}.ipynb"))
        if not _gets_ready(page):
            # Seldom, on a busy machine, JupyterLab misses that its kernel is there.
            page.reload()
            assert _gets_ready(page)
        # The file browser leaves little room in a small window.
        page.keyboard.press("Control+b")
        return Notebook(page, self.pictures)

    def close_all(self) -> None:
        """Close the pages and end their kernels, whatever these are doing."""
        for context in self.browser.contexts:
            context.close()
        for kernel in self._ask("GET"):
            self._ask("DELETE", f"/{kernel['id']}")

    def _ask(self, method: str, path: str = "") -> Any:
        address = f"http://127.0.0.1:{self.server.port}/api/kernels{path}"
        headers = {"Authorization": f"token {self.server.token}"}
        request = urllib.request.Request(address, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=ENOUGH) as answer:
            return json.loads(answer.read() or "null")


def _gets_ready(page: Any) -> bool:
    from playwright.sync_api import TimeoutError

    page.wait_for_selector(".jp-Cell")
    page.wait_for_selector(".jp-Spinner", state="detached")
    try:
        page.wait_for_selector("text=/\\| Idle/", timeout=1000 * ENOUGH / 3)
    except TimeoutError:
        return False
    return True


class Notebook:
    """A page with a notebook."""

    def __init__(self, page: Any, pictures: Path) -> None:
        self.page = page
        self._pictures = pictures

    def run_all(self) -> None:
        """Choose Run All Cells from the menu."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.click('li[data-command="runmenu:run-all"]')

    def is_busy(self) -> bool:
        """Whether some cell runs or waits."""
        return "[*]" in "".join(self.page.locator(".jp-InputPrompt").all_text_contents())

    def wait_until_done(self) -> None:
        """Wait until all cells have run, none of them into an error."""
        until(lambda: not self.is_busy(), "all cells have run")
        errors = self.page.locator('[data-mime-type="application/vnd.jupyter.stderr"]')
        assert errors.all_text_contents() == []
        counts = self.page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
        assert all(re.search(r"\[\d+\]", count) for count in counts)

    def part(self, name: str) -> Any:
        """Find a part of the page by the class that elmolib gives it."""
        return self.page.locator(f".elmolib-{name}")

    def picture(self, name: str) -> str:
        """Return the address of the picture in a part, which is new for every picture."""
        image = self.part(name)
        assert image.count() == 1
        # Nothing for a moment, between two pictures; for ever, if one is broken.
        until(lambda: image.evaluate("image => image.naturalWidth") > 0, f"{name} is a picture")
        return image.get_attribute("src")

    def picture_widths(self) -> list[int]:
        """Return the widths of all pictures below cells, in pixels; 0 for one that is broken."""
        pictures = self.page.locator(".jp-OutputArea-output img")
        return pictures.evaluate_all("all => all.map(image => image.naturalWidth)")

    def changes(self, name: str, act: Callable[[], object] = lambda: None) -> None:
        """Do something, or nothing, and wait for a part's picture to be another one."""
        before = self.picture(name)
        act()
        until(lambda: self.picture(name) != before, f"{name} changes")

    def told(self) -> str:
        """Return what the cells over the heatmap tell: its title, then words and values."""
        cells = self.part("cells").locator("[aria-label]")
        values = cells.locator("i").evaluate_all("all => all.map(cell => cell.dataset.value)")
        return "\n".join([cells.get_attribute("aria-label"), *values])

    def answers(self, act: Callable[[], object], *texts: str) -> None:
        """Do something and wait for another heatmap, which tells these texts."""
        before = self.picture("image")
        act()
        until(lambda: all(text in self.told() for text in texts), f"the heatmap tells {texts}")
        until(lambda: self.picture("image") != before, "the picture is another one")

    def screenshot(self, name: str, part: str) -> None:
        """Keep what is seen, with the named part in sight, in a large and a small window."""
        for size, window in (("small", SMALL), ("large", LARGE)):
            self.page.set_viewport_size(window)
            self.part(part).first.evaluate("part => part.scrollIntoView()")
            self.page.screenshot(path=self._pictures / f"{name}_{size}.png")

    def screenshot_of_all(self, name: str) -> None:
        """Keep the whole notebook, in a window as long as it is."""
        inside = self.page.locator(".jp-Notebook .jp-WindowedPanel-outer")
        end = ".jp-Notebook .jp-Cell:last-of-type"
        height = 1000
        # Once more, for pictures in it change their size with the window's.
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
    """The one JupyterLab, which a test leaves with neither pages nor kernels."""
    yield jupyterlab
    jupyterlab.close_all()


def test_a_model_is_watched_questioned_and_stopped_while_it_learns(lab):
    notebook = lab.open("02_train")
    notebook.run_all()
    notebook.part("dashboard").wait_for()
    until(notebook.part("stop").is_enabled, "the busy kernel hears the page")
    status = notebook.part("status").inner_text
    until(lambda: "held-out perplexity" in status(), "an epoch is over")
    for _ in range(2):
        notebook.changes("curve")
    sentence = notebook.part("sentence").locator("input")
    notebook.answers(lambda: sentence.fill("money in the bank ."), "layer 1", "money · bank")
    layer_0 = notebook.part("layer").get_by_text("layer 0")
    notebook.answers(layer_0.click, "layer 0: no context", "money · bank")
    assert notebook.is_busy()
    until(lambda: "tokens/s" in status(), "the speed is told")
    notebook.screenshot("train", "dashboard")
    notebook.part("stop").click()
    until(lambda: "Stopped" in status(), "training has stopped")
    weights = lab.folder / "runs" / "small" / "elmo.h5"
    assert str(weights) in status()
    first = weights.read_bytes()
    notebook.wait_until_done()
    notebook.screenshot("train_stopped", "dashboard")
    # The box goes on answering, by the last weights.
    notebook.answers(lambda: sentence.fill("the bear saw the boat ."), "bear · boat")
    notebook.screenshot_of_all("02_train")
    notebook.run_all()
    until(lambda: "tokens/s" in status(), "training goes on")
    until(notebook.part("stop").is_enabled, "the busy kernel hears the new page")
    notebook.part("stop").click()
    notebook.wait_until_done()
    assert weights.read_bytes() != first


def test_a_kernel_that_hears_no_clicks_is_stopped_by_its_own_button(lab):
    subshells = "apputils-extension/kernels-settings"
    lab.set(subshells, {"commsOverSubshells": "disabled"})
    notebook = lab.open("02_train")
    lab.set(subshells, {})
    notebook.run_all()
    notebook.part("dashboard").wait_for()
    until(lambda: "hears no clicks" in notebook.part("advice").inner_text(), "the page says so")
    assert notebook.part("stop").is_disabled()
    notebook.screenshot("train_deaf", "dashboard")
    notebook.page.click('[data-command="notebook:interrupt-kernel"]')
    until(lambda: "Stopped" in notebook.part("status").inner_text(), "training has stopped")
    assert "hears no clicks" not in notebook.part("advice").inner_text()
    notebook.wait_until_done()


def test_a_sentence_box_follows_what_is_typed_and_chosen(lab):
    notebook = lab.open("04_explore")
    notebook.run_all()
    notebook.wait_until_done()
    notebook.screenshot_of_all("04_explore")
    sentence = notebook.part("sentence").locator("input")
    sentence.fill("")
    notebook.changes("image", lambda: sentence.press_sequentially("every river was deep ."))
    notebook.answers(lambda: sentence.press("Backspace"), "layer 1", "every · deep")
    notebook.answers(notebook.part("layer").get_by_text("average").click, "average", "river · was")
    other = notebook.part("other").locator("input")
    notebook.answers(lambda: other.fill("the deep blue boat"), "every · blue", "river · boat")
    cell = notebook.part("cells").locator('[data-value^="river · boat"]')
    cell.hover()
    shown = cell.evaluate("cell => getComputedStyle(cell, '::after').content")
    assert re.fullmatch(r'"river · boat  -?[01]\.\d\d"', shown)
    # A click keeps it there.
    cell.click()
    notebook.screenshot("box_compares", "sentence")
    notebook.answers(lambda: other.fill(""), "every · deep", "river · was")
    for n_words in (40, 1):
        words, last = numbered(n_words), f"word{n_words - 1}"
        notebook.answers(lambda words=words: sentence.fill(words), f"{last} · {last}")
        notebook.screenshot(f"box_{n_words}_words", "sentence")
    # So many cells are seen but no longer told one by one.
    notebook.changes("image", lambda: sentence.fill(numbered(200)))
    notebook.screenshot("box_200_words", "sentence")
    notebook.part("save").get_by_text("SVG").click()
    until(lambda: "Saved as" in notebook.part("message").inner_text(), "the picture is saved")
    path = Path(notebook.part("message").inner_text().removeprefix("Saved as "))
    assert path.is_relative_to(lab.folder / "runs")
    assert path.read_text(encoding="utf-8").startswith("<?xml")


def numbered(n_words: int) -> str:
    """So many different words."""
    return " ".join(f"word{n}" for n in range(n_words))


@pytest.mark.parametrize("name", ["01_prepare", "03_evaluate", "05_probe", "06_tagger"])
def test_other_notebooks_run_and_show_pictures(lab, name):
    notebook = lab.open(name)
    notebook.run_all()
    notebook.wait_until_done()
    assert notebook.picture_widths()
    assert min(notebook.picture_widths()) > 0
    notebook.screenshot_of_all(name)
