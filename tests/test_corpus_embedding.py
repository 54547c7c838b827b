"""Embedding a whole text file: what is in the result, and that no stop can change it."""

from __future__ import annotations

import errno
import gzip
import os
import random
import shutil
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

from elmolib import corpus_embedding
from elmolib.corpus_embedding import EmbeddedCorpus
from elmolib.elmo import ElmoEmbedder
from elmolib.embedding import SentenceEncoder
from elmolib.errors import CorpusError, ParameterError, TextError
from elmolib.locks import alone_in
from elmolib.text import Tokenizer
from elmolib.weights import write_model

DIM = 2 * TINY.projection_dim
N_LAYERS = TINY.n_layers + 1
LINES = ["The river bank was steep.", "", "  \t", "A/b c", "It's 銀行 și Iași!", "", "The end"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "elmo.h5"
    write_model(path, TINY, random_arrays(TINY), None, Tokenizer())
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
    """Lines of very different length, blank ones among them."""
    rng = random.Random(0)
    words = [f"w{i}" for i in range(100)]
    lines = [" ".join(rng.choices(words, k=rng.choice([0, 1, 5, 40]))) for _ in range(n_lines)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("layers", ["all", "average", "top", 0, np.int64(1)])
def test_every_line_has_the_vectors_that_it_has_alone(embedder, tmp_path, text, layers):
    out = embedder.embed_corpus(text, tmp_path / "out.h5", layers=layers)
    with h5py.File(out) as file:
        assert [name for name in file if name.isdecimal()] == [str(i) for i in range(len(LINES))]
        for i, line in enumerate(LINES):
            expected = embedder.embed(line, layers=layers)
            assert file[str(i)].shape == expected.shape
            assert file[str(i)].dtype == np.float32
            np.testing.assert_allclose(file[str(i)], expected, atol=1e-6)
            words = embedder.words(line)
            assert file["text"].asstr()[i] == " ".join(words)
            assert file["lengths"][i] == len(words)


def test_blank_lines_keep_their_number_with_no_words(embedder, tmp_path, text):
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
    arrays["CNN_proj/b_proj"] += np.float32(1e5)
    write_model(tmp_path / "large.h5", TINY, arrays, None, Tokenizer())
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


def test_the_size_is_foretold_to_the_byte(embedder, tmp_path, text, capsys, monkeypatch):
    monkeypatch.setattr(corpus_embedding, "_readable", str)
    out = embedder.embed_corpus(text, tmp_path / "out.h5")
    assert capsys.readouterr().out == f"out.h5: {out.stat().st_size} for 7 lines of 17 words\n"
    embedder.embed_corpus(text, tmp_path / "quiet.h5", progress=False)
    assert capsys.readouterr().out == ""


def test_a_disk_that_is_too_small_is_named_before_it_is_full(embedder, tmp_path, text, monkeypatch):
    usage = namedtuple("usage", "total used free")(100, 93, 7)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    text.write_text("word " * 10_000 + "\n")
    with pytest.raises(CorpusError, match="would have .* kB, but its disk has only 7 bytes left"):
        embedder.embed_corpus(text, tmp_path / "out.h5")
    assert [*tmp_path.iterdir()] == [text]


@pytest.mark.parametrize("limit", [0, 100, 3000, 20_000, 60_000])
def test_a_disk_that_fills_up_while_the_file_is_laid_out_is_an_error_and_no_crash(
    embedder, tmp_path, text, limit
):
    text.write_text("the bank\n" * 1000)
    refused = pytest.raises(
        CorpusError, match=r"out\.h5\.part cannot be written \(File too large\)"
    )
    with limited_files(limit), refused:
        embedder.embed_corpus(text, tmp_path / "out.h5")
    assert [*tmp_path.iterdir()] == [text]


def test_a_disk_that_fills_up_later_costs_nothing_that_was_done(
    embedder, tmp_path, text, monkeypatch
):
    monkeypatch.setattr(corpus_embedding, "BLOCK_WORDS", 3)
    whole = embedder.embed_corpus(text, tmp_path / "whole.h5").read_bytes()
    results = iter([None, None, None, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])

    def fsync(file):
        if error := next(results):
            raise error

    with (
        monkeypatch.context() as patch,
        pytest.raises(CorpusError, match=r"out\.h5\.part cannot be written \(No space left"),
    ):
        patch.setattr(os, "fsync", fsync)
        embedder.embed_corpus(text, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5.part") as file:
        assert file["lines_done"][()] > 0
    assert embedder.embed_corpus(text, tmp_path / "out.h5").read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"one\ntwo \xff\n", "line 2: byte 8"),
        (b"one\n\0\n", "line 2: a NUL byte"),
    ],
)
def test_unreadable_text_is_named_and_leaves_nothing(embedder, tmp_path, content, message):
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TextError, match=f"bad.txt.*{message}"):
        embedder.embed_corpus(path, tmp_path / "out.h5")
    assert {file.name for file in tmp_path.iterdir()} <= {"bad.txt"}


def test_a_text_that_is_written_to_meanwhile_is_refused(embedder, tmp_path, text, monkeypatch):
    require_space = corpus_embedding._require_space

    def grow(*arguments):
        with text.open("a") as stream:
            stream.write("one more\n")
        require_space(*arguments)

    with monkeypatch.context() as patch, pytest.raises(TextError, match="text.txt was changed"):
        patch.setattr(corpus_embedding, "_require_space", grow)
        embedder.embed_corpus(text, tmp_path / "out.h5")
    assert [*tmp_path.iterdir()] == [text]
    with EmbeddedCorpus(embedder.embed_corpus(text, tmp_path / "out.h5")) as corpus:
        assert len(corpus) == len(LINES) + 1


