"""Modules of TensorFlow Hub for TensorFlow 1: variables, and a graph that is read but never run."""

import re
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from elmolib.errors import WeightsError
from elmolib.files import read_limited
from elmolib.formats import assembly
from elmolib.formats.archives import DAMAGE
from elmolib.formats.assembly import Request, StoredModel
from elmolib.formats.options import Known
from elmolib.formats.tensor_bundle import fields, read_variables, varint
from elmolib.settings.architecture import Architecture

_GRAPH, _VARIABLES, _MAX_GRAPH = "saved_model.pb", "variables/variables", 100_000_000
_CLIP = r".*/lstm_cell/clip_by_value{}/Minimum/y"
_NUMBERS = {
    "cell_clip": _CLIP.format(""),
    "proj_clip": _CLIP.format("_1"),
    "max_characters": r"(?:.*/)?max_word_length",
}


def recognizes(path: Path) -> bool:
    """Whether a path is the folder of a module."""
    return (path / _GRAPH).is_file() and (path / f"{_VARIABLES}.index").is_file()


def read(path: Path, request: Request, source: str) -> StoredModel:
    """Read a module of Google or DeepPavlov. Its arrays are found by the ends of their names.

    References:
        https://tfhub.dev/google/elmo; DeepPavlov, `models/elmo/elmo2tfhub.py`.
    """
    variables = read_variables(path / _VARIABLES, f"{source}/{_VARIABLES}")
    arrays, index = assembly.from_bilm_tf(variables), path / f"{_VARIABLES}.index"
    scalars, factors = (
        [a for n, a in variables.items() if re.fullmatch(rf"(.*/)?aggregation/({end})", n)][:1]
        for end in (".*_W|weights", ".*_gamma|scaling")
    )
    mix = assembly.mix_of(scalars, factors, source)
    graph = read_limited(path / _GRAPH, _MAX_GRAPH, WeightsError, f"{source}/{_GRAPH}")
    options = partial(_architecture, graph, f"{source}/{_GRAPH}")
    return assembly.assemble(arrays, options, request, source, index, mix=mix)


def _architecture(graph: bytes, source: str, known: Known) -> Architecture:
    """Complete the dimensions by what the graph tells, or else by the usual values."""
    found, adds = dict[str, Any](), [0, 0]
    try:
        for name, operation, attributes in _nodes(graph):
            if "/lstm_cell/" in name:
                found = {"cell_clip": None, "proj_clip": None} | found
            if operation in ("Relu", "Tanh") and "/CNN/" in name:
                found["activation"] = operation.lower()
            if operation.startswith("Add") and (cell := re.search(r"/Cell([01])/rnn/while/", name)):
                adds[int(cell[1])] += 1
            for key, pattern in _NUMBERS.items():
                if operation == "Const" and re.fullmatch(pattern, name):
                    found[key] = _number(attributes)
    except DAMAGE as error:
        raise WeightsError(f"{source} is damaged ({error}): get it again.") from None
    if any(adds):
        found["use_skip_connections"] = adds[1] > adds[0]
    return Architecture.from_json({**known(), **found}, source)


def _nodes(graph: bytes) -> Iterator[tuple[str, str, list[bytes]]]:
    """Yield the name, the operation and the attributes of each node of a SavedModel."""
    messages = [graph]
    for number in (2, 2, 1):  # meta graphs, their graphs, and the nodes of these
        messages = [value for each in messages for k, value in fields(each) if k == number]
    for node in messages:
        parts = list(fields(node))
        names = {k: value.decode() for k, value in parts if k in (1, 2)}
        yield names.get(1, ""), names.get(2, ""), [value for k, value in parts if k == 5]


def _number(attributes: list[bytes]) -> float:
    """Return the value of a constant: a float, or an int in one of two forms."""
    values = {parts[1]: parts[2] for parts in (dict(fields(each)) for each in attributes)}
    tensor = dict(fields(dict(fields(values[b"value"]))[8]))
    if 7 in tensor:
        return tensor[7] if isinstance(tensor[7], int) else varint(tensor[7], 0)[0]
    is_float, content = tensor[1] == 1, tensor.get(5) or tensor[4]
    (value,) = struct.unpack("<f" if is_float else "<i", content)
    return value
