"""Read the tensors in files of PyTorch, without PyTorch.

A pickle describes the tensors. Pickles can name any function of Python, but this reader calls none:
it knows the operations and names that tensors need, and refuses every other pickle.

References:
    PyTorch, `torch/serialization.py`: `_legacy_load`, for files before version 1.6, and `_load`.
"""

import math
import pickletools
import struct
import zipfile
from contextlib import suppress
from copy import copy
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from elmolib.errors import WeightsError, reason
from elmolib.files import require_regular_file
from elmolib.formats.archives import DAMAGE, begins_with, is_zip
from elmolib.formats.assembly import Array, values_at

_MAGIC, _PICKLE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "data.pkl"
_DTYPES = {"Float": "<f4", "Half": "<f2", "Double": "<f8", "Long": "<i8", "Int": "<i4"}
_DTYPES |= {"Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?", "BFloat16": "<u2"}
_DICT, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_STORAGES = {f"torch {name}Storage": np.dtype(dtype) for name, dtype in _DTYPES.items()}
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES |= {"EMPTY_DICT": {}, "EMPTY_LIST": []}


class _Tensor(NamedTuple):
    """A part of a storage. The storage has a type, a name in the file and a number of values."""

    dtype: np.dtype
    key: str
    count: int
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def recognizes(path: Path) -> bool:
    """Whether a file is one of PyTorch: of the old form, or a zip file with a pickle."""
    if is_zip(path):
        with suppress(*DAMAGE), zipfile.ZipFile(path) as archive:
            return any(name.endswith(_PICKLE) for name in archive.namelist())
    return begins_with(path, _MAGIC)


def read_tensors(path: Path, source: str) -> dict[str, Array]:
    """Return the tensors of a state dictionary that hold floats."""
    try:
        require_regular_file(path)
        with path.open("rb") as file:
            state, starts = (_from_zip if is_zip(path) else _from_stream)(file)
        return {
            name: _array(name, tensor, path, starts[tensor.key])
            for name, tensor in state.items()
            if type(tensor) is _Tensor and tensor.dtype.kind == "f"
        }
    except (*DAMAGE, OSError) as error:
        problem = f"{source} is damaged, or holds more than the tensors of a model"
        raise WeightsError(f"{problem}: {reason(error)}.") from None


def require_stored(files: list[Path], source: str, wanted: list[Array]) -> None:
    """Refuse arrays that share their values, so that they need far more memory than their files."""
    size = sum(file.stat().st_size for file in files)
    if 2 * sum(math.prod(array.shape) for array in wanted) > size:
        raise WeightsError(f"{source} declares arrays larger than the file: get the file again.")


def _array(name: str, tensor: _Tensor, path: Path, start: int) -> Array:
    dtype, _, count, first, shape, strides = tensor
    size = math.prod(shape)
    if strides != tuple(math.prod(shape[k + 1 :]) for k in range(len(shape))):
        raise ValueError(f"{name} is not stored row by row")
    start += first * dtype.itemsize
    end = start + size * dtype.itemsize
    if min(first, 0, *shape) < 0 or first + size > count or end > path.stat().st_size:
        raise ValueError(f"{name} is not completely stored")
    return Array(name, shape, partial(values_at, path, start, dtype, shape))


def _from_stream(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, int]]:
    """Read the old form: five pickles, then each storage after its number of values."""
    # A read from a mapped file takes no more memory than the file has bytes.
    with mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
        _, _, system, state, keys = (_unpickled(mapped) for _ in range(5))
        start = mapped.tell()
    if system["little_endian"] is not True:
        raise ValueError("its numbers are big-endian")
    tensors = [tensor for tensor in state.values() if type(tensor) is _Tensor]
    sizes = {tensor.key: tensor.dtype.itemsize * tensor.count for tensor in tensors}
    starts = {}
    for key in keys:
        starts[key] = start + 8
        start += 8 + sizes[key]
    return state, starts


def _from_zip(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, int]]:
    """Read the new form: a pickle, and one file for each storage."""
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(_PICKLE))
        folder, starts = name.removesuffix(_PICKLE), {}
        if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is compressed")
        with archive.open(name) as packed:
            state = _unpickled(packed)
        for info in archive.infolist():
            file.seek(info.header_offset + 26)
            start = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
            if info.compress_type == zipfile.ZIP_STORED:
                starts[info.filename.removeprefix(f"{folder}data/")] = start
        return state, starts


def _unpickled(file: Any) -> Any:
    stack: list[Any] = []
    marks, memo = list[int](), dict[int, Any]()
    for operation, argument, _ in pickletools.genops(file):
        match operation.name:
            case "PROTO":
                pass
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case name if name in _VALUES:
                stack.append(copy(_VALUES[name]))
            case "MARK":
                marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                at = marks.pop() if name == "TUPLE" else len(stack) - int(name[-1])
                stack[at:] = [tuple(stack[at:])]
            case "SETITEM" | "SETITEMS" | "APPEND" | "APPENDS" as name:
                n = {"SETITEM": 2, "APPEND": 1}.get(name)
                at = len(stack) - n if n else marks.pop()
                stack[at:], items = [], stack[at:]
                if name.startswith("APPEND"):
                    stack[-1].extend(items)
                else:
                    stack[-1].update(zip(map(_text, items[::2]), items[1::2], strict=True))
            case "GLOBAL":
                stack.append(argument)
            case "BINPERSID":
                stack.append(_storage(*stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_made(stack.pop(), *arguments))
            case "BUILD":
                stack.pop()  # attributes of a dictionary
            case "STOP":
                return stack.pop()
            case name:
                raise ValueError(f"its pickle has the operation {name}")


def _text(key: Any) -> str:
    # The hash of nested tuples could take forever.
    if not isinstance(key, str):
        raise ValueError("it has a key that is no text")
    return key


def _storage(_: Any, name: str, key: str, place: Any, count: int, *view: Any) -> tuple:
    if view not in ((), (None,)) or _text(name) not in _STORAGES:
        raise ValueError(f"it names {name}")
    return _STORAGES[name], _text(key), count


def _made(name: str, *arguments: Any) -> Any:
    """Return what a function of PyTorch would return."""
    if name == _DICT:
        return {}
    if name == _PARAMETER:
        return arguments[0]
    if name != _TENSOR:
        raise ValueError(f"it names {_text(name)}")
    (dtype, key, count), first, shape, strides, *_ = arguments
    numbers = all(type(number) is int for number in (count, first, *shape, *strides))
    if not numbers or not isinstance(dtype, np.dtype):
        raise ValueError("it has a tensor of an odd form")
    return _Tensor(dtype, _text(key), count, first, shape, strides)
