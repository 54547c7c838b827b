"""Checkpoints: the files from which a training run resumes."""

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import h5py
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from elmolib.errors import TrainingError, WeightsError
from elmolib.formats import hdf5
from elmolib.formats.names import SOFTMAX
from elmolib.settings.run_folder import CHECKPOINTS

FORMAT = 2
Model = TypeVar("Model", bound=BaseModel)

_NAME = re.compile(r"step-(\d{9,18})\.h5")
_MAX_METADATA_BYTES = 64_000_000


class CheckpointMetadata(BaseModel):
    """Everything in a checkpoint except its arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    identity: dict[str, Any]  # settings and checksums that must be the same when the run resumes
    step: int = Field(ge=0)  # number of steps taken
    epoch_steps: int = Field(ge=0)  # steps since the last line of the history
    epoch_seconds: float = Field(ge=0)  # time that those steps took
    history: list[dict[str, float]]  # the lines of `history.csv`


class _Content(BaseModel):
    """The content of a checkpoint in any version of the format, without the values of arrays."""

    model_config = ConfigDict(strict=True)

    format: int
    arrays: list[str]
    metadata: dict[str, Any]


class Checkpoint(NamedTuple):
    """The state of a run: float arrays by name, metadata, and the path of the checkpoint file."""

    arrays: dict[str, np.ndarray]
    metadata: CheckpointMetadata
    path: Path


class Checkpoints:
    """The latest `keep` checkpoints of a run, each a file with a checksum inside."""

    def __init__(self, run_folder: Path, keep: int) -> None:
        self.folder, self.keep = run_folder / CHECKPOINTS, keep

    def paths(self) -> list[Path]:
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((path for path in files if _NAME.fullmatch(path.name)), key=_step)

    def latest(self) -> Path | None:
        """Return the path of the last checkpoint, or None if there is none."""
        return next(reversed(self.paths()), None)

    def write(self, arrays: Mapping[str, np.ndarray], metadata: CheckpointMetadata) -> Path:
        """Write a checkpoint, then delete all checkpoints except the latest `keep`.

        If the file cannot be written, raise an OSError; earlier checkpoints are unchanged.
        """
        path = self.folder / f"step-{metadata.step:09d}.h5"
        write_checkpoint(path, arrays, metadata)
        # Checkpoints of later steps are damaged: otherwise, the run would have resumed from them.
        paths = self.paths()
        kept = [other for other in paths if _step(other) <= metadata.step][-self.keep :]
        for other in set(paths) - set(kept):
            other.unlink()
        return path

    def read_latest(self) -> Checkpoint | None:
        """Read the latest undamaged checkpoint, and warn of damaged ones. Return None without any.

        Raises:
            TrainingError: all checkpoints are damaged, or the latest has an unsupported format.
        """
        damaged: list[str] = []
        for path in reversed(self.paths()):
            try:
                checkpoint = read_checkpoint(path)
            except WeightsError as error:
                damaged.append(str(error).removesuffix("."))
                continue
            if damaged:
                warnings.warn(f"{'; '.join(damaged)}; resuming from {path.name}.", stacklevel=4)
            return checkpoint
        if damaged:
            problem = f"{damaged[0]}, and there is no other checkpoint to resume from"
            advice = f"delete the folder {self.folder} to train from the beginning"
            raise TrainingError(f"{problem}: {advice}.")
        return None


def write_checkpoint(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: CheckpointMetadata
) -> None:
    """Write a checkpoint; `path` is replaced only when the new file is complete."""
    content = {"format": FORMAT, "arrays": sorted(arrays), "metadata": metadata.model_dump()}
    text = json.dumps(content).encode()
    with hdf5.create_hdf5(path) as file:
        for name in sorted(arrays):
            file.create_dataset(name, data=arrays[name], track_times=False)
        hdf5.write_bytes(file, "metadata", text)
        hdf5.write_bytes(file, "sha256", _digest(text, arrays))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file that `write_checkpoint` wrote.

    Raises:
        WeightsError: the file is damaged, or is not a checkpoint.
        TrainingError: the file has an unsupported checkpoint format.
    """
    source = str(path)
    with hdf5.open_hdf5(path, source) as file:
        text = hdf5.stored_bytes(file, "metadata", _MAX_METADATA_BYTES, source) or b""
        content = _validated(_Content.model_validate_json, text, source)
        datasets = {name: _dataset(file, name, source) for name in content.arrays}
        hdf5.require_stored(file, datasets.items(), source)
        arrays = {name: dataset[()] for name, dataset in datasets.items()}
        if hdf5.stored_bytes(file, "sha256", 32, source) != _digest(text, arrays):
            raise _damaged(source, "its checksum does not match its content")
    if content.format != FORMAT:
        found = f"{source} has checkpoint format {content.format}"
        ours = f"this elmolib reads format {FORMAT}"
        advice = f"resume with the elmolib that wrote it, or delete the folder {path.parent}"
        raise TrainingError(f"{found}, but {ours}: {advice} to train from the beginning.")
    metadata = _validated(CheckpointMetadata.model_validate, content.metadata, source)
    return Checkpoint(arrays, metadata, path)


def read_layers(path: Path) -> tuple[int, dict[str, np.ndarray]]:
    """Return the step of a checkpoint, and its weights below the softmax by elmolib's names.

    Only a small part of the file is read, so its checksum is not verified. The errors are those of
    `read_checkpoint`.
    """
    source, prefix = str(path), "weights/"
    with hdf5.open_hdf5(path, source) as file:
        text = hdf5.stored_bytes(file, "metadata", _MAX_METADATA_BYTES, source) or b""
        names = _validated(_Content.model_validate_json, text, source).arrays
        wanted = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
        datasets = {k: _dataset(file, v, source) for k, v in wanted.items() if k not in SOFTMAX}
        hdf5.require_stored(file, datasets.items(), source)
        return _step(path), {name: dataset[()] for name, dataset in datasets.items()}


def _validated(validate: Callable[[Any], Model], content: object, source: str) -> Model:
    try:
        return validate(content)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"])) or "its metadata"
        raise _damaged(source, f"{key} is missing or invalid") from None


def _dataset(file: h5py.File, name: str, source: str) -> h5py.Dataset:
    dataset = hdf5.find_data(file, name, source)
    if dataset is None or dataset.dtype.name not in ("float32", "float64") or dataset.shape is None:
        raise _damaged(source, f"the array {name[:80]!r} is missing or does not contain floats")
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
