"""A prepared corpus equals what a few lines of plain Python compute in memory."""

from __future__ import annotations

import gzip
import json
import logging
import os
import subprocess
import sys
import zipfile
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from elmolib.corpus import prepare as corpus_module
from elmolib.corpus.prepare import prepare_corpus
from elmolib.corpus.prepared import PreparedCorpus, Split
from elmolib.errors import CorpusError, TextError, VocabularyError
from elmolib.settings.parameters import Parameters, TextSettings
from elmolib.text.characters import character_ids
from elmolib.text.vocabulary import SPECIAL_WORDS, UNK, Vocabulary, read_words

MODEL = {
    "char_embedding_dim": 2,
    "filters": [[1, 2]],
    "n_highway": 0,
    "lstm_dim": 2,
    "projection_dim": 2,
    "n_layers": 1,
    "n_negatives": None,
}

STORY = "the cat sat .\n\nthe dog sat on the cat .\nno cat saw the dog\n"


def parameters(folder: Path, **given) -> Parameters:
    """Parameters for a tokenised text in the folder, with the given changes."""
    defaults = {
        "run_dir": str(folder / "run"),
        "text": str(folder / "text.txt"),
        "tokenized": True,
    }
    return Parameters.from_mapping({**MODEL, **defaults, **given})


@pytest.fixture
def prepare(tmp_path):
    """A function that writes a text and prepares it."""

    def write_and_prepare(text: str | bytes = STORY, processes=1, chunk_bytes=1 << 20, **given):
        path = tmp_path / "text.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return prepare_corpus(parameters(tmp_path, **given), processes, chunk_bytes)

    return write_and_prepare


