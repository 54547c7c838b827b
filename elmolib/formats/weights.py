"""HDF5 weight files in the layout of bilm-tf and AllenNLP. Both ignore elmolib's additions.

The additions are root attributes and datasets. The attributes `elmolib_format`, `options` and
`tokenizer` are JSON in fixed-length text. The datasets `vocabulary` (one word per line) and
`record` (JSON) are UTF-8 bytes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from elmolib.errors import WeightsError
from elmolib.files import atomic_write, write_errors
from elmolib.formats import hdf5
from elmolib.formats.names import SOFTMAX, hdf5_arrays, hdf5_surplus, weight_shapes
from elmolib.formats.options import options_of, parse_json, parse_options
from elmolib.settings.architecture import N_BYTE_CHARACTERS, Architecture
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import MAX_BYTES, Vocabulary

FORMAT, _MAX_JSON_BYTES = 1, 10_000_000
_UNCHANGED = "the previous file is unchanged"


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

    @property
    def has_softmax(self) -> bool:
        """Whether the model has a softmax and its vocabulary."""
        return self.vocabulary is not None and (self.unread_softmax or SOFTMAX[0] in self.arrays)

    def no_softmax(self, consequence: str = "it cannot predict words") -> str:
        """Return "" if there is a softmax with words, otherwise a sentence with `consequence`."""
        if self.has_softmax:
            return ""
        return (
            f"{self.source} has no softmax with its vocabulary, so {consequence}: use a file that "
            "holds the whole language model."
        )

    def require_softmax(self, consequence: str) -> None:
        """Raise a WeightsError with `consequence` if the softmax or its vocabulary is missing."""
        if sentence := self.no_softmax(consequence):
            raise WeightsError(sentence)


class Request(NamedTuple):
    """Which arrays of a model to read, and options that replace the stored options."""

    layers: bool = True
    softmax: bool = True
    options: Architecture | None = None


def write_model(
    path: str | Path, model: StoredModel, dtype: type[np.floating] = np.float32
) -> None:
    """Write a biLM to one self-contained file. Programs that read files of bilm-tf can read it.

    The same content always gives the same bytes. An existing file is replaced atomically.

    Args:
        path: the file to write, by convention `elmo.h5`.
        dtype: the dtype of the stored arrays. float16 halves the size of the file and changes
            vectors by about 1e-3.

    Raises:
        WeightsError: the arrays contradict the architecture or the vocabulary or are not finite,
            or the file cannot be written.
        VocabularyError: the words cannot be stored as a list with one word per line.
    """
    source, rows = str(path), len(model.arrays.get(SOFTMAX[0], ())) or None
    # HDF5 has no type for other dtypes, such as bfloat16; it would store meaningless bytes.
    if np.dtype(dtype) not in (np.float16, np.float32, np.float64):
        raise WeightsError(f"{source} cannot be written as {np.dtype(dtype)}: use np.float32.")
    shapes = weight_shapes(model.architecture, rows)
    for name in sorted(set(shapes) ^ set(model.arrays)):
        verb = "without" if name in shapes else "with"
        raise WeightsError(
            f"{source} cannot be written {verb} the array {name}: check the model's options."
        )
    _check_rows(rows, model.vocabulary, source)
    texts = {}
    if model.vocabulary is not None:
        texts["vocabulary"] = model.vocabulary.to_bytes(f"{source}: the vocabulary")
    if model.training_record is not None:
        texts["record"] = _to_json(model.training_record, f"{source}: the training record")
    with write_errors(path, WeightsError, _UNCHANGED), hdf5.create_hdf5(path) as file:
        for ours, stored in hdf5_arrays(model.architecture, rows).items():
            values = _converted(model.arrays[ours], dtype)
            _check_values(ours, values, shapes[ours], source)
            file.create_dataset(stored.name, data=values.reshape(stored.shape), track_times=False)
        file.attrs["elmolib_format"] = FORMAT
        file.attrs["options"] = np.bytes_(_to_json(options_of(model.architecture), "options"))
        file.attrs["tokenizer"] = np.bytes_(_to_json(model.tokenizer.to_json(), "tokenizer"))
        for name, text in texts.items():
            hdf5.write_bytes(file, name, text)


def write_published(folder: str | Path, model: StoredModel) -> None:
    """Write `weights.hdf5`, `options.json` and `vocab.txt`. Errors are as in `write_model`."""
    folder = Path(folder)
    write_model(folder / "weights.hdf5", model)
    texts = {"options.json": json.dumps(options_of(model.architecture), indent=1).encode() + b"\n"}
    if model.vocabulary is None:
        (folder / "vocab.txt").unlink(missing_ok=True)
    else:
        texts["vocab.txt"] = model.vocabulary.to_bytes(str(folder / "vocab.txt"))
    for name, text in texts.items():
        path = folder / name
        with write_errors(path, WeightsError, _UNCHANGED), atomic_write(path) as unfinished:
            unfinished.write_bytes(text)


def read_weight_file(
    path: Path,
    request: Request,
    source: str,
    options: Architecture | None = None,
    vocabulary: Vocabulary | None = None,
) -> StoredModel:
    """Read an HDF5 weight file. `options` and `vocabulary` come from separate files, if any."""
    with hdf5.open_hdf5(path, source) as file:
        version = _attribute(file, "elmolib_format", "iu", "a whole number", source)
        if version not in (None, FORMAT):
            raise WeightsError(
                f"{source} has the format {version}, but this elmolib reads {FORMAT}: use the "
                "version of elmolib that wrote it."
            )
        options = _part(file, "options", parse_options, options, source)
        options = request.options or options
        if options is None:
            raise WeightsError(
                f"{source} holds no options: give options=..., or name a folder that also holds "
                "its options.json."
            )
        vocabulary = _part(file, "vocabulary", Vocabulary.parse, vocabulary, source)
        # Models of other programs were trained on words in any Unicode form. Do not change words.
        as_it_is = Tokenizer(tokenized=True, unicode_form=None)
        return StoredModel(
            architecture=options,
            arrays=_read_arrays(file, request._replace(options=options), vocabulary, source),
            vocabulary=vocabulary,
            tokenizer=_part(file, "tokenizer", _parse_tokenizer, None, source) or as_it_is,
            training_record=_part(file, "record", parse_json, None, source),
            source=source,
            stamp=file_stamp(path),
            unread_softmax=not request.softmax and hdf5.find(file, SOFTMAX[0], source) is not None,
            format=None if version is None else int(version),
        )


def file_stamp(path: Path) -> tuple[int, ...]:
    """Return numbers that change when a file is replaced."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _part(file: h5py.File, name: str, parse: Callable, separate: Any, source: str) -> Any:
    """Parse the text stored as `name`, or return `separate`, the value from another file."""
    if name in ("options", "tokenizer"):
        text = _attribute(file, name, "S", "fixed-length text", source)
    else:
        limit = MAX_BYTES if name == "vocabulary" else _MAX_JSON_BYTES
        text = hdf5.stored_bytes(file, name, limit, source)
    if text is None:
        return separate
    stored = parse(bytes(text), f"{source}: the {name}")
    if separate is not None and stored != separate:
        raise WeightsError(
            f"{source} holds its own {name}, which differs from the separate file: delete the "
            "separate file, or name only the weight file."
        )
    return stored


