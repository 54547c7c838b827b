"""Run the notebooks and write their outputs as Markdown pages, which GitHub shows.

    python docs/make_gallery.py                                   all notebooks, params/tiny.yaml
    python docs/make_gallery.py 04_explore -p run_dir runs/mine   one of them, on another model

Any parameter can be set with -p, as in Papermill. The pictures of a page are files in the same
folder, and README.md links to all pages.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from PIL import Image

from elmolib.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
GALLERY = ROOT / "docs" / "gallery"

COLOURS = 128
"""The number of colours of a picture. A picture with this number of colours looks the same as the
original, and has a third of the bytes."""

COVERS = {
    "01_prepare": "01_prepare-zipf.png",
    "02_train": "../pictures/dashboard.png",
    "03_evaluate": "03_evaluate-calibration.png",
    "04_explore": "04_explore-map.png",
}
"""The picture that best shows what a page is about. For other pages, this is the last picture."""

CREDIT = (
    "The sentences quoted are from the English Wikipedia, [CC BY-SA 3.0]"
    "(https://creativecommons.org/licenses/by-sa/3.0/), as excerpted in the gensim wheel, from "
    "the English Web Treebank of Universal Dependencies, [CC BY-SA 4.0]"
    "(https://creativecommons.org/licenses/by-sa/4.0/), or written for the notebooks."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the given notebooks and write their pages."""
    names = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", default=names, metavar="notebook")
    parser.add_argument("-f", "--params", default=ROOT / "params" / "tiny.yaml", type=Path)
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[])
    parser.add_argument("-o", "--out", default=GALLERY, type=Path)
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.notebooks) - set(names)):
        parser.error(f"there is no notebook {unknown[0]}: choose from {', '.join(names)}")
    parameters = yaml.safe_load(given.params.read_text(encoding="utf-8"))
    parameters |= {name: yaml.safe_load(value) for name, value in given.parameter}
    for name in given.notebooks:
        print(f"running {name}", flush=True)
        write_page(name, executed(name, parameters), given.out)
    write_index(given.out)


def executed(name: str, parameters: Mapping[str, Any]) -> nbformat.NotebookNode:
    """Run a notebook from the project's root."""
    with tempfile.TemporaryDirectory() as folder:
        return papermill.execute_notebook(
            NOTEBOOKS / f"{name}.ipynb",
            Path(folder) / "out.ipynb",
            parameters=dict(parameters),
            cwd=ROOT,
            progress_bar=False,
        )


def write_page(name: str, notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Write an executed notebook as a Markdown page, which replaces an earlier one.

    Args:
        name: the name of the notebook and of the page.
        notebook: the notebook with its outputs.
        folder: the folder for the pages and pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name}-*.png"):
        old.unlink()
    parts = []
    for cell in notebook.cells:
        if is_about_parameters(cell):
            continue
        if cell.cell_type == "markdown":
            parts.append(_linked(cell.source))
        elif cell.cell_type == "code":
            # In a notebook, a semicolon at the end of a cell hides the value of the last line.
            parts.append(f"```python\n{cell.source.removesuffix(';')}\n```")
            parts += _shown(cell, name, folder)
    text = "\n\n".join([*parts, "[All notebooks](README.md)"])
    _write(folder / f"{name}.md", text.replace(f"{ROOT}/", "").encode())


def is_about_parameters(cell: nbformat.NotebookNode) -> bool:
    """Tell whether a cell holds or explains parameters; pages leave such cells out."""
    tags = {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", []))
    return bool(tags) or cell.source.startswith("## Parameters")


def write_index(folder: Path) -> None:
    """Write README.md, with the title, first paragraph and a picture of every page in a folder."""
    parts = [
        "# What the notebooks show",
        "`make gallery` runs all notebooks on the tiny model and writes these pages.",
    ]
    for page in sorted(folder.glob("*.md")):
        if page.name == "README.md":
            continue
        text = page.read_text(encoding="utf-8")
        title, words = re.match(r"# (.*)\n\n((?:.+\n)+)", text).groups()
        parts += [f"## [{title}]({page.name})", words.strip()]
        pictures = re.findall(r"^!\[.*\]\((.*)\)$", text, re.MULTILINE)
        parts += [f"![{title}]({COVERS.get(page.stem, path)})" for path in pictures[-1:]]
    _write(folder / "README.md", "\n\n".join([*parts, CREDIT]).encode())


def _shown(cell: nbformat.NotebookNode, name: str, folder: Path) -> list[str]:
    """Return a cell's outputs as Markdown, and write its pictures to files."""
    parts: list[str] = []
    printed = ""
    for number, output in enumerate(cell.outputs):
        data = output.get("data", {})
        if output.output_type == "stream":
            printed += output.text
            continue
        parts += _fenced(printed)
        printed = ""
        if "image/png" in data:
            picture = folder / f"{name}-{cell.id}{f'-{number}' if number else ''}.png"
            _write(picture, _smaller(base64.b64decode(data["image/png"])))
            parts.append(f"![{cell.id.replace('-', ' ')}]({picture.name})")
        elif "application/vnd.jupyter.widget-view+json" in data:
            parts.append("*In JupyterLab there is a box to type into here.*")
        elif "text/markdown" in data:
            parts.append(_linked(data["text/markdown"]))
        elif "text/html" in data:
            parts.append(_plain_table(data["text/html"]))
        elif "text/plain" in data:
            parts += _fenced(data["text/plain"])
    return parts + _fenced(printed)


def _fenced(text: str) -> list[str]:
    return [f"```\n{text.rstrip()}\n```"] if text.strip() else []


def _linked(markdown: str) -> str:
    """Turn links to notebooks into links to their pages; other links keep their targets."""

    def target(link: re.Match) -> str:
        path = link[1]
        if path.endswith(".ipynb"):
            return f"]({Path(path).stem}.md)"
        return f"]({os.path.relpath(NOTEBOOKS / path, GALLERY)})"

    return re.sub(r"\]\((?!\w+:|#)([^)]+)\)", target, markdown)


def _plain_table(html: str) -> str:
    """Remove the style and the attributes of a table, which Markdown would show as text."""
    without_style = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    bare = re.sub(r"<(\w+)\s[^>]*>", r"<\1>", without_style)
    # A blank line would end the table.
    return "\n".join(line.strip() for line in bare.splitlines() if line.strip())


def _smaller(png: bytes) -> bytes:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    few = picture.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    with io.BytesIO() as file:
        few.save(file, "PNG", optimize=True)
        return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(content.rstrip(b"\n") + b"\n" if path.suffix == ".md" else content)


if __name__ == "__main__":
    main()