def test_a_line_beyond_memory_is_named(embedder, tmp_path, text, monkeypatch):
    monkeypatch.setattr(corpus_embedding, "MOST_BYTES_OF_A_LINE", 5 * N_LAYERS * DIM * 4)
    with pytest.raises(TextError, match=r"text.txt, line 1: 6 words are too many"):
        embedder.embed_corpus(text, tmp_path / "out.h5")


def test_what_cannot_be_chosen_is_refused(embedder, tmp_path, text):
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
def test_nothing_is_mixed_with_what_was_made_from_something_else(
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
        write_model(tmp_path / "other.h5", TINY, arrays, None, tokenizer)
        other = ElmoEmbedder(tmp_path / "other.h5")
    with pytest.raises(CorpusError, match=f"is there already and was made with {named}"):
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
    with h5py.File(out, "r+") as file:
        del file["0"], file["1"], file["2"]
        file["0"] = h5py.ExternalLink("other.h5", "0")
        file.create_dataset("1", (10**12, DIM), "f4", chunks=(1000, DIM))
        file.create_dataset("2", (1000, DIM), "f4", compression="gzip")
    with EmbeddedCorpus(out) as corpus:
        for line in range(3):
            with pytest.raises(CorpusError, match="damaged"):
                corpus[line]
    with h5py.File(out, "r+") as file:
        del file["lengths"]
        file.create_dataset("lengths", (10**12,), "i8", chunks=(1000,))
    with pytest.raises(CorpusError, match="damaged"):
        EmbeddedCorpus(out)


class Stopped(BaseException):
    """Like a kill, it is caught by nobody."""


def stop_after(n_writes: int, embedder, text: Path, out: Path, monkeypatch, **options) -> None:
    """Embed in blocks of a few words, and stop when so many lines were written."""
    written = 0
    write = corpus_embedding._Unfinished.write

    def stopping(self, line, vectors):
        nonlocal written
        if written == n_writes:
            raise Stopped
        written += 1
        write(self, line, vectors)

    monkeypatch.setattr(corpus_embedding, "BLOCK_WORDS", 3)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(corpus_embedding._Unfinished, "write", stopping)
        embedder.embed_corpus(text, out, **options)


def test_a_stop_between_any_two_lines_changes_no_byte_and_repeats_no_block(
    embedder, tmp_path, text, monkeypatch
):
    monkeypatch.setattr(corpus_embedding, "BLOCK_WORDS", 3)
    whole = embedder.embed_corpus(text, tmp_path / "whole.h5").read_bytes()
    for n in range(len(LINES)):
        out = tmp_path / f"out{n}.h5"
        stop_after(n, embedder, text, out, monkeypatch)
        assert not out.exists()
        with h5py.File(f"{out}.part") as file:
            done = int(file["lines_done"][()])
        with spying_on(embedder._encoder, monkeypatch) as encoded:
            embedder.embed_corpus(text, out)
        assert encoded == [embedder.words(line) for line in LINES[done:]]
        assert out.read_bytes() == whole
        assert not Path(f"{out}.part").exists()


@contextmanager
def spying_on(encoder: SentenceEncoder, monkeypatch) -> Iterator[list]:
    """Collect the sentences that are given to an encoder."""
    encoded = []
    encode_each = encoder.encode_each

    def spy(lines, *rest):
        encoded.extend(lines)
        return encode_each(lines, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "encode_each", spy)
        yield encoded


def test_a_finished_file_is_not_made_again(embedder, tmp_path, text):
    out = embedder.embed_corpus(text, tmp_path / "out.h5")
    before = out.stat()
    assert embedder.embed_corpus(text, out) == out
    assert out.stat().st_mtime_ns == before.st_mtime_ns


def test_two_processes_do_not_make_one_file(embedder, tmp_path, text, monkeypatch):
    out = tmp_path / "out.h5"
    stop_after(1, embedder, text, out, monkeypatch)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with alone_in(out, tmp_path / ".out.h5.lock", CorpusError):
        with pytest.raises(CorpusError, match=rf"out\.h5 is in use by process {os.getpid()} on "):
            embedder.embed_corpus(text, out)
        embedder.embed_corpus(text, tmp_path / "other.h5")
        assert {path: path.read_bytes() for path in before} == before
    whole = (tmp_path / "other.h5").read_bytes()
    assert embedder.embed_corpus(text, out).read_bytes() == whole
    with alone_in(out, tmp_path / ".out.h5.lock", CorpusError):
        # A finished file can be used by any number.
        assert embedder.embed_corpus(text, out) == out


def embed(tell: Callable[[str], None], weights: Path, text: Path, out: Path) -> None:
    corpus_embedding.BLOCK_WORDS = 50
    embedder = ElmoEmbedder(weights)
    embedder.embed("ready")
    tell("ready")
    embedder.embed_corpus(text, out, layers="all", batch_size=4)


def survives_kills(weights: Path, folder: Path, n_kills: int, n_lines: int) -> None:
    text = long_text(folder / "text.txt", n_lines)
    undisturbed, out = folder / "whole.h5", folder / "out.h5"
    with started(embed, folder, weights, text, undisturbed) as child:
        child.hear()
        begun = time.monotonic()
        child.finish()
        duration = time.monotonic() - begun
    rng = random.Random(1)
    n_killed = 0
    while not out.exists():
        with started(embed, folder, weights, text, out) as child:
            child.hear()
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
