"""Any text gives either arrays of the right shape, or an error of one sentence about the text."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_corpus import made_up_sentences, small_parameters
from small_models import TINY, random_arrays

from elmolib.corpus import sources
from elmolib.corpus.prepare import prepare_corpus
from elmolib.corpus.prepared import PreparedCorpus
from elmolib.elmo import ElmoEmbedder
from elmolib.embedding.vector_file import EmbeddedCorpus
from elmolib.errors import ElmolibError, TextError, TrainingError, VocabularyError
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model, write_published
from elmolib.scoring.perplexity import perplexity
from elmolib.settings.parameters import Parameters
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import Vocabulary, read_words
from elmolib.training.loop import Training

WORDS = Vocabulary(["the", "bank"])
DIM = 2 * TINY.projection_dim
N_LAYERS = TINY.n_layers + 1


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[bool, Path]:
    """Write a model for tokenised text and one for raw text."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for tokenized in (True, False):
        paths[tokenized] = folder / f"{tokenized}.h5"
        arrays = random_arrays(TINY, len(WORDS))
        write_model(
            paths[tokenized], StoredModel(TINY, arrays, WORDS, Tokenizer(tokenized=tokenized))
        )
    return paths


@pytest.fixture(scope="module")
def embedders(models) -> dict[bool, ElmoEmbedder]:
    return {tokenized: ElmoEmbedder(path) for tokenized, path in models.items()}


@pytest.fixture(params=["prepare", "score", "embed"])
def read(request, tmp_path, models, embedders) -> Callable[[Path], object]:
    """Each of the functions that read a text file."""
    return {
        "prepare": lambda text: prepare_corpus(
            small_parameters(tmp_path, text=str(text), heldout_fraction=None)
        ),
        "score": lambda text: perplexity(models[False], text),
        "embed": lambda text: embedders[False].embed_corpus(text, tmp_path / "out.h5"),
    }[request.param]


def is_one_sentence(error: ElmolibError) -> bool:
    return str(error).endswith(".") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, ["bad.txt"]),
        ("folder", ["bad.txt", "directory"]),
        (b"", ["bad.txt", "empty"]),
        (b"\x7fELF\x02\x01\x01\0\0\0", ["bad.txt, line 1", "binary"]),
        (b"a\nb\0c\n", ["bad.txt, line 2", "NUL"]),
        ("text\n".encode("utf-16"), ["bad.txt, line 1", "not in UTF-8"]),
        (b"\xef\xbb\xbfab\nc\xffd\n", ["bad.txt, line 2", "byte 7 of the text", "UTF-8"]),
        (b"a\n\xed\xa0\x80\n", ["bad.txt, line 2", "byte 2 of the text"]),
    ],
    ids=["missing", "directory", "empty", "binary", "NUL", "UTF-16", "invalid byte", "surrogate"],
)
def test_unreadable_text_is_named_and_leaves_no_files(tmp_path, read, content, named):
    text = tmp_path / "bad.txt"
    (tmp_path / "text.txt").write_text("a b .\n")
    if content == "folder":
        text.mkdir()
    elif content is not None:
        text.write_bytes(content)
    with pytest.raises(TextError) as caught:
        read(text)
    assert is_one_sentence(caught.value)
    assert all(part in str(caught.value) for part in named)
    assert [path for path in tmp_path.rglob("*") if path.name not in ("bad.txt", "text.txt")] in (
        [],
        [tmp_path / "run"],
    )


def readers(name, tmp_path, models, embedders):
    """Return every function that reads a file, to be called with the file `name`."""
    return [
        lambda: read_model(name),
        lambda: read_model(models[True], options=name),
        lambda: read_words(name),
        lambda: Parameters.from_yaml(name),
        lambda: perplexity(models[True], name),
        lambda: embedders[True].embed_corpus(name, tmp_path / "out.h5"),
        lambda: prepare_corpus(small_parameters(tmp_path, text=str(name))),
    ]


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "a\ud800b", "none.txt"])
def test_an_impossible_file_name_is_one_sentence(tmp_path, models, embedders, name):
    for read in readers(name, tmp_path, models, embedders):
        with pytest.raises(ElmolibError) as caught:
            read()
        assert is_one_sentence(caught.value)


