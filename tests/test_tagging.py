"""Reading treebanks, and accuracies of taggers, compared with counts by hand."""

from __future__ import annotations

import gzip
from pathlib import Path

import conllu
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elmolib.errors import TextError
from elmolib.explore.tagging import (
    TaggedSentence,
    commonest_tags,
    read_conllu,
    tag_names,
    tagger_table,
)
from elmolib.text.tokenizer import Tokenizer

TREEBANK = """\
# sent_id = 1
# text = He didn't.
1\tHe\the\tPRON\tPRP\t_\t3\tnsubj\t_\t_
2-3\tdidn't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
2\tdid\tdo\tAUX\tVBD\tMood=Ind|Tense=Past\t0\troot\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_
4\t.\t.\tPUNCT\t.\t_\t2\tpunct\t_\t_

# sent_id = 2
1\t河 岸\t_\tNOUN\t_\t_\t0\troot\t_\t_

"""

SENTENCES = [
    TaggedSentence(("He", "did", "n't", "."), ("PRON", "AUX", "PART", "PUNCT")),
    TaggedSentence(("河 岸",), ("NOUN",)),
]


def written(folder: Path, content: str | bytes, name: str = "bank.conllu") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_only_words_and_tags_are_read(tmp_path):
    assert read_conllu(written(tmp_path, TREEBANK)) == SENTENCES
    packed = written(tmp_path, gzip.compress(TREEBANK.encode()), "bank.conllu.gz")
    assert read_conllu(packed) == SENTENCES
    windows = written(tmp_path, TREEBANK.replace("\n", "\r\n"))
    assert read_conllu(windows) == SENTENCES


@pytest.mark.parametrize(
    "same",
    [
        "\ufeff" + TREEBANK,
        TREEBANK.replace("\t3\tnsubj", "\t8.1\tnsubj"),
        TREEBANK.replace("\t3\tnsubj", "\tROOT\tnsubj"),
        TREEBANK.replace("Mood=Ind|Tense=Past", "anything"),
        TREEBANK.replace("\t_\t_\n", "\n"),  # two columns less
        TREEBANK.replace("\t_\t_\n", "\t_\t_\t_\tV\n"),  # more columns, as in Universal PropBank
        TREEBANK.replace("\n\n", "\n \n\n"),
        TREEBANK.rstrip("\n"),
    ],
)
def test_other_columns_may_hold_anything(tmp_path, same):
    assert same != TREEBANK
    assert read_conllu(written(tmp_path, same)) == SENTENCES


def test_columns_may_be_declared(tmp_path):
    content = "# global.columns = ID UPOS FORM\n1\tNOUN\tRain\n2\tPUNCT\t_\n\n"
    read = read_conllu(written(tmp_path, content))
    assert read == [TaggedSentence(("Rain", "_"), ("NOUN", "PUNCT"))]


def test_words_are_read_as_the_model_s_text_was(tmp_path):
    path = written(tmp_path, TREEBANK.replace("\tHe\t", "\tS\u0327i\t"))
    sentences = read_conllu(path, Tokenizer(romanian_commas=True).clean_word)
    assert [sentence.words for sentence in sentences] == [("Și", "did", "n't", "."), ("河 岸",)]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["pos/en_ewt-ud-test", "multilingual/ro_rrt-ud-test"])
