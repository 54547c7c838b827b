"""The committed tables and the model card show exactly the figures of the results files."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.tasks.report import fill_card, write_report
from benchmarks.tasks.results import read_results
from elmolib.errors import ElmolibError

ORDER = ("simple", "word2vec", "word2vec-window", "random", "en-tiny")
FOLDERS = ("results", "results/romanian", "results/printed")


def stored(folder: Path) -> list[Path]:
    """Return the content of all results files; those in `ORDER` come first."""
    files = {path.stem: path for path in folder.glob("*.json")}
    named = [files.pop(name) for name in ORDER if name in files]
    return named + [files[name] for name in sorted(files)]


@pytest.mark.parametrize("name", FOLDERS)
def test_the_tables_show_the_stored_figures(root: Path, tmp_path: Path, name: str) -> None:
    write_report(stored(root / name), tmp_path / "tables.md")
    committed = (root / name / "tables.md").read_text(encoding="utf-8")
    assert (tmp_path / "tables.md").read_text(encoding="utf-8") == committed
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert pictures == {path.name for path in (root / name / "pictures").iterdir()}


@pytest.mark.parametrize("name", FOLDERS)
def test_every_figure_has_what_is_needed_to_measure_it_again(root: Path, name: str) -> None:
    for path in stored(root / name):
        results = read_results(path)
        measured = [name for run in results.runs for name in run["sets"]]
        assert sorted(measured) == sorted({row.table for row in results.rows})
        assert all(run["commit"] and run["finished"] for run in results.runs)
        for row in results.rows:
            assert row.low <= row.value <= row.high and row.n >= row.drawn > 0


def test_the_model_card_shows_the_stored_figures(root: Path, tmp_path: Path) -> None:
    committed = (root / "docs" / "en-tiny.md").read_text(encoding="utf-8")
    card = tmp_path / "card.md"
    card.write_text(committed, encoding="utf-8")
    fill_card(card, stored(root / "results"))
    assert card.read_text(encoding="utf-8") == committed
    assert "| en-tiny | layer 2 |" in committed


def test_a_card_without_the_lines_for_tables_is_refused(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("# A card\n", encoding="utf-8")
    with pytest.raises(ElmolibError, match=r"card\.md lacks the lines <!-- tables --> and "):
        fill_card(card, [])