def test_pipes_and_devices_are_refused(tmp_path, models, embedders):
    pipe, published = tmp_path / "pipe", tmp_path / "published"
    os.mkfifo(pipe)
    write_published(published, read_model(models[True]))
    (published / "options.json").unlink()
    os.mkfifo(published / "options.json")
    hostile = [
        *readers(pipe, tmp_path, models, embedders),
        lambda: read_model(published),
        lambda: embedders[True].embed_corpus("/dev/zero", tmp_path / "out.h5"),
        lambda: EmbeddedCorpus(pipe),
    ]
    for read in hostile:
        with pytest.raises(ElmolibError) as caught:
            read()
        assert is_one_sentence(caught.value)


def test_invisible_characters_are_escaped_in_messages(tmp_path):
    for name in ("a\nb\x1b[2J.txt", "\u202egnp.txt"):
        with pytest.raises(TextError) as caught:
            prepare_corpus(small_parameters(tmp_path, text=str(tmp_path / name)))
        assert (
            str(caught.value) == f"There is no file {tmp_path}/{repr(name)[1:-1]}: check the name."
        )


def test_a_text_of_spaces_is_refused(tmp_path, models, embedders):
    text = tmp_path / "spaces.txt"
    text.write_text(" \n\t\u3000\n\n", encoding="utf-8")
    with pytest.raises(TextError, match="no sentence in text") as caught:
        prepare_corpus(small_parameters(tmp_path, text=str(text)))
    assert is_one_sentence(caught.value)
    with pytest.raises(TextError, match=r"spaces\.txt holds no sentence to score"):
        perplexity(models[True], text)
    assert embedders[True].embed(" \t\u3000").shape == (0, DIM)


