"""Write HDF5 files atomically, and read HDF5 files without trusting them.

A dataset is read only if its data are stored in the file itself. Links, external or virtual
datasets, compression, and arrays larger than the file are refused. In all functions, `source` is
the name of the file in error messages.
"""

import io
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from elmolib.errors import ElmolibError, WeightsError
from elmolib.files import atomic_write, require_regular_file

DAMAGE = (OSError, RuntimeError, ValueError, LookupError, TypeError, ArithmeticError)
"""Exceptions that h5py raises if a file is damaged."""


def newer_format(error: BaseException) -> str:
    """Return the end of an error message if a newer HDF5 may have written the file, else ""."""
    if "bad version number" not in str(error):
        return ""
    advice = "write the file again with h5py.File(path, 'w', libver=('earliest', 'v110'))"
    problem = f"needs a newer HDF5 than {h5py.version.hdf5_version}, or is damaged ({error})"
    return f"{problem}: update h5py, or {advice}"


class DeferredErrors(io.FileIO):
    """A file that keeps write errors until the end of `with`, because they would crash HDF5."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        try:
            while self.error is None and len(left):
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = error
            return self.tell()

    def __exit__(self, *failure: Any) -> None:
        super().__exit__(*failure)
        if self.error is not None:
            raise self.error


@contextmanager
def create_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open a new HDF5 file that atomically replaces `path` when the block ends without an error."""
    with (
        atomic_write(path) as unfinished,
        DeferredErrors(unfinished, "wb+") as plain,
        h5py.File(plain, "w") as file,
    ):
        yield file


def write_bytes(file: h5py.File, name: str, text: bytes) -> None:
    """Store bytes as a dataset without a timestamp, so that equal content gives equal files."""
    file.create_dataset(name, data=np.frombuffer(text, np.uint8), track_times=False)


@contextmanager
def open_hdf5(path: Path, source: str) -> Iterator[h5py.File]:
    """Open a file for reading. If it is damaged, this or the `with` block raises a WeightsError."""
    try:
        require_regular_file(path)
        with h5py.File(path, "r") as file:
            yield file
    except ElmolibError:
        raise
    except DAMAGE as error:
        first_line = str(error).partition("\n")[0][:200]
        problem = f"is damaged or not an HDF5 file ({first_line})"
        raise WeightsError(f"{source} {newer_format(error) or problem}.") from None


def find(file: h5py.File, name: str, source: str) -> h5py.Dataset | h5py.Group | None:
    """Return the dataset or group of this name, or None. Soft and external links are refused."""
    node: Any = file
    for part in name.split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise WeightsError(f"{source}: {name} is a link, not data: store the data itself.")
        node = node[part]
    return node


def find_data(file: h5py.File, name: str, source: str) -> h5py.Dataset | None:
    """Return the dataset of this name, or None. Its data must be uncompressed and in this file."""
    node = find(file, name, source)
    if node is None:
        return None
    if not isinstance(node, h5py.Dataset):
        raise WeightsError(f"{source}: {name} is not an array.")
    if node.is_virtual or node.external:
        raise WeightsError(f"{source}: the array {name} is in another file: store it in this file.")
    # Compressed data could expand to any size. elmolib's own files are not compressed.
    if node.id.get_create_plist().get_nfilters():
        advice = "rewrite the file with `h5repack -f NONE`"
        raise WeightsError(f"{source}: the array {name} is compressed: {advice}.")
    return node


def require_stored(
    file: h5py.File, datasets: Iterable[tuple[str, h5py.Dataset]], source: str
) -> None:
    """Before memory is allocated, refuse arrays that declare more data than the file contains."""
    total = 0
    for name, dataset in datasets:
        n_bytes = math.prod(dataset.shape) * dataset.dtype.itemsize
        if dataset.id.get_storage_size() < n_bytes:
            raise WeightsError(f"{source}: {name} is not completely stored: get the file again.")
        total += n_bytes
    if total > os.path.getsize(file.filename):
        raise WeightsError(f"{source} declares arrays larger than the file: get the file again.")


def stored_bytes(file: h5py.File, name: str, limit: int, source: str) -> bytes | None:
    """Read at most `limit` bytes that `write_bytes` wrote, or return None if `name` is missing."""
    dataset = find_data(file, name, source)
    if dataset is None:
        return None
    if dataset.dtype != np.uint8 or dataset.ndim != 1 or dataset.size > limit:
        raise WeightsError(f"{source}: {name} is not text of at most {limit:,} bytes.")
    require_stored(file, [(name, dataset)], source)
    return dataset[()].tobytes()
