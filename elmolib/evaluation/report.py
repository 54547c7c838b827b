"""All tables and pictures of stored figures.

    python -m elmolib.evaluation.report results/*.json --output results/tables.md

The pictures lie in the folder `pictures` beside the tables. Figures stand in the order in which
the files are named; nothing is left out. With `--card` the tables are also put into a model card,
between its lines `<!-- tables -->` and `<!-- end of tables -->`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from elmolib.errors import ElmolibError
from elmolib.evaluation.results import Results, Row, read_results
from elmolib.files import replacing

INTRODUCTION = (
    "Every figure stands with its 95 % interval, found by drawing the independent parts of the "
    "test set (mostly sentences) 1,000 times with replacement. Shares and correlations are times "
    "100. The best figure of a column is in bold, even where its lead may be chance. What was "
    "chosen, such as the number of epochs, was chosen on development data alone. "
    "The JSON files named below hold everything needed to measure a figure again."
)

HELD_OUT = ("heldout_forward", "heldout_backward")

BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"

Entry = tuple[str, Row]
"""A figure and the name of its model."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command; see the module."""
    parser = argparse.ArgumentParser(
        prog="python -m elmolib.evaluation.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of results")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file of the tables")
    parser.add_argument("--card", type=Path, help="model card to put the tables into")
    given = parser.parse_args(arguments)
    try:
        write_report(given.results, given.output)
        if given.card:
            fill_card(given.card, given.results)
    except ElmolibError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(given.output)


def write_report(paths: Sequence[Path], output: Path) -> None:
    """Write the tables of some results, and beside them pictures of each task and learning curve.

    Args:
        paths: files made by `python -m elmolib.evaluation`.
        output: the Markdown file.

    Raises:
        ElmolibError: a file is missing or holds no results.
    """
    import pandas as pd

    from elmolib import plots

    results = [read_results(path) for path in paths]
    lines = ["# What the vectors are worth", "", INTRODUCTION, ""]
    for task, entries in by_task([(each.model, row) for each in results for row in each.rows]):
        picture = Path("pictures") / f"{_file_name(task)}.png"
        plots.save(plots.task_figures(entries), output.parent / picture)
        lines += [f"## {_capital(task)}", "", *table(entries), "", *_remarks(entries), ""]
        lines += [f"![{_capital(task)}]({picture.as_posix()})", ""]
    for model, history in _histories(results):
        picture = Path("pictures") / f"{_file_name(f'learning {model}')}.png"
        curve = plots.learning_curve(pd.DataFrame(history)[["epoch", *HELD_OUT]])
        plots.save(curve.get_figure(root=True), output.parent / picture)
        lines += [f"## How {model} learnt", "", *_epochs(history), ""]
        lines += [f"![Held-out perplexity of {model}]({picture.as_posix()})", ""]
    lines += ["## How it was measured", "", *_runs(paths, results), ""]
    with replacing(output) as unfinished:
        unfinished.write_text("\n".join(lines), encoding="utf-8")


def fill_card(card: Path, paths: Sequence[Path]) -> None:
    """Put the tables of some results into a model card, in the place of those it has.

    Args:
        card: a Markdown file with the lines `BEGIN` and `END`.
        paths: files made by `python -m elmolib.evaluation`.

    Raises:
        ElmolibError: the card lacks one of the lines, or a file holds no results.
    """
    text = card.read_text(encoding="utf-8")
    if not 0 <= text.find(BEGIN) < text.find(END):
        raise ElmolibError(f"{card} lacks the lines {BEGIN} and {END}: write them where tables go.")
    results = [read_results(path) for path in paths]
    entries = [(each.model, row) for each in results for row in each.rows]
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    lines = [BEGIN, ""]
    for task, of_task in by_task(entries):
        lines += [f"### {_capital(task)}", "", *table(of_task), ""]
    with replacing(card) as unfinished:
        unfinished.write_text(before + "\n".join([*lines, after]), encoding="utf-8")


def by_task(entries: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Sort figures by their tasks, in the order in which these first come."""
    for task in dict.fromkeys(row.task for _, row in entries):
        yield task, [entry for entry in entries if entry[1].task == task]


def tables(entries: Sequence[Entry]) -> list[str]:
    """Lay out figures of any tasks in Markdown, a table for each; see `table`."""
    return [line for _, of_task in by_task(entries) for line in (*table(of_task), "")]


def table(entries: Sequence[Entry]) -> list[str]:
    """Lay out the figures of a task in Markdown: a column per set, the best of each in bold.

    Args:
        entries: of one task.
    """
    sets = list(dict.fromkeys(row.data for _, row in entries))
    best = {data: _best([row for _, row in entries if row.data == data]) for data in sets}
    metrics = {data: next(row.metric for _, row in entries if row.data == data) for data in sets}
    headings = ["model", "vectors", *(f"{data}, {metrics[data]}" for data in sets)]
    lines = [_line(headings), _line(["---", "---", *["---:"] * len(sets)])]
    for model, system in dict.fromkeys((model, row.system) for model, row in entries):
        cells = {
            row.data: _cell(row, row is best[row.data])
            for other, row in entries
            if (other, row.system) == (model, system)
        }
        lines.append(_line([model, system, *(cells.get(data, "") for data in sets)]))
    return lines


def _best(rows: Sequence[Row]) -> Row:
    choose = min if rows[0].metric == "perplexity" else max
    return choose(rows, key=lambda row: row.value)


def _cell(row: Row, bold: bool) -> str:
    scale = 1 if row.metric == "perplexity" else 100
    value, low, high = (f"{scale * number:.1f}" for number in (row.value, row.low, row.high))
    return f"{f'**{value}**' if bold else value} [{low}, {high}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _remarks(entries: Sequence[Entry]) -> Iterator[str]:
    """Tell how many examples stand behind each column."""
    for data in dict.fromkeys(row.data for _, row in entries):
        rows = [row for _, row in entries if row.data == data]
        first, learnt = rows[0], max(row.n_training for row in rows)
        sentence = f"- {data}: {first.n:,} {first.examples}"
        if first.parts != first.examples:
            sentence += f" in {first.drawn:,} {first.parts}"
        sentence += f", learnt from {learnt:,}" if learnt else ""
        seeds = sorted({row.seed for row in rows})
        yield f"{sentence}; seed {', '.join(map(str, seeds))}."
    for model, row in entries:
        for note, values in row.notes.items():
            if note.startswith("above "):
                value, low, high = (f"{100 * number:+.1f}" for number in values)
                yield f"- {row.data}, {model}: {row.system} {note} by {value} [{low}, {high}]."


def _histories(results: Sequence[Results]) -> Iterator[tuple[str, list[dict]]]:
    """Find the models that were scored on held-out text after each epoch of their training."""
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
    yield _line(["model", "file", "finished", "commit", "seed", "seconds", "sets"])
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