def sentences_of(corpus: PreparedCorpus, split: Split) -> list[list[str]]:
    words = corpus.lexicon.words(split.ids)
    return [words[a:b] for a, b in zip(split.bounds[:-1], split.bounds[1:], strict=True)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_small_corpus_by_hand(prepare):
    corpus = prepare()
    assert corpus.vocabulary.words == [
        *SPECIAL_WORDS,
        *("the", "cat", ".", "dog", "sat", "no", "on", "saw"),
    ]
    assert corpus.train.ids.dtype == np.uint32
    assert corpus.train.bounds.dtype == np.int64
    assert corpus.train.ids.tolist() == [3, 4, 7, 5, 3, 6, 7, 10 - 1, 3, 4, 5, 8, 4, 10, 3, 6]
    assert corpus.train.bounds.tolist() == [0, 4, 11, 16]
    assert corpus.lexicon.counts.tolist() == [0, 0, 0, 4, 3, 2, 2, 2, 1, 1, 1]
    assert corpus.heldout is None
    counts = corpus.record["counts"]
    assert counts["lines"]["train"] == 4
    assert counts["empty_lines"]["train"] == 1
    assert counts["sentences"]["train"] == 3
    assert counts["words"]["train"] == 16
    assert counts["distinct_words"] == 8


def test_the_vocabulary_file_can_be_read_back(prepare):
    corpus = prepare()
    assert Vocabulary(read_words(corpus.path / "vocabulary.txt")) == corpus.vocabulary


# Some words have another order in UTF-16 than in Unicode; some are special words.
words = st.sampled_from(
    ["a", "b", "B", "ab", "é", "\U0001f600", "\uffee", "<UNK>", "</P>", "中", "x\u200d", '"']
)
texts = st.lists(st.lists(words, max_size=6), min_size=1, max_size=30).filter(any)
some_settings = st.fixed_dictionaries(
    {},
    optional={
        "min_count": st.integers(1, 4),
        "vocabulary_size": st.integers(4, 12),
        "heldout_seed": st.integers(0, 9),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(texts, texts, some_settings, st.integers(1, 40))
@pytest.mark.filterwarnings("ignore:.*also occur in text", "ignore:The vocabulary of")
def test_ids_are_ordered_by_frequency(tmp_path_factory, train, held_out, given, chunk_bytes):
    repeated = {
        word for word, n in Counter(chain(*train)).items() if n >= given.get("min_count", 1)
    }
    assume(repeated - {*SPECIAL_WORDS})
    folder = tmp_path_factory.mktemp("corpus")
    for name, sentences in (("text.txt", train), ("held.txt", held_out)):
        lines = "\n".join(map(" ".join, sentences))
        (folder / name).write_text(lines, encoding="utf-8", newline="\n")
    corpus = prepare_corpus(
        parameters(folder, heldout_text=str(folder / "held.txt"), **given), 1, chunk_bytes
    )

    train, held_out = ([s for s in sentences if s] for sentences in (train, held_out))
    counts = Counter(word for sentence in train for word in sentence)
    everything = {*counts, *(word for sentence in held_out for word in sentence)}
    ordered = sorted(everything - {*SPECIAL_WORDS}, key=lambda word: (-counts[word], word))
    known = [word for word in ordered if counts[word] >= given.get("min_count", 1)]
    known = known[: given.get("vocabulary_size", 99) - 3]

    lexicon = [*SPECIAL_WORDS, *ordered]
    assert corpus.lexicon.words(range(len(corpus.lexicon))) == lexicon
    assert corpus.lexicon.counts.tolist() == [counts[word] for word in lexicon]
    assert corpus.vocabulary.words == [*SPECIAL_WORDS, *known]
    assert sentences_of(corpus, corpus.train) == train
    assert sentences_of(corpus, corpus.heldout) == held_out
    unknown = everything - {*SPECIAL_WORDS, *known}
    assert corpus.record["counts"]["unknown_words"]["train"] == sum(counts[w] for w in unknown)
    assert corpus.record["counts"]["heldout_in_training"] == sum(s in train for s in held_out)
    np.testing.assert_array_equal(
        corpus.lexicon.character_ids(corpus.train.ids, 9),
        character_ids([word for sentence in train for word in sentence], 9),
    )


@pytest.fixture(scope="module")
def long_text(tmp_path_factory) -> Path:
    """A few hundred sentences, a third of which occur twice."""
    random = np.random.default_rng(0)
    lines = [
        " ".join(f"w{number}" for number in random.zipf(1.5, random.integers(1, 12)) % 500)
        for _ in range(400)
    ]
    path = tmp_path_factory.mktemp("long") / "text.txt"
    path.write_text("\n".join([*lines, *lines[::3]]), encoding="utf-8")
    return path


@pytest.mark.parametrize(("processes", "chunk_bytes"), [(1, 1), (1, 700), (2, 2000), (3, 300)])
def test_chunks_and_processes_do_not_change_the_corpus(tmp_path, long_text, processes, chunk_bytes):
    given = {"text": str(long_text), "heldout_fraction": 0.2, "min_count": 2}
    whole = prepare_corpus(parameters(tmp_path / "whole", **given), 1)
    pieces = prepare_corpus(parameters(tmp_path / "pieces", **given), processes, chunk_bytes)
    assert contents(whole.path) == contents(pieces.path)


def test_word_lists_longer_than_a_block_are_merged(tmp_path, long_text, monkeypatch):
    given = {"text": str(long_text)}
    whole = prepare_corpus(parameters(tmp_path / "whole", **given), 1)
    monkeypatch.setattr("elmolib.corpus.numbering.BLOCK_BYTES", 5)
    monkeypatch.setattr("elmolib.corpus.numbering.WORDS_PER_BLOCK", 3)
    pieces = prepare_corpus(parameters(tmp_path / "pieces", **given), 1, 900)
    assert contents(whole.path) == contents(pieces.path)


def test_training_and_held_out_sentences_are_disjoint(tmp_path, long_text):
    splits = {}
    for seed in (1, 2):
        corpus = prepare_corpus(
            parameters(
                tmp_path / str(seed), text=str(long_text), heldout_fraction=0.2, heldout_seed=seed
            )
        )
        train, held_out = (
            [" ".join(words) for words in sentences_of(corpus, split)]
            for split in (corpus.train, corpus.heldout)
        )
        assert not {*train} & {*held_out}
        lines = [line for line in long_text.read_text(encoding="utf-8").split("\n") if line]
        assert Counter(train + held_out) == Counter(lines)
        assert 0.1 < len(held_out) / len(lines) < 0.3
        splits[seed] = held_out
    assert splits[1] != splits[2]


def test_raw_text_is_split_into_sentences_and_words(prepare):
    corpus = prepare(
        "The <b>cat</b> sat. It didn't see\tthe dog!\n\n<p>", tokenized=False, strip_html=True
    )
    assert sentences_of(corpus, corpus.train) == [
        ["The", "cat", "sat", "."],
        ["It", "didn't", "see", "the", "dog", "!"],
    ]
    assert corpus.record["counts"]["empty_lines"]["train"] == 2
    assert corpus.tokenizer.words("<i>Ah</i>!") == ["Ah", "!"]


def test_files_globs_and_gzip_files_are_read_in_order(tmp_path):
    (tmp_path / "b2.txt").write_text("two")
    (tmp_path / "b1.txt").write_text("one\n")
    (tmp_path / "a[1].txt").write_text("literal")
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"three\n") + gzip.compress(b"four"))
    names = [str(tmp_path / name) for name in ("c.gz", "a[1].txt", "b*.txt")]
    corpus = prepare_corpus(parameters(tmp_path, text=names), 1, 2)
    assert [words for (words,) in sentences_of(corpus, corpus.train)] == [
        *("three", "four", "literal", "one", "two")
    ]


@pytest.mark.parametrize(
    "text",
    [b"\xef\xbb\xbfa b\r\nc\r\n", b"a b\nc", b"a b\n\n\nc\n \n", b"a b\r\n\r\nc", b"e\n"],
)
def test_byte_order_mark_line_ends_and_blank_lines_are_dropped(prepare, text):
    expected = [["e"]] if b"e" in text else [["a", "b"], ["c"]]
    corpus = prepare(text)
    assert sentences_of(corpus, corpus.train) == expected


def test_lines_and_words_longer_than_a_chunk_stay_whole(prepare):
    corpus = prepare("a " * 50_000 + "\n" + "b" * 100_000 + "\nc\n", chunk_bytes=100)
    assert np.diff(corpus.train.bounds).tolist() == [50_000, 1, 1]
    assert corpus.lexicon.words([4]) == ["b" * 100_000]


def test_unicode_is_normalised_and_cedillas_are_replaced(prepare):
    corpus = prepare("s\u0327i e\u0301\n", romanian_commas=True)
    assert sentences_of(corpus, corpus.train) == [["și", "é"]]


def test_wikipedia_needs_no_file(tmp_path):
    corpus = prepare_corpus(
        parameters(tmp_path, text="wikipedia", tokenized=False, heldout_fraction=0.05)
    )
    counts = corpus.record["counts"]
    assert counts["lines"]["train"] - counts["empty_lines"]["train"] == 4_849
    assert corpus.lexicon.words(corpus.train.ids[:3]) == ["Anarchism", "is", "a"]
    assert corpus.train.n_sentences + corpus.heldout.n_sentences > 17_000


@pytest.mark.shared
def test_wikitext_2_matches_the_reference(tmp_path, shared):
    with zipfile.ZipFile(shared / "data" / "lm" / "wikitext-2.zip") as archive:
        lines = archive.read("wikitext-2/wiki.train.tokens").decode().split("\n")
    sentences = []
    for line in map(str.strip, lines):
        if line and not (line.startswith("= ") and line.endswith(" =")):
            pieces = line.replace("<unk>", "<UNK>").split(" . ")
            sentences += [f"{piece} ." for piece in pieces[:-1]] + pieces[-1:]
    (tmp_path / "train.txt").write_text("\n".join(sentences), encoding="utf-8", newline="\n")
    reference = shared / "reference" / "wt2" / "vocab.txt"
    corpus = prepare_corpus(
        parameters(tmp_path, text=str(tmp_path / "train.txt"), vocabulary_file=str(reference))
    )
    assert corpus.train.n_sentences == 76_691
    assert corpus.train.n_words == 2_007_146
    assert corpus.lexicon.counts[UNK] == 53_951
    assert corpus.vocabulary == Vocabulary(read_words(reference))
    assert len(corpus.lexicon) == len(corpus.vocabulary) == 33_279


# --- Vocabulary files


@pytest.mark.filterwarnings("ignore:The vocabulary of")
def test_a_mapping_decides_the_vocabulary_but_not_the_order(prepare, tmp_path):
    mapping = tmp_path / "word2idx.csv"
    mapping.write_text("Word,Index\nzebra,0\n<PAD>,1\ndog,2\n<EOS>,3\nthe,9\n<UNK>,4\n")
    corpus = prepare(vocabulary_file=str(mapping))
    assert corpus.vocabulary.words == [*SPECIAL_WORDS, "the", "dog", "zebra"]
    assert corpus.lexicon.words(range(6, 9)) == ["cat", ".", "sat"]
    assert corpus.lexicon.counts[:8].tolist() == [0, 0, 0, 4, 2, 0, 3, 2]
    assert corpus.record["counts"]["distinct_words"] == 8


def test_the_words_of_a_mapping_are_cleaned_like_the_text(prepare, tmp_path):
    (tmp_path / "words.txt").write_text("e\u0301\n\u015fi\n", encoding="utf-8")
    corpus = prepare("și é\n", vocabulary_file=str(tmp_path / "words.txt"), romanian_commas=True)
    assert corpus.vocabulary.words == [*SPECIAL_WORDS, "é", "și"]


@pytest.mark.parametrize(
    ("words", "covered", "distinct"), [("the\ncat\nsat\n.", 11 / 16, 4 / 8), (None, 1, 1)]
)
def test_preparation_says_how_much_of_the_text_the_vocabulary_covers(
    prepare, tmp_path, caplog, recwarn, words, covered, distinct
):
    given = {}
    if words:
        (tmp_path / "words.txt").write_text(words)
        given["vocabulary_file"] = str(tmp_path / "words.txt")
    caplog.set_level(logging.INFO, "elmolib")
    prepare(**given)
    said = f"covers {covered:.1%} of the running text and {distinct:.1%} of its different words"
    assert said in caplog.text
    warned = [str(warning.message) for warning in recwarn]
    assert len(warned) == (words is not None)
    assert all(
        said in warning and "words.txt are spelt as in the text" in warning for warning in warned
    )


@pytest.mark.parametrize(
    ("words", "given", "advice"),
    [
        ("number,word\n1,the\n2,cat\n", {}, "words of vocabulary_file .*words.txt are spelt as"),
        (
            '["the", \n"cat"]'.replace(" ", ""),
            {},
            "words of vocabulary_file .*words.txt are spelt as",
        ),
        (None, {"min_count": 99}, "lower min_count, or raise vocabulary_size"),
    ],
)
def test_a_vocabulary_without_the_words_of_the_text_is_refused(
    prepare, tmp_path, words, given, advice
):
    if words:
        (tmp_path / "words.txt").write_text(words)
        given = {"vocabulary_file": str(tmp_path / "words.txt")}
    with pytest.raises(VocabularyError, match=rf"covers 0\.0% of the running text.*{advice}"):
        prepare(**given)
    assert not (tmp_path / "run" / "corpus").exists()


def test_a_broken_or_missing_mapping_is_refused(prepare, tmp_path):
    (tmp_path / "words.txt").write_text("a\na\n")
    with pytest.raises(VocabularyError, match=r"words.txt, line 2: the word 'a' was already"):
        prepare(vocabulary_file=str(tmp_path / "words.txt"))
    with pytest.raises(VocabularyError, match="none.txt"):
        prepare(vocabulary_file=str(tmp_path / "none.txt"))
    assert not (tmp_path / "run" / "corpus").exists()


# --- Existing folders


def test_an_unchanged_corpus_is_reused_and_a_changed_one_replaced(prepare, tmp_path):
    first = prepare()
    stamp = (first.path / "corpus.json").stat().st_ino

    def is_reused(**given) -> bool:
        prepare_corpus(parameters(tmp_path, **given))
        return (first.path / "corpus.json").stat().st_ino == stamp

    assert is_reused()
    assert is_reused(epochs=99, seed=7)
    os.utime(tmp_path / "text.txt", ns=(1, 1))
    assert is_reused()
    assert not is_reused(min_count=2)
    assert PreparedCorpus(first.path).vocabulary.words[3:] == ["the", "cat", ".", "dog", "sat"]
    changed = prepare("another text is another text\n", min_count=2)
    assert changed.lexicon.words([3]) == ["another"]
    assert [path.name for path in first.path.parent.iterdir()] == ["corpus"]


def test_another_seed_holds_out_other_sentences(prepare):
    text = "".join(f"sentence {number}\n" for number in range(100))
    first = prepare(text, heldout_fraction=0.3, heldout_seed=1).record["counts"]["lexicon"]
    again = prepare(text, heldout_fraction=0.3, heldout_seed=2)
    assert again.record["made_from"]["parameters"]["heldout_seed"] == 2
    assert again.record["counts"]["lexicon"] == first


def test_a_failed_preparation_keeps_the_earlier_corpus(prepare, tmp_path):
    before = contents(prepare().path)
    with pytest.raises(TextError):
        prepare(b"\xff")
    assert contents(tmp_path / "run" / "corpus") == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["corpus"]


def test_leftovers_of_killed_processes_are_removed(prepare, tmp_path):
    run = tmp_path / "run"
    (run / ".corpus.1234.part" / "work").mkdir(parents=True)
    (run / ".corpus.1234.old").mkdir()
    (run / ".corpus2.1234.part").mkdir()
    prepare()
    assert sorted(path.name for path in run.iterdir()) == [".corpus2.1234.part", "corpus"]


def test_a_link_to_a_folder_is_followed(prepare, tmp_path):
    place = tmp_path / "large disk" / "corpus"
    place.mkdir(parents=True)
    (tmp_path / "run").mkdir()
    link = tmp_path / "run" / "corpus"
    link.symlink_to(place)
    for min_count in (1, 2):
        prepare(min_count=min_count)
        assert link.is_symlink()
        assert PreparedCorpus(place).record["made_from"]["spelled"]["text"]
        assert [path.name for path in link.parent.iterdir()] == ["corpus"]
        assert [path.name for path in place.parent.iterdir()] == ["corpus"]


def test_a_mount_point_is_refused_before_the_work(prepare, tmp_path, monkeypatch):
    corpus = tmp_path / "run" / "corpus"
    corpus.mkdir(parents=True)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == corpus)
    monkeypatch.setattr(corpus_module, "prepare_chunks", None)
    with pytest.raises(CorpusError, match=r"corpus is a mount point"):
        prepare()


