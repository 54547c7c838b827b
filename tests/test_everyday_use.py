"""The most used methods of an embedder, compared with plain arithmetic."""

from __future__ import annotations

import errno
import itertools
import os
from contextlib import nullcontext
from pathlib import Path

import gensim.models
import numpy as np
import pytest
from small_corpus import small_parameters
from small_disk import limited_files
from small_models import TINY, random_arrays

from elmolib import plots
from elmolib.elmo import ELMo, ElmoEmbedder
from elmolib.embedding.onnx_file import write_onnx
from elmolib.errors import CorpusError, ElmolibError, ParameterError, WeightsError
from elmolib.explore import neighbours
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model, write_published
from elmolib.scoring import perplexity as scoring
from elmolib.scoring import prediction
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import SPECIAL_WORDS, Vocabulary

DIM = 2 * TINY.projection_dim
WORDS = [*SPECIAL_WORDS, "the", "bank", "river", "was", "steep", ".", "money", "deep"]
VOCABULARY = Vocabulary(WORDS)
SENTENCE = "the river bank was unknown ."


def write(path: Path, vocabulary: Vocabulary | None = VOCABULARY, seed: int = 0) -> Path:
    arrays = random_arrays(TINY, len(vocabulary) if vocabulary else None, seed)
    write_model(path, StoredModel(TINY, arrays, vocabulary, Tokenizer(tokenized=True)))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "elmo.h5")


@pytest.fixture(scope="module")
def embedder(weights) -> ElmoEmbedder:
    return ElmoEmbedder(weights)


# --- Vectors of sentences


@pytest.mark.parametrize("layers", ["average", "top", 0, 1])
@pytest.mark.parametrize(("pooling", "by_hand"), [("mean", np.mean), ("max", np.max)])
def test_a_sentence_vector_pools_those_of_its_words(embedder, layers, pooling, by_hand):
    sentences = ["the river bank .", "", "money", ["deep", "river"]]
    vectors = embedder.embed_sentences(sentences, layers, pooling)
    assert (vectors.shape, vectors.dtype) == ((4, DIM), np.float32)
    for i in (0, 2, 3):
        of_words = embedder.embed(sentences, layers)[i]
        np.testing.assert_allclose(vectors[i], by_hand(of_words, axis=0), atol=1e-6)
    np.testing.assert_array_equal(vectors[1], np.zeros(DIM))


def test_one_string_has_one_vector_and_no_sentences_have_none(embedder):
    alone = embedder.embed_sentences("the river bank .")
    assert alone.shape == (DIM,)
    np.testing.assert_allclose(embedder.embed_sentences(["the river bank ."])[0], alone, atol=1e-6)
    assert embedder.embed_sentences([]).shape == (0, DIM)
    unit = embedder.embed_sentences(["the bank", ""], normalize=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), [1, 0], atol=1e-6)


def test_sentences_and_words_in_them_are_compared_by_cosine(embedder):
    a, b = "the river bank was deep", "the bank was money"
    u, v = embedder.embed([a, b], layers=1)

    def cosine(x, y):
        return x @ y / np.linalg.norm(x) / np.linalg.norm(y)

    assert embedder.similarity(a, b, layers=1) == pytest.approx(
        cosine(u.mean(axis=0), v.mean(axis=0)), abs=1e-6
    )
    by_word = embedder.similarity(a, b, words=("bank", "bank"), layers=1)
    assert by_word == pytest.approx(cosine(u[2], v[1]), abs=1e-6)
    assert embedder.similarity(a, b, words=(2, "bank"), layers=1) == by_word
    assert embedder.similarity(a, a.split()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda e: e.embed_sentences(["a"], pooling="sum"), "pooling must be 'mean' or 'max'"),
        (lambda e: e.embed_sentences(["a"], layers="all"), "embed_sentences needs a single layer"),
        (lambda e: e.embed_sentences(["a", 1]), "sentence 1 must be a string or a list"),
        (lambda e: e.similarity("a", " "), "sentence b has no words to compare"),
        (lambda e: e.similarity("a", "b", layers="all"), "similarity needs a single layer"),
        (
            lambda e: e.similarity("a", "b", words=("a", "c")),
            "'c' is not a word or position of.*'b'",
        ),
        (lambda e: e.similarity("a", "b", words=(0, 1)), "1 is not a word or position of"),
        (lambda e: e.predict("a", top_k=0), "top_k must be a whole number of at least 1, not 0"),
        (lambda e: e.predict(7), "sentence 0 must be a string or a list of words"),
        (lambda e: e.nearest("b", "a", ["a"]), "'b' is not a word or position of"),
        (lambda e: e.nearest("a", "a", ["a"], k=True), "k must be a whole number"),
        (lambda e: e.nearest("a", "a", ["a"], layers=9), "layers must be"),
    ],
)
def test_a_mistake_is_one_sentence(embedder, use, message):
    with pytest.raises(ParameterError, match=message):
        use(embedder)


