"""Say in which cell a notebook's kernel died: python notebooks/which_cell_died.py OUTPUT.ipynb

If a kernel dies, Papermill 2.7 marks every cell "completed", even the cells that never ran.
"""

from __future__ import annotations

import sys

import nbformat


def which_cell_died(path: str) -> str:
    """Return a sentence that names the cell, or "" if Papermill stopped at an error in a cell.

    Args:
        path: notebook that Papermill wrote before it failed.
    """
    cells = nbformat.read(path, as_version=4).cells
    if any(cell.metadata.get("papermill", {}).get("exception") for cell in cells):
        return ""
    ran = [number for number, cell in enumerate(cells, 1) if cell.get("execution_count")]
    if not ran:
        return f"{path}: the kernel died before the first cell ran."
    first_line = cells[ran[-1] - 1].source.partition("\n")[0]
    return (
        f"{path}: the kernel died in cell {ran[-1]} ({first_line!r}), and no later cell ran. Often "
        "the memory was full: lower batch_size. Run the same command again to resume training."
    )


if __name__ == "__main__":
    print(which_cell_died(sys.argv[1]), file=sys.stderr)