def test_a_text_that_changes_while_being_read_is_refused(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("a bank .\n" * 10)
    write = corpus_module.write_arrays

    def grow(*arguments):
        with text.open("a") as stream:
            stream.write("a river .\n")
        write(*arguments)

    with (
        monkeypatch.context() as patch,
        pytest.raises(TextError, match=r"text\.txt changed while being read"),
    ):
        patch.setattr(corpus_module, "write_arrays", grow)
        prepare_corpus(parameters(tmp_path))
    assert not list((tmp_path / "run").iterdir())
    assert prepare_corpus(parameters(tmp_path)).train.n_sentences == 11


def test_a_file_name_need_not_be_unicode(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path / "caf") + b"\xe9.txt")
    Path(name).write_text("a bank .\n")
    given = parameters(tmp_path, text=str(tmp_path / "caf*"))
    corpus = prepare_corpus(given)
    assert corpus.record["made_from"]["files"][0]["name"] == name
    made = (corpus.path / "corpus.json").stat().st_ino
    assert (prepare_corpus(given).path / "corpus.json").stat().st_ino == made


def test_a_folder_with_other_files_is_not_replaced(prepare, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(CorpusError, match="home is not a prepared corpus"):
        prepare(corpus_dir=str(tmp_path / "home"))
    corpus = prepare()
    (corpus.path / "letter.txt").write_text("dear")
    prepare()
    with pytest.raises(CorpusError, match="letter.txt is not part of the corpus"):
        prepare(min_count=2)
    assert (corpus.path / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    "name",
    [
        *("train_ids.npy", "train_bounds.npy", "lexicon_text.npy", "lexicon_offsets.npy"),
        *("lexicon_counts.npy", "vocabulary.txt"),
    ],
)
def test_truncated_and_missing_files_are_named(prepare, name):
    corpus = prepare()
    file = corpus.path / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CorpusError, match=f"{name} is missing or damaged"):
        PreparedCorpus(corpus.path)
    file.unlink()
    with pytest.raises(CorpusError, match=f"{name} is missing or damaged"):
        PreparedCorpus(corpus.path)


