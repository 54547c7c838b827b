"""The HDF5 file that `embed_corpus` fills: one dataset per line, at a position known in advance.

HDF5 first creates the datasets without values and reports the position of each in the file. After
that, elmolib writes and reads the values at these positions itself, because HDF5 is slow at opening
many small datasets. The user block, which HDF5 leaves to the application at the start of the file,
stores the number of lines that are done.
"""

import hashlib
import json
import math
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from elmolib.errors import CorpusError, WeightsError
from elmolib.files import require_regular_file
from elmolib.formats.hdf5 import DAMAGE, DeferredErrors, find_data, newer_format, require_stored

FORMAT = 3
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
METADATA, TEXT, LINES = "elmolib_embedding", "sentence_to_index", "elmolib_lines"
USER_BLOCK = 512
MAX_TEXT_BYTES = 2**31 - 1  # the limit of a NumPy string
_quoted = json.JSONEncoder(ensure_ascii=False).encode


def lay_out(
    file: DeferredErrors,
    blocks: Iterable[Sequence[list[str]]],
    shape: Sequence[int],
    metadata: dict[str, Any],
) -> None:
    """Write the whole file except the arrays' values, and reserve the space for the values.

    Args:
        file: an empty file.
        blocks: the words of each line, some lines at a time.
        shape: the shape of the array of one word. The array of a line has one more axis, its words,
            before the last axis.
        metadata: a dictionary with the `dtype` of the arrays. `Layout` returns it.

    Raises:
        OverflowError: the text is too long for one string in HDF5.
    """
    reserved = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    reserved.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    reserved.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    reserved.set_obj_track_times(False)
    dtype = h5py.h5t.py_create(DTYPES[metadata["dtype"]])
    separator, entries, lines = _separator(metadata), list[bytes](), array("q")
    with _new_file(file) as hdf5:
        for block in blocks:
            for words in block:
                number = len(entries)
                space = h5py.h5s.create_simple((*shape[:-1], len(words), shape[-1]))
                data = h5py.h5d.create(hdf5.id, b"%d" % number, dtype, space, dcpl=reserved)
                lines.extend([len(words), data.get_offset() if words else 0])
                entries.append(f'{_quoted(separator.join(words))}: "{number}"'.encode())
            if file.error is not None:
                raise file.error
        text = b"{" + b",\n".join(entries) + b"}"
        if len(text) > MAX_TEXT_BYTES:
            raise OverflowError(f"its words have more than {MAX_TEXT_BYTES:,} bytes")
        hdf5.create_dataset(TEXT, data=np.array([text]), track_times=False)
        hdf5.attrs[LINES] = table = np.reshape(lines, (-1, 2))
        metadata = metadata | {"shape": list(shape), "lines": _checksum(table)}
        hdf5.attrs[METADATA] = np.bytes_(json.dumps(metadata, sort_keys=True))
    file.seek(0)
    file.write(bytes(USER_BLOCK))


class Layout:
    """A file that `lay_out` wrote: the words and, where they are written, the values of its lines.

    Attributes:
        metadata: the dictionary that `lay_out` got.
        lengths: the number of words of each line, int64 (n_lines,).
        places: the position of each line's values in the file, in bytes, int64 (n_lines,).

    Raises:
        CorpusError: the file is missing or damaged. All methods raise it.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self.metadata: dict[str, Any] = read_metadata(path)
        with naming_damage(path):
            self._shape, self._dtype = self.metadata["shape"], DTYPES[self.metadata["dtype"]]
            self._data = np.memmap(path, np.uint8, "r")
            self._separator = _separator(self.metadata)
            with h5py.File(path, "r") as file:
                if h5py.h5a.open(file.id, LINES.encode()).get_storage_size() > len(self._data):
                    raise LookupError("its table of lines is larger than the file")
                table = file.attrs[LINES]
                if _checksum(table) != self.metadata["lines"]:
                    raise LookupError("its table of lines has changed")
                text = find_data(file, TEXT, str(path))
                require_stored(file, [(TEXT, text)], str(path))
                start = text.id.get_offset()
                self._text = self._data[start : start + text.dtype.itemsize]
            self.lengths: np.ndarray = table[:, 0].copy()
            self.places: np.ndarray = table[:, 1].copy()
            self.lines_done = int(self._data[:8].view("<i8")[0])  # whose values are in the file

    def vectors(self, line: int) -> np.ndarray:
        """Return the array of a line."""
        with naming_damage(self.path):
            *axes, dim = self._shape
            shape = (*axes, int(self.lengths[line]), dim)
            place, size = int(self.places[line]), math.prod(shape) * self._dtype.itemsize
            return np.array(self._data[place : place + size].view(self._dtype).reshape(shape))

    def lines(self, first: int, stop: int) -> list[list[str]]:
        """Return the words of the lines from `first` to `stop - 1`."""
        with naming_damage(self.path):
            start, end = (int(self._line_starts[k]) for k in (first, stop))
            entries = self._text[start:end].tobytes().rstrip(b",\n}")
            pairs = json.loads(b"{%b}" % entries, object_pairs_hook=list)
            words = [key.split(self._separator) if key else [] for key, _ in pairs]
            if list(map(len, words)) != self.lengths[first:stop].tolist():
                raise LookupError("a line of its text has an unexpected number of words")
            return words

    @cached_property
    def _line_starts(self) -> np.ndarray:
        # Each JSON entry is on its own line, because JSON escapes line feeds within words.
        ends = 1 + np.flatnonzero(self._text == ord("\n"))
        starts = np.concatenate([[1], ends, [len(self._text)]])
        if len(starts) != len(self.lengths) + 1:
            raise LookupError("its text has an unexpected number of lines")
        return starts


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a vector file, which may be unfinished."""
    if not os.path.exists(path):
        raise CorpusError(f"There is no file {path}: make it with embed_corpus.")
    with naming_damage(path):
        require_regular_file(path)
        with h5py.File(path, "r") as file:
            metadata = json.loads(bytes(file.attrs[METADATA]))
        found = metadata["format"]
    if found != FORMAT:
        raise CorpusError(
            f"{path} has the format {found!r:.20}, but this elmolib reads {FORMAT}: remove it and "
            "embed the text again."
        )
    return metadata


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn every error that damaged bytes can cause into a CorpusError that names the file."""
    try:
        yield
    except (*DAMAGE, WeightsError) as error:
        problem = "is damaged or was not made by embed_corpus: remove or rename it"
        raise CorpusError(f"{path} {newer_format(error) or problem}.") from None


def _new_file(file: DeferredErrors) -> h5py.File:
    """Create a file with a user block and no time stamps; attributes may be larger than 64 KiB."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_userblock(USER_BLOCK)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V110)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, file)
    return h5py.File(h5py.h5f.create(b"layout", h5py.h5f.ACC_TRUNC, creation, access))


def _separator(metadata: dict[str, Any]) -> str:
    """Return the separator of words: a tab if words may contain spaces, otherwise a space."""
    return "\t" if metadata["tokenizer"]["tokenized"] == "tabs" else " "


def _checksum(table: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(table, "<i8").tobytes()).hexdigest()
