"""The file of embed_corpus has the correct content, which no interruption can change."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from children import started
from small_disk import limited_files
from small_models import TINY, random_arrays

from elmolib.elmo import ElmoEmbedder
from elmolib.embedding import embed_corpus as embedding
from elmolib.embedding import layout
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.vector_file import EmbeddedCorpus
from elmolib.errors import CorpusError, ParameterError, TextError
from elmolib.files import exclusive_lock
from elmolib.formats.hdf5 import DeferredErrors
from elmolib.formats.weights import StoredModel, write_model
from elmolib.text.tokenizer import Tokenizer

DIM = 2 * TINY.projection_dim
N_LAYERS = TINY.n_layers + 1
LINES = ["The river bank was steep.", "", "  \t", "A/b c", "It's 銀行 și Iași!", "", "The end"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "elmo.h5"
    write_model(path, StoredModel(TINY, random_arrays(TINY), None, Tokenizer()))
    return path


@pytest.fixture(scope="module")
def embedder(weights) -> ElmoEmbedder:
    return ElmoEmbedder(weights)


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def long_text(path: Path, n_lines: int = 300) -> Path:
    """Write lines of very different lengths, some of them blank."""
    rng = random.Random(0)
    words = [f"w{i}" for i in range(100)]
    lines = [" ".join(rng.choices(words, k=rng.choice([0, 1, 5, 40]))) for _ in range(n_lines)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_given_words_are_read_as_the_words_of_a_text(embedder):
    text, given_words = "It's Iași", ["It's\u200f", "\ufeffIas\u0326i"]
    assert embedder.words(given_words) == embedder.words(text) == text.split()
    np.testing.assert_array_equal(embedder.embed([given_words])[0], embedder.embed(text))
    pair = (given_words[1], "Iași")
    assert embedder.similarity(given_words, text, words=pair) == pytest.approx(1)
    assert embedder.nearest(given_words[1], text, [text, "The end"], k=1).word == "Iași"


def test_words_of_a_published_model_are_read_as_they_are(tmp_path):
    path = tmp_path / "published.h5"
    as_published = Tokenizer(tokenized=True, unicode_form=None)
    write_model(path, StoredModel(TINY, random_arrays(TINY), None, as_published))
    embedder, words = ElmoEmbedder(path), ["Ias\u0326i", "\ufeffIași", "Do\xadnau"]
    expected = embedder.encoder.encode([words])[0].mean(axis=0)
    np.testing.assert_array_equal(embedder.embed([words])[0], expected)


def test_marks_of_sentences_are_dropped_with_their_number(embedder, tmp_path):
    text = tmp_path / "marked.txt"
    text.write_text("<S> The river </S>\n<s> The end </s>\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="marked.txt: dropped 4 sentence marks"):
        out = embedder.embed_corpus(text, tmp_path / "out.h5", progress=False)
    with EmbeddedCorpus(out) as corpus:
        assert list(corpus.sentences()) == [["The", "river"], ["The", "end"]]
    with pytest.warns(UserWarning, match="The sentences: dropped 2 sentence marks"):
        assert embedder.embed("<s> The river </s>").shape == (2, DIM)


@pytest.mark.parametrize("layers", ["all", "average", "top", 0, np.int64(1)])
def test_every_line_has_the_vectors_that_it_has_alone(embedder, tmp_path, text, layers):
    out = embedder.embed_corpus(text, tmp_path / "out.h5", layers=layers)
    with h5py.File(out) as file:
        index = json.loads(file["sentence_to_index"][0])
        assert list(file) == [*map(str, range(len(LINES))), "sentence_to_index"]
        for i, line in enumerate(LINES):
            expected = embedder.embed(line, layers=layers)
            assert file[str(i)].shape == expected.shape
            assert file[str(i)].dtype == np.float32
            np.testing.assert_allclose(file[str(i)], expected, atol=1e-6)
            words = embedder.words(line)
            assert LINES[int(index[" ".join(words)])].split() == line.split()


def test_blank_lines_have_a_number_and_no_words(embedder, tmp_path, text):
    with EmbeddedCorpus(embedder.embed_corpus(text, tmp_path / "out.h5", layers="all")) as corpus:
        assert len(corpus) == len(LINES)
        assert corpus.lengths.tolist() == [6, 0, 0, 4, 5, 0, 2]
        assert corpus[1].shape == (N_LAYERS, 0, DIM)
        assert corpus.words(1) == []
        assert corpus.words(3) == ["A", "/", "b", "c"]
        with pytest.raises(IndexError, match="lines 0 to 6, not 7"):
            corpus[7]


def test_half_precision_halves_the_vectors(embedder, tmp_path, text):
    whole = embedder.embed_corpus(text, tmp_path / "whole.h5")
    half = embedder.embed_corpus(text, tmp_path / "half.h5", dtype="float16")
    with h5py.File(whole) as a, h5py.File(half) as b:
        for i in range(len(LINES)):
            assert b[str(i)].dtype == np.float16
            np.testing.assert_array_equal(b[str(i)], a[str(i)][...].astype(np.float16))


def test_a_value_too_large_for_half_precision_stops_with_the_line(tmp_path, text):
    arrays = random_arrays(TINY)
    arrays["char_cnn/projection_bias"] += np.float32(1e5)
    write_model(tmp_path / "large.h5", StoredModel(TINY, arrays, None, Tokenizer()))
    large = ElmoEmbedder(tmp_path / "large.h5")
    with pytest.raises(CorpusError, match="line 1 does not fit into float16"):
        large.embed_corpus(text, tmp_path / "out.h5", layers=0, dtype="float16", batch_size=1000)


def test_packed_text_and_windows_line_ends_give_the_same(embedder, tmp_path, text):
    packed, windows = tmp_path / "text.txt.gz", tmp_path / "windows.txt"
    packed.write_bytes(gzip.compress(text.read_bytes()))
    windows.write_bytes(b"\xef\xbb\xbf" + text.read_bytes().replace(b"\n", b"\r\n"))
    for other in (packed, windows):
        with (
            EmbeddedCorpus(embedder.embed_corpus(text, tmp_path / "a.h5")) as a,
            EmbeddedCorpus(embedder.embed_corpus(other, tmp_path / f"{other.name}.h5")) as b,
        ):
            assert len(a) == len(b)
            for i in range(len(a)):
                assert a.words(i) == b.words(i)
                np.testing.assert_array_equal(a[i], b[i])


def test_the_size_is_known_to_the_byte_beforehand(embedder, tmp_path, text, capsys, monkeypatch):
    monkeypatch.setattr(embedding.tqdm, "format_sizeof", lambda n, unit: f"{n} {unit}")
    out = embedder.embed_corpus(text, tmp_path / "out.h5")
    assert capsys.readouterr().out == f"out.h5: {out.stat().st_size} B for 17 words in 7 lines\n"
    embedder.embed_corpus(text, tmp_path / "quiet.h5", progress=False)
    assert capsys.readouterr().out == ""


def test_a_disk_that_is_too_small_is_refused_beforehand(embedder, tmp_path, text, monkeypatch):
    usage = namedtuple("usage", "total used free")(100, 93, 7)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    text.write_text("word " * 10_000 + "\n")
    with pytest.raises(CorpusError, match="needs .*kB, but its disk has only 7.00B left"):
        embedder.embed_corpus(text, tmp_path / "out.h5")
    assert [*tmp_path.iterdir()] == [text]


@pytest.mark.parametrize("limit", [0, 100, 3000, 20_000, 60_000])
def test_a_disk_that_fills_up_during_layout_is_an_error_not_a_crash(
    embedder, tmp_path, text, limit
):
    text.write_text("the bank\n" * 1000)
    refused = pytest.raises(
        CorpusError, match=r"out\.h5\.part could not be written \(File too large\)"
    )
    with limited_files(limit), refused:
        embedder.embed_corpus(text, tmp_path / "out.h5")
    assert [*tmp_path.iterdir()] == [text]


def test_a_disk_that_fills_up_later_costs_no_finished_block(embedder, tmp_path, text, monkeypatch):
    monkeypatch.setattr(embedding, "BLOCK_WORDS", 3)
    whole = embedder.embed_corpus(text, tmp_path / "whole.h5").read_bytes()
    results = iter([None, None, None, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])

    def fsync(file):
        if error := next(results):
            raise error

    with (
        monkeypatch.context() as patch,
        pytest.raises(CorpusError, match=r"out\.h5\.part could not be written \(No space left"),
    ):
        patch.setattr(os, "fsync", fsync)
        embedder.embed_corpus(text, tmp_path / "out.h5")
    part = (tmp_path / "out.h5.part").read_bytes()
    assert int.from_bytes(part[:8], "little") > 0
    assert embedder.embed_corpus(text, tmp_path / "out.h5").read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"one\ntwo \xff\n", "line 2: byte 8"),
        (b"one\n\0\n", "line 2 has a NUL byte"),
    ],
)
def test_unreadable_text_is_named_and_leaves_nothing(embedder, tmp_path, content, message):
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TextError, match=f"bad.txt.*{message}"):
        embedder.embed_corpus(path, tmp_path / "out.h5")
    assert {file.name for file in tmp_path.iterdir()} <= {"bad.txt"}


def test_a_text_that_changes_while_being_read_is_refused(embedder, tmp_path, text, monkeypatch):
    disk_usage = shutil.disk_usage

    def grow(folder):
        with text.open("a") as stream:
            stream.write("one more\n")
        return disk_usage(folder)

    with monkeypatch.context() as patch, pytest.raises(TextError, match="text.txt changed while"):
        patch.setattr(shutil, "disk_usage", grow)
        embedder.embed_corpus(text, tmp_path / "out.h5")
    assert [*tmp_path.iterdir()] == [text]
    with EmbeddedCorpus(embedder.embed_corpus(text, tmp_path / "out.h5")) as corpus:
        assert len(corpus) == len(LINES) + 1


def test_a_line_too_long_for_memory_is_named(embedder, tmp_path, text, monkeypatch):
    monkeypatch.setattr(embedding, "MOST_BYTES_OF_A_LINE", 5 * N_LAYERS * DIM * 4)
    with pytest.raises(TextError, match=r"text.txt, line 1: 6 words are too many"):
        embedder.embed_corpus(text, tmp_path / "out.h5")


def test_unknown_dtypes_and_layers_are_refused(embedder, tmp_path, text):
    with pytest.raises(ParameterError, match="'float32' or 'float16', not 'int8'"):
        embedder.embed_corpus(text, tmp_path / "out.h5", dtype="int8")
    with pytest.raises(ParameterError, match="layers must be"):
        embedder.embed_corpus(text, tmp_path / "out.h5", layers=7)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"layers": "top"}, "another layers:"),
        ({"dtype": "float16"}, "another dtype:"),
        ({"layers": 0, "dtype": "float16"}, "another layers and another dtype:"),
        ("text", "another text:"),
        ("model", "another model:"),
        ("tokenizer", "another tokenizer:"),
    ],
)
def test_a_file_made_from_something_else_is_refused_and_kept(
    embedder, tmp_path, text, monkeypatch, changed, named, finished
):
    out = tmp_path / "out.h5"
    if finished:
        embedder.embed_corpus(text, out)
    else:
        stop_after(1, embedder, text, out, monkeypatch)
    kept = {file.name: file.read_bytes() for file in tmp_path.glob("out*")}
    options, other = {}, embedder
    if isinstance(changed, dict):
        options = changed
    elif changed == "text":
        text.write_text(text.read_text() + "more\n")
    else:
        arrays = random_arrays(TINY, seed=changed == "model")
        tokenizer = Tokenizer(tokenized=changed == "tokenizer")
        write_model(tmp_path / "other.h5", StoredModel(TINY, arrays, None, tokenizer))
        other = ElmoEmbedder(tmp_path / "other.h5")
    with pytest.raises(CorpusError, match=rf"out\.h5.* was made with {named}"):
        other.embed_corpus(text, out, **options)
    assert {file.name: file.read_bytes() for file in tmp_path.glob("out*")} == kept


@pytest.mark.parametrize("name", ["out.h5", "out.h5.part"])
def test_a_foreign_file_is_never_overwritten(embedder, tmp_path, text, name):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(CorpusError, match=rf"{name} is damaged or was not made by embed_corpus"):
        embedder.embed_corpus(text, tmp_path / "out.h5")
    assert (tmp_path / name).read_bytes() == b"precious"


def test_an_unfinished_or_hostile_file_is_not_read(embedder, tmp_path, text, monkeypatch):
    stop_after(1, embedder, text, tmp_path / "out.h5", monkeypatch)
    with pytest.raises(CorpusError, match=r"out\.h5\.part is not finished"):
        EmbeddedCorpus(tmp_path / "out.h5.part")
    with pytest.raises(CorpusError, match="There is no file"):
        EmbeddedCorpus(tmp_path / "out.h5")
    out = embedder.embed_corpus(text, tmp_path / "out.h5")
    whole = out.read_bytes()
    with h5py.File(out, "r+") as file:
        del file["0"], file["1"]
        file["0"] = h5py.ExternalLink("other.h5", "0")
        file.create_dataset("1", (10**12, DIM), "f4", chunks=(1000, DIM))
    try:
        with EmbeddedCorpus(out) as corpus:
            assert corpus[1].shape == (0, DIM), "the first arrays, or none"
    except CorpusError as error:
        assert "damaged" in str(error)
    out.write_bytes(whole[:-1])
    with pytest.raises(CorpusError, match=r"out\.h5 is damaged"):
        EmbeddedCorpus(out)
    with h5py.File(out, "w") as file, h5py.File(tmp_path / "again.h5", "w") as again:
        file.attrs[layout.METADATA] = np.bytes_(b"{}")
        again.attrs["lines_done"] = 7
    for path in (out, tmp_path / "again.h5"):
        with pytest.raises(CorpusError, match="is damaged or was not made by embed_corpus"):
            EmbeddedCorpus(path)


@pytest.mark.parametrize("false", [[], [[7, 0]], [[-1, 0]] * 7, [[10**15, 8]] * 7, ["text"], 10**9])
def test_a_false_table_of_lines_is_refused(embedder, tmp_path, text, false):
    out = embedder.embed_corpus(text, tmp_path / "out.h5")
    with h5py.File(out, "r+") as file:
        file.attrs[layout.LINES] = false
    with pytest.raises(CorpusError, match=r"out\.h5 is damaged"):
        EmbeddedCorpus(out)


def test_damaged_bytes_raise_nothing_but_our_error(embedder, tmp_path, text):
    out = embedder.embed_corpus(text, tmp_path / "out.h5")
    whole, rng, n_refused = out.read_bytes(), random.Random(0), 0
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 8, 64])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        out.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(len(damaged))])])
        try:
            with EmbeddedCorpus(out) as corpus:
                assert [corpus[line].shape[0] for line in range(len(corpus))] == [
                    6,
                    0,
                    0,
                    4,
                    5,
                    0,
                    2,
                ]
                list(corpus.sentences())
        except CorpusError as error:
            n_refused += 1
            assert str(out) in str(error)
    assert 100 < n_refused < 500


def test_damaged_words_never_move_the_vectors_of_other_lines(embedder, tmp_path, text, monkeypatch):
    stop_after(1, embedder, text, tmp_path / "out.h5", monkeypatch)
    part = tmp_path / "out.h5.part"
    whole = part.read_bytes()
    assert whole.count(b"The end") == 1
    for damaged in (b"T e end", b'The"end', b"The\xffend", b"The\nend"):
        part.write_bytes(whole.replace(b"The end", damaged))
        with pytest.raises(CorpusError, match=r"out\.h5\.part is damaged"):
            embedder.embed_corpus(text, tmp_path / "out.h5")


def test_readers_of_allennlps_files_read_ours(embedder, tmp_path, text):
    """Read the file as AllenNLP's documentation describes, and as programs for its files do."""
    lines = ["The end", *LINES]
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with h5py.File(embedder.embed_corpus(text, tmp_path / "out.h5", layers="all")) as file:
        # Readers find lines by number, so all names but `sentence_to_index` must be numbers.
        numbers = sorted(int(key) for key in file if key != "sentence_to_index")
        assert numbers == list(range(len(lines)))
        for number in numbers:
            expected = embedder.embed(lines[number], layers="all")
            assert file[str(number)].shape == (N_LAYERS, len(embedder.words(lines[number])), DIM)
            np.testing.assert_allclose(file.get(str(number)), expected, atol=1e-6)
        # Readers also find lines by sentence. As in AllenNLP, equal sentences give the last line.
        index = json.loads(file.get("sentence_to_index")[0])
        assert set(map(type, index.values())) == {str}
        assert index["The end"] == str(len(lines) - 1)
        for line in lines:
            words = " ".join(embedder.words(line))
            np.testing.assert_allclose(file[index[words]], embedder.embed(line, "all"), atol=1e-6)