@pytest.mark.parametrize("place", [0, 6, 9, 20, 60])
def test_a_damaged_array_header_is_named(prepare, place):
    file = prepare().path / "train_ids.npy"
    content = bytearray(file.read_bytes())
    content[place] ^= 0x15
    file.write_bytes(content)
    with pytest.raises(CorpusError, match="train_ids.npy is missing or damaged"):
        PreparedCorpus(file.parent)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b"{}", b'{"format": 4}', b"[" * 100_000, b"1" * 9999]
)
def test_a_damaged_record_is_named(prepare, content):
    corpus = prepare()
    (corpus.path / "corpus.json").write_bytes(content)
    with pytest.raises(CorpusError, match="corpus.json is missing or damaged"):
        PreparedCorpus(corpus.path)


def test_another_format_number_is_refused(prepare):
    corpus = prepare()
    (corpus.path / "corpus.json").write_text(json.dumps({**corpus.record, "format": 0}))
    with pytest.raises(CorpusError, match=r"another version of elmolib: delete .* to prepare"):
        PreparedCorpus(corpus.path)


def test_a_missing_corpus_is_named(tmp_path):
    with pytest.raises(CorpusError, match="nowhere is not a prepared corpus"):
        PreparedCorpus(tmp_path / "nowhere")


# --- Bad text


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "text.txt is empty"),
        (b"\n \n\t\n", "no sentence in text"),
        (b"a\nb\0\n", "text.txt, line 2 has a NUL byte"),
        ("text".encode("utf-16"), "text.txt, line 1 has a NUL byte"),
        (b"a\nbc \xff d\n", "text.txt, line 2: byte 5 of the text is not valid UTF-8"),
        (b"\xef\xbb\xbfa\n\xc3", "text.txt, line 2: byte 5 of the text is not valid UTF-8"),
    ],
)
def test_unusable_text_is_refused(prepare, text, complaint, processes):
    with pytest.raises(TextError, match=complaint):
        prepare(text, processes=processes, chunk_bytes=1)


