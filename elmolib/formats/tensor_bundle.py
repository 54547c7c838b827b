"""Read the variables of a TensorFlow checkpoint as data, without TensorFlow.

A checkpoint is an `.index`, which is a table of LevelDB, and files of raw values.

References:
    TensorFlow, `core/util/tensor_bundle` and `core/lib/io/format.cc`; Protocol Buffers, "Encoding".
"""

import math
import struct
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from elmolib.errors import WeightsError
from elmolib.files import read_limited
from elmolib.formats.archives import DAMAGE
from elmolib.formats.assembly import Array, values_at

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_MAX_INDEX, _MAX_ENTRIES, _MAX_NAME, _MAX_FILES = 16_000_000, 20_000, 1000, 1000
_DTYPES: dict[int, np.dtype] = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 19: np.dtype("<f2")}


def read_variables(prefix: Path, source: str) -> dict[str, Array]:
    """Return the float variables of a checkpoint; `prefix` is its path without ending."""
    index = read_limited(f"{prefix}.index", _MAX_INDEX, WeightsError, f"{source}.index")
    try:
        table = _table(index)
        n = min(int(dict(fields(table.pop(b""))).get(1, 1)), _MAX_FILES)
        files = [Path(f"{prefix}.data-{k:05d}-of-{n:05d}") for k in range(n)]
        found, sizes = {}, [file.stat().st_size for file in files]
        room = list(sizes)
        for name, message in table.items():
            entry: dict[int, Any] = {2: b""} | dict(fields(message))
            if (dtype := _DTYPES.get(entry.get(1, 0))) is None or name[:1] == b"\0":
                continue
            if 7 in entry:
                raise ValueError(f"the variable {name.decode()} is in slices, not in one piece")
            shape = tuple(dict(fields(dim)).get(1, 0) for k, dim in fields(entry[2]) if k == 2)
            file, offset, size = (entry.get(k, 0) for k in (3, 4, 5))
            # Several variables could share their values, so that they need far too much memory.
            room[file] -= size
            missing = room[file] < 0 or offset + size > sizes[file]
            if missing or math.prod(shape) * dtype.itemsize != size:
                raise ValueError(f"the variable {name.decode()} is not completely stored")
            read = partial(values_at, files[file], offset, dtype, shape)
            found[name.decode()] = Array(name.decode(), shape, read)
        return found
    except OSError as error:
        raise WeightsError(f"{source} lacks {error.filename} ({error.strerror}).") from None
    except DAMAGE as error:
        raise WeightsError(f"{source}.index cannot be read: {error}.") from None


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the number and value of each field of a message in Protocol Buffers."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        if key & 7 == 0:
            value, at = varint(message, at)
            yield key >> 3, value
            continue
        size, at = varint(message, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
        if at + size > len(message):
            raise ValueError("it is cut off")
        yield key >> 3, message[at : at + size]
        at += size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the whole number at a place, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at + shift // 7] & 127) << shift
        if data[at + shift // 7] < 128:
            return value, at + shift // 7 + 1
    raise ValueError("it has a number that is too long")


def _table(index: bytes) -> dict[bytes, bytes]:
    footer = index[-48:]
    if footer[40:] != _MAGIC:
        raise ValueError("it is no table")
    _, at = varint(footer, varint(footer, 0)[1])
    blocks = (_block(index, handle) for _, handle in _block(index, footer[at:]))
    entries = list(islice(chain.from_iterable(blocks), _MAX_ENTRIES + 1))
    if len(entries) > _MAX_ENTRIES:
        raise ValueError("it has too many entries")
    return dict(entries)


def _block(index: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    start, at = varint(handle, 0)
    block = index[start : start + varint(handle, at)[0]]
    if index[start + len(block)] != 0:
        raise ValueError("it is compressed")
    end = len(block) - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        added, at = varint(block, at)
        size, at = varint(block, at)
        key = key[:shared] + block[at : at + added]
        if len(key) > _MAX_NAME:
            raise ValueError("it has a name that is too long")
        yield key, block[at + added : at + added + size]
        at += added + size
