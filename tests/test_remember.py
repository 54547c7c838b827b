"""Remembered words are not computed again, and belong to the weights of their model."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from small_models import TINY, random_arrays

from elmolib import ElmoEmbedder
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.words import WordVectors
from elmolib.errors import CorpusError, ParameterError, WeightsError
from elmolib.formats.weights import StoredModel, write_model

SENTENCE = ["the", "river", "bank", "the", "Straße"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(tmp_path / "elmo.h5")


def stored(path: Path, seed: int = 0) -> Path:
    write_model(path, StoredModel(TINY, random_arrays(TINY, seed=seed)))
    return path


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of all words whose vectors are computed."""
    words: list[str] = []
    compute = WordVectors._compute

    def noted(self, missing):
        words.extend(missing)
        return compute(self, missing)

    monkeypatch.setattr(WordVectors, "_compute", noted)
    return words


@pytest.mark.parametrize("runtime", ["numpy", "onnx", "tensorflow"])
def test_only_other_words_are_computed(model: Path, computed: list[str], runtime: str) -> None:
    expected = ElmoEmbedder(model, runtime=runtime).embed([SENTENCE], "all")[0]
    embedder = ElmoEmbedder(model, runtime=runtime)
    embedder.remember(["the", "bank", "the", "Straße", "money"])
    for each in (embedder, ElmoEmbedder(model, runtime=runtime), copy.copy(embedder)):
        for _ in range(2):
            computed.clear()
            each.encoder.forget_words()
            np.testing.assert_allclose(each.embed([SENTENCE], "all")[0], expected, atol=1e-5)
            assert sorted(computed) == ["</S>", "<S>", "river"]
    computed.clear()
    unpickled = pickle.loads(pickle.dumps(embedder))
    np.testing.assert_array_equal(unpickled.embed([SENTENCE]), embedder.embed([SENTENCE]))
    assert sorted(set(computed)) == ["</S>", "<S>", "river"]


def test_new_words_replace_earlier_ones(model: Path, computed: list[str]) -> None:
    embedder = ElmoEmbedder(model)
    embedder.remember(["the"])
    embedder.remember(["river"])
    computed.clear()
    embedder.embed([["the", "river"]])
    assert "the" in computed and "river" not in computed
    embedder.remember([])
    embedder.encoder.forget_words()
    embedder.embed([["the", "river"]])
    assert "river" in computed
    with pytest.raises(ParameterError, match="'two words' holds white space|'two words' contains"):
        embedder.remember(["two words"])


@pytest.mark.parametrize("size", [0, 1, 3, 100])
def test_a_small_cache_changes_no_vector(model: Path, size: int) -> None:
    embedder = ElmoEmbedder(model)
    expected = embedder.embed([SENTENCE], "all")[0]
    embedder.remember(SENTENCE)
    encoder = embedder.encoder
    small = SentenceEncoder(encoder.runtime, cache_words=size, remembered=encoder.remembered)
    for _ in range(2):
        for words in (SENTENCE, ["a", "b", "c", "d"], SENTENCE):
            (found,) = small.encode([words])
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_other_weights_do_not_use_them_and_damage_is_named(model: Path) -> None:
    embedder = ElmoEmbedder(model)
    embedder.remember(SENTENCE)
    (file,) = model.parent.glob("elmo.h5.*.words")
    assert ElmoEmbedder(stored(model, seed=1)).encoder.remembered is None
    stored(model)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"\.words is damaged: remove it, and compute it again"):
        ElmoEmbedder(model)


def test_a_file_of_vectors_is_not_resumed_with_other_words(model: Path, tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "v.h5"
    text.write_text("the river\n")
    embedder = ElmoEmbedder(model)
    embedder.remember(["the"])
    embedder.embed_corpus(text, out, progress=False)
    ElmoEmbedder(model).embed_corpus(text, out, progress=False)
    embedder.remember(["river"])
    with pytest.raises(CorpusError, match="was made with another words"):
        embedder.embed_corpus(text, out, progress=False)