def test_a_text_too_long_for_one_string_is_refused(embedder, tmp_path, text, monkeypatch):
    monkeypatch.setattr(layout, "MAX_TEXT_BYTES", 20)
    with pytest.raises(TextError, match=r"text\.txt: its words have more than 20 bytes: split"):
        embedder.embed_corpus(text, tmp_path / "out.h5")
    assert [*tmp_path.iterdir()] == [text]


@pytest.mark.parametrize("n_lines", [1, 6, 7, 8, 4095, 4096, 9000])
@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_hdf5_reads_what_is_written_at_the_places_in_the_table(tmp_path, n_lines, shape):
    rng = random.Random(n_lines)
    lines = [[f'"w{i}\\\x7f\x01é'] * rng.choice([0, 1, 3]) for i in range(n_lines)]
    path = tmp_path / "laid_out.h5"
    tokenizer = Tokenizer(tokenized=True).to_json()
    with DeferredErrors(path, "wb+") as file:
        blocks = (lines[first : first + 1000] for first in range(0, n_lines, 1000))
        metadata = {"format": layout.FORMAT, "dtype": "float16", "tokenizer": tokenizer}
        layout.lay_out(file, blocks, shape, metadata)
    with h5py.File(path) as file:
        assert list(file) == sorted([*map(str, range(n_lines)), "sentence_to_index"])
    numbers = layout.Layout(path)
    assert numbers.lines_done == 0
    assert numbers.lines(0, n_lines) == lines
    assert numbers.lengths.tolist() == list(map(len, lines))
    checked = {0, n_lines - 1, *rng.choices(range(n_lines), k=50)}
    expected = {}
    with path.open("rb+") as file:
        for i in checked:
            values = np.random.default_rng(i).random((*shape[:-1], len(lines[i]), shape[-1]))
            expected[i] = values.astype("<f2")
            if lines[i]:
                file.seek(int(numbers.places[i]))
                file.write(expected[i].tobytes())
    with h5py.File(path) as file:
        for i in checked:
            assert file[str(i)].dtype == np.float16
            assert file[str(i)].shape == expected[i].shape
            assert file[str(i)][()].tobytes() == expected[i].tobytes()
            assert numbers.vectors(i).tobytes() == expected[i].tobytes()