def _parse_tokenizer(text: bytes, source: str) -> Tokenizer:
    return Tokenizer.from_json(parse_json(text, source), source)


def _read_arrays(
    file: h5py.File, request: Request, vocabulary: Vocabulary | None, source: str
) -> dict[str, np.ndarray]:
    softmax = hdf5.find_data(file, SOFTMAX[0], source) if request.softmax else None
    rows = None if softmax is None else int((softmax.shape or (1,))[0])
    _check_rows(rows, vocabulary, source)
    wanted = hdf5_arrays(request.options, rows)
    surplus = hdf5_surplus(request.options)
    if not request.layers:
        wanted, surplus = {n: a for n, a in wanted.items() if n in SOFTMAX}, {}
    datasets = [(name, _find_array(file, name, shape, source)) for name, shape in wanted.values()]
    for name, key in surplus.items():
        if hdf5.find(file, name, source) is not None:
            raise WeightsError(
                f"{source} has the unexpected array {name}: check {key} in its options."
            )
    hdf5.require_stored(file, datasets, source)
    shapes, arrays = weight_shapes(request.options, rows), {}
    for (ours, array), (name, dataset) in zip(wanted.items(), datasets, strict=True):
        values = _converted(dataset[()], np.float32)
        if len(values) > array.shape[0] and not values[0].any():
            values = values[1:]
        _check_values(name, values, array.shape, source)
        arrays[ours] = values.reshape(shapes[ours])
    return arrays


def _find_array(file: h5py.File, name: str, shape: tuple[int, ...], source: str) -> h5py.Dataset:
    data = hdf5.find_data(file, name, source)
    if data is None:
        raise WeightsError(
            f"{source} has no array {name} with shape {shape}: use the options of these weights."
        )
    if data.dtype.kind != "f" or data.dtype.itemsize not in (2, 4, 8):
        raise WeightsError(f"{source}: the array {name} is {data.dtype}: convert it to float32.")
    # The character embedding may have an extra first row for the padding.
    if name != "char_embed" or data.shape != (N_BYTE_CHARACTERS + 1, shape[1]):
        _check_shape(name, data.shape, shape, source)
    return data


def _attribute(file: h5py.File, name: str, kinds: str, expected: str, source: str) -> Any:
    """Return a root attribute, or None. It must be one value whose dtype kind is in `kinds`."""
    if name not in file.attrs:
        return None
    stored = file.attrs.get_id(name)
    is_one = stored.shape == () and stored.dtype.kind in kinds
    if not is_one or stored.dtype.itemsize > _MAX_JSON_BYTES:
        raise WeightsError(f"{source}: the attribute {name} is not {expected}.")
    return file.attrs[name]


def _to_json(value: dict[str, Any], source: str) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{source} cannot be written as JSON: {error}.") from None


def _converted(values: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    # Values that are too large become infinite, which `_check_values` refuses.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype)


def _check_shape(name: str, found: object, expected: tuple[int, ...], source: str) -> None:
    if found != expected:
        raise WeightsError(
            f"{source}: the array {name} has the shape {found}, but its options ask for "
            f"{expected}: check the options."
        )


def _check_values(name: str, values: np.ndarray, shape: tuple[int, ...], source: str) -> None:
    _check_shape(name, values.shape, shape, source)
    if not np.isfinite(values).all():
        raise WeightsError(f"{source}: {name} holds values that are not finite: retrain the model.")


def _check_rows(rows: int | None, vocabulary: Vocabulary | None, source: str) -> None:
    if rows is not None and vocabulary is not None and rows != len(vocabulary):
        raise WeightsError(
            f"{source}: the array {SOFTMAX[0]} has {rows:,} rows, "
            f"but the vocabulary has {len(vocabulary):,} words: give the vocabulary of this model."
        )
