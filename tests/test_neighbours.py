"""Neighbours in context and by word2vec, compared with a search by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from small_corpus import made_up_sentences, small_parameters

from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.keras_runtime import KerasRuntime
from elmolib.errors import ParameterError
from elmolib.explore import neighbours
from elmolib.explore.neighbours import (
    Nearest,
    Neighbour,
    Query,
    context_neighbours,
    embedded_lines,
    find_neighbours,
)
from elmolib.explore.word2vec import word2vec
from elmolib.model.bilm import BiLM


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> SentenceEncoder:
    parameters = small_parameters(tmp_path_factory.mktemp("model"))
    return SentenceEncoder(KerasRuntime(BiLM(parameters.architecture, seed=2)))


def test_both_kinds_of_neighbours_are_those_of_brute_force(encoder):
    sentences = [line.split() for line in made_up_sentences(30)]
    vectors = word2vec(sentences)
    query = ["the", "river", "bank", "was", "steep"]
    lines = embedded_lines(encoder, sentences)
    (found,) = context_neighbours(encoder, [("bank", query)], lines, vectors, n=4)

    wanted = encoder.encode([query])[0][-1, 2]
    pool = []
    for words, layers in zip(sentences, encoder.encode(sentences), strict=True):
        for position, vector in enumerate(layers[-1]):
            lengths = np.linalg.norm(wanted) * np.linalg.norm(vector)
            pool.append((float(wanted @ vector / lengths), tuple(words), position))
    best = sorted({(*place, round(cosine, 6)) for cosine, *place in pool}, key=lambda p: -p[2])[:4]
    assert [neighbour.similarity for neighbour in found.in_context] == pytest.approx(
        [cosine for *_, cosine in best], abs=1e-5
    )
    for neighbour in found.in_context:
        assert neighbour.sentence[neighbour.position] == neighbour.word
    assert found.word2vec == vectors.most_similar("bank", topn=4)


@pytest.mark.parametrize("words_at_once", [1, 5, 2**13])
@pytest.mark.parametrize("n", [1, 4, 100])
def test_different_words_are_those_of_brute_force(monkeypatch, words_at_once, n):
    monkeypatch.setattr(neighbours, "WORDS_AT_ONCE", words_at_once)
    generator = np.random.default_rng(words_at_once)
    sentences = [line.split() for line in dict.fromkeys(made_up_sentences(20))]
    lines = [(words, generator.normal(size=(len(words), 4))) for words in sentences]
    queries = [Query(words, 0, vectors[0]) for words, vectors in lines[:3]]
    found = find_neighbours(queries, lines, n, different_words=True)
    for query, nearest in zip(queries, found, strict=True):
        best: dict[str, float] = {}
        for words, vectors in lines:
            for position, (word, vector) in enumerate(zip(words, vectors, strict=True)):
                lengths = np.linalg.norm(query.vector) * np.linalg.norm(vector)
                cosine = float(query.vector @ vector / lengths)
                if (words, position) != (query.sentence, 0):
                    best[word] = max(best.get(word, -1), cosine)
        expected = sorted(best.items(), key=lambda item: -item[1])[:n]
        assert [each.word for each in nearest] == [word for word, _ in expected]
        assert [each.similarity for each in nearest] == pytest.approx([c for _, c in expected])
    assert find_neighbours([], lines, n) == []


def test_a_word_that_is_not_in_its_sentence_is_named(encoder):
    message = "'sea' is not a word or position of the sentence 'the bank'"
    with pytest.raises(ParameterError, match=message):
        context_neighbours(encoder, [("sea", ["the", "bank"])], [], word2vec([["a", "a"]]))


def test_neighbours_are_laid_out_side_by_side():
    words = ["the", "north", "shore", "is", "rocky"]
    nearest = Nearest(
        "bank", [Neighbour("shore", 0.912, words, 2)], [("money", 0.8), ("till", 0.7)]
    )
    assert nearest.table().to_numpy().tolist() == [
        ["money", 0.8, 0.91, "the north", "shore", "is rocky"],
        ["till", 0.7, "", "", "", ""],
    ]
    empty = Nearest("bank", [], []).table()
    assert len(empty) == 0
    long = Neighbour("w", 0.5, ["x" * 50, "w", "y" * 50], 1)
    (row,) = Nearest("bank", [long], []).table().to_numpy()
    assert (len(row[3]), len(row[5])) == (42, 42)
