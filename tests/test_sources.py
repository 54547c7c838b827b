"""Which files make up a text, how files may be compressed, and where lines end."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from small_corpus import made_up_sentences, small_parameters

from elmolib import ELMo, Training, perplexity, prepare_corpus
from elmolib.corpus.overview import left_out_table
from elmolib.corpus.prepared import PreparedCorpus, sentences_of
from elmolib.corpus.sources import find_files, read_chunks, read_sentences
from elmolib.embedding.vector_file import EmbeddedCorpus
from elmolib.errors import CorpusError, TextError, TrainingError
from elmolib.formats.readers import read_vocabulary
from elmolib.text.lines import split_lines
from elmolib.text.tokenizer import Tokenizer

LINES = "the river bank\nwas steep .\n"


def write(path: Path, text: str = LINES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def names(files: list[Path]) -> list[str]:
    return [file.name for file in files]


# --- Patterns


@pytest.mark.parametrize("folder", ["project [2019]", "a*b", "what?"])
@pytest.mark.parametrize("typed", ["a.txt", "*.txt", "**/*.txt"])
def test_brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path, folder, typed):
    root = tmp_path / folder
    write(root / "a.txt")
    write(tmp_path / "project 2" / "a.txt")
    assert find_files(typed, root) == find_files(root / typed) == [root / "a.txt"]


def test_a_pattern_leaves_out_what_elmolib_wrote(tmp_path):
    first = small_parameters(tmp_path, run_dir=str(tmp_path / "run1"))
    Training(first, prepare_corpus(first)).run()
    write(tmp_path / "run1" / "reports" / "epoch_001" / "predictions.txt")
    write(tmp_path / "run2" / "notes.txt")
    write(tmp_path / "more" / "b.txt")
    with pytest.warns(UserWarning, match=r"also matches \d+ files that are left out.*run1"):
        found = find_files("**/*.txt", tmp_path, tmp_path / "run2")
    assert names(found) == ["b.txt", "text.txt"]
    # Files in the folder of the run are read if the path names this folder explicitly.
    assert names(find_files("run2/*.txt", tmp_path, tmp_path / "run2")) == ["notes.txt"]


def test_a_pattern_takes_a_file_once(tmp_path):
    plain = write(tmp_path / "a.txt")
    (tmp_path / "b.txt").symlink_to(plain)
    os.link(plain, tmp_path / "c.txt")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(LINES.encode()))
    (tmp_path / "d.txt").mkdir()
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(LINES.encode()))
    with pytest.warns(UserWarning, match="also matches 3 files"):
        assert names(find_files("*.txt*", tmp_path)) == ["a.txt", "d.txt.gz"]


def test_a_link_to_the_training_text_cannot_be_held_out(tmp_path):
    small_parameters(tmp_path)
    (tmp_path / "heldout.txt").symlink_to(tmp_path / "text.txt")
    given = {"heldout_text": str(tmp_path / "heldout.txt"), "heldout_fraction": None}
    with pytest.raises(TextError, match=r"as .*text\.txt and .*heldout\.txt"):
        prepare_corpus(small_parameters(tmp_path, **given))


# --- Compressed files


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.gz", gzip.compress),
        ("A.TXT.GZ", gzip.compress),
        ("a.bz2", bz2.compress),
        ("a.txt.XZ", lzma.compress),
        ("no suffix", gzip.compress),
        ("wrong.txt", bz2.compress),
    ],
)
def test_a_compressed_file_is_read(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(LINES.encode()))
    assert b"".join(chunk.data for chunk in read_chunks(tmp_path / name)) == LINES.encode()


@pytest.mark.parametrize(
    ("begin", "kind"),
    [(b"\x28\xb5\x2f\xfd", "a Zstandard file"), (b"7z\xbc\xaf\x27\x1c", "a 7z archive")],
)
def test_another_compressed_file_is_named(tmp_path, begin, kind):
    (tmp_path / "text.txt").write_bytes(begin + b"\0rest")
    with pytest.raises(TextError, match=f"text.txt is {kind}, .* unpack it first"):
        list(read_chunks(tmp_path / "text.txt"))


def test_a_zip_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("text.txt", LINES)
    with pytest.raises(TextError, match="is a zip archive"):
        list(read_chunks(tmp_path / "text.zip"))


# --- Line ends

SPACES_IN_A_LINE = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_in_python_s_text_files(tmp_path, end):
    lines = ["one", "", SPACES_IN_A_LINE, "four"]
    path = tmp_path / "text.txt"
    path.write_bytes((end.join(lines) + end).encode())
    assert path.open(encoding="utf-8").read().split("\n")[:-1] == lines
    assert split_lines(end.join(lines) + end) == split_lines(end.join(lines)) == lines
    for size in (1, 2, 3, 4, 5, 1000):  # sizes with which a block ends at every position
        assert [line for chunk in read_chunks(path, size) for line in chunk.lines()] == lines
    words = Tokenizer(tokenized=True)
    assert list(read_sentences(path, words)) == [["one"], list("abcdefg"), ["four"]]


def test_an_error_counts_lines_by_the_same_rule(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"one\rtwo\r\nthree\x0c\nfour \xff\r")
    with pytest.raises(TextError, match=r"line 4: byte 21 "):
        list(read_sentences(tmp_path / "text.txt", Tokenizer(tokenized=True)))


# --- Invisible characters and sentence marks


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("form", ["NFC", None])
def test_byte_order_marks_of_joined_files_are_dropped(tmp_path, form, end):
    part = f"\ufeffThe river{end}The boat{end}"
    write(tmp_path / "text.txt", part * 2)
    words = Tokenizer(tokenized=True, unicode_form=form)
    for size in (1, 10, 1000):
        lines = [line for c in read_chunks(tmp_path / "text.txt", size) for line in c.lines()]
        assert lines == ["The river", "The boat"] * 2
    assert (
        list(read_sentences(tmp_path / "text.txt", words))
        == [["The", "river"], ["The", "boat"]] * 2
    )
    # Two joined files: the first has no line end, and the second has a byte order mark.
    assert Tokenizer(tokenized=True).words("The river\ufeffThe") == ["The", "riverThe"]


@pytest.mark.parametrize("marks", ["<S> {} </S>", "<s> {} </s>", "{} </s>", "<s>{}</s>"])
def test_a_text_with_marks_of_sentences_is_prepared_like_one_without(tmp_path, marks):
    plain = prepare_corpus(small_parameters(tmp_path))
    lines = (tmp_path / "text.txt").read_text().splitlines()
    marked = write(tmp_path / "marked.txt", "".join(f"{marks.format(line)}\n" for line in lines))
    n_marks = marks.count("<") * len(lines)
    with pytest.warns(UserWarning, match=rf"marked\.txt.*: dropped {n_marks} sentence marks"):
        corpus = prepare_corpus(
            small_parameters(tmp_path, text=str(marked), run_dir=str(tmp_path / "marked"))
        )
    assert corpus.fingerprints == plain.fingerprints
    assert sum(corpus.record["counts"]["sentence_marks"].values()) == n_marks
    row = left_out_table(corpus).loc["marks of a sentence's ends"]
    assert row[["how many", "of"]].tolist() == [n_marks, 2 * len(lines)]
    with pytest.warns(UserWarning, match=rf"dropped {n_marks} "):
        read = list(read_sentences(marked, corpus.tokenizer))
    assert read == [line.split() for line in lines]


# --- Words that contain spaces


def test_words_that_hold_spaces_are_taught_and_given(tmp_path):
    sentences = [["Hà Nội", "là", "thủ đô", "."], ["Hà Nội", "đẹp", "lắm", "."]] * 40
    text = write(tmp_path / "tabs.txt", "".join("\t".join(s) + "\n" for s in sentences))
    given = {"text": str(text), "tokenized": "tabs", "n_negatives": None, "heldout_fraction": None}
    vocabulary = write(tmp_path / "words.txt", "Hà Nội\nthủ đô\n")
    listed = small_parameters(tmp_path, **given, vocabulary_file=str(vocabulary), min_count=1)
    assert prepare_corpus(listed).vocabulary.words[3:] == ["Hà Nội", "thủ đô"]
    shutil.rmtree(tmp_path / "run")

    small_parameters(tmp_path, **given, min_count=1).to_yaml(tmp_path / "tabs.yaml")
    embedder = ELMo(sentences=sentences, params=tmp_path / "tabs.yaml", text=None)
    embedder.train()
    embedder.save_elmo_weights(weights := tmp_path / "elmo.h5")
    assert set(read_vocabulary(weights, "no words").words[3:]) == {
        word for s in sentences for word in s
    }
    for sentence in sentences[:2]:
        assert embedder.words("\t".join(sentence)) == embedder.words(sentence) == sentence
        assert embedder.embed(sentence[:1])[0].shape == (1, 12)
    assert embedder.predict(sentences[0]).sentence == sentences[0]
    assert perplexity(weights, text).n_targets == 80 * 5
    short = write(tmp_path / "short.txt", "Hà Nội\tlà\n\nHà Nội\nlà\n")
    with EmbeddedCorpus(embedder.embed_corpus(short, tmp_path / "out.h5", progress=False)) as out:
        assert [out.words(k) for k in range(4)] == [["Hà Nội", "là"], [], ["Hà Nội"], ["là"]]
        np.testing.assert_allclose(out[0], embedder.embed([["Hà Nội", "là"]])[0], atol=1e-6)
    assert embedder.nearest("Hà Nội", sentences[0], tmp_path / "out.h5", k=2, layers="average")
    with pytest.raises(CorpusError, match="another tokenized"):
        prepare_corpus(small_parameters(tmp_path, **{**given, "tokenized": True}))


# --- A run and its text


def run(folder: Path, **changes: object) -> Training:
    values = {"run_dir": str(folder / "run"), "text": str(folder / "text.txt"), **changes}
    parameters = small_parameters(folder, **values)
    training = Training(parameters, prepare_corpus(parameters))
    training.run()
    return training


@pytest.mark.parametrize("move", [shutil.copytree, shutil.move])
def test_a_run_that_was_moved_with_its_text_resumes(tmp_path, move):
    (tmp_path / "laptop").mkdir()
    run(tmp_path / "laptop", epochs=1)
    whole = run(tmp_path / "laptop", run_dir=str(tmp_path / "whole"), epochs=2)
    move(tmp_path / "laptop", tmp_path / "cluster")
    resumed = run(tmp_path / "cluster", epochs=2)
    assert len(resumed.history) == 2
    assert resumed.history[1]["heldout_mean"] == whole.history[1]["heldout_mean"]


def test_a_run_resumes_without_its_raw_text(tmp_path):
    run(tmp_path, epochs=1)
    (tmp_path / "text.txt").unlink()
    parameters = small_parameters(tmp_path, epochs=2)
    (tmp_path / "text.txt").unlink()
    training = Training(parameters, prepare_corpus(parameters))
    training.run()
    assert len(training.history) == 2
    with pytest.raises(TextError, match=r"There is no file .*other\.txt"):
        prepare_corpus(small_parameters(tmp_path, text=str(tmp_path / "other.txt")))


def test_a_run_does_not_resume_on_another_text(tmp_path):
    run(tmp_path, epochs=1)
    write(tmp_path / "text.txt", "\n".join(made_up_sentences(150, seed=5)))
    with pytest.raises(CorpusError, match="whose text was prepared with another"):
        run(tmp_path, epochs=2)


def test_a_shared_corpus_is_never_replaced(tmp_path):
    shared = {"corpus_dir": str(tmp_path / "corpus")}
    first = run(tmp_path, **shared, run_dir=str(tmp_path / "first"), epochs=1)
    second = run(tmp_path, **shared, run_dir=str(tmp_path / "second"), epochs=1, seed=3)
    assert first.corpus.fingerprints == second.corpus.fingerprints
    with pytest.raises(CorpusError, match=r"another min_count, .* choose another corpus_dir"):
        prepare_corpus(small_parameters(tmp_path, **shared, min_count=1))
    assert len(run(tmp_path, **shared, run_dir=str(tmp_path / "first"), epochs=2).history) == 2


def test_runs_that_differ_in_their_seed_hold_out_the_same_sentences(tmp_path):
    heldout = [
        sentences_of(corpus.heldout, corpus)
        for seed in (1, 2, 3)
        for corpus in [
            prepare_corpus(small_parameters(tmp_path, seed=seed, run_dir=str(tmp_path / str(seed))))
        ]
    ]
    assert heldout[0] == heldout[1] == heldout[2]


def test_a_run_does_not_resume_from_another_pretrained_model(tmp_path):
    weights = run(tmp_path, run_dir=str(tmp_path / "source"), epochs=1).weights_path
    other = shutil.copy(weights, tmp_path / "other.h5")
    run(tmp_path, pretrained=str(weights), epochs=1)
    with pytest.raises(TrainingError, match="differs in pretrained"):
        run(tmp_path, pretrained=str(other), epochs=2)
    assert PreparedCorpus(tmp_path / "run" / "corpus").train.n_sentences
