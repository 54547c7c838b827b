"""A stored model, and how it is made from the arrays of a file, one array after the other."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from elmolib.errors import WeightsError, reason
from elmolib.formats.names import (
    SOFTMAX,
    StoredArray,
    bilm_tf_names,
    dimensions,
    hdf5_arrays,
    weight_shapes,
)
from elmolib.formats.options import KEYS, Options
from elmolib.settings.architecture import N_BYTE_CHARACTERS, Architecture
from elmolib.text.spelling import BYTES, Spelling
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import Vocabulary

AS_IT_IS = Tokenizer(tokenized=True, unicode_form=None)
"""For models of other programs, which were trained on words in any Unicode form."""


@dataclass(frozen=True)
class StoredModel:
    """The content of a model's file.

    Args:
        architecture: the dimensions and switches of the model.
        arrays: the float32 weights by elmolib's names, with the shapes of `weight_shapes`.
        vocabulary: the words of the softmax, or None.
        tokenizer: the tokenizer that splits text for this model.
        training_record: a description of the training, in types that JSON can hold, or None.
        source: the path of the file.
        stamp: the `file_stamp` of the file, or None if the model was not read from a file.
        unread_softmax: whether the file has a softmax that is not in `arrays`.
        format: the number of elmolib's file format, or None for a file of another program.
        spelling: how the model spells words.
        mix: the weight of each layer in the mix that a task has learned, or None.
        slots: the accumulators of Adagrad by elmolib's names, if they were asked for.
    """

    architecture: Architecture
    arrays: dict[str, np.ndarray]
    vocabulary: Vocabulary | None = None
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    training_record: dict[str, Any] | None = None
    source: str = ""
    stamp: tuple[int, ...] | None = None
    unread_softmax: bool = False
    format: int | None = None
    spelling: Spelling = BYTES
    mix: tuple[float, ...] | None = None
    slots: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def has_softmax(self) -> bool:
        """Whether the model has a softmax and its vocabulary."""
        return self.vocabulary is not None and (self.unread_softmax or SOFTMAX[0] in self.arrays)

    def no_softmax(self, consequence: str = "it cannot predict words") -> str:
        """Return "" if there is a softmax with words, otherwise a sentence with `consequence`."""
        problem = f"{self.source} has no softmax with its vocabulary, so {consequence}"
        advice = "use a file that holds the whole language model"
        return "" if self.has_softmax else f"{problem}: {advice}."

    def require_softmax(self, consequence: str) -> None:
        """Raise a WeightsError with `consequence` if the softmax or its vocabulary is missing."""
        if sentence := self.no_softmax(consequence):
            raise WeightsError(sentence)


class Request(NamedTuple):
    """Which arrays of a model to read, and options that replace the stored options."""

    layers: bool = True
    softmax: bool = True
    slots: bool = False
    options: Options | None = None


class Array(NamedTuple):
    """An array in a file: its name and shape, and the function that reads it."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


Arrays = Mapping[str, Array]
CHARACTERS, WORDS = "char_cnn/embedding", "words/embedding"

# The options key that is too low if the model has an array whose name contains this part.
_SURPLUS = {
    "/highway": KEYS["n_highway"],
    "/projection": KEYS["projection_dim"],
    "char_cnn/": KEYS["filters"],
    "": KEYS["n_layers"],
}


