"""Load a trained run from its folder, and compare several runs."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from elmolib.errors import WeightsError
from elmolib.formats.published import pretrained_path
from elmolib.formats.readers import read_model
from elmolib.settings.parameters import Parameters, ReportSettings, project_root
from elmolib.settings.run_folder import HISTORY, WEIGHTS


class TrainedRun(NamedTuple):
    """A run to compare with others."""

    name: str  # name of its folder
    history: pd.DataFrame  # a row per epoch
    parameters: dict[str, Any]  # the parameters in its weight file
    n_weights: int
    vocabulary_size: int


def model_path(settings: ReportSettings) -> Path:
    """Return the path of the model that notebooks 03 to 06 read.

    If there is none yet, raise a WeightsError; if it cannot be downloaded, a DownloadError.
    """
    if settings.model is not None:
        return pretrained_path(settings.model, project_root())
    trained = settings.run_path / WEIGHTS
    if not trained.is_file():
        advice = "run notebooks/02_train.ipynb with these parameters first"
        other = "set model to an existing model, such as en-tiny"
        raise WeightsError(f"There is no {trained}: {advice}, or {other}.")
    return trained


def find_runs(folder: str | Path) -> list[Path]:
    """Return the folders in `folder` that hold a trained run, sorted by name."""
    found = Path(folder).glob(f"*/{WEIGHTS}")
    return sorted(path.parent for path in found if path.with_name(HISTORY).exists())


def read_runs(folders: Iterable[str | Path]) -> list[TrainedRun]:
    """Read trained runs; raise a WeightsError for a bad weight file or one without a record."""
    runs = []
    for folder in map(Path, folders):
        stored = read_model(folder / WEIGHTS)
        record = stored.training_record or {}
        parameters = record.get("parameters")
        if not isinstance(parameters, dict) or stored.vocabulary is None:
            problem = f"{folder / WEIGHTS} does not record how it was trained"
            raise WeightsError(f"{problem}: leave its folder out of the comparison.")
        n_weights = sum(array.size for array in stored.arrays.values())
        # Add a checksum, because different texts may have the same file name.
        texts = hashlib.sha256(json.dumps(record.get("texts")).encode()).hexdigest()[:8]
        parameters = parameters | {"checksum of text": texts}
        found = folder.name, read_history(folder), parameters, n_weights, len(stored.vocabulary)
        runs.append(TrainedRun(*found))
    return runs


def read_history(folder: Path) -> pd.DataFrame:
    """Read `history.csv`, a row per epoch; raise a WeightsError if it is missing or damaged."""
    try:
        return pd.read_csv(folder / HISTORY)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()  # the run was stopped in its first epoch
    except (OSError, ValueError):
        raise WeightsError(
            f"{folder / HISTORY} is missing or damaged: resume the training to write it anew."
        ) from None


def runs_table(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """Return a table with a row per run.

    The columns are weights (their number), vocabulary (its size), epochs, forward, backward and
    mean (the held-out perplexity after the last epoch, if text was held out), minutes, and all
    parameters that affect the model and differ between runs.
    """
    rows = {}
    for run in runs:
        last = run.history.iloc[-1] if len(run.history) else {}
        rows[run.name] = {
            "weights": run.n_weights,
            "vocabulary": run.vocabulary_size,
            "epochs": last.get("epoch", 0.0),
            **{name: last.get(f"heldout_{name}") for name in ("forward", "backward", "mean")},
            "minutes": run.history["seconds"].sum() / 60 if "seconds" in run.history else None,
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    for key in dict.fromkeys(name for run in runs for name in run.parameters):
        values = [str(run.parameters.get(key)) for run in runs]
        if key not in Parameters.may_change() and len(set(values)) > 1:
            table[key] = values
    return table
