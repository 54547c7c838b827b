"""HDF5 files written so that no accident harms them, and read so that no file can do harm.

What is read must be plain data that lies in the file itself: no link, no external or virtual
dataset, no compression, and nothing larger than the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from elmolib.errors import ElmolibError, WeightsError
from elmolib.files import refuse_pipe, replacing


@contextmanager
def created(path: str | Path) -> Iterator[h5py.File]:
    """Hand out an HDF5 file that takes the place of `path` once the block is done.

    Raises:
        OSError: the file cannot be written; then `path` is what it was.
    """
    with (
        replacing(path) as unfinished,
        # Through a Python file, because HDF5's own access to a full disk can crash the process.
        unfinished.open("rb+") as plain_file,
        h5py.File(plain_file, "w") as file,
    ):
        yield file


def write_bytes(file: h5py.File, name: str, text: bytes) -> None:
    """Store bytes as a dataset, without the time of day."""
    file.create_dataset(name, data=np.frombuffer(text, np.uint8), track_times=False)


@contextmanager
def opened(path: Path, source: str) -> Iterator[h5py.File]:
    """Open a file for reading.

    Args:
        path: where it is.
        source: what error messages call it.

    Raises:
        WeightsError: the file, or what the block reads of it, is damaged.
    """
    try:
        refuse_pipe(path)
        with h5py.File(path, "r") as file:
            yield file
    except ElmolibError:
        raise
    # h5py turns the failures of HDF5 on damaged bytes into any of these.
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        first_line = str(error).partition("\n")[0][:200]
        raise WeightsError(f"{source} is damaged or no HDF5 weight file ({first_line}).") from None


def find(file: h5py.File, name: str, source: str) -> h5py.Dataset | h5py.Group | None:
    """Follow hard links only, because all others can lead out of the file.

    Returns:
        what has that name, or None.

    Raises:
        WeightsError: a part of the name is a link of another kind.
    """
    node: Any = file
    for part in name.split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise WeightsError(
                f"{source} is refused because its {name} is a link to elsewhere instead of data."
            )
        node = node[part]
    return node


def find_data(file: h5py.File, name: str, source: str) -> h5py.Dataset | None:
    """Find a dataset whose bytes all lie in the file as they are.

    Raises:
        WeightsError: what has that name is no such dataset.
    """
    node = find(file, name, source)
    if node is None:
        return None
    if not isinstance(node, h5py.Dataset):
        raise WeightsError(f"{source}: {name} is not an array.")
    if node.is_virtual or node.external:
        raise WeightsError(
            f"{source} is refused because its array {name} is stored in other files."
        )
    # A compressed array of a few bytes could unfold to any size, and floats hardly shrink.
    if node.id.get_create_plist().get_nfilters():
        raise WeightsError(
            f"{source}: the array {name} is compressed; "
            "rewrite the file with `h5repack -f NONE IN OUT`."
        )
    return node


def require_stored(
    file: h5py.File, datasets: Iterable[tuple[str, h5py.Dataset]], source: str
) -> None:
    """Refuse arrays that declare more than the file holds, before memory is taken for them.

    Raises:
        WeightsError: one of them does, or all together do.
    """
    total = 0
    for name, dataset in datasets:
        n_bytes = math.prod(dataset.shape) * dataset.dtype.itemsize
        if dataset.id.get_storage_size() < n_bytes:
            raise WeightsError(f"{source}: the array {name} is not completely stored in the file.")
        total += n_bytes
    if total > os.path.getsize(file.filename):
        raise WeightsError(f"{source} is refused because its arrays claim more than it holds.")


def stored_bytes(file: h5py.File, name: str, limit: int, source: str) -> bytes | None:
    """Read what `write_bytes` wrote, or give None where there is nothing of that name.

    Raises:
        WeightsError: it is not plain bytes, or more than `limit` of them.
    """
    dataset = find_data(file, name, source)
    if dataset is None:
        return None
    if dataset.dtype != np.uint8 or dataset.ndim != 1 or dataset.size > limit:
        raise WeightsError(f"{source}: {name} is not text of at most {limit:,} bytes.")
    require_stored(file, [(name, dataset)], source)
    return dataset[()].tobytes()
