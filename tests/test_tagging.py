"""Reading treebanks, and judging taggers by counts done by hand."""

from __future__ import annotations

import gzip
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import TINY

from elmolib.errors import TextError
from elmolib.layers.elmo_embedding import ElmoEmbedding
from elmolib.tagging import (
    TaggedBatches,
    TaggedSentence,
    accuracy_table,
    commonest_tags,
    predict_tags,
    read_conllu,
    tag_names,
)

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


def test_words_and_tags_are_read_and_nothing_else(tmp_path):
    assert read_conllu(written(tmp_path, TREEBANK)) == SENTENCES
    packed = written(tmp_path, gzip.compress(TREEBANK.encode()), "bank.conllu.gz")
    assert read_conllu(packed) == SENTENCES
    windows = written(tmp_path, TREEBANK.replace("\n", "\r\n"))
    assert read_conllu(windows) == SENTENCES


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no sentences"),
        ("A plain text.\nOf two lines.\n", "no CoNLL-U file: see what follows its sentence 0"),
        (TREEBANK + "1 word\n\n", "no CoNLL-U file: see what follows its sentence 2"),
        (TREEBANK + "1\tword\n\n", "a word of sentence 3 has no UPOS tag"),
        (TREEBANK.replace("\tAUX\t", "\t_\t"), "a word of sentence 1 has no UPOS tag"),
        (TREEBANK.encode() + b"\xff", "not UTF-8: see byte"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, content, sentence):
    with pytest.raises(TextError, match=f"bank.conllu.*{sentence}"):
        read_conllu(written(tmp_path, content))


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(TREEBANK.encode())[:-20]], ids=["other", "cut off"]
)
def test_a_damaged_archive_is_one_sentence(tmp_path, content):
    with pytest.raises(TextError, match=r"bank.gz cannot be read"):
        read_conllu(written(tmp_path, content, "bank.gz"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TextError, match="nowhere.conllu cannot be read"):
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


def test_batches_hold_every_sentence_once_with_its_tags():
    names = tag_names(SENTENCES)
    assert names == ["AUX", "NOUN", "PART", "PRON", "PUNCT"]
    sentences = [*SENTENCES, TaggedSentence(("did", "."), ("AUX", "PUNCT"))] * 3
    batches = TaggedBatches(sentences, names, batch_size=4)
    assert len(batches) == 3
    seen = []
    for k in range(len(batches)):
        words, tags = batches[k]
        assert words.shape == tags.shape
        assert words.dtype == tf.string
        for row, numbers in zip(words.numpy(), tags, strict=True):
            n_words = sum(word != b"" for word in row)
            text = tuple(word.decode() for word in row[:n_words])
            seen.append(TaggedSentence(text, tuple(names[k] for k in numbers[:n_words])))
    assert sorted(seen) == sorted(sentences)


def test_fit_takes_a_long_sentence_among_many_of_one_word():
    sentences = [SENTENCES[1]] * 7 + [SENTENCES[0]]
    names = tag_names(sentences)
    words = keras.Input((None,), dtype="string")
    vectors = ElmoEmbedding(TINY)(words)
    tagger = keras.Model(words, keras.layers.Dense(len(names), activation="softmax")(vectors))
    tagger.compile("sgd", "sparse_categorical_crossentropy")
    history = tagger.fit(TaggedBatches(sentences, names, batch_size=2), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_a_tagger_learns_its_sentences_by_heart():
    keras.utils.set_random_seed(1)
    names = tag_names(SENTENCES)
    words = keras.Input((None,), dtype="string")
    vectors = ElmoEmbedding(TINY, frozen=False, dropout=0.0)(words)
    scores = keras.layers.Dense(len(names), activation="softmax")(vectors)
    tagger = keras.Model(words, scores)
    tagger.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    tagger.fit(TaggedBatches(SENTENCES, names, batch_size=2), epochs=60, verbose=0)
    for batch_size in (1, 2):
        predicted = predict_tags(tagger, [s.words for s in SENTENCES], names, batch_size)
        assert [tuple(tags) for tags in predicted] == [s.tags for s in SENTENCES]


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
    # "bank" is N twice and V once; of all tags, D, N and V stand there 3 times each, D first.
    assert commonest_tags(TRAINING, given_words) == [["D", "N"], ["V", "D", "N"]]


def test_accuracy_is_counted_by_what_training_told_of_a_word():
    predictions = {
        "commonest": commonest_tags(TRAINING, [sentence.words for sentence in HELDOUT]),
        "truth": [sentence.tags for sentence in HELDOUT],
    }
    table = accuracy_table(TRAINING, HELDOUT, predictions)
    expected = {
        "share of the words": [1, 2 / 5, 2 / 5, 1 / 5],
        "commonest": [2 / 5, 1 / 2, 1 / 2, 0],
        "truth": [1, 1, 1, 1],
    }
    assert list(table.columns) == ["all words", "always one tag", "several tags", "never seen"]
    assert list(table.index) == list(expected)
    np.testing.assert_allclose(table, list(expected.values()))


def test_a_kind_of_word_that_is_not_there_has_no_accuracy():
    table = accuracy_table(TRAINING, TRAINING, {"truth": [s.tags for s in TRAINING]})
    assert np.isnan(table.loc["truth", "never seen"])
    assert table.loc["share of the words", "never seen"] == 0


def test_the_sample_that_comes_along_is_what_its_page_says(root):
    sentences = read_conllu(root / "notebooks/data/tagged.conllu")
    assert len({sentence.words for sentence in sentences}) == len(sentences) == 227
    assert sum(len(sentence.words) for sentence in sentences) == 1758
    training, heldout = sentences[:181], sentences[181:]
    assert len(tag_names(training)) == 17
    assert tag_names(heldout) == tag_names(training)
    # Else the neighbours would have nothing to tell, and the notebook nothing to show.
    for word in ("book", "bank", "light", "can", "will", "back", "that"):
        for part in (training, heldout):
            tags = {tag for s in part for form, tag in zip(*s, strict=True) if form.lower() == word}
            assert len(tags) > 1, word
