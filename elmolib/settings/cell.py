"""Read the notebook cell that is tagged `parameters`."""

import ast
from collections.abc import Sequence
from typing import Any

_READ_BEFORE = "_elmolib_parameters_read"
_PLAIN = str | int | float | list | dict | tuple | None
_NOT_PARAMETERS = {"In", "Out", "PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}


def notebook_values(namespace: dict, known: set[str], required: set[str]) -> dict[str, Any]:
    """Return the parameters among a notebook's `globals()`, to which one private name is added.

    Names that the parameters cell assigns are included even if they are not `known`. If Papermill
    sets all `required` parameters, the values in the parameters cell are ignored.
    """
    cell, injected = _assigned_in_cells(namespace.get("In") or ())
    only_cells = _READ_BEFORE in namespace and (cell or injected)
    checked = cell | injected | known if only_cells else set(namespace)
    namespace[_READ_BEFORE] = True
    if required <= injected:
        checked -= cell - injected
    checked = {name for name in checked if not name.startswith("_")} - _NOT_PARAMETERS
    return {n: v for n, v in namespace.items() if n in checked and isinstance(v, _PLAIN)}


def _assigned_in_cells(history: Sequence[str]) -> tuple[set[str], set[str]]:
    """Find the names assigned by the latest parameters cell, and by the cells injected below it."""
    cell, injected, is_open = set[str](), set[str](), False
    for source in history:
        names = _assigned_names(source)
        if "from_notebook" in source:
            is_open = False
        elif is_open:
            injected |= names
        elif "run_dir" in names:
            cell, injected, is_open = names, set(), True
    return cell, injected


def _assigned_names(source: str) -> set[str]:
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):
        return set()
    targets = []
    for statement in statements:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}