def test_treebanks_have_the_words_that_the_package_conllu_reads(shared, name):
    path = shared / "data" / f"{name}.conllu.gz"
    parsed = conllu.parse(gzip.decompress(path.read_bytes()).decode())
    expected = [sentence.filter(id=lambda number: isinstance(number, int)) for sentence in parsed]
    columns = [tuple(zip(*((t["form"], t["upos"]) for t in s), strict=True)) for s in expected]
    assert read_conllu(path) == columns


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("# newdoc\n\n", "has no sentences"),
        ("A plain text.\nOf two lines.\n", "line 1: this is not CoNLL-U"),
        (TREEBANK + "1 word\n\n", "line 13: this is not CoNLL-U"),
        (TREEBANK + "1\tword\n\n", "line 13: the word 'word' has no UPOS tag"),
        (TREEBANK.replace("\tAUX\t", "\t_\t"), "line 5: the word 'did' has no UPOS tag"),
        (TREEBANK.replace("\tHe\the\t", "\t\t\t"), "line 3: the word '' has no UPOS tag"),
        (TREEBANK.encode() + b"\xff", "line 13: byte .* is not valid UTF-8"),
        (TREEBANK.replace("\n\n", "\n"), "line 10: the empty line before .* is missing"),
        (TREEBANK.replace("He\the", "_\t_"), "line 3: the word is withheld"),
        ("1\tRain\train\train\tN\tN\t_\t_\t0\t0\tS\tS\t_\t_\n", "line 1: 14 columns .* CoNLL-2009"),
        ("# global.columns = ID FORM\n1\tRain\n", "line 2: the word 'Rain' has no UPOS tag"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, content, sentence):
    with pytest.raises(TextError, match=f"bank.conllu.*{sentence}"):
        read_conllu(written(tmp_path, content))


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(TREEBANK.encode())[:-20]], ids=["other", "cut off"]
)
def test_a_damaged_archive_is_one_sentence(tmp_path, content):
    with pytest.raises(
        TextError, match=r"bank.gz cannot be read|not valid UTF-8|this is not CoNLL"
    ):
        read_conllu(written(tmp_path, content, "bank.gz"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TextError, match=r"There is no file .*nowhere.conllu"):
        read_conllu(tmp_path / "nowhere.conllu")


@settings(max_examples=200)
@given(st.data())
def test_any_damage_gives_sentences_or_one_sentence(tmp_path_factory, data):
    content = bytearray(TREEBANK.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = written(tmp_path_factory.getbasetemp(), bytes(content))
    try:
        sentences = read_conllu(path)
    except TextError as error:
        assert str(path) in str(error)
    else:
        for words, tags in sentences:
            assert len(words) == len(tags) > 0
            assert all(isinstance(text, str) and text for text in (*words, *tags))


TRAINING = [
    TaggedSentence(("the", "bank", "can", "bank", "can"), ("D", "N", "V", "V", "V")),
    TaggedSentence(("the", "bank", "the", "N"), ("D", "N", "D", "N")),
]
HELDOUT = [
    TaggedSentence(("the", "bank"), ("D", "V")),
    TaggedSentence(("can", "new", "bank"), ("N", "N", "N")),
]


def test_the_commonest_tag_of_each_word():
    given_words = [sentence.words for sentence in HELDOUT]
    # "bank" has the tag N twice and V once. D, N and V each occur 3 times, and D is the first, so
    # unknown words get D.
    assert commonest_tags(TRAINING, given_words) == [["D", "N"], ["V", "D", "N"]]


def test_accuracy_depends_on_what_training_tells_about_a_word():
    predictions = {
        "commonest": commonest_tags(TRAINING, [sentence.words for sentence in HELDOUT]),
        "truth": [sentence.tags for sentence in HELDOUT],
    }
    table = tagger_table(TRAINING, HELDOUT, predictions)
    expected = {
        "share of the words": [1, 2 / 5, 2 / 5, 1 / 5],
        "commonest": [2 / 5, 1 / 2, 1 / 2, 0],
        "truth": [1, 1, 1, 1],
    }
    assert list(table.columns) == ["all words", "always one tag", "several tags", "never seen"]
    assert list(table.index) == list(expected)
    np.testing.assert_allclose(table, list(expected.values()))


def test_a_kind_of_word_that_does_not_occur_has_no_accuracy():
    table = tagger_table(TRAINING, TRAINING, {"truth": [s.tags for s in TRAINING]})
    assert np.isnan(table.loc["truth", "never seen"])
    assert table.loc["share of the words", "never seen"] == 0


def test_the_sample_is_as_its_page_describes_it(root):
    sentences = read_conllu(root / "notebooks/data/tagged.conllu")
    assert len({sentence.words for sentence in sentences}) == len(sentences) == 227
    assert sum(len(sentence.words) for sentence in sentences) == 1758
    training, heldout = sentences[:181], sentences[181:]
    assert len(tag_names(training)) == 17
    assert tag_names(heldout) == tag_names(training)
    # These words must have several tags in the sample, so that the tagger needs the context.
    for word in ("book", "bank", "light", "can", "will", "back", "that"):
        for part in (training, heldout):
            tags = {tag for s in part for form, tag in zip(*s, strict=True) if form.lower() == word}
            assert len(tags) > 1, word
