"""Run the notebooks and keep what they show as pages that can be read where the code is.

    python docs/make_gallery.py                                   all notebooks, params/tiny.yaml
    python docs/make_gallery.py 04_explore -p run_dir runs/mine   one of them, on another model

Any parameter can be given with -p, as to Papermill. Each notebook becomes a Markdown page with its
pictures beside it, and README.md leads to all of them.
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

from elmolib.files import replacing

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
GALLERY = ROOT / "docs" / "gallery"

COLOURS = 128
"""Of a picture: no difference to the eye, and a third of the bytes."""

COVERS = {
    "01_prepare": "01_prepare-zipf.png",
    "02_train": "../pictures/dashboard.png",
    "03_evaluate": "03_evaluate-calibration.png",
    "04_explore": "04_explore-map.png",
}
"""Pictures that say best what a page is about, where that is not the last one."""

CREDIT = (
    "The sentences quoted are from the English Wikipedia, [CC BY-SA 3.0]"
    "(https://creativecommons.org/licenses/by-sa/3.0/), as excerpted in the gensim wheel, from "
    "the English Web Treebank of Universal Dependencies, [CC BY-SA 4.0]"
    "(https://creativecommons.org/licenses/by-sa/4.0/), or written for the notebooks."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the notebooks asked for and write their pages."""
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
    """Write an executed notebook as a Markdown page, in place of an earlier one.

    Args:
        name: of the notebook and the page.
        notebook: with its outputs.
        folder: where pages and pictures go.
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
            # At its end, a semicolon only keeps a notebook from showing a value.
            parts.append(f"```python\n{cell.source.removesuffix(';')}\n```")
            parts += _shown(cell, name, folder)
    text = "\n\n".join([*parts, "[All notebooks](README.md)"])
    _write(folder / f"{name}.md", text.replace(f"{ROOT}/", "").encode())


def is_about_parameters(cell: nbformat.NotebookNode) -> bool:
    """Tell whether a cell holds or explains parameters, which a reader cannot change."""
    tags = {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", []))
    return bool(tags) or cell.source.startswith("## Parameters")


def write_index(folder: Path) -> None:
    """Write a page with the title, first words and a picture of every page in a folder."""
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
    """What a cell gave, as Markdown; pictures are written."""
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
    """Let links to notebooks lead to their pages, and others where they led from the notebook."""

    def target(link: re.Match) -> str:
        path = link[1]
        if path.endswith(".ipynb"):
            return f"]({Path(path).stem}.md)"
        return f"]({os.path.relpath(NOTEBOOKS / path, GALLERY)})"

    return re.sub(r"\]\((?!\w+:|#)([^)]+)\)", target, markdown)


def _plain_table(html: str) -> str:
    """Take from a table what only a notebook needs: a page shows it as text otherwise."""
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
    with replacing(path) as unfinished:
        unfinished.write_bytes(content.rstrip(b"\n") + b"\n" if path.suffix == ".md" else content)


if __name__ == "__main__":
    main()
