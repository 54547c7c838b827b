"""HDF5 weight files as people find them: under other names, in archives, without options."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_models import TINY, hdf5_form, random_arrays

from elmolib import ElmoEmbedder
from elmolib.errors import OptionsError, WeightsError
from elmolib.formats.options import options_of
from elmolib.formats.readers import read_model, read_softmax
from elmolib.settings.architecture import Architecture

WORDS = "<S>\n</S>\n<UNK>\nthe\nriver\n"


def write_hdf5(path: Path, architecture: Architecture, arrays: dict[str, np.ndarray]) -> None:
    with h5py.File(path, "w") as file:
        for name, values in hdf5_form(architecture, arrays).items():
            file[name] = values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the names of AllenNLP's downloads, without a softmax."""
    folder = tmp_path / "pt"
    folder.mkdir()
    write_hdf5(folder / "elmo_pt_weights.hdf5", TINY, random_arrays(TINY))
    (folder / "elmo_pt_options.json").write_text(json.dumps(options_of(TINY)))
    return folder


def packed(folder: Path, inside: str = "./") -> Path:
    path = folder.parent / f"{folder.name}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, inside)
    return path


def assert_opens(path: Path, architecture: Architecture = TINY, **keywords: object) -> None:
    model = read_model(path, **keywords)
    assert model.architecture == architecture
    for name, values in random_arrays(architecture).items():
        assert model.arrays[name].tobytes() == values.tobytes(), name


def test_published_names_are_kept(folder: Path) -> None:
    assert_opens(folder)
    (folder / "elmo_pt_options.json").rename(folder / "options262.json")
    assert_opens(folder)
    (folder / "a_options.json").touch()
    with pytest.raises(OptionsError, match=r"several options files \(a_options\.json, options262"):
        read_model(folder)
    (folder / "options262.json").rename(folder / "elmo_pt_options.json")
    assert_opens(folder)


def test_a_cache_of_word_vectors_is_passed_over(folder: Path) -> None:
    with h5py.File(folder / "elmo_token_embeddings.hdf5", "w") as file:
        file["embedding"] = np.zeros((5, 3), np.float32)
    assert_opens(folder)


@pytest.mark.parametrize("inside", ["./", "elmo/pt"])
def test_a_tar_file_opens_like_its_folder(folder: Path, inside: str) -> None:
    assert_opens(packed(folder, inside))


def test_a_tar_file_of_a_self_contained_model(folder: Path) -> None:
    path = packed(folder)
    model = read_model(path)
    assert model.source == str(path / "elmo_pt_weights.hdf5")
    assert model.stamp == read_model(path).stamp


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **attributes: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(content))


