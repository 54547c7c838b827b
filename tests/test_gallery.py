"""The gallery's pages, made from executed notebooks."""

from __future__ import annotations

import base64
import importlib.util
import io

import numpy as np
import pytest
from matplotlib import image as images
from nbformat import v4

from elmolib import plots


@pytest.fixture(scope="module")
def gallery(root):
    spec = importlib.util.spec_from_file_location("make_gallery", root / "docs" / "make_gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code(source: str, *outputs, **metadata):
    name = source.partition("(")[0].replace(" ", "-").replace("=", "")
    return v4.new_code_cell(source, id=f"a-{name}", outputs=list(outputs), metadata=metadata)


def shown(**data: str):
    return v4.new_output("display_data", {key.replace("_", "/"): v for key, v in data.items()})


def page_of(gallery, folder, *cells) -> str:
    intro = v4.new_markdown_cell(
        "# Title\n\nWhat one sees.\nNext: [on](02_train.ipynb).\n"
        "[data](data/README.md), [docs](../docs/a.md), [web](https://a.b/c.ipynb)"
    )
    gallery.write_page("01_x", v4.new_notebook(cells=[intro, *cells]), folder)
    return (folder / "01_x.md").read_text()


def test_a_page_holds_words_code_output_and_pictures_but_no_parameters(gallery, tmp_path, root):
    png = plots.png(plots.zipf([5, 3, 1]))
    page = page_of(
        gallery,
        tmp_path,
        v4.new_markdown_cell("## Parameters\n\nOne per line."),
        code("seed = 1", tags=["parameters"]),
        code(
            "print(path)",
            v4.new_output("stream", text="one\n"),
            v4.new_output("stream", text=f"{root}/runs/tiny\n"),
        ),
        code("draw()", shown(image_png=base64.b64encode(png).decode(), text_plain="<Figure>")),
        code("marked", shown(text_markdown="| a |", text_plain="<Markdown>")),
        code("table", shown(text_html="<style>td {x: 1}</style><table id='t'><td class=a>7</td>")),
    )
    assert "[on](02_train.md)" in page
    assert "[data](../../notebooks/data/README.md), [docs](../a.md), [web](https" in page
    assert "Parameters" not in page
    assert "seed = 1" not in page
    assert "```\none\nruns/tiny\n```" in page
    assert "```python\ndraw()\n```\n\n![a draw](01_x-a-draw.png)" in page
    assert "<table><td>7</td>" in page
    assert page.count("| a |") == 1
    kept = images.imread(io.BytesIO((tmp_path / "01_x-a-draw.png").read_bytes()))[:, :, :3]
    drawn = images.imread(io.BytesIO(png))[:, :, :3]
    assert np.abs(kept - drawn).max() < 0.2
    assert (tmp_path / "01_x-a-draw.png").stat().st_size < len(png)


def test_pictures_of_an_earlier_page_do_not_stay(gallery, tmp_path):
    (tmp_path / "01_x-old.png").write_bytes(b"")
    (tmp_path / "02_y-other.png").write_bytes(b"")
    page_of(gallery, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"01_x.md", "02_y-other.png"}


def test_the_first_page_leads_to_every_other(gallery, tmp_path):
    (tmp_path / "02_y.md").write_text("# Second\n\nWords.\n\n![a](a.png)\n\ntext\n\n![b](b.png)\n")
    page_of(gallery, tmp_path)
    gallery.write_index(tmp_path)
    index = (tmp_path / "README.md").read_text()
    assert index.index("[Title](01_x.md)") < index.index("[Second](02_y.md)")
    assert "What one sees." in index
    assert "![Second](b.png)" in index
    assert "a.png" not in index


def test_a_notebook_that_is_not_there_is_named(gallery, capsys):
    with pytest.raises(SystemExit):
        gallery.main(["07_nothing"])
    assert "there is no notebook 07_nothing: choose from 01_prepare" in capsys.readouterr().err


def test_the_committed_gallery_shows_every_notebook_and_stays_small(root):
    folder = root / "docs" / "gallery"
    pages = {path.stem for path in folder.glob("*.md")} - {"README"}
    assert pages == {path.stem for path in (root / "notebooks").glob("*.ipynb")}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