@pytest.mark.parametrize("name", ["out.h5", "out.h5.part"])
def test_another_format_number_is_refused(embedder, tmp_path, text, name):
    out = embedder.embed_corpus(text, tmp_path / "out.h5")
    with h5py.File(out, "r+") as file:
        metadata = json.loads(file.attrs[layout.METADATA])
        file.attrs[layout.METADATA] = np.bytes_(json.dumps({**metadata, "format": 99}))
    out.rename(tmp_path / name)
    refused = rf"{name} has the format 99, but this elmolib reads {layout.FORMAT}: remove it"
    with pytest.raises(CorpusError, match=refused):
        embedder.embed_corpus(text, out)
    with pytest.raises(CorpusError, match=refused):
        EmbeddedCorpus(tmp_path / name)


class Stopped(BaseException):
    """An exception that stands for a kill, because no handler catches it."""


def stop_after(n_lines: int, embedder, text: Path, out: Path, monkeypatch, **options) -> None:
    """Embed in blocks of a few words, and stop after `n_lines` lines."""
    left = n_lines
    encode_each = SentenceEncoder.encode_each

    def stopping(*arguments):
        nonlocal left
        for encoded in encode_each(*arguments):
            if not left:
                raise Stopped
            left -= 1
            yield encoded

    monkeypatch.setattr(embedding, "BLOCK_WORDS", 3)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(SentenceEncoder, "encode_each", stopping)
        patch.setattr(embedding, "cpu_count", lambda: 1)
        embedder.embed_corpus(text, out, **options)


