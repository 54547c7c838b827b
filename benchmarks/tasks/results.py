"""Measured figures: one JSON file per model, from which all tables and pictures are made."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import elmolib
from elmolib.errors import ElmolibError
from elmolib.files import atomic_write
from elmolib.scoring.confidence import Interval, bootstrap, ratio

FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        task: what is measured, such as "part of speech".
        data: the dataset.
        system: the vectors or the rule, such as "layer 1" or "first sense".
        metric: "accuracy", "F1", "Pearson" or "perplexity".
        value: the figure, as a fraction and not as a percentage.
        low, high: the bounds of the 95% bootstrap confidence interval of `value`.
        drawn: the number of independent parts of the test set, which the bootstrap resampled.
        parts: the name of those parts, such as "sentences".
        n: the number of test examples.
        examples: the name of the test examples, such as "words".
        n_training: the number of training examples, 0 if there are none.
        seed: the random seed of the measurement.
        notes: other facts, such as a setting chosen on development data.
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

    @classmethod
    def of(
        cls,
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
        """Create a row from an interval; without `examples`, each part is one example."""
        return cls(
            *(task, data, system, metric, interval.value, interval.low, interval.high, interval.n),
            *(parts, interval.n if n is None else n, examples or parts, n_training, seed, notes),
        )

    @property
    def table(self) -> str:
        """The name of the table that the row belongs to."""
        return f"{self.task}: {self.data}"

    @property
    def scale(self) -> int:
        """The factor by which `value` is multiplied when it is printed."""
        return 1 if self.metric == "perplexity" else 100


def compare_with_layer_below(
    system: str, right: Mapping[str, np.ndarray], seed: int
) -> dict[str, list[float]]:
    """Make the note on how much more accurate an LSTM layer is than the layer below it.

    Args:
        system: the name of the layer; other systems get no note.
        right: for each system, the number of correct words and the number of all words in each
            sentence, integers (sentences, 2).
        seed: the random seed of the bootstrap.
    """
    below = layer_below(system)
    if below not in right:
        return {}
    value, low, high, _ = difference(right[system], right[below], seed)
    return {f"above {below}": [value, low, high]}


def difference(right: np.ndarray, other: np.ndarray, seed: int = 0) -> Interval:
    """Estimate how much more accurate one system is than another on the same examples.

    This detects smaller differences than two separate intervals do, because most examples that are
    hard for one system are hard for the other too.

    Args:
        right: for the first system, the number of correct words and the number of all words in
            each example, integers (examples, 2).
        other: the same numbers for the second system.
        seed: the random seed of the bootstrap.
    """
    return bootstrap(np.stack([right[:, 0] - other[:, 0], right[:, 1]], axis=1), ratio, seed=seed)


def layer_below(system: str) -> str | None:
    """Return the name of the next lower LSTM layer, or None."""
    found = re.match(r"layer (\d+)(.*)", system)
    if found is None or found[1] in "01":
        return None
    return f"layer {int(found[1]) - 1}{found[2]}"


@dataclass(frozen=True)
class Results:
    """All figures of one model, and the facts that are needed to measure the figures again.

    Attributes:
        model: the model's name in tables.
        runs: one entry for each run of the command: seed, versions, commit, time, seconds, and the
            names of the tables it measured, without tables that a later run has replaced.
        parameters: what is known about the model: dimensions, training.
        rows: the figures.
        skipped: a sentence for each dataset that is missing.
    """

    model: str
    runs: list[dict[str, Any]]
    parameters: dict[str, Any]
    rows: list[Row]
    skipped: list[str]


def describe_run(
    seed: int, commit: str | None, seconds: float, rows: Iterable[Row]
) -> dict[str, Any]:
    """Return when and how a run measured its figures.

    Args:
        seed: the random seed of the run.
        commit: the result of `current_commit` when the run began.
        seconds: the duration of the run.
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
        "sets": list(dict.fromkeys(row.table for row in rows)),
    }


def current_commit() -> str | None:
    """Return the commit of the code, or None outside a repository."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None


def write_results(path: str | Path, results: Results) -> None:
    """Write results to a file that `read_results` reads."""
    text = json.dumps({"format": FORMAT, **asdict(results)}, indent=1, ensure_ascii=False)
    with atomic_write(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def read_results(path: str | Path) -> Results:
    """Read a file that `write_results` wrote.

    Raises:
        ElmolibError: the file is missing, or is not a results file.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ElmolibError(f"{path} does not have the results format {FORMAT}: measure again.")
        rows = [Row(**each) for each in values.pop("rows")]
        return Results(rows=rows, **values)
    except OSError as error:
        raise ElmolibError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, ElmolibError):
            raise
        raise ElmolibError(
            f"{path} is not a results file: name one written by `python -m benchmarks.tasks`."
        ) from None


def merge(old: Results, new: Results) -> Results:
    """Replace the old figures of every table that was measured again, and keep the others.

    Args:
        old: the results of earlier runs with the same model.
        new: the results of the latest run.
    """
    again = {row.table for row in new.rows}
    kept = [row for row in old.rows if row.table not in again]
    runs = [{**run, "sets": [s for s in run["sets"] if s not in again]} for run in old.runs]
    return Results(
        new.model,
        [run for run in runs if run["sets"]] + new.runs,
        new.parameters,
        kept + new.rows,
        list(dict.fromkeys(old.skipped + new.skipped)),
    )