def test_invalid_bytes_are_replaced_on_request(prepare):
    corpus = prepare(b"a\nb\xffc\n", errors="replace")
    assert sentences_of(corpus, corpus.train) == [["a"], ["b\ufffdc"]]


def test_missing_files_and_directories_are_named(tmp_path):
    with pytest.raises(TextError, match=r"There is no file .*none\.txt"):
        prepare_corpus(parameters(tmp_path, text=str(tmp_path / "none.txt")))
    with pytest.raises(TextError, match=r"is a directory: name its files"):
        prepare_corpus(parameters(tmp_path, text=str(tmp_path)))


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"a b\n" * 1000)[:-9]], ids=["other", "cut off"]
)
def test_a_damaged_compressed_file_is_named(tmp_path, content):
    (tmp_path / "text.gz").write_bytes(content)
    with pytest.raises(TextError, match=r"text\.gz cannot be read"):
        prepare_corpus(parameters(tmp_path, text=str(tmp_path / "text.gz")))


def test_a_file_named_twice_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("a\n")
    twice = [str(tmp_path / "text.txt"), str(tmp_path / "*.txt")]
    with pytest.raises(TextError, match=r"name a file twice, as .*text\.txt and .*text\.txt"):
        prepare_corpus(parameters(tmp_path, text=twice))


