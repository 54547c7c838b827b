"""Limit the lines of code: `python tests/sizes.py` fails if the package or a module is too long."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

PACKAGE, MODULE, MEDIAN = 15_350, 400, 150
"""Limits on the lines of all modules together, of one module, and of the median module."""


def problems(package: Path) -> list[str]:
    """Return one sentence for each limit that a package exceeds."""
    lines = {path: path.read_text().count("\n") for path in package.rglob("*.py")}
    lines = {path: n for path, n in lines.items() if n}
    found = [
        f"{path} has {n} lines, more than {MODULE}." for path, n in lines.items() if n > MODULE
    ]
    if (total := sum(lines.values())) > PACKAGE:
        found.append(f"{package} has {total:,} lines, more than {PACKAGE:,}.")
    if (middle := median(lines.values())) > MEDIAN:
        found.append(f"The median module has {middle:.0f} lines, more than {MEDIAN}.")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(problems(Path(__file__).parents[1] / "elmolib")) or None)
