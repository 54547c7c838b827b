"""HDF5 weight files in the layout of bilm-tf and AllenNLP. Both ignore elmolib's additions.

The additions are root attributes and datasets. The attributes `elmolib_format`, `options` and
`tokenizer` are JSON in fixed-length text. The datasets `vocabulary` (one word per line), `record`
and `spelling` (JSON) are UTF-8 bytes. Files with a `spelling` have the format 2, and only elmolib
can read them.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from elmolib.errors import ElmolibError, WeightsError
from elmolib.files import atomic_write, read_limited, write_errors
from elmolib.formats import assembly, hdf5
from elmolib.formats.assembly import AS_IT_IS, CHARACTERS, Array, Arrays, Request, StoredModel
from elmolib.formats.names import SOFTMAX, bilm_tf_names, hdf5_arrays, weight_shapes
from elmolib.formats.options import USUAL, Known, Options, options_of, parse_json, parse_options
from elmolib.settings.architecture import Architecture
from elmolib.text.spelling import BYTES, Spelling
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import MAX_BYTES, Vocabulary

FORMAT, SPELLING_FORMAT, _MAX_JSON_BYTES = 1, 2, 10_000_000
_UNCHANGED = "the previous file is unchanged"
# The sizes of the models of AllenNLP, which have the usual options.
_FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))
_DIMS = ((1024, 128, 1), (2048, 256, 1), (4096, 512, 2))


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
    shapes = weight_shapes(model.architecture, rows, model.spelling)
    for name in sorted(set(shapes) ^ set(model.arrays)):
        verb = "without" if name in shapes else "with"
        fault = f"cannot be written {verb} the array {name}"
        raise WeightsError(f"{source} {fault}: check the model's options.")
    assembly.check_rows(rows, model.vocabulary, source)
    texts = {}
    if model.spelling != BYTES:
        texts["spelling"] = _to_json(model.spelling.to_json(), f"{source}: the spelling")
    if model.vocabulary is not None:
        texts["vocabulary"] = model.vocabulary.to_bytes(f"{source}: the vocabulary")
    if model.training_record is not None:
        texts["record"] = _to_json(model.training_record, f"{source}: the training record")
    with write_errors(path, WeightsError, _UNCHANGED), hdf5.create_hdf5(path) as file:
        for ours, stored in hdf5_arrays(model.architecture, rows, model.spelling).items():
            values = assembly.converted(model.arrays[ours], dtype)
            assembly.check_values(ours, values, shapes[ours], source)
            file.create_dataset(stored.name, data=values.reshape(stored.shape), track_times=False)
        file.attrs["elmolib_format"] = FORMAT if model.spelling == BYTES else SPELLING_FORMAT
        if model.mix is not None:
            file.attrs["mix"] = np.bytes_(_to_json({"weights": model.mix}, "mix"))
        file.attrs["options"] = np.bytes_(_to_json(options_of(model.architecture), "options"))
        file.attrs["tokenizer"] = np.bytes_(_to_json(model.tokenizer.to_json(), "tokenizer"))
        for name, text in texts.items():
            hdf5.write_bytes(file, name, text)


def write_published(folder: str | Path, model: StoredModel) -> None:
    """Write `weights.hdf5`, `options.json` and `vocab.txt`. Errors are as in `write_model`."""
    folder = Path(folder)
    if model.spelling != BYTES:
        why = "because bilm-tf and AllenNLP spell all words by their bytes"
        advice = "write an elmo.h5 instead"
        raise WeightsError(f"{folder} cannot hold {model.source}, {why}: {advice}.")
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
    path: Path, request: Request, source: str, options: Options | None = None, folder: str = ""
) -> StoredModel:
    """Read an HDF5 weight file; `options` and the vocabulary in `folder` are separate, if any.

    `folder` is the name of the folder in error messages.
    """
    with hdf5.open_hdf5(path, source) as file:
        version = _attribute(file, "elmolib_format", "iu", "a whole number", source)
        if version not in (None, FORMAT, SPELLING_FORMAT):
            known = f"this elmolib reads {FORMAT} and {SPELLING_FORMAT}"
            advice = "use the version of elmolib that wrote it"
            raise WeightsError(f"{source} has the format {version}, but {known}: {advice}.")
        part = partial(_part, file, source)

        def complete(known: Known) -> Architecture:
            stored = part("options", parse_options, options and options(known))
            return stored or _published_size(known(), source)

        def require_stored(wanted: list[Array]) -> None:
            stored = [(name, file[name]) for name, _, _ in wanted if name in file]
            hdf5.require_stored(file, stored, source)

        arrays = _arrays(file, source)
        words = words_in(path.parent, folder, arrays) if folder else None
        spelling = part("spelling", _parsed(Spelling))
        fields = {
            "vocabulary": part("vocabulary", Vocabulary.parse, words),
            "tokenizer": part("tokenizer", _parsed(Tokenizer)) or AS_IT_IS,
            "training_record": part("record", parse_json),
            "format": None if version is None else int(version),
            "spelling": spelling or assembly.bilm_tf_spelling(arrays, words, source),
            "mix": part("mix", _parse_mix),
        }
        return assembly.assemble(arrays, complete, request, source, path, require_stored, **fields)


def _arrays(file: h5py.File, source: str) -> dict[str, Array]:
    names: list[str] = []
    file.visit_links(names.append)
    for group in ("CNN", "CNN_proj", "RNN_0", "RNN_1", "softmax"):
        hdf5.find(file, group, source)  # refuses links, whose targets have other names
    arrays = {}
    for ours, name in bilm_tf_names(names).items():
        data = hdf5.find_data(file, name, source)
        if data.dtype.kind != "f" or data.dtype.itemsize not in (2, 4, 8):
            fault = f"the array {name} is {data.dtype}"
            raise WeightsError(f"{source}: {fault}: convert it to float32.")
        arrays[ours] = Array(name, data.shape, partial(data.__getitem__, ()))
    return arrays


def _published_size(known: Mapping[str, Any], source: str) -> Architecture:
    dims = known["lstm_dim"], known["projection_dim"], known["n_highway"]
    if known["filters"] != _FILTERS or dims not in _DIMS:
        raise WeightsError(
            f"{source} holds no options: give options=..., or name a folder that also holds its "
            f"options.json. Its shapes tell the dimensions, but not {', '.join(USUAL)}."
        )
    return Architecture.from_json(known, source)


def words_in(folder: Path, source: str, arrays: Arrays) -> Vocabulary | None:
    """Read the vocabulary of a folder, which may be malformed if the model does not need it."""
    try:
        for name in ("vocab.txt", "vocab.txt.gz"):
            if (folder / name).exists():
                text = read_limited(folder / name, MAX_BYTES, WeightsError, f"{source}/{name}")
                return Vocabulary.parse(text, f"{source}/{name}")
    except ElmolibError as error:
        if SOFTMAX[1] in arrays or CHARACTERS not in arrays:
            raise
        warnings.warn(f"A vocabulary that is not needed is passed over: {error}", stacklevel=2)
    return None


def _part(file: h5py.File, source: str, name: str, parse: Callable, separate: Any = None) -> Any:
    """Parse the text stored as `name`, or return `separate`, the value from another file."""
    if name in ("options", "tokenizer", "mix"):
        text = _attribute(file, name, "S", "fixed-length text", source)
    else:
        limit = _MAX_JSON_BYTES if name == "record" else MAX_BYTES
        text = hdf5.stored_bytes(file, name, limit, source)
    if text is None:
        return separate
    stored = parse(bytes(text), f"{source}: the {name}")
    if separate is not None and stored != separate:
        problem = f"{source} holds its own {name}, which differs from the separate file"
        raise WeightsError(f"{problem}: delete the separate file, or name only the weight file.")
    return stored


def _parsed(kind: type[Tokenizer] | type[Spelling]) -> Callable[[bytes, str], Any]:
    return lambda text, source: kind.from_json(parse_json(text, source), source)


def _parse_mix(text: bytes, source: str) -> tuple[float, ...]:
    weights = parse_json(text, source).get("weights")
    if not isinstance(weights, list) or not all(isinstance(each, float) for each in weights):
        raise WeightsError(f"{source} must hold one number per layer.")
    return tuple(weights)


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
