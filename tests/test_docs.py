"""The tests that docs/reliability.md names exist."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_named_test_exists(root: Path) -> None:
    text = (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:(test_\w+\.py)(?:::)?)?(test_\w+)?`", text))
    tests = {
        path.name: set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M))
        for path in (root / "tests").glob("test_*.py")
    }
    everywhere = set().union(*tests.values())
    assert len(named) > 40
    for file, test in named - {("", "")}:
        assert not file or file in tests
        assert not test or test in (tests[file] if file else everywhere), test


def test_every_row_has_a_promise_and_a_test(root: Path) -> None:
    text = (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line for line in text.split("\n") if line.startswith("| ") and "Shown by" not in line]
    assert len(rows) > 20
    for row in rows:
        _, promise, shown_by, _ = row.removeprefix("|").removesuffix("|").split("|")
        assert promise.strip()
        assert "test_" in shown_by or "the kill tests above" in shown_by
