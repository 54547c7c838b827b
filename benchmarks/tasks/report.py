"""Tables and pictures of measured figures.

    python -m benchmarks.tasks.report results/*.json --output results/tables.md

The pictures go into the folder `pictures` next to the tables. The tables have all figures, in the
order of the files. With `--card CARD`, they also replace the tables in the model card CARD, between
the lines `<!-- tables -->` and `<!-- end of tables -->`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.tasks.results import Results, Row, read_results
from elmolib.errors import ElmolibError
from elmolib.files import atomic_write

INTRODUCTION = (
    "Each figure has its 95% confidence interval in brackets, from 1,000 bootstrap samples of the "
    "independent parts of the test set, which are mostly sentences. Accuracies, F1 and "
    "correlations are multiplied by 100. The best figure of each column is bold, even if the lead "
    "may be chance. Everything that was chosen, such as the number of epochs, was chosen on "
    "development data. The JSON files in the last table have everything that is needed to measure "
    "a figure again."
)

HELD_OUT = ("heldout_forward", "heldout_backward")
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"

Entry = tuple[str, Row]
"""A pair of a model's name and one figure of the model."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command; see the module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tasks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of results")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file for the tables")
    parser.add_argument("--card", type=Path, help="model card whose tables to replace")
    given = parser.parse_args(arguments)
    try:
        write_report(given.results, given.output)
        if given.card:
            fill_card(given.card, given.results)
    except ElmolibError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(given.output)


def write_report(paths: Sequence[Path], output: Path) -> None:
    """Write tables, and next to them a picture of each task and of each learning curve.

    Args:
        paths: files written by `python -m benchmarks.tasks`.
        output: the Markdown file.

    Raises:
        ElmolibError: a file is missing, or is not a results file.
    """
    import pandas as pd

    from benchmarks.tasks.pictures import task_figures
    from elmolib import plots

    results = [read_results(path) for path in paths]
    lines = ["# Results of the downstream tasks", "", INTRODUCTION, ""]
    for task, entries in by_task([(each.model, row) for each in results for row in each.rows]):
        picture = Path("pictures") / f"{_file_name(task)}.png"
        plots.save(task_figures(entries), output.parent / picture)
        lines += [f"## {_capital(task)}", "", *table(entries), "", *_remarks(entries), ""]
        lines += [f"![{_capital(task)}]({picture.as_posix()})", ""]
    for model, history in _histories(results):
        picture = Path("pictures") / f"{_file_name(f'learning {model}')}.png"
        curve = plots.learning_curve(pd.DataFrame(history)[["epoch", *HELD_OUT]])
        plots.save(curve, output.parent / picture)
        lines += [f"## Learning curve of {model}", "", *_epochs(history), ""]
        lines += [f"![Held-out perplexity of {model}]({picture.as_posix()})", ""]
    lines += ["## Runs", "", *_runs(paths, results), ""]
    with atomic_write(output) as unfinished:
        unfinished.write_text("\n".join(lines), encoding="utf-8")


def fill_card(card: Path, paths: Sequence[Path]) -> None:
    """Replace the tables of a model card.

    Args:
        card: a Markdown file with the lines `BEGIN` and `END`.
        paths: files written by `python -m benchmarks.tasks`.

    Raises:
        ElmolibError: the card lacks one of the lines, or a file is not a results file.
    """
    text = card.read_text(encoding="utf-8")
    if not 0 <= text.find(BEGIN) < text.find(END):
        raise ElmolibError(
            f"{card} lacks the lines {BEGIN} and {END}: write them where the tables should be."
        )
    results = [read_results(path) for path in paths]
    entries = [(each.model, row) for each in results for row in each.rows]
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    lines = [BEGIN, ""]
    for task, of_task in by_task(entries):
        lines += [f"### {_capital(task)}", "", *table(of_task), ""]
    with atomic_write(card) as unfinished:
        unfinished.write_text(before + "\n".join([*lines, after]), encoding="utf-8")