TRICKS: dict[str, tuple[Callable[[tarfile.TarFile], None], str]] = {
    "outside": (lambda archive: add(archive, "../evil.txt", b"x"), "leads outside the archive"),
    "absolute": (lambda archive: add(archive, "/etc/evil", b"x"), "leads outside the archive"),
    "link": (
        lambda archive: add(archive, "vocab.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "member 'vocab.txt' is no plain file",
    ),
    "hard link": (
        lambda archive: add(archive, "vocab.txt", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        "member 'vocab.txt' is no plain file",
    ),
    "device": (
        lambda archive: add(archive, "vocab.txt", type=tarfile.CHRTYPE),
        "member 'vocab.txt' is no plain file",
    ),
    "bomb": (lambda archive: add(archive, "a.bin", bytes(50_000_000)), "it would expand to"),
    "many files": (
        lambda archive: [add(archive, f"{k}/vocab.txt", b"x") for k in range(1001)],
        "holds more than 1000 files",
    ),
    "no model": (lambda archive: add(archive, "a.json", b"{}"), "exactly one model, not 0"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_tricky_tar_file_is_refused_in_one_sentence(tmp_path: Path, trick: str) -> None:
    change, message = TRICKS[trick]
    path = tmp_path / "model.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        change(archive)
    with pytest.raises(WeightsError, match=message) as caught:
        read_model(path)
    assert str(path) in str(caught.value)


def test_a_cut_tar_file_is_damaged(folder: Path) -> None:
    path = packed(folder)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="is a damaged or encrypted archive"):
        read_model(path)


@pytest.mark.parametrize(
    "text",
    [
        b"river\nthe\n<S>\n</S>\n<UNK>\n",
        b"the\nriver\n",
        WORDS.encode() + b"the\n",
        WORDS.encode() + b"\nbank\n",
        WORDS.encode() + b"r\xe2u\n",
        b"a" * 64_000_001,
    ],
    ids=["order", "no marks", "twice", "blank line", "no UTF-8", "too large"],
)
def test_an_odd_vocabulary_is_passed_over_unless_there_is_a_softmax(
    folder: Path, text: bytes
) -> None:
    (folder / "vocab.txt").write_bytes(text)
    passed_over = pytest.warns(UserWarning, match=r"not needed is passed over: .*vocab\.txt")
    with passed_over:
        assert read_model(folder).vocabulary is None
    with passed_over:
        embedder = ElmoEmbedder(folder)
    with pytest.raises(WeightsError, match="has no softmax with its vocabulary"):
        embedder.predict("the river")
    write_hdf5(folder / "elmo_pt_weights.hdf5", TINY, random_arrays(TINY, 5))
    with pytest.raises(ValueError, match=r"vocab\.txt"):
        read_softmax(folder)


def test_missing_number_of_layers_is_counted(folder: Path) -> None:
    options = options_of(TINY)
    del options["lstm"]["n_layers"]
    (folder / "elmo_pt_options.json").write_text(json.dumps(options))
    assert_opens(folder)


def test_bilm_tfs_dump_of_one_layer(tmp_path: Path) -> None:
    one = Architecture(**{**vars(TINY), "n_layers": 1})
    with h5py.File(tmp_path / "weights.hdf5", "w") as file:
        for name, values in hdf5_form(one, random_arrays(one)).items():
            file[name.replace("MultiRNNCell/Cell0/", "")] = values
    options = options_of(one)
    del options["lstm"]["n_layers"]
    (tmp_path / "options.json").write_text(json.dumps(options))
    assert_opens(tmp_path, one)


def test_weights_alone_need_only_what_shapes_do_not_tell(folder: Path) -> None:
    path = folder / "elmo_pt_weights.hdf5"
    with pytest.raises(WeightsError, match="holds no options: .* but not max_characters, activ"):
        read_model(path)
    lstm = {"cell_clip": 3, "proj_clip": 3, "use_skip_connections": True}
    options = {"char_cnn": {"activation": "relu", "max_characters_per_token": 10}, "lstm": lstm}
    assert_opens(path, options=options)
    assert ElmoEmbedder(path, options).embed(["the river"])[0].shape == (2, 6)
    (folder / "own.json").write_text(json.dumps(options))
    assert_opens(path, options=folder / "own.json")
    del options["char_cnn"]["activation"]
    with pytest.raises(OptionsError, match=r"options: the key char_cnn\.activation is missing"):
        read_model(path, options)
    write_hdf5(path, TINY, {"char_cnn/embedding": random_arrays(TINY)["char_cnn/embedding"]})
    with pytest.raises(WeightsError, match="lacks arrays of an ELMo"):
        read_model(path)


def test_weights_alone_of_a_published_size_need_no_options(tmp_path: Path) -> None:
    filters = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))
    dims = {"char_embedding_dim": 16, "lstm_dim": 1024, "projection_dim": 128}
    small = Architecture(filters=filters, n_highway=1, n_layers=2, **dims)
    write_hdf5(tmp_path / "weights.hdf5", small, random_arrays(small))
    assert_opens(tmp_path / "weights.hdf5", small)
