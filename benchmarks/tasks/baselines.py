"""Baselines that give vectors to words: word2vec, and an ELMo without training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
from gensim.models import KeyedVectors

from elmolib.corpus.prepared import PreparedCorpus
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.keras_runtime import KerasRuntime
from elmolib.explore.word2vec import word2vec
from elmolib.model.bilm import BiLM
from elmolib.settings.architecture import Architecture

CORPUS_EPOCHS = 5
"""Epochs of word2vec on a prepared corpus; 5 is also gensim's default."""

SENTENCES_AT_ONCE = 4096


class Word2VecEmbedder:
    """Word2vec vectors with the interface of an ELMo of one layer.

    Args:
        vectors: the vectors of the known words. An unknown word gets the vector of its lower-case
            form, or zeros if the lower-case form is unknown too.

    Example:
        >>> embedder = Word2VecEmbedder(word2vec(sentences))
        >>> ((place, layers),) = embedder.encode_each([["The", "river", "bank"]])
        >>> layers.shape
        (1, 3, 100)
    """

    def __init__(self, vectors: KeyedVectors) -> None:
        self._rows = vectors.key_to_index
        zeros = np.zeros((1, vectors.vector_size), np.float32)
        self._table = np.concatenate([vectors.vectors, zeros])

    def encode_each(self, sentences: Sequence[Sequence[str]]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each sentence's index and its float32 array `(1, n_words, dim)`."""
        for place, words in enumerate(sentences):
            rows = [self._rows.get(word, self._rows.get(word.lower(), -1)) for word in words]
            yield place, self._table[np.array(rows, np.int64)][np.newaxis]


def word2vec_of_corpus(
    corpus: PreparedCorpus, dim: int, cache: Path | None = None, seed: int = 1, threads: int = 1
) -> Word2VecEmbedder:
    """Train word2vec on the training text of a biLM, or read it from the cache.

    Args:
        corpus: the prepared text, which is read `CORPUS_EPOCHS` times.
        dim: the number of features of a vector; a biLM's layer has `2 * projection_dim`.
        cache, seed, threads: the same as for `word2vec`.
    """
    n_words = CORPUS_EPOCHS * corpus.train.n_words
    return Word2VecEmbedder(word2vec(_TrainingText(corpus), cache, dim, n_words, seed, threads))


class _TrainingText:
    """The words of all training sentences of a corpus; each iteration starts from the first."""

    def __init__(self, corpus: PreparedCorpus) -> None:
        self._split = corpus.train
        self._words = np.array(corpus.lexicon.words(np.arange(len(corpus.lexicon))), object)

    def __iter__(self) -> Iterator[list[str]]:
        for first in range(0, self._split.n_sentences, SENTENCES_AT_ONCE):
            bounds = self._split.bounds[first : first + SENTENCES_AT_ONCE + 1]
            words = self._words[self._split.ids[bounds[0] : bounds[-1]]].tolist()
            for start, end in itertools.pairwise((bounds - bounds[0]).tolist()):
                yield words[start:end]


def untrained_encoder(architecture: Architecture, seed: int = 0) -> SentenceEncoder:
    """Make an ELMo with random weights; a comparison with it shows what training adds."""
    keras.utils.set_random_seed(seed)
    return SentenceEncoder(KerasRuntime(BiLM(architecture, seed=seed)))
