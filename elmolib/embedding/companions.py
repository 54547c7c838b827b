"""Files next to a model. They store results that were computed from the model's weights."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path

import numpy as np

from elmolib.errors import WeightsError
from elmolib.files import atomic_write, read_limited, write_errors
from elmolib.formats.names import SOFTMAX
from elmolib.formats.weights import StoredModel
from elmolib.settings.architecture import Architecture
from elmolib.text.spelling import BYTES, Spelling


def fingerprint(
    architecture: Architecture,
    arrays: Mapping[str, np.ndarray],
    spelling: Spelling = BYTES,
    mix: Sequence[float] | None = None,
) -> str:
    """Hash a model: models with the same hash give the same vectors."""
    digest = hashlib.sha256(json.dumps(architecture.to_json(), sort_keys=True).encode())
    for name, values in sorted(arrays.items()):
        if name not in SOFTMAX:
            digest.update(np.ascontiguousarray(values).data)
    if spelling != BYTES or mix is not None:
        digest.update(json.dumps([spelling.to_json(), mix], sort_keys=True).encode())
    return digest.hexdigest()


def write_companion(model: StoredModel, suffix: str, content: bytes) -> None:
    """Store a result that was computed from a model's arrays; on failure, raise a WeightsError."""
    path, advice = _path(model, suffix), "load a copy of the model in a folder of your own"
    with write_errors(path, WeightsError, advice), atomic_write(path) as unfinished:
        unfinished.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def read_companion(model: StoredModel, suffix: str) -> bytes | None:
    """Return the result stored for this model, or None. If it is damaged, raise a WeightsError."""
    # Hashing a large model takes time, and most models have no such file.
    folder, name = _place(model)
    if not any(folder.glob(f"{escape(name)}.*.{suffix}")):
        return None
    path = _path(model, suffix)
    if not path.exists():
        return None
    digest, _, content = read_limited(path, 2**32, WeightsError).partition(b"\n")
    if digest != hashlib.sha256(content).hexdigest().encode():
        raise WeightsError(f"{path} is damaged: remove it, and compute it again.")
    return content


def _path(model: StoredModel, suffix: str) -> Path:
    # The hash is in the name, so another model at the same path never uses the files of this model.
    folder, name = _place(model)
    digest = fingerprint(model.architecture, model.arrays, model.spelling)
    return folder / f"{name}.{digest[:12]}.{suffix}"


def _place(model: StoredModel) -> tuple[Path, str]:
    """Return the folder of a model's companions, and the beginning of their names."""
    source = Path(model.source).absolute()
    return next(filter(Path.is_dir, source.parents)), source.name
