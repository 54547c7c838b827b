"""The file from which a training run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from elmolib.errors import TrainingError
from elmolib.files import replacing


def write_checkpoint(path: Path, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Write arrays and facts that JSON can hold; `path` is replaced only when all is written."""
    with replacing(path) as unfinished, h5py.File(unfinished, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, track_times=False)
        text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        file.create_dataset("facts", data=text, track_times=False)


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_checkpoint` wrote.

    Raises:
        TrainingError: the file is damaged or foreign.
    """
    arrays: dict[str, np.ndarray] = {}

    def collect(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and name != "facts":
            arrays[name] = item[...]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
            facts = json.loads(file["facts"][...].tobytes())
    except (OSError, KeyError, ValueError) as error:
        raise TrainingError(
            f"{path} is damaged ({error}): remove it to train from the beginning."
        ) from None
    return arrays, facts
