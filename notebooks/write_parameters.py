"""Write the parameters cell of every notebook: python notebooks/write_parameters.py

The cell has every key that a file in params/ sets or a notebook's text explains, with the value it
has for params/tiny.yaml.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat

from elmolib.settings.parameters import Parameters
from elmolib.settings.yaml_file import read_yaml

ROOT = Path(__file__).parents[1]
EXPLAINED = {"model", "pretrained", "tagged_text"}


def shared_cell() -> str:
    """Return the source of the parameters cell that all notebooks share.

    Each line is one plain assignment, because Papermill ignores a key whose line has a second
    equals sign. No value depends on another value, because Papermill sets values in a later cell.
    """
    used = {key for path in (ROOT / "params").glob("*.yaml") for key in read_yaml(path)} | EXPLAINED
    tiny = Parameters.from_yaml(ROOT / "params/tiny.yaml")
    keys = [key for key in Parameters.model_fields if key in used]
    meanings = {key: Parameters.model_fields[key].description or "" for key in keys}
    return "\n".join(f"{key} = {_python(getattr(tiny, key))}  # {meanings[key]}" for key in keys)


def _python(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_python, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
        cell.source = shared_cell()
        nbformat.write(notebook, path)
