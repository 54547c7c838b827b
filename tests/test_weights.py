"""Weight files are read back exactly as written, and contradictions in them are refused."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
import textwrap
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_disk import limited_files
from small_models import TINY, bilm_options, hdf5_form, random_arrays

from elmolib.errors import ElmolibError, VocabularyError, WeightsError
from elmolib.formats import readers
from elmolib.formats.hdf5 import create_hdf5, find_data, open_hdf5
from elmolib.formats.names import SOFTMAX, hdf5_arrays
from elmolib.formats.options import options_of
from elmolib.formats.readers import read_model, read_softmax, read_vocabulary
from elmolib.formats.weights import (
    Request,
    StoredModel,
    read_weight_file,
    write_model,
    write_published,
)
from elmolib.settings.architecture import Architecture
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import Vocabulary

REFERENCE = Path(__file__).parents[1].parent / "shared" / "reference"
VOCABULARY = Vocabulary(["the", "râu", "河", "🚣"])
TOKENIZER = Tokenizer(language="ro", romanian_commas=True)
CELL = "RNN_0/RNN/MultiRNNCell/Cell0/LSTMCell"


def arrays() -> dict[str, np.ndarray]:
    return random_arrays(TINY, len(VOCABULARY))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid self-contained file."""
    path = tmp_path / "elmo.h5"
    write_model(path, StoredModel(TINY, arrays(), VOCABULARY, TOKENIZER, {"steps": 3}))
    return path


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A valid folder as bilm-tf writes it: the weight file contains only arrays."""
    folder = tmp_path / "published"
    folder.mkdir()
    with h5py.File(folder / "model.hdf5", "w") as file:
        for name, values in hdf5_form(TINY, arrays()).items():
            file[name] = values
    (folder / "options.json").write_text(json.dumps(options_of(TINY)))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY))
    return folder


def zipped(folder: Path, inside: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, inside + file.name)
    return path


def assert_same_arrays(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].tobytes() == values.tobytes(), name


# --- Writing and reading back


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    options=bilm_options(),
    words=st.none() | st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read(
    tmp_path: Path, options: Architecture, words: list[str] | None, seed: int
) -> None:
    vocabulary = None if words is None else Vocabulary(dict.fromkeys(words))
    size = None if vocabulary is None else len(vocabulary)
    written = random_arrays(options, size, seed)
    write_model(tmp_path / "elmo.h5", StoredModel(options, written, vocabulary, TOKENIZER))
    model = read_model(tmp_path / "elmo.h5")
    assert_same_arrays(model.arrays, written)
    assert model.architecture == options
    assert model.vocabulary == vocabulary
    assert model.tokenizer == TOKENIZER
    assert model.training_record is None


def test_extreme_floats_keep_their_bits(tmp_path: Path) -> None:
    info = np.finfo(np.float32)
    written = arrays()
    written["char_cnn/embedding"].flat[:5] = [
        -0.0,
        info.max,
        info.min,
        info.tiny,
        info.smallest_subnormal,
    ]
    write_model(tmp_path / "elmo.h5", StoredModel(TINY, written, VOCABULARY, TOKENIZER))
    assert_same_arrays(read_model(tmp_path / "elmo.h5").arrays, written)


def test_record_is_kept(path: Path) -> None:
    assert read_model(path).training_record == {"steps": 3}


def test_softmax_can_be_left_unread(path: Path) -> None:
    model = read_model(path, softmax=False)
    assert_same_arrays(
        model.arrays, {k: v for k, v in arrays().items() if not k.startswith("softmax/")}
    )
    assert model.vocabulary == VOCABULARY


def test_softmax_can_be_read_alone(path: Path) -> None:
    model = read_softmax(path)
    assert_same_arrays(model.arrays, {name: arrays()[name] for name in SOFTMAX})
    assert model.vocabulary == VOCABULARY
    assert model.stamp == read_model(path).stamp


def test_vocabulary_is_read_without_any_array(path: Path, published: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["char_embed"], file["softmax/b"]
    for form in (path, published, zipped(published)):
        assert read_vocabulary(form) == VOCABULARY


@pytest.mark.parametrize("lacking", ["softmax", "vocabulary"])
def test_model_without_softmax_or_vocabulary_says_so(path: Path, lacking: str) -> None:
    assert read_model(path, softmax=False).has_softmax
    with h5py.File(path, "r+") as file:
        del file[lacking]
    for softmax in (True, False):
        assert not read_model(path, softmax=softmax).has_softmax
    for read in (read_softmax, read_vocabulary):
        with pytest.raises(WeightsError, match=r"elmo\.h5 has no softmax with its vocabulary, so"):
            read(path)


def test_same_content_gives_same_bytes_in_any_process(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[2])
        import test_weights as t
        model = t.StoredModel(t.TINY, t.arrays(), t.VOCABULARY, t.TOKENIZER, {"b": 1, "a": 2})
        t.write_model(sys.argv[1], model)
        """
    )
    contents = set()
    for seed in "12":
        path = tmp_path / f"{seed}.h5"
        command = [sys.executable, "-c", program, str(path), str(Path(__file__).parent)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        contents.add(path.read_bytes())
    reordered = dict(reversed(arrays().items()))
    write_model(
        tmp_path / "3.h5", StoredModel(TINY, reordered, VOCABULARY, TOKENIZER, {"a": 2, "b": 1})
    )
    contents.add((tmp_path / "3.h5").read_bytes())
    assert len(contents) == 1


def test_no_time_is_stored(path: Path) -> None:
    with h5py.File(path) as file:
        times = []
        file.visititems(lambda _, node: times.append(h5py.h5o.get_info(node.id).mtime))
    assert set(times) == {0}


@pytest.mark.shared
@pytest.mark.parametrize("variant", ["skip", "noskip", "plain", "train-a", "wt2"])
def test_reference_files_are_read_and_rewritten_whole(tmp_path: Path, variant: str) -> None:
    model = read_model(REFERENCE / variant)
    expected: dict[str, np.ndarray] = {}

    def note(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset):
            expected[name] = node[()]

    with h5py.File(next((REFERENCE / variant).glob("*.hdf5"))) as file:
        file.visititems(note)
    stored = hdf5_form(model.architecture, model.arrays)
    assert_same_arrays(dict(sorted(stored.items())), dict(sorted(expected.items())))
    assert model.tokenizer.tokenized
    words = REFERENCE / variant / "vocab.txt"
    if words.exists():
        assert model.vocabulary is not None
        assert "".join(f"{word}\n" for word in model.vocabulary) == words.read_text("utf-8")
    write_model(tmp_path / "elmo.h5", model)
    again = read_model(tmp_path / "elmo.h5")
    assert_same_arrays(again.arrays, model.arrays)
    assert (again.architecture, again.vocabulary) == (model.architecture, model.vocabulary)


# --- The file formats in which models are published


def test_weight_file_with_separate_options(published: Path) -> None:
    model = read_model(published / "model.hdf5", options=published / "options.json")
    assert_same_arrays(model.arrays, arrays())
    assert model.vocabulary is None
    assert model.tokenizer == Tokenizer(tokenized=True, unicode_form=None)


def test_weight_file_without_options_says_what_to_give(published: Path) -> None:
    with pytest.raises(WeightsError, match=r"model\.hdf5 holds no options: give options="):
        read_model(published / "model.hdf5")


@pytest.mark.parametrize("inside", ["", "216/"])
def test_folder_and_zip_of_it(published: Path, inside: str) -> None:
    for form in (published, zipped(published, inside)):
        model = read_model(form)
        assert_same_arrays(model.arrays, arrays())
        assert model.architecture == TINY
        assert model.vocabulary == VOCABULARY


def test_compressed_vocabulary_and_windows_line_ends(published: Path) -> None:
    words = "".join(f"{word}\r\n" for word in VOCABULARY).encode()
    (published / "vocab.txt").unlink()
    (published / "vocab.txt.gz").write_bytes(gzip.compress(words))
    assert read_model(published).vocabulary == VOCABULARY
    assert read_model(zipped(published)).vocabulary == VOCABULARY


def test_another_form_needs_only_another_reader(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.link").write_text("elmo.h5")

    def read_link(link: Path, request: Request, source: str) -> StoredModel:
        return read_weight_file(link.parent / link.read_text(), request, source)

    reader = (lambda path: path.suffix == ".link", read_link)
    monkeypatch.setattr(readers, "READERS", [*readers.READERS, reader])
    assert_same_arrays(read_model(tmp_path / "model.link").arrays, arrays())


def test_folder_of_a_self_contained_file(path: Path) -> None:
    assert_same_arrays(read_model(path.parent).arrays, arrays())


def test_published_form_is_read_back(tmp_path: Path, path: Path) -> None:
    folder = tmp_path / "export"
    write_published(folder, read_model(path))
    assert sorted(file.name for file in folder.iterdir()) == [
        "options.json",
        "vocab.txt",
        "weights.hdf5",
    ]
    model = read_model(folder)
    assert_same_arrays(model.arrays, arrays())
    assert (model.architecture, model.vocabulary) == (TINY, VOCABULARY)
    assert (model.tokenizer, model.training_record) == (TOKENIZER, {"steps": 3})
    without_words = {k: v for k, v in arrays().items() if not k.startswith("softmax/")}
    write_published(folder, StoredModel(TINY, without_words, None, TOKENIZER))
    assert read_model(folder).vocabulary is None


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", ">f8"])
def test_other_floats_become_float32(published: Path, dtype: str) -> None:
    rounded = {name: values.astype(dtype) for name, values in arrays().items()}
    with h5py.File(published / "model.hdf5", "w") as file:
        for name, values in hdf5_form(TINY, rounded).items():
            file[name] = values
    expected = {name: values.astype(np.float32) for name, values in rounded.items()}
    assert_same_arrays(read_model(published).arrays, expected)


def test_stored_row_of_padding_is_dropped_only_if_it_is_zero(path: Path) -> None:
    for first_row, is_read in ((0.0, True), (0.5, False)):
        with h5py.File(path, "r+") as file:
            del file["char_embed"]
            file["char_embed"] = np.vstack(
                [np.full((1, 3), first_row), arrays()["char_cnn/embedding"]]
            )
        if is_read:
            assert_same_arrays(read_model(path).arrays, arrays())
        else:
            with pytest.raises(WeightsError, match=r"char_embed has the shape \(262, 3\)"):
                read_model(path)


def test_unknown_arrays_are_ignored(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["global_step"] = 7
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    assert_same_arrays(read_model(path).arrays, arrays())


# --- Contradictions


def replaced(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = value

    return change


def removed(name: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.attrs[name] = value

    return change


def with_value(name: str, value: float) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name][-1] = value

    return change


def remade(**storage: object) -> Callable[[h5py.File], None]:
    """Return a function that replaces `char_embed` by an empty array with another storage."""

    def change(file: h5py.File) -> None:
        del file["char_embed"]
        file.create_dataset("char_embed", (261, 3), "f4", **storage)

    return change


compressed = remade(compression="gzip")
promised = remade(chunks=(261, 3))
in_another_file = remade(external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File) -> None:
    del file["char_embed"]
    layout = h5py.VirtualLayout((261, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "char_embed", (261, 3))
    file.create_virtual_dataset("char_embed", layout)


def renamed_link(file: h5py.File) -> None:
    file.move("CNN", "hidden")
    file["CNN"] = h5py.SoftLink("/hidden")


REFUSED = {
    "missing array": (removed("CNN/b_cnn_1"), r"no array CNN/b_cnn_1 with shape \(3,\)"),
    "missing bias": (removed("softmax/b"), "no array softmax/b"),
    "missing group": (removed("RNN_1"), "no array RNN_1/RNN/MultiRNNCell/Cell0"),
    "wrong shape": (
        replaced("CNN/W_cnn_0", np.zeros((1, 1, 3, 9), "f4")),
        r"CNN/W_cnn_0 has the shape \(1, 1, 3, 9\), but its options ask for \(1, 1, 3, 2\)",
    ),
    "scalar": (replaced("CNN/b_cnn_0", 1.0), r"CNN/b_cnn_0 has the shape \(\)"),
    "nothing": (replaced("CNN/b_cnn_0", h5py.Empty("f4")), "CNN/b_cnn_0 has the shape None"),
    "group for array": (removed("char_embed"), "char_embed"),
    "array for group": (replaced("CNN", np.zeros(3)), "no array CNN/W_cnn_0"),
    "integers": (replaced("CNN/b_cnn_0", np.zeros(2, "i4")), "is int32: convert it to float32"),
    "words": (
        replaced("CNN/b_cnn_0", np.array(["a", "b"], h5py.string_dtype())),
        "is object: convert it to float32",
    ),
    "infinity": (with_value(f"{CELL}/B", np.inf), f"{CELL}/B holds values that are not finite"),
    "no number": (with_value("char_embed", np.nan), "char_embed holds values that are not finite"),
    "too large for float32": (
        replaced("CNN/b_cnn_0", np.array([1e300, 0.0])),
        "CNN/b_cnn_0 holds values that are not finite",
    ),
    "third layer": (
        replaced("RNN_1/RNN/MultiRNNCell/Cell2/LSTMCell/W_0", np.zeros(1)),
        r"unexpected array .*Cell2/LSTMCell/W_0: check lstm\.n_layers",
    ),
    "highway layer": (
        replaced("CNN_high_1/W_carry", np.zeros(1)),
        r"check char_cnn\.n_highway",
    ),
    "convolution": (replaced("CNN/W_cnn_2", np.zeros(1)), r"check char_cnn\.filters"),
    "fewer words": (
        replaced("vocabulary", np.frombuffer(b"<S>\n</S>\n<UNK>\nthe\n", np.uint8)),
        "softmax/W has 7 rows, but the vocabulary has 4 words",
    ),
    "word twice": (
        replaced("vocabulary", np.frombuffer(b"<S>\n</S>\n<UNK>\na\nb\na\nc\n", np.uint8)),
        "line 6: the word 'a' was already given in line 4",
    ),
    "special words elsewhere": (
        replaced("vocabulary", np.frombuffer(b"a\nb\nc\nd\n<S>\n</S>\n<UNK>\n", np.uint8)),
        "must begin with the lines <S>, </S>, <UNK>",
    ),
    "empty word": (
        replaced("vocabulary", np.frombuffer(b"<S>\n</S>\n<UNK>\n\nb\nc\nd\n", np.uint8)),
        "line 4: '' is not a word",
    ),
    "NUL in a word": (
        replaced("vocabulary", np.frombuffer(b"<S>\n</S>\n<UNK>\na\nb\0\nc\nd\n", np.uint8)),
        r"line 5: 'b\\x00' is not a word",
    ),
    "invalid UTF-8": (
        replaced("vocabulary", np.frombuffer(b"<S>\n</S>\n\xff\n", np.uint8)),
        "line 3: the text is not valid UTF-8",
    ),
    "words as floats": (replaced("vocabulary", np.zeros(3)), "vocabulary is not text"),
    "newer format": (
        attribute("elmolib_format", 3),
        "has the format 3, but this elmolib reads 1 and 2",
    ),
    "format of words": (attribute("elmolib_format", "one"), "elmolib_format is not a whole number"),
    "options of no use": (
        attribute("options", np.bytes_(b"[]")),
        ": the options must be a JSON object",
    ),
    "options by reference": (attribute("options", "{}"), "options is not fixed-length text"),
    "tokenizer": (
        attribute("tokenizer", np.bytes_(b'{"x": 1}')),
        ": the tokenizer must have exactly the keys",
    ),
    "nested tokenizer": (
        attribute("tokenizer", np.bytes_(b"[" * 20_000)),
        "the tokenizer is not valid JSON: it is nested too deep",
    ),
    "record": (replaced("record", np.frombuffer(b"[1]", np.uint8)), "record must be a JSON object"),
    "compression": (compressed, "char_embed is compressed: rewrite"),
    "unwritten array": (promised, "char_embed is not completely stored"),
    "external file": (in_another_file, "char_embed is in another file"),
    "virtual array": (virtual, "char_embed is in another file"),
    "soft link": (renamed_link, "CNN is a link, not data"),
    "external link": (
        replaced("char_embed", h5py.ExternalLink("/etc/passwd", "/")),
        "char_embed is a link, not data",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_contradiction_or_trick_is_refused_by_name(path: Path, what: str) -> None:
    change, message = REFUSED[what]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ElmolibError, match=message) as caught:
        read_model(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_huge_declared_softmax_takes_no_memory(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["softmax"], file["vocabulary"]
        file.create_dataset("softmax/W", (2**50, 3), "f4")
        file.create_dataset("softmax/b", (2**50,), "f4")
    with pytest.raises(WeightsError, match="softmax/W is not completely stored"):
        read_model(path)


def test_arrays_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    # The file has 64 layers but few megabytes: all layers are hard links to the same 4 MB array.
    options = Architecture(
        char_embedding_dim=1,
        filters=((1, 1),),
        n_highway=0,
        max_characters=3,
        lstm_dim=256,
        projection_dim=256,
        n_layers=64,
    )
    path = tmp_path / "elmo.h5"
    kernel, bias = np.zeros((512, 1024), np.float32), np.zeros(1024, np.float32)
    with h5py.File(path, "w") as file:
        for name, shape in hdf5_arrays(options).values():
            if name.endswith(("/W_0", "/B")) and name != f"{CELL}/W_0" and name != f"{CELL}/B":
                file[name] = file[f"{CELL}/{name.rpartition('/')[2]}"]
            elif name.startswith(CELL):
                file[name] = kernel if name.endswith("W_0") else bias
            else:
                file[name] = np.zeros(shape, np.float32)
    (tmp_path / "options.json").write_text(json.dumps(options_of(options)))
    with pytest.raises(WeightsError, match="declares arrays larger than the file"):
        read_model(tmp_path)


def test_options_of_another_model_are_noticed(tmp_path: Path) -> None:
    cases = {
        "char_embed": {"char_embedding_dim": 4},
        "CNN_proj/W_proj": {"filters": ((1, 3),)},
        f"{CELL}/W_P_0": {"lstm_dim": 3},
        "Cell1/LSTMCell/W_0": {"n_layers": 1},
        "Cell2/LSTMCell/W_0": {"n_layers": 3},
        "CNN_high_0/W_carry": {"n_highway": 0},
        "CNN_high_1/W_carry": {"n_highway": 2},
    }
    path = tmp_path / "model.hdf5"
    with h5py.File(path, "w") as file:
        for name, values in hdf5_form(TINY, arrays()).items():
            file[name] = values
    for name, change in cases.items():
        options = Architecture(**{**vars(TINY), **change})
        (tmp_path / "other.json").write_text(json.dumps(options_of(options)))
        with pytest.raises(WeightsError) as caught:
            read_model(path, options=tmp_path / "other.json")
        assert str(path) in str(caught.value), name


def test_files_next_to_a_weight_file_must_agree_with_it(path: Path) -> None:
    (path.parent / "options.json").write_text(
        json.dumps(options_of(Architecture(**{**vars(TINY), "cell_clip": 1.0})))
    )
    with pytest.raises(WeightsError, match="holds its own options"):
        read_model(path.parent)
    (path.parent / "options.json").unlink()
    (path.parent / "vocab.txt").write_text("<S>\n</S>\n<UNK>\nanother\n")
    with pytest.raises(WeightsError, match="holds its own vocabulary"):
        read_model(path.parent)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89HDF\r\n\x1a\n", b"{}", b"PK\x03\x04", b"PK\x03\x04" + b"\0" * 500, b"\0" * 5000],
)
def test_foreign_file_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "elmo.h5"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"elmo\.h5") as caught:
        read_model(path)
    assert "\n" not in str(caught.value)


def test_truncated_file_is_refused_wherever_it_ends(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 50):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"elmo\.h5"):
            read_model(path)


def test_missing_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.h5 cannot be read as a model"):
        read_model(tmp_path / "absent.h5")
    with pytest.raises(WeightsError, match="holds no weight file"):
        read_model(tmp_path)


def test_two_weight_files_are_both_named(published: Path) -> None:
    (published / "second.h5").touch()
    with pytest.raises(WeightsError, match=r"several weight files \(model\.hdf5, second\.h5\)"):
        read_model(published)


# --- Zip files


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "a/../../evil", "..\\evil", "C:/x"])
def test_zip_that_points_out_of_itself_is_refused(published: Path, name: str) -> None:
    path = zipped(published)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(WeightsError, match="leads outside the archive"):
        read_model(path)


def test_zip_bomb_is_refused(published: Path) -> None:
    (published / "vocab.txt").write_bytes(b"\n" * 50_000_000)
    with pytest.raises(WeightsError, match="would expand to 50,"):
        read_model(zipped(published))


def test_compressed_vocabulary_bomb_is_refused(published: Path) -> None:
    (published / "vocab.txt").unlink()
    (published / "vocab.txt.gz").write_bytes(gzip.compress(b"a" * 70_000_000))
    with pytest.raises(WeightsError, match=r"vocab\.txt\.gz cannot be read: it is larger than"):
        read_model(published)


def test_zip_that_lies_about_its_sizes_is_refused(published: Path) -> None:
    path = zipped(published)
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("model.hdf5").file_size
    path.write_bytes(raw.replace(size.to_bytes(4, "little"), (size - 100).to_bytes(4, "little")))
    with pytest.raises(WeightsError, match="damaged"):
        read_model(path)


def test_zip_without_room_to_unpack_says_so(published: Path, monkeypatch, tmp_path) -> None:
    path = zipped(published)
    with limited_files(100), pytest.raises(WeightsError, match=r"unpacked in .*\(File too large\)"):
        read_model(path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(WeightsError, match=r"unpacked in .*none \(No such file or directory\)"):
        read_model(path)


def test_zip_with_two_models_is_refused(published: Path) -> None:
    path = zipped(published)
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(published / "model.hdf5", "other/model.hdf5")
    with pytest.raises(WeightsError, match="exactly one model, not 2"):
        read_model(path)


def test_hidden_companion_files_in_a_zip_are_ignored(published: Path) -> None:
    path = zipped(published)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._model.hdf5", "x")
    assert_same_arrays(read_model(path).arrays, arrays())


# --- Writing


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"char_cnn/embedding": np.zeros((262, 3))},
            r"char_cnn/embedding has the shape \(262, 3\)",
        ),
        (
            {"char_cnn/bias_0": np.array([0, np.nan])},
            "char_cnn/bias_0 holds values that are not finite",
        ),
        (
            {"char_cnn/bias_0": np.array([0, 1e300])},
            "char_cnn/bias_0 holds values that are not finite",
        ),
        ({"char_cnn/kernel_7": np.zeros(1)}, "with the array char_cnn/kernel_7"),
        ({"softmax/W": np.zeros((9, 3))}, "softmax/W has 9 rows, but the vocabulary has 7"),
    ],
)
def test_contradiction_is_not_written(
    path: Path, change: dict[str, np.ndarray], message: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(WeightsError, match=message):
        write_model(path, StoredModel(TINY, {**arrays(), **change}, VOCABULARY, TOKENIZER))
    incomplete = arrays()
    del incomplete["char_cnn/embedding"]
    with pytest.raises(WeightsError, match="without the array char_cnn/embedding"):
        write_model(path, StoredModel(TINY, incomplete, VOCABULARY, TOKENIZER))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("word", ["a\nb"])
def test_word_with_white_space_is_not_written(path: Path, word: str) -> None:
    vocabulary = Vocabulary([word, "c", "d", "e"])
    with pytest.raises(VocabularyError, match="line 4: 'a.*b' is not a word"):
        write_model(path, StoredModel(TINY, arrays(), vocabulary, TOKENIZER))


# The bytes of an array that h5py 3.16 (HDF5 2.0) wrote with libver="latest" and gzip.
NEWER_HDF5 = """
eNrr9HBx4+WS4mLm4GCAgf9QwA8VMoCKF/y1FvX3cAliYqhgEkJWCANcTAyMDAxsPAxAijFxM8w8DwaqgZSiVC+wE4AWMKow
MDAxMTIyQ+VYoDQGX4SBUVBBHspXYBDnYBCvB7JYga5l5ubmYWAEGgJyMVgFhyxIhomZkZmFhZEf2W5YALUyDA7QovvcnmEU
jIJRMApGwSggB1TEJSdkbEhXANaiV2Q4vgIAzpcrEA==
"""


def test_a_file_of_a_newer_hdf5_is_not_called_damaged_alone(tmp_path: Path) -> None:
    path = tmp_path / "newer.h5"
    path.write_bytes(zlib.decompress(base64.b64decode(NEWER_HDF5)))
    with h5py.File(path) as file:
        if h5py.version.hdf5_version_tuple >= (2, 0):
            assert file["a"].shape == (3, 4)
            return
    refused = rf"newer\.h5 needs a newer HDF5 than {h5py.version.hdf5_version}, or is damaged"
    with pytest.raises(WeightsError, match=refused) as caught, open_hdf5(path, "newer.h5") as file:
        find_data(file, "a", "newer.h5")
    assert "update h5py, or write the file again" in str(caught.value)


@pytest.mark.parametrize("record", [{"loss": float("nan")}, {"path": Path("x")}])
def test_record_that_is_no_json_is_not_written(path: Path, record: dict) -> None:
    with pytest.raises(
        WeightsError, match=r"elmo\.h5: the training record cannot be written as JSON"
    ):
        write_model(path, StoredModel(TINY, arrays(), VOCABULARY, TOKENIZER, record))


@pytest.mark.parametrize("limit", [0, 100, 5_000, 12_000, 20_000, 26_000])
def test_full_disk_leaves_the_old_file(path: Path, limit: int) -> None:
    before = path.read_bytes()
    assert len(before) > limit
    refused = pytest.raises(WeightsError, match=r"elmo\.h5 could not be written \(File too large")
    with limited_files(limit), refused:
        write_model(path, StoredModel(TINY, random_arrays(TINY, 7, 1), VOCABULARY, TOKENIZER))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    # After the error, the HDF5 library must still work in this process.
    write_model(path, StoredModel(TINY, random_arrays(TINY, 7, 1), VOCABULARY, TOKENIZER))
    assert_same_arrays(read_model(path).arrays, random_arrays(TINY, 7, 1))


@pytest.mark.parametrize("limit", [0, 3000, 20_000, 60_000])
def test_a_full_disk_is_an_error_however_many_arrays_hdf5_writes(tmp_path, limit):
    refused = pytest.raises(OSError, match="File too large")
    with limited_files(limit), refused, create_hdf5(tmp_path / "many.h5") as file:
        for k in range(300):
            file.create_dataset(f"group {k % 20}/{k}", data=np.arange(k))
    assert not list(tmp_path.iterdir())


def test_float16_halves_the_file_and_keeps_eleven_bits(tmp_path):
    for dtype in (np.float32, np.float16):
        write_model(
            tmp_path / dtype.__name__,
            StoredModel(TINY, arrays(), VOCABULARY, TOKENIZER),
            dtype=dtype,
        )
    with h5py.File(tmp_path / "float16") as file:
        assert {file[name].dtype for name in hdf5_form(TINY, arrays())} == {np.dtype(np.float16)}
    read = read_model(tmp_path / "float16")
    for name, values in arrays().items():
        assert read.arrays[name].dtype == np.float32
        np.testing.assert_allclose(read.arrays[name], values, rtol=2**-11, atol=2**-24)


def test_a_dtype_without_a_type_in_hdf5_is_refused(tmp_path):
    stored = StoredModel(TINY, arrays(), VOCABULARY, TOKENIZER)
    with pytest.raises(WeightsError, match="cannot be written as bfloat16: use np.float32"):
        write_model(tmp_path / "elmo.h5", stored, ml_dtypes.bfloat16)
    assert not list(tmp_path.iterdir())


def test_float16_refuses_what_it_cannot_hold(tmp_path):
    large = arrays() | {"softmax/b": np.full(len(VOCABULARY), 1e6, np.float32)}
    with pytest.raises(WeightsError, match="softmax/b"):
        write_model(
            tmp_path / "elmo.h5", StoredModel(TINY, large, VOCABULARY, TOKENIZER), dtype=np.float16
        )
    assert not (tmp_path / "elmo.h5").exists()
