"""Occurrences of one word in many sentences, their groups, and the similarity of their vectors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_corpus import made_up_sentences, small_parameters

from elmolib.corpus.prepare import prepare_corpus
from elmolib.embedding.cosine import mean_similarity
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.keras_runtime import KerasRuntime
from elmolib.errors import CorpusError
from elmolib.explore.occurrences import (
    Occurrences,
    in_two_dimensions,
    occurrences,
    self_similarity,
    senses,
    spread_words,
)
from elmolib.model.bilm import BiLM


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    parameters = small_parameters(tmp_path_factory.mktemp("text"), heldout_fraction=None)
    return prepare_corpus(parameters)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    parameters = small_parameters(tmp_path_factory.mktemp("model"))
    return SentenceEncoder(KerasRuntime(BiLM(parameters.architecture, seed=1)))


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def test_every_occurrence_of_a_word_is_found_with_its_vectors(corpus, encoder):
    sentences = [line.split() for line in made_up_sentences(150)]
    wanted = [(s, i) for s in sentences for i, word in enumerate(s) if word == "bank"]
    found = occurrences(encoder, corpus, "bank", n=1000)
    assert list(zip(found.sentences, found.positions, strict=True)) == wanted
    for place in (0, len(wanted) - 1):
        sentence, position = wanted[place]
        (layers,) = encoder.encode([sentence])
        np.testing.assert_allclose(found.vectors[:, place], layers[:, position], atol=1e-6)


def test_few_occurrences_are_spread_over_the_text(corpus, encoder):
    every = occurrences(encoder, corpus, "the", n=10_000)
    few = occurrences(encoder, corpus, "the", n=5)
    assert len(few.positions) == 5
    assert few.sentences[0] == every.sentences[0]
    assert few.sentences[-1] in every.sentences[len(every.sentences) // 2 :]


@pytest.mark.parametrize("word", ["zebra", "<UNK>", "</S>"])
def test_a_word_outside_the_vocabulary_is_named(corpus, encoder, word):
    with pytest.raises(CorpusError, match=f"'{word}' is not in the vocabulary"):
        occurrences(encoder, corpus, word)


def test_an_occurrence_is_shown_with_the_words_around_it():
    sentences = [["a", "b", "c", "d", "e", "f", "g"], ["d"]]
    found = Occurrences("d", sentences, [3, 0], np.zeros((1, 2, 2)))
    assert found.snippet(0, around=1) == "… c d e …"
    assert found.snippet(0) == "a b c d e f g"
    assert found.snippet(1) == "d"


def test_groups_far_apart_are_found_whatever_the_lengths_of_their_vectors():
    generator = np.random.default_rng(0)
    centres = np.eye(3, 8)
    true = np.repeat([0, 1, 2], [5, 20, 10])
    vectors = centres[true] + 0.05 * generator.normal(size=(35, 8))
    found = senses(vectors * generator.uniform(0.1, 10, (35, 1)), n_groups=3)
    assert np.bincount(found.labels).tolist() == [20, 10, 5]
    for group, center in ((0, 1), (1, 2), (2, 0)):
        assert set(true[found.labels == group]) == {center}
        assert true[found.examples[group]] == center


def test_no_more_groups_than_different_vectors():
    found = senses(np.ones((4, 3)), n_groups=3)
    assert found.labels.tolist() == [0, 0, 0, 0]
    assert len(found.examples) == 1


def test_a_map_keeps_as_much_of_the_differences_as_a_plane_can():
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(40, 6)) * [5, 3, 1, 1, 0.5, 0.1]
    points = in_two_dimensions(vectors)
    variances = np.sort(np.linalg.eigvalsh(np.cov(vectors.T)))[::-1]
    np.testing.assert_allclose(points.var(axis=0, ddof=1), variances[:2], rtol=1e-10)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-12)


@given(st.integers(1, 4), st.integers(1, 3))
def test_a_map_of_few_vectors_does_not_depend_on_their_mean(n, dim):
    vectors = np.random.default_rng(n).normal(size=(n, dim))
    points = in_two_dimensions(vectors)
    assert points.shape == (n, 2)
    assert np.isfinite(points).all()
    np.testing.assert_allclose(in_two_dimensions(vectors + 7.0), points, atol=1e-8)


@given(st.integers(2, 9))
def test_mean_similarity_is_the_mean_over_all_pairs(n):
    vectors = np.random.default_rng(n).normal(size=(n, 5)).astype(np.float32)
    pairs = [cosine(x, y) for x, y in itertools.combinations(vectors, 2)]
    assert mean_similarity(vectors) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_self_similarity_is_the_mean_cosine_of_a_word_above_that_of_random_words(corpus, encoder):
    measured = self_similarity(encoder, corpus, ["bank", "river"], n=1000, n_random=50)
    for word in ("bank", "river"):
        vectors = occurrences(encoder, corpus, word, n=1000).vectors
        for layer, baseline in enumerate(measured.baseline):
            pairs = [cosine(x, y) for x, y in itertools.combinations(vectors[layer], 2)]
            assert measured.table.loc[word, layer] == pytest.approx(
                np.mean(pairs) - baseline, abs=1e-5
            )
    np.testing.assert_allclose(measured.table[0], 1 - measured.baseline[0], atol=1e-6)


def test_the_baseline_is_close_to_that_of_all_words(corpus, encoder):
    """A sample of random words has about the mean similarity of all pairs of words in the text."""
    layers = np.concatenate(encoder.encode([s.split() for s in made_up_sentences(150)]), axis=1)
    measured = self_similarity(encoder, corpus, ["bank"], n_random=150)
    for layer, baseline in enumerate(measured.baseline):
        assert baseline == pytest.approx(mean_similarity(layers[layer]), abs=0.1)


def test_words_are_chosen_from_the_most_frequent_to_rarer_ones(corpus):
    words = spread_words(corpus, n=5, min_count=2)
    counts = [corpus.lexicon.counts[corpus.vocabulary[word]] for word in words]
    assert words[0] == "the"
    assert counts == sorted(counts, reverse=True)
    assert min(counts) >= 2
    assert all(any(map(str.isalpha, word)) for word in words)
