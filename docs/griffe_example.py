"""Rename the docstring section `Example:` to `Examples:`, the only name that Griffe knows."""

from __future__ import annotations

from typing import Any

import griffe


class Example(griffe.Extension):
    """Rename the section before docstrings are parsed."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring:
            lines = obj.docstring.value.split("\n")
            obj.docstring.value = "\n".join("Examples:" if s == "Example:" else s for s in lines)