def test_a_stop_between_any_two_lines_changes_no_byte_and_repeats_no_finished_block(
    embedder, tmp_path, text, monkeypatch
):
    monkeypatch.setattr(embedding, "BLOCK_WORDS", 3)
    whole = embedder.embed_corpus(text, tmp_path / "whole.h5").read_bytes()
    for n in range(len(LINES)):
        out = tmp_path / f"out{n}.h5"
        stop_after(n, embedder, text, out, monkeypatch)
        assert not out.exists()
        done = int.from_bytes(Path(f"{out}.part").read_bytes()[:8], "little")
        with encoded_sentences(monkeypatch) as encoded:
            embedder.embed_corpus(text, out)
        assert encoded == [embedder.words(line) for line in LINES[done:]]
        assert out.read_bytes() == whole
        assert not Path(f"{out}.part").exists()


@contextmanager
def encoded_sentences(monkeypatch) -> Iterator[list]:
    """Collect the sentences that are given to encoders."""
    encoded = []
    encode_each = SentenceEncoder.encode_each

    def spy(self, lines, *rest):
        encoded.extend(lines)
        return encode_each(self, lines, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(SentenceEncoder, "encode_each", spy)
        patch.setattr(embedding, "cpu_count", lambda: 1)
        yield encoded


@pytest.mark.parametrize("runtime", ["numpy", "onnx"])
def test_any_number_of_processors_writes_the_same_bytes(weights, tmp_path, monkeypatch, runtime):
    monkeypatch.setattr(embedding, "BLOCK_WORDS", 50)
    text, files = long_text(tmp_path / "text.txt", 100), {}
    embedder = ElmoEmbedder(weights, runtime=runtime)
    threads = set()
    encode_each = SentenceEncoder.encode_each

    def noted(*arguments):
        threads.add(threading.current_thread())
        return encode_each(*arguments)

    monkeypatch.setattr(SentenceEncoder, "encode_each", noted)
    for n in (1, 2, 4, 16):
        threads.clear()
        monkeypatch.setattr(embedding, "cpu_count", lambda n=n: n)
        files[n] = embedder.embed_corpus(text, tmp_path / f"{n}.h5", "all").read_bytes()
        assert (threads == {threading.main_thread()}) == (n < 4)
    assert len(set(files.values())) == 1


def test_a_finished_file_is_not_made_again(embedder, tmp_path, text):
    out = embedder.embed_corpus(text, tmp_path / "out.h5")
    before = out.stat()
    assert embedder.embed_corpus(text, out) == out
    assert out.stat().st_mtime_ns == before.st_mtime_ns


def test_two_processes_cannot_write_one_file(embedder, tmp_path, text, monkeypatch):
    out = tmp_path / "out.h5"
    stop_after(1, embedder, text, out, monkeypatch)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with exclusive_lock(out, tmp_path / ".out.h5.lock", CorpusError):
        with pytest.raises(CorpusError, match=rf"out\.h5 is in use by process {os.getpid()} on "):
            embedder.embed_corpus(text, out)
        embedder.embed_corpus(text, tmp_path / "other.h5")
        assert {path: path.read_bytes() for path in before} == before
    whole = (tmp_path / "other.h5").read_bytes()
    assert embedder.embed_corpus(text, out).read_bytes() == whole
    with exclusive_lock(out, tmp_path / ".out.h5.lock", CorpusError):
        # Any number of processes may read a finished file.
        assert embedder.embed_corpus(text, out) == out


def embed(tell: Callable[[str], None], weights: Path, text: Path, out: Path) -> None:
    embedding.BLOCK_WORDS = 50
    embedder = ElmoEmbedder(weights)
    embedder.embed("ready")
    tell("ready")
    embedder.embed_corpus(text, out, layers="all", batch_size=4)


def survives_kills(weights: Path, folder: Path, n_kills: int, n_lines: int) -> None:
    text = long_text(folder / "text.txt", n_lines)
    undisturbed, out = folder / "whole.h5", folder / "out.h5"
    with started(embed, folder, weights, text, undisturbed) as child:
        child.receive()
        begun = time.monotonic()
        child.finish()
        duration = time.monotonic() - begun
    rng = random.Random(1)
    n_killed = 0
    while not out.exists():
        with started(embed, folder, weights, text, out) as child:
            child.receive()
            if n_killed < n_kills:
                time.sleep(rng.uniform(0, 1.2 * duration / n_kills))
                n_killed += child.kill()
            else:
                child.finish()
    assert n_killed >= int(0.8 * n_kills)
    assert out.read_bytes() == undisturbed.read_bytes()
    names = {path.name for path in folder.iterdir()}
    assert names == {"text.txt", "whole.h5", "out.h5", "stderr.txt"}


def test_a_killed_process_loses_nothing(weights, tmp_path):
    survives_kills(weights, tmp_path, 3, 500)


@pytest.mark.slow
def test_many_kills_lose_nothing(weights, tmp_path):
    survives_kills(weights, tmp_path, 25, 2000)
