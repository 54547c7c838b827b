"""Options files: which are read, which are refused, and the weight shapes that follow from them."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import bilm_options

from elmolib.errors import OptionsError
from elmolib.formats.names import hdf5_arrays, weight_shapes
from elmolib.formats.options import (
    architecture_from_options,
    options_of,
    parse_options,
    read_options,
)
from elmolib.settings.architecture import Architecture

REFERENCE = Path(__file__).parents[1].parent / "shared" / "reference"

# Dimensions of the published small model, whose number of parameters is known.
SMALL = {
    "lstm": {
        "use_skip_connections": True,
        "projection_dim": 128,
        "cell_clip": 3,
        "proj_clip": 3,
        "dim": 1024,
        "n_layers": 2,
    },
    "char_cnn": {
        "activation": "relu",
        "filters": [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]],
        "n_highway": 1,
        "embedding": {"dim": 16},
        "n_characters": 262,
        "max_characters_per_token": 50,
    },
}


def changed(path: str, value: object) -> dict:
    options = copy.deepcopy(SMALL)
    *sections, key = path.split(".")
    section: dict = options
    for name in sections:
        section = section[name]
    section[key] = value
    return options


def without(path: str) -> dict:
    options = copy.deepcopy(SMALL)
    *sections, key = path.split(".")
    section: dict = options
    for name in sections:
        section = section[name]
    del section[key]
    return options


@given(bilm_options())
def test_json_form_is_read_back_equal(options: Architecture) -> None:
    text = json.dumps(options_of(options)).encode()
    assert parse_options(text, "options.json") == options


def test_arrays_of_the_published_small_model_have_its_size() -> None:
    shapes = weight_shapes(architecture_from_options(SMALL))
    n_parameters = sum(math.prod(shape) for shape in shapes.values())
    # The published file has 54,402,456 bytes: float32 values, and some kilobytes for HDF5.
    assert 0 < 54_402_456 - 4 * n_parameters < 40_000


@pytest.mark.shared
@pytest.mark.parametrize("variant", ["skip", "noskip", "plain", "train-a", "wt2"])
def test_arrays_are_those_of_the_reference_files(variant: str) -> None:
    shapes = {}

    def note(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            shapes[name] = node.shape

    with h5py.File(next((REFERENCE / variant).glob("*.hdf5"))) as file:
        file.visititems(note)
    vocabulary_size = shapes.get("softmax/W", (None,))[0]
    options = read_options(REFERENCE / variant / "options.json")()
    assert dict(hdf5_arrays(options, vocabulary_size).values()) == shapes


@pytest.mark.parametrize("n_characters", [261, 262])
def test_number_of_characters_makes_no_difference(n_characters: int) -> None:
    options = changed("char_cnn.n_characters", n_characters)
    assert architecture_from_options(options) == architecture_from_options(SMALL)


def test_training_keys_are_ignored() -> None:
    options = {**SMALL, "dropout": 0.1, "n_tokens_vocab": 793471, "bidirectional": True}
    assert architecture_from_options(options) == architecture_from_options(SMALL)


@pytest.mark.parametrize(
    "path, field, value",
    [
        ("char_cnn.n_highway", "n_highway", 0),
        ("lstm.cell_clip", "cell_clip", None),
        ("lstm.proj_clip", "proj_clip", None),
        ("lstm.use_skip_connections", "use_skip_connections", False),
    ],
)
def test_missing_key_has_the_default_of_bilm_tf(path: str, field: str, value: object) -> None:
    assert getattr(architecture_from_options(without(path)), field) == value
    assert getattr(architecture_from_options(changed(path, None)), field) == value


@pytest.mark.parametrize(
    "path",
    [
        "char_cnn",
        "lstm",
        "char_cnn.embedding",
        "char_cnn.embedding.dim",
        "char_cnn.filters",
        "char_cnn.activation",
        "char_cnn.max_characters_per_token",
        "lstm.dim",
        "lstm.projection_dim",
        "lstm.n_layers",
    ],
)
def test_missing_key_is_named(path: str) -> None:
    with pytest.raises(OptionsError, match=rf"^mine\.json: the key {path} is missing: add it\.$"):
        architecture_from_options(without(path), "mine.json")


@pytest.mark.parametrize(
    "path, value",
    [
        ("char_cnn.embedding.dim", 0),
        ("char_cnn.embedding.dim", True),
        ("char_cnn.embedding.dim", 16.0),
        ("char_cnn.embedding.dim", "16"),
        ("char_cnn.embedding", 16),
        ("char_cnn", []),
        ("char_cnn.filters", []),
        ("char_cnn.filters", {}),
        ("char_cnn.filters", [[1, 32, 3]]),
        ("char_cnn.filters", [5]),
        ("char_cnn.filters", [[0, 32]]),
        ("char_cnn.filters", [[51, 32]]),
        ("char_cnn.filters", [[1, -32]]),
        ("char_cnn.filters", [[1, True]]),
        ("char_cnn.filters", [[1, 1]] * 65),
        ("char_cnn.n_highway", -1),
        ("char_cnn.n_highway", 1000),
        ("char_cnn.activation", "sigmoid"),
        ("char_cnn.activation", ["relu"]),
        ("char_cnn.max_characters_per_token", 2),
        ("char_cnn.max_characters_per_token", 10**9),
        ("char_cnn.n_characters", 260),
        ("char_cnn.n_characters", True),
        ("char_cnn.n_characters", [261]),
        ("lstm.dim", 10**12),
        ("lstm.dim", 64),
        ("lstm.projection_dim", None),
        ("lstm.n_layers", 65),
        ("lstm.cell_clip", 0),
        ("lstm.cell_clip", -3),
        ("lstm.cell_clip", float("nan")),
        ("lstm.cell_clip", True),
        ("lstm.proj_clip", float("inf")),
        ("lstm.proj_clip", "3"),
        ("lstm.proj_clip", 10**400),
        ("lstm.use_skip_connections", 1),
        ("bidirectional", False),
    ],
)
def test_bad_value_is_refused_by_name(path: str, value: object) -> None:
    with pytest.raises(OptionsError) as caught:
        architecture_from_options(changed(path, value), "mine.json")
    message = str(caught.value)
    assert message.startswith("mine.json: ")
    assert path in message
    assert len(message) < 300


def test_sum_of_allowed_dimensions_can_still_be_too_large() -> None:
    options = changed("lstm.dim", 65536)
    options["lstm"].update(projection_dim=65536, n_layers=64)
    with pytest.raises(OptionsError, match="parameters, but at most"):
        architecture_from_options(options)


@pytest.mark.parametrize(
    "text, reason",
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "nested too deep"),
        (b'{"lstm":' * 10_000 + b"1" + b"}" * 10_000, "nested too deep"),
        (b'"\xff"', "can't decode byte 0xff in position 1"),
        (b" " * 1_000_001, "larger than 1,000,000 bytes"),
        (b'{"lstm": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
    ],
)
def test_bad_text_is_refused(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "options.json"
    path.write_bytes(text)
    with pytest.raises(OptionsError, match=reason) as caught:
        read_options(path)()
    assert str(path) in str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"absent\.json cannot be read"):
        read_options(tmp_path / "absent.json")
    with pytest.raises(OptionsError, match="cannot be read"):
        read_options(tmp_path)


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "options.json"
    path.write_text(json.dumps(SMALL), encoding="utf-8-sig")
    assert read_options(path)() == architecture_from_options(SMALL)


@given(st.data())
def test_mutated_text_gives_options_or_our_own_error(data: st.DataObject) -> None:
    text = bytearray(json.dumps(SMALL).encode())
    edits = st.tuples(st.integers(0, len(text) - 1), st.binary(max_size=3))
    for position, replacement in data.draw(st.lists(edits, min_size=1, max_size=5)):
        text[position : position + 1] = replacement
    try:
        assert isinstance(parse_options(bytes(text), "options.json"), Architecture)
    except OptionsError as error:
        assert str(error).startswith("options.json")
