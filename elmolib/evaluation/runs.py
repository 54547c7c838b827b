"""Several training runs beside each other, from what each left in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from elmolib.errors import WeightsError
from elmolib.training import MAY_CHANGE
from elmolib.weights import read_model

WEIGHTS, HISTORY = "elmo.h5", "history.csv"


class TrainedRun(NamedTuple):
    """A run as it is compared with others.

    Attributes:
        name: of its folder.
        history: one row per epoch, as in its `history.csv`.
        parameters: those it was trained with, as its weight file records them.
        n_weights: numbers in the weight file.
        vocabulary_size: words of the softmax.
    """

    name: str
    history: pd.DataFrame
    parameters: dict[str, Any]
    n_weights: int
    vocabulary_size: int


def find_runs(folder: str | Path) -> list[Path]:
    """Find the folders in `folder` that hold a trained run, in the order of their names."""
    return sorted(
        path.parent
        for path in Path(folder).glob(f"*/{WEIGHTS}")
        if (path.parent / HISTORY).exists()
    )


def read_runs(folders: Iterable[str | Path]) -> list[TrainedRun]:
    """Read what is compared of some runs.

    Args:
        folders: those of the runs, each with its `elmo.h5` and `history.csv`.

    Raises:
        WeightsError: a weight file is missing or damaged, or does not say how it was trained.
    """
    return [_read_run(Path(folder)) for folder in folders]


def _read_run(folder: Path) -> TrainedRun:
    stored = read_model(folder / WEIGHTS)
    try:
        parameters = stored.record["parameters"]
        history = pd.read_csv(folder / HISTORY)
    except (KeyError, TypeError):
        raise WeightsError(
            f"{folder / WEIGHTS} does not say how it was trained, so it cannot be compared."
        ) from None
    except (OSError, ValueError):
        raise WeightsError(f"{folder / HISTORY} is missing or damaged.") from None
    n_weights = sum(array.size for array in stored.arrays.values())
    return TrainedRun(folder.name, history, parameters, n_weights, len(stored.vocabulary))


def runs_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Lay runs beside each other, with what they were trained with where that differs.

    Args:
        runs: as `read_runs` gives them.

    Returns:
        DataFrame: a row per run; columns weights, vocabulary, epochs, forward, backward and mean
            (held-out perplexity after the last epoch; missing where nothing was held out), minutes,
            and one column for each parameter that is not the same in all runs, those apart that
            decide nothing but what is reported and kept.
    """
    table = pd.DataFrame.from_dict({run.name: _row(run) for run in runs}, orient="index")
    for key in _differing(runs):
        table[key] = [str(run.parameters.get(key)) for run in runs]
    return table


def _row(run: TrainedRun) -> dict[str, float]:
    last = run.history.iloc[-1] if len(run.history) else {}
    return {
        "weights": run.n_weights,
        "vocabulary": run.vocabulary_size,
        "epochs": last.get("epoch", 0.0),
        "forward": last.get("heldout_forward"),
        "backward": last.get("heldout_backward"),
        "mean": last.get("heldout_mean"),
        "minutes": run.history["seconds"].sum() / 60 if "seconds" in run.history else None,
    }


def _differing(runs: Sequence[TrainedRun]) -> list[str]:
    """Names of parameters with more than one value, in the order of the first run's."""
    names = dict.fromkeys(name for run in runs for name in run.parameters)
    return [
        name
        for name in names
        if name not in MAY_CHANGE and len({str(run.parameters.get(name)) for run in runs}) > 1
    ]
