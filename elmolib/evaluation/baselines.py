"""What a trained ELMo has to beat: word2vec on the same text, and the same ELMo untrained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from gensim.models import KeyedVectors

from elmolib.bilm import BiLM
from elmolib.corpus import PreparedCorpus
from elmolib.embedding import SentenceEncoder
from elmolib.evaluation.vectors import Embedder
from elmolib.options import BiLMOptions
from elmolib.word2vec import word2vec

EPOCHS = 5
"""How often word2vec reads the text, which is gensim's own default."""

RADIUS = 5
"""As many words as word2vec itself looks at to either side, by gensim's default."""

_SENTENCES_AT_ONCE = 4096


class Word2VecEmbedder:
    """Vectors of words without their context, in the form in which an ELMo gives its own.

    Args:
        vectors: of the words; a word that has none takes that of its lower-case form, or else
            zeros.

    Example:
        >>> embedder = Word2VecEmbedder(word2vec(sentences))
        >>> ((place, layers),) = embedder.encode_each([["The", "river", "bank"]])
        >>> layers.shape
        (1, 3, 100)
    """

    def __init__(self, vectors: KeyedVectors) -> None:
        self._numbers = vectors.key_to_index
        zeros = np.zeros((1, vectors.vector_size), np.float32)
        self._table = np.concatenate([vectors.vectors, zeros])

    def encode_each(self, sentences: Sequence[Sequence[str]]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each sentence's place and its float32 array (1, words, dim)."""
        for place, words in enumerate(sentences):
            rows = np.array([self._row(word) for word in words], np.int64)
            yield place, self._table[rows][np.newaxis]

    def _row(self, word: str) -> int:
        row = self._numbers.get(word)
        return self._numbers.get(word.lower(), -1) if row is None else row


class Surroundings:
    """The mean vector of the words around each word, itself included.

    For vectors without context this is the plainest way to give them some.

    Args:
        embedder: of the words.
        radius: how many words to the left, and as many to the right, are taken.
    """

    def __init__(self, embedder: Embedder, radius: int = RADIUS) -> None:
        self._embedder = embedder
        self._radius = radius

    def encode_each(self, sentences: Sequence[Sequence[str]]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each sentence's place and its float32 array (layers, words, dim)."""
        for place, layers in self._embedder.encode_each(sentences):
            n_words = layers.shape[1]
            around = np.empty_like(layers)
            for k in range(n_words):
                first, end = max(0, k - self._radius), k + self._radius + 1
                around[:, k] = layers[:, first:end].mean(axis=1)
            yield place, around


def word2vec_of_corpus(
    corpus: PreparedCorpus, dim: int, cache: Path | None = None, seed: int = 1, threads: int = 1
) -> Word2VecEmbedder:
    """Train word2vec on the text that a biLM was trained on, or find it trained.

    Args:
        corpus: the prepared text, of which all training sentences are read `EPOCHS` times.
        dim: length of a vector; `2 * projection_dim` is that of a biLM's layer.
        cache: file to keep the vectors in, or to find them.
        seed: of all random choices; with several threads there remains some chance.
        threads: how many learn side by side.
    """
    sentences = _TrainingSentences(corpus)
    n_words = EPOCHS * corpus.train.n_words
    return Word2VecEmbedder(word2vec(sentences, cache, dim, n_words, seed, threads))


def untrained(options: BiLMOptions, seed: int = 0) -> SentenceEncoder:
    """Make an ELMo with random weights, all drawn as before a training.

    Args:
        options: its architecture.
        seed: of the weights.
    """
    import keras

    keras.utils.set_random_seed(seed)
    return SentenceEncoder(BiLM(options, seed=seed))


class _TrainingSentences:
    """The words of all training sentences, as often as they are asked for."""

    def __init__(self, corpus: PreparedCorpus) -> None:
        self._split = corpus.train
        self._words = np.array(corpus.lexicon.words(np.arange(len(corpus.lexicon))), object)

    def __iter__(self) -> Iterator[list[str]]:
        bounds = self._split.bounds
        for first in range(0, self._split.n_sentences, _SENTENCES_AT_ONCE):
            cuts = bounds[first : first + _SENTENCES_AT_ONCE + 1]
            words = self._words[self._split.ids[cuts[0] : cuts[-1]]].tolist()
            starts = (cuts - cuts[0]).tolist()
            for start, end in zip(starts[:-1], starts[1:], strict=True):
                yield words[start:end]
