"""The model in the package: it is small, needs no download, and distinguishes word senses."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from elmolib import ElmoEmbedder
from elmolib.formats.published import SHIPPED, fetch

PLACES = {
    "saw": (
        ["I saw him in the garden .", "They saw the ship .", "She saw nothing but the sea ."],
        ["He cut the wood with a saw .", "The saw was old .", "Give me the hammer and the saw ."],
    ),
    "left": (
        ["He left the house at noon .", "They left London for Paris .", "She left her mother ."],
        ["Turn to the left .", "On the left stood a tall tree .", "His left hand was wounded ."],
    ),
}
"""Sentences with a word in two senses."""


@pytest.fixture(scope="module")
def embedder() -> ElmoEmbedder:
    return ElmoEmbedder.from_pretrained("en-tiny")


def test_it_is_small_and_has_no_softmax():
    path = fetch("en-tiny")
    assert path == SHIPPED["en-tiny"]
    assert path.stat().st_size <= 8_000_000
    with h5py.File(path) as file:
        assert "softmax" not in file
        assert file["char_embed"].dtype == np.float16


def test_it_embeds_and_tokenizes(embedder):
    layers = embedder.get_elmo("The river bank was steep .")
    assert [layer.shape for layer in layers] == [(6, 256)] * 3
    assert embedder.words("Don't stop.") == ["Don't", "stop", "."]


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("word", PLACES)
def test_a_word_is_nearest_to_itself_in_the_same_sense(embedder, word, layer):
    sentences = [(sentence, sense) for sense in (0, 1) for sentence in PLACES[word][sense]]
    for sentence, sense in sentences:
        others = [pair for pair in sentences if pair[0] != sentence]
        similarities = [
            embedder.similarity(sentence, other, words=(word, word), layers=layer)
            for other, _ in others
        ]
        assert others[int(np.argmax(similarities))][1] == sense


def test_without_context_there_are_no_senses(embedder):
    seen, tool = (PLACES["saw"][sense][0] for sense in (0, 1))
    assert embedder.similarity(seen, tool, words=("saw", "saw"), layers=0) == pytest.approx(1)