ODD_LINES = {
    "one word": ("word", 1),
    "spaces": ("  \t  ", 0),
    "emoji with joiners": ("👩‍👩‍👧‍👦 and 🏳️‍🌈 .", 4),
    "right to left": ("נהר הבנק היה תלול .", 5),
    "right to left marks": ("\u202eabc\u202c \u200fd", 2),
    "combining marks": ("e\u0301\u0302\u0303 a\u0308 \u0301", 3),
    "a word of combining marks": ("e" + "\u0301" * 20_000, 1),
    "a word of 1 MB": ("y" * 1_000_000, 1),
    "a word of 1 MB in characters of four bytes": ("𐐀" * 250_000, 1),
    "100,000 words": ("a word " * 50_000, 100_000),
    "control characters": ("a\x01\x7f\u200b b\ufeff .", 3),
    "line separators": ("a\u2028b\x85c d", 4),
    "no characters": ("\ufffe\uffff \U0010ffff", 2),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> tuple[Path, PreparedCorpus, Training]:
    """A text of odd lines, the corpus prepared from it, and a training run on the corpus."""
    folder = tmp_path_factory.mktemp("odd")
    lines = [line for line, _ in ODD_LINES.values()]
    text = folder / "odd.txt"
    text.write_bytes("\r\n".join([*made_up_sentences(30), *lines]).encode("utf-8-sig"))
    parameters = small_parameters(
        folder, text=str(text), min_count=1, n_negatives=4, heldout_fraction=None, max_steps=300
    )
    corpus = prepare_corpus(parameters)
    return text, corpus, Training(parameters, corpus)


def test_odd_lines_are_prepared_word_by_word(odd):
    _, corpus, _ = odd
    wanted = [n for _, n in ODD_LINES.values() if n]
    assert np.diff(corpus.train.bounds)[30:].tolist() == wanted
    tokenizer = Tokenizer(tokenized=True)
    words = {word for line, _ in ODD_LINES.values() for word in tokenizer.words(line)}
    assert words <= set(corpus.lexicon.words(range(len(corpus.lexicon))))


def test_odd_lines_are_trained_on(odd):
    _, corpus, training = odd
    training.run()
    assert training.step == 300
    line = training.history[-1]
    assert all(np.isfinite(value) for value in line.values())
    assert line["train_forward"] < len(corpus.vocabulary)


def test_odd_lines_are_scored(odd, models):
    text, corpus, _ = odd
    scored = perplexity(models[True], text)
    assert scored.n_targets == corpus.train.n_words + corpus.train.n_sentences
    assert np.isfinite(scored.mean)


@pytest.mark.parametrize("what", ODD_LINES)
def test_odd_lines_are_embedded(embedders, what):
    line, n_words = ODD_LINES[what]
    # Both tokenizers split the 100,000 words in the same way, so embed with only one of them.
    for tokenized in (True, False) if n_words < 1000 else (True,):
        embedder = embedders[tokenized]
        vectors = embedder.embed(line, layers="all")
        n = n_words if tokenized else len(embedder.words(line))
        assert vectors.shape == (N_LAYERS, n, DIM)
        assert np.isfinite(vectors).all()


any_string = st.text(st.characters(exclude_categories=()), max_size=60)


@pytest.mark.filterwarnings("ignore:.*sentence marks such as <s>")
@settings(max_examples=150)
@given(any_string, st.booleans())
@example("\ud800", False)
@example("a\udfff b\ud83d\ude00", True)
@example("\x00 \x1f\x85\u2029", False)
@example("<S> </S> <UNK>", True)
def test_any_string_gets_finite_vectors(embedders, text, tokenized):
    embedder = embedders[tokenized]
    vectors = embedder.embed(text, layers="all")
    assert vectors.dtype == np.float32
    assert vectors.shape == (N_LAYERS, len(embedder.words(text)), DIM)
    assert np.isfinite(vectors).all()


@settings(max_examples=100)
@given(st.lists(any_string.map(lambda text: "".join(text.split())), max_size=5))
@example(["", "\0", "\ud800"])
def test_any_words_get_a_vector_each(embedders, words):
    vectors = embedders[True].embed([words])[0]
    assert vectors.shape == (len(words), DIM)
    assert np.isfinite(vectors).all()


@pytest.mark.slow
def test_a_line_of_50_mb_is_prepared(tmp_path):
    text = tmp_path / "long.txt"
    text.write_bytes(b"the river bank was steep . " * 2_000_000 + b"\na bank .\n")
    assert text.stat().st_size > 50_000_000
    parameters = small_parameters(tmp_path, text=str(text), heldout_fraction=None)
    corpus = prepare_corpus(parameters)
    assert np.diff(corpus.train.bounds).tolist() == [12_000_000, 3]
    assert len(corpus.vocabulary) == 3 + 6


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_that_is_too_long_is_refused_early(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(sources, "MAX_LINE_BYTES", 3_000_000)
    text = tmp_path / ("text.gz" if packed else "text.txt")
    content = b"a bank .\n" + b"b" * 3_000_000 + b"\n" + b"c " * 1_600_000
    text.write_bytes(gzip.compress(content) if packed else content)
    parameters = small_parameters(tmp_path, text=str(text), heldout_fraction=None)
    with pytest.raises(
        TextError, match=r"line 3: the line has more than 3,000,000 bytes"
    ) as caught:
        prepare_corpus(parameters)
    assert is_one_sentence(caught.value)
    text.write_bytes(gzip.compress(content[:-200_001]) if packed else content[:-200_001])
    assert prepare_corpus(parameters).train.n_sentences == 3


def test_held_out_sentences_in_the_training_text_are_reported(tmp_path):
    text, heldout = tmp_path / "text.txt", tmp_path / "heldout.txt"
    text.write_text("the bank .\na river .\n")
    heldout.write_text("a boat .\na river .\n")
    parameters = small_parameters(
        tmp_path, text=str(text), heldout_text=str(heldout), heldout_fraction=None
    )
    with pytest.warns(UserWarning, match="1 of 2 sentences of heldout_text also occur in text"):
        prepare_corpus(parameters)


def test_a_vocabulary_file_of_special_words_is_refused(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("<S>\n</S>\n<UNK>\n")
    parameters = small_parameters(tmp_path, vocabulary_file=str(words), min_count=1)
    with pytest.raises(VocabularyError, match=r"words\.txt lists no words"):
        prepare_corpus(parameters)


def test_a_text_shorter_than_a_batch_says_what_to_lower(tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("the bank .\n")
    parameters = small_parameters(
        tmp_path, text=str(text), heldout_fraction=None, min_count=1, batch_size=4, unroll_steps=5
    )
    with pytest.raises(TrainingError, match="lower batch_size or unroll_steps") as caught:
        Training(parameters, prepare_corpus(parameters))
    assert is_one_sentence(caught.value)
    assert "batch_size 4 times unroll_steps 5" in str(caught.value)


def test_a_text_of_one_word_can_be_trained_on(tmp_path):
    text = tmp_path / "monotonous.txt"
    text.write_text("a a a a a a\na\n" * 10)
    parameters = small_parameters(
        tmp_path, text=str(text), heldout_fraction=None, min_count=1, n_negatives=None, epochs=5
    )
    training = Training(parameters, prepare_corpus(parameters))
    training.run()
    assert training.history[-1]["train_forward"] < 3
