"""Add files of the root folder and the table of subpackages to the pages that mkdocs builds."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {"index": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
"""Pages that show a file of the root folder."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pictures that lie outside `docs`, such as the plots in `benchmarks`."""
    for page in DOCS.rglob("*.md"):
        for match in _LINK.finditer(page.read_text(encoding="utf-8")):
            picture = (page.parent / match[3]).resolve()
            place = _place_on_site(picture)
            if match[1] and not picture.is_relative_to(DOCS) and place not in files.src_uris:
                files.append(File.generated(config, place, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Insert included text and the table of subpackages, and rewrite links for the site."""
    source = DOCS / page.file.src_uri
    folder = source.parent
    if source.stem in PAGES and folder == DOCS:
        markdown = (ROOT / PAGES[source.stem]).read_text(encoding="utf-8")
        markdown = markdown.replace('src="docs/', 'src="')
        folder = ROOT
    markdown = markdown.replace("<!-- subpackages -->", _subpackages())
    return _LINK.sub(lambda match: _on_site(match, folder, source.parent), markdown)


def _on_site(match: re.Match, folder: Path, page_folder: Path) -> str:
    """Rewrite a link of a file in `folder` for a page in `page_folder`."""
    picture, label, target, anchor = match[1], match[2], match[3], match[4] or ""
    path = (folder / target).resolve()
    if not path.exists():
        raise FileNotFoundError(f"A page in {folder} links to {target}, which does not exist.")
    pages = {ROOT / file: DOCS / f"{page}.md" for page, file in PAGES.items()}
    path = pages.get(path, path)
    if picture and not path.is_relative_to(DOCS):
        path = DOCS / _place_on_site(path)
    if path.is_relative_to(DOCS):
        place = Path(os.path.relpath(path, page_folder)).as_posix()
        return f"{picture}[{label}]({place}{anchor})"
    return f"{label} (`{path.relative_to(ROOT).as_posix()}`)"


def _place_on_site(picture: Path) -> str:
    return f"outside/{picture.name}"


def _subpackages() -> str:
    """Return a table of the subpackages, each of which imports only from those above it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c["type"] == "layers"]
    names = [name for layer in reversed(contract["layers"]) for name in layer.split(" | ")]
    return "\n".join(["| subpackage | content | modules |", "|---|---|---|", *map(_row, names)])


def _row(subpackage: str) -> str:
    folder = ROOT / "elmolib" / subpackage
    is_folder = folder.is_dir()
    about = folder / "__init__.py" if is_folder else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(about.read_text(encoding="utf-8"))) or ""
    modules = sorted(path.stem for path in folder.glob("[!_]*.py"))
    name = f"{subpackage}/" if is_folder else f"{subpackage}.py"
    return f"| `{name}` | {text.splitlines()[0]} | {', '.join(modules)} |"