def test_a_fraction_that_holds_out_nothing_is_refused(prepare):
    with pytest.raises(TextError, match="holds out none"):
        prepare(heldout_fraction=0.0001)


def test_held_out_sentences_in_the_training_text_are_counted(prepare, tmp_path):
    (tmp_path / "held.txt").write_text("the cat sat .\nthe cow sat .\n")
    with pytest.warns(UserWarning, match=r"1 of 2 sentences of heldout_text also occur in text"):
        corpus = prepare(heldout_text=str(tmp_path / "held.txt"))
    assert corpus.record["counts"]["heldout_in_training"] == 1
    assert corpus.heldout.n_sentences == 2


def test_text_settings_alone_are_enough(prepare, tmp_path):
    whole = prepare()
    settings = TextSettings(
        run_dir=str(tmp_path / "run"), text=str(tmp_path / "text.txt"), tokenized=True
    )
    stamp = (whole.path / "corpus.json").stat().st_ino
    assert (prepare_corpus(settings).path / "corpus.json").stat().st_ino == stamp


def test_a_script_needs_neither_guard_nor_tensorflow(tmp_path, long_text, root):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from elmolib.corpus.prepare import prepare_corpus\n"
        "from elmolib.settings.parameters import Parameters\n"
        f"parameters = Parameters.from_mapping({MODEL!r} | dict(\n"
        f"    run_dir={str(tmp_path / 'run')!r}, text={str(long_text)!r}, tokenized=True))\n"
        "corpus = prepare_corpus(parameters, processes=2, chunk_bytes=1000)\n"
        "print(corpus.train.n_sentences, 'tensorflow' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "534 False\n"
    assert result.stderr == ""
