"""The files from which a training run goes on."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from elmolib.errors import TrainingError, WeightsError
from elmolib.files import remove_unfinished
from elmolib.hdf5 import created, find_data, opened, require_stored, stored_bytes, write_bytes

_NAME = re.compile(r"step-(\d{9,18})\.h5")
_FOLDER = "checkpoints"
_MAX_FACTS_BYTES = 64_000_000
_FLOATS = ("float32", "float64")


class Facts(BaseModel):
    """What a checkpoint knows besides its arrays.

    Args:
        identity: what must be the same for the run to go on.
        step: steps taken.
        epoch_steps: those of them that are not in the history yet.
        epoch_seconds: the time that these took.
        history: the lines of `history.csv`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    identity: dict[str, Any]
    step: int = Field(ge=0)
    epoch_steps: int = Field(ge=0)
    epoch_seconds: float = Field(ge=0)
    history: list[dict[str, float]]


class Checkpoint(NamedTuple):
    """The state of a run.

    Attributes:
        arrays: float arrays by name.
        facts: everything else.
        path: the file that holds them.
    """

    arrays: dict[str, np.ndarray]
    facts: Facts
    path: Path


class Checkpoints:
    """The last few states of a run, each in a file of its own with a checksum inside.

    Args:
        run_folder: of the run.
        keep: how many.

    Attributes:
        folder: where they are.
    """

    def __init__(self, run_folder: Path, keep: int) -> None:
        self.folder = run_folder / _FOLDER
        self.keep = keep

    def refuse_older(self) -> None:
        """Refuse a run of a version that kept one state beside this folder.

        Raises:
            TrainingError: there is one, which would else be begun anew and overwritten.
        """
        older = self.folder.with_name("checkpoint.h5")
        if older.exists() and self.latest() is None:
            raise TrainingError(
                f"{older} is the state of a run by an older elmolib, which this one cannot go on "
                "with: choose another run_dir, or remove the folder to train anew."
            )

    def paths(self) -> list[Path]:
        """The files, by rising step."""
        if not self.folder.is_dir():
            return []
        return sorted(
            (path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)), key=_step
        )

    def latest(self) -> Path | None:
        """The file of the highest step, if there is any."""
        return next(reversed(self.paths()), None)

    def write(self, arrays: Mapping[str, np.ndarray], facts: Facts) -> Path:
        """Write a checkpoint, and remove those that are no longer to be kept.

        Raises:
            OSError: it cannot be written; the ones before are as they were.
        """
        path = self.folder / f"step-{facts.step:09d}.h5"
        write_checkpoint(path, arrays, facts)
        # Those of a higher step are those that were damaged when the run went on from this side.
        before = [other for other in self.paths() if _step(other) <= facts.step]
        for other in set(self.paths()) - set(before[-self.keep :]):
            other.unlink()
        return path

    def remove_unfinished(self) -> None:
        """Remove what a kill left of a checkpoint in writing."""
        remove_unfinished(self.folder)

    def read_latest(self) -> Checkpoint | None:
        """Read the latest checkpoint that is whole.

        Returns:
            the checkpoint, or None where none was ever written.

        Raises:
            TrainingError: there are some, but all are damaged.

        Warns:
            UserWarning: one is damaged, and an earlier one was read instead.
        """
        damaged: list[str] = []
        for path in reversed(self.paths()):
            try:
                checkpoint = read_checkpoint(path)
            except WeightsError as error:
                damaged.append(str(error))
                continue
            if damaged:
                warnings.warn(
                    f"{' '.join(damaged)} The run goes on from {path.name}, the one before.",
                    stacklevel=4,
                )
            return checkpoint
        if damaged:
            raise TrainingError(
                f"{damaged[0].removesuffix('.')}, and there is no other to go on from: remove the "
                f"folder {self.folder} to train from the beginning."
            )
        return None


def has_checkpoints(run_folder: Path) -> bool:
    """Whether a run was begun in a folder."""
    return Checkpoints(run_folder, keep=1).latest() is not None


def write_checkpoint(path: Path, arrays: Mapping[str, np.ndarray], facts: Facts) -> None:
    """Write arrays and facts; `path` is replaced only when all is written.

    Raises:
        OSError: it cannot be written.
    """
    names = sorted(arrays)
    text = json.dumps({"arrays": names, "facts": facts.model_dump()}).encode()
    with created(path) as file:
        for name in names:
            file.create_dataset(name, data=arrays[name], track_times=False)
        write_bytes(file, "facts", text)
        write_bytes(file, "sha256", _digest(text, arrays))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises:
        WeightsError: the file is damaged or foreign.
    """
    source = str(path)
    with opened(path, source) as file:
        text = stored_bytes(file, "facts", _MAX_FACTS_BYTES, source)
        written = _parsed(text, source)
        datasets = {name: _dataset(file, name, source) for name in written["arrays"]}
        require_stored(file, datasets.items(), source)
        arrays = {name: dataset[()] for name, dataset in datasets.items()}
        if stored_bytes(file, "sha256", 32, source) != _digest(text, arrays):
            raise _damaged(source, "its checksum is not that of its content")
    try:
        return Checkpoint(arrays, Facts.model_validate(written["facts"]), path)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise _damaged(source, f"{where} is missing or wrong") from None


def _parsed(text: bytes | None, source: str) -> dict[str, Any]:
    try:
        written = json.loads(text or b"")
    except (ValueError, RecursionError):
        raise _damaged(source, "its facts are no JSON") from None
    if not isinstance(written, dict) or written.keys() != {"arrays", "facts"}:
        raise _damaged(source, "its facts are not what they should be")
    names = written["arrays"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _damaged(source, "its list of arrays is none")
    return written


def _dataset(file: h5py.File, name: str, source: str) -> h5py.Dataset:
    dataset = find_data(file, name, source)
    if dataset is None or dataset.dtype.name not in _FLOATS or dataset.shape is None:
        raise _damaged(source, f"the array {name[:80]!r} is missing or no floats")
    return dataset


def _digest(text: bytes, arrays: Mapping[str, np.ndarray]) -> bytes:
    digest = hashlib.sha256(text)
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype.str} {values.shape} ".encode("utf-8", "replace"))
        digest.update(values.data)
    return digest.digest()


def _step(path: Path) -> int:
    return int(_NAME.fullmatch(path.name)[1])


def _damaged(source: str, reason: str) -> WeightsError:
    return WeightsError(f"{source} is damaged: {reason}.")