def values_at(path: Path, start: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Read the values of an array at a place in a file."""
    with path.open("rb") as file:
        file.seek(start)
        return np.fromfile(file, dtype, math.prod(shape)).reshape(shape)


def without_characters(dim: int) -> dict[str, Array]:
    """Return the arrays of a character CNN that computes zeros, for a model that reads words."""
    n = 2 if dim == 1 else 1  # with as many filters as dimensions, there is no projection
    shapes = {"embedding": (N_BYTE_CHARACTERS, 1), "kernel_0": (1, 1, 1, n), "bias_0": (n,)}
    shapes |= {"projection": (n, dim), "projection_bias": (dim,)}
    names = {f"char_cnn/{name}": shape for name, shape in shapes.items()}
    return {name: Array(name, shape, partial(np.zeros, shape)) for name, shape in names.items()}


def bilm_tf_spelling(
    arrays: dict[str, Array], vocabulary: Vocabulary | None, source: str
) -> Spelling:
    """Return the spelling of a model of bilm-tf; complete the arrays of one that reads words."""
    if CHARACTERS in arrays or not {WORDS, "forward_0/kernel"} <= arrays.keys():
        arrays.pop(WORDS, None)
        return BYTES
    if vocabulary is None:
        raise WeightsError(f"{source} reads whole words: add the vocab.txt that lists them.")
    arrays |= without_characters(arrays[WORDS].shape[-1])
    if SOFTMAX[1] in arrays:
        arrays.setdefault(SOFTMAX[0], arrays[WORDS])  # bilm-tf can use one table for both
    return Spelling(characters=(), words=tuple(vocabulary))


def from_bilm_tf(arrays: Arrays) -> dict[str, Array]:
    """Return the arrays of a model that bilm-tf made, by elmolib's names."""
    return {ours: arrays[name] for ours, name in bilm_tf_names(arrays).items()}


def assemble(
    arrays: Arrays,
    options: Options | None,
    request: Request,
    source: str,
    file: Path,
    before: Callable[[list[Array]], None] = lambda wanted: None,
    slots: Arrays | None = None,
    **fields: Any,
) -> StoredModel:
    """Make a model from arrays by elmolib's names.

    Args:
        options: completes the dimensions, which the shapes tell; None means the usual values.
            `request.options` replace it.
        file: the file whose stamp changes when the model is replaced.
        before: a function that gets all arrays before they are read.
        slots: the accumulators of Adagrad, by elmolib's names.
        fields: further fields of the `StoredModel`.
    """

    def known() -> dict[str, Any]:
        # A model without characters has no options for them.
        absent = {"max_characters": 50, "activation": "relu"} if spelling.characters == () else {}
        try:
            return absent | dimensions({name: array.shape for name, array in arrays.items()})
        except (LookupError, TypeError, ValueError):
            raise WeightsError(f"{source} lacks arrays of an ELMo: name another file.") from None

    spelling, mix = fields.get("spelling", BYTES), fields.get("mix")
    complete = request.options or options
    architecture = complete(known) if complete else Architecture.from_json(known(), source)
    W = arrays.get(SOFTMAX[0])
    rows = None if W is None else (W.shape or (1,))[0]
    if request.softmax:
        check_rows(rows, fields.get("vocabulary"), source)
    stored = hdf5_arrays(architecture, rows, spelling)
    wanted = [n for n in stored if (request.softmax if n in SOFTMAX else request.layers)]
    for name in wanted:
        theirs, shape = stored[name]
        if name not in arrays:
            problem = f"{source} has no array {theirs} with shape {shape}"
            raise WeightsError(f"{problem}: use the options of these weights.")
        # A character embedding may have an extra first row for the padding.
        if name != CHARACTERS or arrays[name].shape != (shape[0] + 1, *shape[1:]):
            _check_shape(arrays[name].name, arrays[name].shape, shape, source)
    for name in sorted(arrays.keys() - stored.keys() - set(SOFTMAX) if request.layers else ()):
        key = next(key for part, key in _SURPLUS.items() if part in name)
        fault = f"has the unexpected array {arrays[name].name}"
        raise WeightsError(f"{source} {fault}: check {key} in its options.")
    if mix is not None and len(mix) != architecture.n_layers + 1:
        raise WeightsError(f"{source}: its mix has not one weight per layer: give it again.")
    before([arrays[name] for name in wanted])
    shapes = weight_shapes(architecture, rows, spelling)
    read, accumulators = (
        {n: _values(each[n], stored[n], source).reshape(shapes[n]) for n in wanted if n in each}
        for each in (arrays, (request.slots and slots) or {})
    )
    fields = {"tokenizer": AS_IT_IS, "source": source, "stamp": file_stamp(file), **fields}
    unread = W is not None and not request.softmax
    return StoredModel(architecture, read, unread_softmax=unread, slots=accumulators, **fields)


def mix_of(scalars: list[Array], factors: list[Array], source: str) -> tuple[float, ...] | None:
    """Return the weight of each layer in a mix: the softmax of its scalars, times its factor."""
    if not scalars or not factors:
        return None
    values = np.concatenate([np.ravel(each.read()) for each in scalars]).astype(np.float64)
    weights = np.exp(values - values.max(initial=-np.inf))
    weights = weights / weights.sum() * np.ravel(factors[0].read())[:1]
    if not np.isfinite(weights).all():
        raise WeightsError(f"{source}: {factors[0].name} and the scalars make no mix of layers.")
    return tuple(weights.tolist())


def _values(array: Array, stored: StoredArray, source: str) -> np.ndarray:
    try:
        values = converted(array.read(), np.float32)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{source}: {array.name} cannot be read ({reason(error)}).") from None
    if len(values) > stored.shape[0] and not values[0].any():
        values = values[1:]
    check_values(array.name, values, stored.shape, source)
    return values


def check_rows(rows: int | None, vocabulary: Vocabulary | None, source: str) -> None:
    """Refuse a vocabulary that is not that of the softmax."""
    if rows is not None and vocabulary is not None and rows != len(vocabulary):
        found = f"the array {SOFTMAX[0]} has {rows:,} rows, but the vocabulary has"
        advice = "give the vocabulary of this model"
        raise WeightsError(f"{source}: {found} {len(vocabulary):,} words: {advice}.")


def converted(values: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    """Convert floats. Values that are too large become infinite, which `check_values` refuses."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype)


def check_values(name: str, values: np.ndarray, shape: tuple[int, ...], source: str) -> None:
    """Refuse an array that has another shape or holds values that are not finite."""
    _check_shape(name, values.shape, shape, source)
    if not np.isfinite(values).all():
        raise WeightsError(f"{source}: {name} holds values that are not finite: retrain the model.")


def _check_shape(name: str, found: object, expected: tuple[int, ...], source: str) -> None:
    if found != expected:
        fault = f"has the shape {found}, but its options ask for {expected}"
        raise WeightsError(f"{source}: the array {name} {fault}: check the options.")


def file_stamp(path: Path) -> tuple[int, ...]:
    """Return numbers that change when a file is replaced."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
