"""Weight files: the HDF5 layout of bilm-tf and AllenNLP, read with care and written exactly.

A file of elmolib is such a file with its options, vocabulary and tokenisation inside it, where
other programs do not look: the root attributes `elmolib_format`, `options` and `tokenizer` (JSON
in fixed-length text), and the datasets `vocabulary` (words, one per line) and `record` (JSON),
both UTF-8 as bytes. Files from strangers are read on the condition that everything they give is
plain data stored in the file itself.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import h5py
import numpy as np

from elmolib.errors import ElmolibError, WeightsError, reason
from elmolib.files import read_at_most, refuse_pipe, replacing
from elmolib.hdf5 import created, find, find_data, opened, require_stored, stored_bytes, write_bytes
from elmolib.options import N_CHARACTERS, BiLMOptions, parse_options, read_options
from elmolib.text import Tokenizer
from elmolib.vocabulary import MAX_BYTES, MAX_WORDS, SPECIAL_WORDS, Vocabulary

FORMAT_VERSION = 1

_WEIGHT_SUFFIXES = (".hdf5", ".h5")
_VOCABULARY_NAMES = ("vocab.txt", "vocab.txt.gz")

_MAX_JSON_BYTES = 10_000_000
# Floats shrink by a tenth and words by two thirds; more than this is an attack.
_MAX_EXPANSION = 20
_EXPANSION_FLOOR = 10_000_000

# What the module zipfile lets through, depending on where the damage is.
_ZIP_FAILURES = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(RuntimeError, ValueError, LookupError, ArithmeticError),
)

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class StoredModel:
    """What a weight file and the files beside it hold.

    Args:
        options: the architecture.
        arrays: float32 arrays by name, with the shapes of `options.weight_shapes`.
        vocabulary: the words of the softmax, or None where the file has none.
        tokenizer: how raw text is split for this model.
        source: the path it was read from.
        record: how the model was made, as `write_model` was told, or None.
    """

    options: BiLMOptions
    arrays: dict[str, np.ndarray]
    vocabulary: Vocabulary | None
    tokenizer: Tokenizer
    source: str
    record: dict[str, Any] | None = None


def read_model(
    path: str | Path, options: str | Path | None = None, softmax: bool = True
) -> StoredModel:
    """Read a biLM from any form in which one is published.

    Args:
        path: one of
            - a file written by `write_model`,
            - a weight file of bilm-tf or AllenNLP, together with `options`,
            - a folder with one `*.hdf5` or `*.h5` file, and `options.json` and `vocab.txt[.gz]`
              where the weight file does not hold them,
            - a zip file of such a folder.
        options: an options file to use in place of any other.
        softmax: whether to read the output layer too, which embedding does not need.

    Returns:
        The model. `arrays` has `softmax/W` `(vocabulary_size, projection_dim)` and `softmax/b`
        where the file has them and they are asked for. Without a stored tokenisation, text is
        taken to be words separated by spaces, which is how published models were trained.

    Raises:
        WeightsError: the file is missing, damaged or foreign, contradicts its options or its
            vocabulary, holds values that are not finite, or refers to data outside itself.
        OptionsError: the options are malformed.

    Example:
        ```python
        model = read_model("elmo.h5")
        model.arrays["char_embed"].shape  # (261, 16)
        ```

    References:
        bilm-tf, `bilm/training.py` (`dump_weights`). There the characters have 261 rows, because
        the padding, id 0 at prediction, is implied; a file with 262 rows is read if its first is
        zero.
    """
    path = Path(path)
    read_override = None if options is None else read_options(options)
    try:
        if path.is_dir():
            return _read_folder(path, read_override, softmax, str(path))
        refuse_pipe(path)
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
    except ElmolibError:
        raise
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as a model ({reason(error)}).") from None
    if is_zip:
        return _read_zip(path, read_override, softmax)
    return _read_file(path, _Beside(override=read_override), softmax, str(path))


def write_model(
    path: str | Path,
    options: BiLMOptions,
    arrays: Mapping[str, np.ndarray],
    vocabulary: Vocabulary | None,
    tokenizer: Tokenizer,
    record: Mapping[str, Any] | None = None,
    dtype: type[np.floating] = np.float32,
) -> None:
    """Write a biLM as one self-contained file that bilm-tf's descendants can read too.

    The same content always gives the same bytes. `path` is replaced only once the new file is
    complete.

    Args:
        path: the file to write, `elmo.h5` by custom.
        options: the architecture.
        arrays: arrays by name, with the shapes of `options.weight_shapes`.
        vocabulary: the words of the softmax, or None.
        tokenizer: how raw text is split for this model.
        record: anything worth knowing about how the model was made, as JSON can hold it.
        dtype: of the stored arrays. float16 halves the file and moves vectors by about 1e-3.

    Raises:
        WeightsError: the arrays contradict the options or the vocabulary, are not finite, or
            the file cannot be written.

    Example:
        ```python
        model = read_model("published/")
        write_model("elmo.h5", model.options, model.arrays, model.vocabulary, model.tokenizer)
        ```
    """
    rows = len(arrays["softmax/W"]) if "softmax/W" in arrays else None
    shapes = options.weight_shapes(rows)
    if vocabulary is not None and rows is not None:
        _check_rows(rows, vocabulary, str(path))
    _check_names(arrays, shapes, str(path))
    words = None if vocabulary is None else _encoded_words(vocabulary, str(path))
    stored_record = None if record is None else _dumped(record, f"{path}: the record")
    with _reported(path), created(path) as file:
        for name, shape in shapes.items():
            # What is too large for the type becomes infinite, and is refused as such.
            with np.errstate(over="ignore"):
                values = np.ascontiguousarray(_as_float32(arrays[name]), dtype)
            _check_values(name, values, shape, str(path))
            file.create_dataset(name, data=values, track_times=False)
        file.attrs["elmolib_format"] = FORMAT_VERSION
        file.attrs["options"] = np.bytes_(_dumped(options.to_json(), "options"))
        file.attrs["tokenizer"] = np.bytes_(_dumped(tokenizer.to_json(), "tokenizer"))
        if words is not None:
            write_bytes(file, "vocabulary", words)
        if stored_record is not None:
            write_bytes(file, "record", stored_record)


def write_published(folder: str | Path, model: StoredModel) -> None:
    """Write a model as `weights.hdf5`, `options.json` and `vocab.txt`, for other programs.

    Args:
        folder: made if need be; files of these names in it are replaced.
        model: what to write; without a vocabulary there is no `vocab.txt`.

    Raises:
        WeightsError: as `write_model`.

    Example:
        ```python
        write_published("published/", read_model("elmo.h5"))
        ```
    """
    folder = Path(folder)
    write_model(
        folder / "weights.hdf5",
        model.options,
        model.arrays,
        model.vocabulary,
        model.tokenizer,
        model.record,
    )
    with _reported(folder / "options.json"), replacing(folder / "options.json") as unfinished:
        unfinished.write_text(json.dumps(model.options.to_json(), indent=1) + "\n")
    vocabulary_file = folder / "vocab.txt"
    with _reported(vocabulary_file):
        if model.vocabulary is None:
            vocabulary_file.unlink(missing_ok=True)
            return
        with replacing(vocabulary_file) as unfinished:
            unfinished.write_bytes(_encoded_words(model.vocabulary, str(vocabulary_file)))


# --- What lies where


@dataclass(frozen=True)
class _Beside:
    """What comes with a weight file rather than in it."""

    override: BiLMOptions | None = None
    options: BiLMOptions | None = None
    vocabulary: Vocabulary | None = None


def _read_folder(
    folder: Path, override: BiLMOptions | None, softmax: bool, source: str
) -> StoredModel:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise WeightsError(f"{source} cannot be listed ({error.strerror}).") from None
    weights = [name for name in names if _is_weight_file(name)]
    if not weights:
        raise WeightsError(f"{source} holds no weight file (*.hdf5 or *.h5).")
    if len(weights) > 1:
        raise WeightsError(
            f"{source} holds more than one weight file ({', '.join(weights[:5])}): "
            "name the one to read."
        )
    options = vocabulary = None
    if "options.json" in names and override is None:
        text = _read_bytes(folder / "options.json", f"{source}/options.json", _MAX_JSON_BYTES)
        options = parse_options(text, f"{source}/options.json")
    for name in _VOCABULARY_NAMES:
        if name in names:
            text = _read_bytes(folder / name, f"{source}/{name}", MAX_BYTES)
            vocabulary = _parsed_words(text, f"{source}/{name}")
            break
    beside = _Beside(override, options, vocabulary)
    return _read_file(folder / weights[0], beside, softmax, f"{source}/{weights[0]}")


def _read_zip(path: Path, override: BiLMOptions | None, softmax: bool) -> StoredModel:
    try:
        place = tempfile.TemporaryDirectory(prefix="elmolib-")
    except OSError as error:
        raise WeightsError(f"{path} cannot be unpacked ({reason(error)}).") from None
    with place as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                _extract(archive, Path(folder), path)
        except ElmolibError:
            raise
        except OSError as error:
            raise WeightsError(
                f"{path} cannot be unpacked in {tempfile.gettempdir()} ({reason(error)}): it is "
                "damaged, or there is no room; another folder can be named by TMPDIR."
            ) from None
        except _ZIP_FAILURES as error:
            raise WeightsError(f"{path} is a damaged or encrypted zip file: {error}.") from None
        return _read_folder(Path(folder), override, softmax, str(path))


def _extract(archive: zipfile.ZipFile, folder: Path, path: Path) -> None:
    members = [info for info in archive.infolist() if not info.is_dir()]
    for info in members:
        if "\\" in info.filename or not _is_inside(PurePosixPath(info.filename)):
            raise WeightsError(
                f"{path} is refused because its member {info.filename!r} points out of the archive."
            )
    homes = {PurePosixPath(i.filename).parent for i in members if _is_weight_file(i.filename)}
    if len(homes) != 1:
        raise WeightsError(f"{path} must hold one weight file (*.hdf5 or *.h5) in one folder.")
    home = homes.pop()
    wanted = [
        info
        for info in members
        if PurePosixPath(info.filename).parent == home
        and (_is_weight_file(info.filename) or _name(info) in ("options.json", *_VOCABULARY_NAMES))
    ]
    # zipfile gives no more of a member than its declared size.
    size = sum(info.file_size for info in wanted)
    if size > _MAX_EXPANSION * path.stat().st_size + _EXPANSION_FLOOR:
        raise WeightsError(
            f"{path} is refused because it would expand to {size:,} bytes, more than "
            f"{_MAX_EXPANSION} times its own size."
        )
    for info in wanted:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"{path}: {info.filename} is compressed by a method not supported.")
        with archive.open(info) as packed, (folder / _name(info)).open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)


def _is_inside(member: PurePosixPath) -> bool:
    return not member.is_absolute() and ".." not in member.parts and ":" not in member.parts[0]


def _is_weight_file(name: str) -> bool:
    # macOS adds hidden "._" companions to the files it packs.
    member = PurePosixPath(name)
    return member.suffix in _WEIGHT_SUFFIXES and not member.name.startswith(".")


def _name(info: zipfile.ZipInfo) -> str:
    return PurePosixPath(info.filename).name


def _read_bytes(path: Path, source: str, limit: int) -> bytes:
    try:
        return read_at_most(path, limit)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise WeightsError(f"{source} cannot be read: {error}.") from None


# --- Reading HDF5


def _read_file(path: Path, beside: _Beside, softmax: bool, source: str) -> StoredModel:
    with opened(path, source) as file:
        _check_version(file, source)
        options = _only(_stored_options(file, source), beside.options, "options", source)
        if beside.override is not None:
            options = beside.override
        if options is None:
            raise WeightsError(
                f"{source} holds no options: give options=..., or a folder that holds its "
                "options.json too."
            )
        vocabulary = _only(
            _stored_vocabulary(file, source), beside.vocabulary, "vocabulary", source
        )
        rows = _softmax_rows(file, source) if softmax else None
        if rows is not None and vocabulary is not None:
            _check_rows(rows, vocabulary, source)
        return StoredModel(
            options=options,
            arrays=_read_arrays(file, options, rows, source),
            vocabulary=vocabulary,
            tokenizer=_stored_tokenizer(file, source),
            source=source,
            record=_stored_record(file, source),
        )


def _only(inside: _Part | None, beside: _Part | None, what: str, source: str) -> _Part | None:
    if inside is not None and beside is not None and inside != beside:
        raise WeightsError(
            f"{source} holds its own {what}, which differs from the file beside it: "
            "remove that file, or name the weight file alone."
        )
    return inside if inside is not None else beside


def _read_arrays(
    file: h5py.File, options: BiLMOptions, rows: int | None, source: str
) -> dict[str, np.ndarray]:
    shapes = options.weight_shapes(rows)
    datasets = {name: _checked_data(file, name, shapes[name], source) for name in shapes}
    _check_no_surplus(file, options, source)
    require_stored(file, datasets.items(), source)
    return {
        name: _read_values(dataset, name, shapes[name], source)
        for name, dataset in datasets.items()
    }


def _checked_data(file: h5py.File, name: str, shape: tuple[int, ...], source: str) -> h5py.Dataset:
    dataset = find_data(file, name, source)
    if dataset is None:
        raise WeightsError(
            f"{source} lacks the array {name}, which its options ask for with the shape {shape}."
        )
    if dataset.dtype.kind != "f" or dataset.dtype.itemsize not in (2, 4, 8):
        raise WeightsError(f"{source}: the array {name} is of {dataset.dtype}, expected float32.")
    has_padding_row = name == "char_embed" and dataset.shape == (N_CHARACTERS + 1, shape[1])
    if dataset.shape != shape and not has_padding_row:
        raise WeightsError(
            f"{source}: the array {name} has the shape {dataset.shape}, "
            f"but its options ask for {shape}."
        )
    return dataset


def _read_values(
    dataset: h5py.Dataset, name: str, shape: tuple[int, ...], source: str
) -> np.ndarray:
    values = _as_float32(dataset[()])
    if len(values) > shape[0] and not values[0].any():
        values = values[1:]
    _check_values(name, values, shape, source)
    return values


def _check_no_surplus(file: h5py.File, options: BiLMOptions, source: str) -> None:
    """Refuse arrays that would go unused only because the options are not those of the file."""
    shapes = options.weight_shapes()
    cells = [f"RNN_{direction}/RNN/MultiRNNCell" for direction in range(2)]
    surplus = {
        f"CNN/W_cnn_{len(options.filters)}": "char_cnn.filters",
        f"CNN_high_{options.n_highway}/W_carry": "char_cnn.n_highway",
        "CNN_proj/W_proj": "lstm.projection_dim",
        **{f"{cell}/Cell{options.n_layers}/LSTMCell/W_0": "lstm.n_layers" for cell in cells},
        **{f"{cell}/Cell0/LSTMCell/W_P_0": "lstm.projection_dim" for cell in cells},
    }
    for name, key in surplus.items():
        if name not in shapes and find(file, name, source) is not None:
            raise WeightsError(
                f"{source} holds the array {name}, which its options do not foresee: check {key}."
            )


def _softmax_rows(file: h5py.File, source: str) -> int | None:
    dataset = find_data(file, "softmax/W", source)
    if dataset is None:
        return None
    if dataset.ndim != 2:
        raise WeightsError(
            f"{source}: the array softmax/W has the shape {dataset.shape}, "
            "expected (words, projection_dim)."
        )
    return int(dataset.shape[0])


# --- What elmolib adds to the arrays


def _check_version(file: h5py.File, source: str) -> None:
    if "elmolib_format" not in file.attrs:
        return
    stored = file.attrs.get_id("elmolib_format")
    if stored.shape != () or stored.dtype.kind not in "iu":
        raise WeightsError(f"{source}: the attribute elmolib_format is not a whole number.")
    version = int(file.attrs["elmolib_format"])
    if version != FORMAT_VERSION:
        raise WeightsError(
            f"{source} has the format version {version}, but this elmolib reads "
            f"{FORMAT_VERSION}: use the elmolib that wrote it, or a newer one."
        )


def _stored_options(file: h5py.File, source: str) -> BiLMOptions | None:
    text = _text_attribute(file, "options", source)
    return None if text is None else parse_options(text, f"{source}: the attribute options")


def _stored_tokenizer(file: h5py.File, source: str) -> Tokenizer:
    text = _text_attribute(file, "tokenizer", source)
    if text is None:
        # The peers leave words as they are, so their models have seen every Unicode form.
        return Tokenizer(tokenized=True, unicode_form=None)
    where = f"{source}: the attribute tokenizer"
    return Tokenizer.from_json(_parsed_object(text, where), where)


def _stored_record(file: h5py.File, source: str) -> dict[str, Any] | None:
    text = stored_bytes(file, "record", _MAX_JSON_BYTES, source)
    return None if text is None else _parsed_object(text, f"{source}: the record")


def _stored_vocabulary(file: h5py.File, source: str) -> Vocabulary | None:
    text = stored_bytes(file, "vocabulary", MAX_BYTES, source)
    return None if text is None else _parsed_words(text, f"{source}: the vocabulary")


def _text_attribute(file: h5py.File, name: str, source: str) -> bytes | None:
    if name not in file.attrs:
        return None
    stored = file.attrs.get_id(name)
    if stored.shape != () or stored.dtype.kind != "S":
        raise WeightsError(f"{source}: the attribute {name} is not fixed-length text.")
    return bytes(file.attrs[name])


def _parsed_object(text: bytes, source: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{source} is no valid JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise WeightsError(f"{source} must be a JSON object.")
    return parsed


def _parsed_words(text: bytes, source: str) -> Vocabulary:
    if text.count(b"\n") > MAX_WORDS:
        raise WeightsError(f"{source} has more than {MAX_WORDS:,} words.")
    try:
        lines = text.decode("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise WeightsError(f"{source}, line {line}: the text is not valid UTF-8.") from None
    words = [line.removesuffix("\r") for line in lines]
    lines_of_words: dict[str, int] = {}
    for number, word in enumerate(words, start=1):
        if not word or "\0" in word or "\r" in word:
            raise WeightsError(f"{source}, line {number}: {word[:40]!r} is not a word.")
        if lines_of_words.setdefault(word, number) != number:
            raise WeightsError(
                f"{source}, line {number}: the word {word[:40]!r} was already given in line "
                f"{lines_of_words[word]}."
            )
    # Row r of the softmax belongs to line r + 1, so no line may be moved.
    if tuple(words[: len(SPECIAL_WORDS)]) != SPECIAL_WORDS:
        raise WeightsError(f"{source} must begin with the lines {', '.join(SPECIAL_WORDS)}.")
    return Vocabulary(words)


# --- Checks shared by reading and writing


def _check_names(names: Iterable[str], shapes: Mapping[str, object], source: str) -> None:
    missing, unknown = sorted(set(shapes) - set(names)), sorted(set(names) - set(shapes))
    if missing:
        raise WeightsError(f"{source} cannot be written without the array {missing[0]}.")
    if unknown:
        raise WeightsError(
            f"{source} cannot be written with the array {unknown[0]}, "
            "which its options do not foresee."
        )


def _as_float32(values: np.ndarray) -> np.ndarray:
    # What does not fit becomes infinite, which is then refused by name.
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float32, copy=False)


def _check_values(name: str, values: np.ndarray, shape: tuple[int, ...], source: str) -> None:
    if values.shape != shape:
        raise WeightsError(
            f"{source}: the array {name} has the shape {values.shape}, "
            f"but its options ask for {shape}."
        )
    if not np.isfinite(values).all():
        raise WeightsError(f"{source}: the array {name} holds values that are not finite.")


def _check_rows(rows: int, vocabulary: Vocabulary, source: str) -> None:
    if rows != len(vocabulary):
        raise WeightsError(
            f"{source}: the array softmax/W has {rows:,} rows, "
            f"but the vocabulary has {len(vocabulary):,} words."
        )


# --- Writing HDF5


@contextmanager
def _reported(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"{path} could not be written ({error.strerror or error}); "
            "what was there before is unchanged."
        ) from None


def _dumped(value: Mapping[str, Any], source: str) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{source} cannot be written as JSON: {error}.") from None


def _encoded_words(vocabulary: Vocabulary, source: str) -> bytes:
    for word in vocabulary.words:
        if "\n" in word or "\r" in word:
            raise WeightsError(f"{source}: the word {word[:40]!r} does not fit on a line.")
    try:
        return "".join(f"{word}\n" for word in vocabulary.words).encode("utf-8")
    except UnicodeEncodeError as error:
        raise WeightsError(f"{source}: the vocabulary is not valid Unicode: {error}.") from None