def by_task(entries: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Group figures by task, in the order in which the tasks first occur."""
    for task in dict.fromkeys(row.task for _, row in entries):
        yield task, [entry for entry in entries if entry[1].task == task]


def table(entries: Sequence[Entry]) -> list[str]:
    """Return the figures of one task as a Markdown table.

    There is one column per dataset, with the best figure in bold.
    """
    by_data = {data: _rows_of(entries, data) for data in dict.fromkeys(r.data for _, r in entries)}
    best = {data: _best(rows) for data, rows in by_data.items()}
    headings = ["model", "vectors", *(f"{d}, {rows[0].metric}" for d, rows in by_data.items())]
    lines = [_line(headings), _line(["---", "---", *["---:"] * len(by_data)])]
    for model, system in dict.fromkeys((model, row.system) for model, row in entries):
        cells = {
            row.data: _cell(row, row is best[row.data])
            for other, row in entries
            if (other, row.system) == (model, system)
        }
        lines.append(_line([model, system, *(cells.get(data, "") for data in by_data)]))
    return lines


def _rows_of(entries: Sequence[Entry], data: str) -> list[Row]:
    return [row for _, row in entries if row.data == data]


def _best(rows: Sequence[Row]) -> Row:
    choose = min if rows[0].metric == "perplexity" else max
    return choose(rows, key=lambda row: row.value)


def _cell(row: Row, bold: bool) -> str:
    value, low, high = (f"{row.scale * number:.1f}" for number in (row.value, row.low, row.high))
    return f"{f'**{value}**' if bold else value} [{low}, {high}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _remarks(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield the number of examples of each column, and each layer's gain over the layer below."""
    for data in dict.fromkeys(row.data for _, row in entries):
        rows = _rows_of(entries, data)
        first, n_training = rows[0], max(row.n_training for row in rows)
        sentence = f"- {data}: {first.n:,} {first.examples}"
        if first.parts != first.examples:
            sentence += f" in {first.drawn:,} {first.parts}"
        sentence += f", {n_training:,} for training" if n_training else ""
        seeds = sorted({row.seed for row in rows})
        yield f"{sentence}; seed {', '.join(map(str, seeds))}."
    for model, row in entries:
        for note, values in row.notes.items():
            if note.startswith("above "):
                value, low, high = (f"{100 * number:+.1f}" for number in values)
                below = note.removeprefix("above ")
                yield f"- {row.data}, {model}: {row.system} minus {below}: {value} [{low}, {high}]."


def _histories(results: Sequence[Results]) -> Iterator[tuple[str, list[dict]]]:
    """Yield the name and history of each model that has held-out perplexities for its epochs."""
    for each in results:
        history = each.parameters.get("training", {}).get("history", [])
        if history and all(key in epoch for epoch in history for key in HELD_OUT):
            yield each.model, history


def _epochs(history: Sequence[dict]) -> Iterator[str]:
    yield _line(["held-out perplexity after epoch", *(f"{epoch['epoch']:g}" for epoch in history)])
    yield _line(["---", *["---:"] * len(history)])
    for direction, key in zip(("forward", "backward"), HELD_OUT, strict=True):
        yield _line([direction, *(f"{epoch[key]:.1f}" for epoch in history)])


def _runs(paths: Sequence[Path], results: Sequence[Results]) -> Iterator[str]:
    yield _line(["model", "file", "finished", "commit", "seed", "seconds", "datasets"])
    yield _line(["---", "---", "---", "---", "---:", "---:", "---"])
    for path, each in zip(paths, results, strict=True):
        for run in each.runs:
            commit = (run["commit"] or "")[:10]
            cells = [each.model, path.name, run["finished"], commit, run["seed"], run["seconds"]]
            yield _line([*map(str, cells), "; ".join(run["sets"])])
    for each in results:
        for sentence in each.skipped:
            yield f"\n{each.model}: {sentence}."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _file_name(task: str) -> str:
    return re.sub(r"\W+", "-", task)


if __name__ == "__main__":
    main()