# --- The language models


def distributions(weights: Path, words: list[str]) -> list[np.ndarray]:
    """Forward and backward probabilities (n_words + 1, vocabulary), in float64."""
    arrays = read_model(weights).arrays
    top = ElmoEmbedder(weights)._encoder.encode([words], boundaries=True)[0][-1].astype(np.float64)
    found = []
    for outputs in (top[:-1, : DIM // 2], top[1:, DIM // 2 :]):
        exponentials = np.exp(
            outputs @ arrays["softmax/W"].T.astype(np.float64) + arrays["softmax/b"]
        )
        found.append(exponentials / exponentials.sum(axis=1, keepdims=True))
    return found


@pytest.mark.parametrize("logits", [2**24, 1])
def test_each_direction_predicts_its_most_probable_words(embedder, weights, monkeypatch, logits):
    monkeypatch.setattr(prediction, "BLOCK", logits)
    words = SENTENCE.split()
    predicted = embedder.predict(SENTENCE, top_k=4)
    forward, backward = distributions(weights, words)
    assert predicted.sentence == words
    for expected, probabilities in (
        (predicted.forward, forward),
        (predicted.backward, backward[1:]),
    ):
        assert expected.probabilities.shape == (6, 4)
        for i in range(6):
            best = np.argsort(-probabilities[i])[:4]
            assert expected.words[i] == [WORDS[j] for j in best]
            np.testing.assert_allclose(expected.probabilities[i], probabilities[i, best], rtol=1e-4)


def test_substitutes_fit_both_sides_and_are_other_words(embedder, weights):
    words = SENTENCE.split()
    forward, backward = distributions(weights, words)
    substitutes = embedder.predict(SENTENCE, top_k=5).substitutes
    for i, word in enumerate(words):
        products = {w: forward[i, j] * backward[i + 1, j] for j, w in enumerate(WORDS) if j > 2}
        total = sum(products.values())
        ranked = sorted((w for w in products if w != word), key=lambda w: -products[w])[:5]
        assert substitutes.words[i] == ranked
        np.testing.assert_allclose(
            substitutes.probabilities[i], [products[w] / total for w in ranked], rtol=1e-4
        )


def test_the_table_has_a_row_for_each_direction_and_one_for_both(embedder):
    predicted = embedder.predict("the bank", top_k=2)
    table = predicted.table()
    assert list(table.index) == ["forward", "backward", "substitutes"]
    assert list(table.columns) == ["the", "bank"]
    first, second = predicted.substitutes.words[1]
    p, q = predicted.substitutes.probabilities[1]
    assert table.loc["substitutes", "bank"] == f"{first} {p:.0%} | {second} {q:.0%}"


def test_top_k_may_exceed_the_vocabulary_and_sentences_may_be_empty(embedder):
    predicted = embedder.predict("the bank", top_k=1000)
    assert predicted.forward.probabilities.shape == (2, len(WORDS))
    np.testing.assert_allclose(predicted.forward.probabilities.sum(axis=1), 1, atol=1e-5)
    assert predicted.substitutes.probabilities.shape == (2, len(WORDS) - 4)
    assert not set(SPECIAL_WORDS) & {w for row in predicted.substitutes.words for w in row}
    nothing = embedder.predict("", top_k=3)
    assert nothing.forward.words == nothing.substitutes.words == []
    assert nothing.backward.probabilities.shape == (0, 3)


@pytest.mark.parametrize("sentence", [SENTENCE, "bank"])
def test_a_sentence_is_as_probable_as_scoring_its_file_says(embedder, weights, tmp_path, sentence):
    (tmp_path / "one.txt").write_text(sentence + "\n")
    scored = scoring.perplexity(weights, tmp_path / "one.txt")
    found = embedder.sentence_log_prob(sentence)
    assert found.n_targets == scored.n_targets == len(sentence.split()) + 1
    for direction in ("forward", "backward", "mean"):
        perplexity = np.exp(-getattr(found, direction) / found.n_targets)
        assert perplexity == pytest.approx(getattr(scored, direction), rel=1e-5)


def test_a_sentence_is_as_probable_as_its_words_and_its_end(embedder, weights):
    words = SENTENCE.split()
    ids = [VOCABULARY[word] for word in words]
    forward, backward = distributions(weights, words)
    found = embedder.sentence_log_prob(SENTENCE)
    assert found.forward == pytest.approx(
        sum(np.log(forward[i, j]) for i, j in enumerate([*ids, 1])), rel=1e-5
    )
    assert found.backward == pytest.approx(
        sum(np.log(backward[i, j]) for i, j in enumerate([0, *ids])), rel=1e-5
    )
    assert found.mean == pytest.approx((found.forward + found.backward) / 2)


def test_the_softmax_is_read_on_first_use_and_changes_no_vector(weights):
    embedder = ElmoEmbedder(weights)
    before = embedder.embed(SENTENCE, layers="all")
    embedder.embed([SENTENCE], carry_state=True)
    carried = [part.copy() for part in embedder._encoder.state]
    assert embedder._softmax is None
    embedder.predict(SENTENCE)
    assert len(embedder._softmax.W) == len(VOCABULARY)
    np.testing.assert_array_equal(embedder.embed(SENTENCE, layers="all"), before)
    for part, kept in zip(carried, embedder._encoder.state, strict=True):
        np.testing.assert_array_equal(part, kept)


@pytest.mark.parametrize("what", ["softmax", "vocabulary"])
@pytest.mark.parametrize("use", ["predict", "sentence_log_prob"])
def test_a_file_without_the_language_model_says_so(tmp_path, weights, what, use):
    if what == "softmax":
        path = write(tmp_path / "bare.h5", vocabulary=None)
    else:
        write_published(path := tmp_path / "published", read_model(weights))
        (path / "vocab.txt").unlink()
        import h5py

        with h5py.File(path / "weights.hdf5", "r+") as file:
            del file["vocabulary"]
    with pytest.raises(
        WeightsError, match="has no softmax with its vocabulary, so it cannot predict"
    ):
        getattr(ElmoEmbedder(path), use)("the bank")


def test_a_file_that_changed_since_it_was_loaded_is_refused(tmp_path):
    embedder = ElmoEmbedder(write(tmp_path / "elmo.h5"))
    write(tmp_path / "elmo.h5", seed=1)
    with pytest.raises(WeightsError, match=r"elmo\.h5 has changed since it was loaded"):
        embedder.predict("the bank")


def test_a_loaded_elmo_predicts_if_its_file_has_a_softmax(weights, tmp_path, embedder):
    elmo = object.__new__(ELMo)
    elmo.load_pretrained_elmo(weights)
    assert elmo.predict(SENTENCE).forward.words == embedder.predict(SENTENCE).forward.words
    elmo.load_pretrained_elmo(write(tmp_path / "bare.h5", vocabulary=None))
    with pytest.raises(WeightsError, match=r"bare\.h5 has no softmax with its vocabulary"):
        elmo.predict(SENTENCE)


# --- Neighbours


LINES = [
    "the river bank was steep .",
    "",
    "money was deep in the bank",
    "the river bank was steep .",
    "the bank was deep",
    "deep river .",
]


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


def by_brute_force(embedder, sentence: str, position: int, layers) -> list[tuple]:
    """All occurrences of other words in the text, by descending cosine similarity."""
    query = embedder.embed(sentence, layers)[position]
    found = {}
    for line in LINES:
        vectors = embedder.embed(line, layers)
        for i, vector in enumerate(vectors):
            if (line, i) != (sentence, position):
                cosine = vector @ query / np.linalg.norm(vector) / np.linalg.norm(query)
                found[line, i] = float(cosine)
    return sorted(found.items(), key=lambda item: -item[1])


@pytest.mark.parametrize("words_at_once", [1, 4, 2**13])
@pytest.mark.parametrize(
    ("stored", "asked"),
    [("list", 1), ("all", 1), ("top", "top"), ("top", 2), ("average", "average")],
)
def test_neighbours_in_context_are_those_of_brute_force(
    embedder, tmp_path, text, monkeypatch, words_at_once, stored, asked
):
    monkeypatch.setattr(neighbours, "WORDS_AT_ONCE", words_at_once)
    corpus = LINES if stored == "list" else embedder.embed_corpus(text, tmp_path / "c.h5", stored)
    for k, sentence in itertools.product((1, 3, 7, 1000), (LINES[0], "a steep bank")):
        nearest = embedder.nearest("bank", sentence, corpus, k, layers=asked)
        position = sentence.split().index("bank")
        expected = by_brute_force(embedder, sentence, position, asked)[:k]
        assert nearest.word == "bank"
        assert len(nearest.in_context) == len(expected)
        for neighbour, ((line, i), cosine) in zip(nearest.in_context, expected, strict=True):
            assert (neighbour.sentence, neighbour.position) == (line.split(), i)
            assert neighbour.word == line.split()[i]
            assert neighbour.similarity == pytest.approx(cosine, abs=1e-5)


def test_word2vec_is_trained_on_the_same_text_once(embedder, tmp_path, text, monkeypatch):
    corpus = embedder.embed_corpus(text, tmp_path / "c.h5", "top")
    first = embedder.nearest("bank", LINES[0], corpus, k=3).word2vec
    (cache,) = tmp_path.glob("c.h5.*.word2vec.bin")
    vectors = gensim.models.KeyedVectors.load_word2vec_format(str(cache), binary=True)
    assert set(vectors.key_to_index) == {"the", "bank", "river", "was", "steep", ".", "deep"}
    assert first == vectors.most_similar("bank", topn=3)
    assert embedder.nearest("bank", LINES[0], LINES, k=3).word2vec == first
    monkeypatch.setattr("elmolib.explore.word2vec.Word2Vec", None)
    assert embedder.nearest("bank", "a steep bank", corpus, k=3).word2vec == first
    assert embedder.nearest("money", "money", corpus).word2vec == [], "'money' occurs only once"
    cache.write_bytes(b"broken")
    with pytest.raises(CorpusError, match=r"word2vec\.bin is damaged"):
        embedder.nearest("bank", LINES[0], corpus)


@pytest.mark.parametrize("place", ["full", "read-only"])
def test_neighbours_are_found_where_nothing_can_be_written(
    embedder, tmp_path, text, monkeypatch, place
):
    folder = tmp_path / "vectors"
    corpus = embedder.embed_corpus(text, folder / "c.h5", "top")
    expected = embedder.nearest("bank", LINES[0], LINES, k=3)
    if place == "read-only":
        # Tests may run as root, who can write everywhere, so simulate the error of the system.
        monkeypatch.setattr(Path, "touch", refuse)
    told = pytest.warns(UserWarning, match=r"word2vec\.bin could not be written \(")
    with limited_files(64) if place == "full" else nullcontext(), told:
        found = embedder.nearest("bank", LINES[0], corpus, k=3)
    assert found.word2vec == expected.word2vec
    assert [each.sentence for each in found.in_context] == [
        each.sentence for each in expected.in_context
    ]
    assert [path.name for path in folder.iterdir()] == ["c.h5"]


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize(
    "write",
    [
        lambda e, weights, folder: e.to_projector(folder, ["a steep bank"]),
        lambda e, weights, folder: small_parameters(folder.parent).to_yaml(folder / "p.yaml"),
        lambda e, weights, folder: plots.save(e.heatmap("a steep bank"), folder / "p.png"),
        lambda e, weights, folder: e.embed_corpus(folder.parent / "text.txt", folder / "v.h5"),
        lambda e, weights, folder: write_model(folder / "elmo.h5", read_model(weights)),
        lambda e, weights, folder: write_published(folder, read_model(weights)),
        lambda e, weights, folder: write_onnx(folder / "elmo.onnx", read_model(weights)),
    ],
    ids=["projector", "yaml", "picture", "vectors", "model", "published", "onnx"],
)
def test_what_writes_says_in_a_sentence_that_it_cannot(embedder, weights, tmp_path, write):
    small_parameters(tmp_path)
    folder = tmp_path / "out"
    refused = pytest.raises(ElmolibError, match=r"out.* could not be written \(File too large\)")
    with limited_files(64), refused as caught:
        write(embedder, weights, folder)
    assert "\n" not in str(caught.value)
    assert not [*folder.rglob("*")]


def test_neighbours_are_printed_with_their_sentences(embedder):
    printed = str(embedder.nearest("bank", "the steep bank", ["the deep bank", "river"], k=9))
    assert printed.startswith("bank by word2vec: (too rare)\nbank in context:\n")
    assert "the deep [bank]" in printed
    assert "[river]" in printed


def test_vectors_of_another_model_or_layer_are_not_searched(embedder, tmp_path, text):
    corpus = embedder.embed_corpus(text, tmp_path / "c.h5", "top")
    with pytest.raises(CorpusError, match="holds the layers 'top', not 1"):
        embedder.nearest("bank", LINES[0], corpus, layers=1)
    other = ElmoEmbedder(write(tmp_path / "other.h5", seed=1))
    with pytest.raises(CorpusError, match=r"c\.h5 was made with another model"):
        other.nearest("bank", LINES[0], corpus)


# --- The Embedding Projector


def test_the_projector_gets_a_row_of_numbers_and_a_label_for_each_word(embedder, tmp_path):
    sentences = ["the river bank .", "", ["a", "b", "\ud800"]]
    vectors_path, metadata_path = embedder.to_projector(tmp_path / "p", sentences, layers=1)
    rows = np.loadtxt(vectors_path, delimiter="\t")
    expected = np.concatenate(embedder.embed(sentences, layers=1))
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    labels = [line.split("\t") for line in metadata_path.read_text().split("\n")]
    assert labels == [
        ["word", "position", "sentence"],
        *(
            [word, str(i), "the river bank ."]
            for i, word in enumerate(["the", "river", "bank", "."])
        ),
        *([word, str(i), "a b \ufffd"] for i, word in enumerate(["a", "b", "\ufffd"])),
        [""],
    ]
    assert (vectors_path.name, metadata_path.name) == ("vectors.tsv", "metadata.tsv")
