"""Measured figures: one JSON file per model, from which all tables and pictures are made."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import elmolib
from elmolib.errors import ElmolibError
from elmolib.evaluation.confidence import Interval, difference
from elmolib.evaluation.vectors import layer_below
from elmolib.files import replacing

FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        task: what was asked for, such as "part of speech".
        data: the set that it was measured on.
        system: which vectors or which rule, such as "layer 1" or "first sense".
        metric: "accuracy", "F1", "Pearson" or "perplexity".
        value: the figure; a share, not a percentage.
        low, high: its 95 % interval by bootstrap.
        drawn: how many independent parts of the test set the bootstrap drew from.
        parts: what those parts are, such as "sentences".
        n: how many examples the figure is of.
        examples: what those are, such as "words".
        n_training: how many examples were learnt from, 0 for none.
        seed: of everything random.
        notes: what else is needed to repeat it, such as what was chosen on development data.
    """

    task: str
    data: str
    system: str
    metric: str
    value: float
    low: float
    high: float
    drawn: int
    parts: str
    n: int
    examples: str
    n_training: int
    seed: int
    notes: dict[str, Any] = field(default_factory=dict)


def row(
    task: str,
    data: str,
    system: str,
    metric: str,
    interval: Interval,
    parts: str,
    seed: int,
    n: int | None = None,
    examples: str | None = None,
    n_training: int = 0,
    **notes: Any,
) -> Row:
    """Make a row of an interval; without `examples`, the parts drawn are the examples."""
    return Row(
        task,
        data,
        system,
        metric,
        interval.value,
        interval.low,
        interval.high,
        interval.n,
        parts,
        interval.n if n is None else n,
        examples or parts,
        n_training,
        seed,
        notes,
    )


def above_layer_below(
    system: str, right: Mapping[str, np.ndarray], seed: int
) -> dict[str, list[float]]:
    """Make the note that compares an LSTM layer with the one below it, sentence by sentence.

    Args:
        system: the name of the layer; there is no note of others.
        right: integers (sentences, 2) by system, right words and words of each sentence.
        seed: of the bootstrap.
    """
    below = layer_below(system)
    if below not in right:
        return {}
    value, low, high, _ = difference(right[system], right[below], seed)
    return {f"above {below}": [value, low, high]}


@dataclass(frozen=True)
class Results:
    """All figures of one model, and what is needed to measure them again.

    Attributes:
        model: its name in tables.
        runs: for each time that the command was run, the seed, versions, commit, time, seconds
            taken, and the names of the sets measured on that are not measured on again later.
        parameters: what is known of the model itself: dimensions, training.
        rows: the figures.
        skipped: a sentence for each set that could not be measured on.
    """

    model: str
    runs: list[dict[str, Any]]
    parameters: dict[str, Any]
    rows: list[Row]
    skipped: list[str]


def circumstances(
    seed: int, commit: str | None, seconds: float, rows: Iterable[Row]
) -> dict[str, Any]:
    """Tell when and with what a measurement was made.

    Args:
        seed: of everything random.
        commit: as `current_commit` told it when the measurement began.
        seconds: taken.
        rows: the figures.
    """
    import keras

    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "elmolib": elmolib.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "numpy": np.__version__,
        "sets": list(dict.fromkeys(set_name(each) for each in rows)),
    }


def set_name(row: Row) -> str:
    """Name the table that a row belongs to."""
    return f"{row.task}: {row.data}"


def current_commit() -> str | None:
    """Name the commit of the code, if it lies in its repository."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None


def write_results(path: str | Path, results: Results) -> None:
    """Write a file that `read_results` reads back."""
    text = json.dumps({"format": FORMAT, **asdict(results)}, indent=1, ensure_ascii=False)
    with replacing(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def read_results(path: str | Path) -> Results:
    """Read what `write_results` wrote.

    Raises:
        ElmolibError: the file is missing, or holds something else.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ElmolibError(f"{path} is of another format than {FORMAT}: measure again.")
        rows = [Row(**each) for each in values.pop("rows")]
        return Results(rows=rows, **values)
    except OSError as error:
        raise ElmolibError(f"{path} cannot be read: {error.strerror}.") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ElmolibError):
            raise
        raise ElmolibError(
            f"{path} holds no results: name a file made by `python -m elmolib.evaluation`."
        ) from None


def merged(old: Results, new: Results) -> Results:
    """Put new figures in the place of old ones of the same tasks, keeping the others.

    Args:
        old: of an earlier run with the same model.
        new: what was measured again.
    """
    again = {set_name(each) for each in new.rows}
    kept = [each for each in old.rows if set_name(each) not in again]
    runs = [{**run, "sets": [s for s in run["sets"] if s not in again]} for run in old.runs]
    return Results(
        new.model,
        [run for run in runs if run["sets"]] + new.runs,
        new.parameters,
        kept + new.rows,
        list(dict.fromkeys(old.skipped + new.skipped)),
    )
