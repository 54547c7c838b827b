"""Neighbours in context set beside those of word2vec."""

from __future__ import annotations

import numpy as np
import pytest
from small_corpus import made_up_sentences, small_parameters

from elmolib.bilm import BiLM
from elmolib.embedding import SentenceEncoder
from elmolib.errors import ParameterError
from elmolib.neighbours import beside_word2vec
from elmolib.word2vec import word2vec


def test_both_kinds_of_neighbours_are_those_of_brute_force(tmp_path):
    encoder = SentenceEncoder(BiLM(small_parameters(tmp_path).options, seed=2))
    sentences = [line.split() for line in made_up_sentences(30)]
    vectors = word2vec(sentences)
    query = ["the", "river", "bank", "was", "steep"]
    (found,) = beside_word2vec(encoder, [("bank", query)], sentences, vectors, n=4)

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


def test_a_word_that_is_not_in_its_sentence_is_named(tmp_path):
    encoder = SentenceEncoder(BiLM(small_parameters(tmp_path).options, seed=2))
    with pytest.raises(ParameterError, match="'sea' is no word of the sentence 'the bank'"):
        beside_word2vec(encoder, [("sea", ["the", "bank"])], [["a"]], word2vec([["a", "a"]]))
