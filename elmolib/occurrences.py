"""One word in many sentences: where it stands in a text, and how far context moves its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from elmolib.corpus import PreparedCorpus, Split
from elmolib.embedding import SentenceEncoder
from elmolib.errors import CorpusError
from elmolib.evaluation import sentences_of
from elmolib.similarity import mean_similarity, unit_length
from elmolib.vocabulary import SPECIAL_WORDS

AROUND = 4
"""Words on each side that show what a word means in a sentence."""


class Occurrences(NamedTuple):
    """The places where a word stands, and what every layer makes of it there.

    Attributes:
        word: the word.
        sentences: the words of the sentence around each place.
        positions: where the word stands in each.
        vectors: float32 (n_layers + 1, places, 2 * projection_dim).
    """

    word: str
    sentences: list[list[str]]
    positions: list[int]
    vectors: np.ndarray

    def snippet(self, place: int, around: int = AROUND) -> str:
        """Show a place with a few words on each side."""
        sentence, position = self.sentences[place], self.positions[place]
        start, end = max(0, position - around), position + around + 1
        before = "\N{HORIZONTAL ELLIPSIS} " if start > 0 else ""
        after = " \N{HORIZONTAL ELLIPSIS}" if end < len(sentence) else ""
        return before + " ".join(sentence[start:end]) + after


class Senses(NamedTuple):
    """Occurrences put into groups that lie close together in one layer.

    Attributes:
        labels: int32 (places,), the group of each, the largest group being 0.
        examples: for each group, the place nearest to its centre.
    """

    labels: np.ndarray
    examples: list[int]


class SelfSimilarity(NamedTuple):
    """How alike the vectors of a word are in all its sentences, above what chance alone gives.

    Attributes:
        table: float64, a row per word and a column per layer: the mean cosine of a word's vectors
            in different places, less the baseline of the layer.
        baseline: float64 (n_layers + 1,), the mean cosine of words drawn at random. Far above 0,
            it says that all vectors of that layer point roughly the same way.
    """

    table: pd.DataFrame
    baseline: np.ndarray


def occurrences(
    encoder: SentenceEncoder, corpus: PreparedCorpus, word: str, n: int = 300
) -> Occurrences:
    """Find a word in the training text, and embed the sentences around it.

    Args:
        encoder: of a model.
        corpus: a prepared text.
        word: one of its vocabulary.
        n: most places to take, spread evenly over the text; in a sentence with several, each
            counts.

    Returns:
        Occurrences: in the order of the text.

    Raises:
        CorpusError: the word is not in the vocabulary, or not in the training text.

    Example:
        >>> bank = occurrences(embedder.encoder, corpus, "bank")
        >>> bank.vectors.shape  # (n_layers + 1, places, 2 * projection_dim)
        (3, 15, 128)
    """
    ids = np.asarray(corpus.train.ids)
    places = np.flatnonzero(ids == _id_of(word, corpus))
    if not len(places):
        raise CorpusError(f"{word!r} does not stand in the training text of {corpus.path}.")
    places = places[np.arange(min(n, len(places))) * len(places) // min(n, len(places))]
    return Occurrences(word, *_embedded(encoder, corpus, places))


def senses(vectors: np.ndarray, n_groups: int = 3, seed: int = 0) -> Senses:
    """Put vectors of one word into groups by k-means, which may or may not be its senses.

    Args:
        vectors: float (places, dim), of one layer. Their directions count, not their lengths.
        n_groups: how many groups to make; fewer where there are fewer different vectors.
        seed: of the first centres.

    Returns:
        Senses: the group of each place, the largest first.

    References:
        Lloyd 1982, Least squares quantization in PCM.
    """
    units = unit_length(vectors)
    n_groups = min(n_groups, len(np.unique(units, axis=0)))
    found = KMeans(n_groups, n_init=10, random_state=seed).fit(units)
    by_size = np.argsort(-np.bincount(found.labels_), kind="stable")
    labels = np.argsort(by_size)[found.labels_].astype(np.int32)
    distances = found.transform(units)[:, by_size]
    examples = [
        int(min(np.flatnonzero(labels == group), key=lambda place: distances[place, group]))
        for group in range(n_groups)
    ]
    return Senses(labels, examples)


def in_two_dimensions(vectors: np.ndarray) -> np.ndarray:
    """Project vectors on the plane in which they differ most.

    Args:
        vectors: float (n, dim).

    Returns:
        float (n, 2), around 0. Each axis points to where the feature that counts most in it grows,
        so that the same vectors always give the same map.

    References:
        Principal components: Pearson 1901, On lines and planes of closest fit.
    """
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    heaviest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, np.newaxis], axis=1)
    plane = np.zeros((len(vectors), 2), vectors.dtype)
    plane[:, : len(axes)] = centred @ (axes * np.sign(heaviest)).T
    return plane


def self_similarity(
    encoder: SentenceEncoder,
    corpus: PreparedCorpus,
    words: Sequence[str],
    n: int = 100,
    n_random: int = 1000,
    seed: int = 0,
) -> SelfSimilarity:
    """Measure how much the vectors of words depend on their sentences, layer by layer.

    Args:
        encoder: of a model.
        corpus: a prepared text.
        words: of its vocabulary, each at least twice in the training text.
        n: most places of each word.
        n_random: words drawn from as many sentences, for the baseline.
        seed: of these draws.

    Returns:
        SelfSimilarity: of the words, by layer.

    Raises:
        CorpusError: a word stands in the training text less than twice.

    References:
        Ethayarajh 2019, arXiv:1909.00512, sections 3.3 and 3.4.
    """
    random = _random_places(corpus.train, n_random, seed)
    baseline = _mean_by_layer(_embedded(encoder, corpus, random)[2])
    rows = {}
    for word in words:
        found = occurrences(encoder, corpus, word, n)
        if len(found.positions) < 2:
            raise CorpusError(f"{word!r} stands only once in the training text of {corpus.path}.")
        rows[word] = _mean_by_layer(found.vectors) - baseline
    return SelfSimilarity(pd.DataFrame.from_dict(rows, orient="index"), baseline)


def spread_words(corpus: PreparedCorpus, n: int = 8, min_count: int = 20) -> list[str]:
    """Choose words from the most frequent to the rarer, at even steps of the rank's logarithm.

    Args:
        corpus: a prepared text.
        n: how many words; those without a letter are passed over.
        min_count: how often the rarest stands in the training text at least; where no word does,
            twice is enough.

    Returns:
        list[str]: words of the vocabulary, by falling frequency; none if all are rarer.
    """
    counts = np.asarray(corpus.lexicon.counts[: len(corpus.vocabulary)])
    least = min_count if (counts >= min_count).any() else 2
    candidates = [
        word
        for word, count in zip(corpus.vocabulary, counts, strict=True)
        if count >= least and word not in SPECIAL_WORDS and any(map(str.isalpha, word))
    ]
    if not candidates:
        return []
    ranks = np.unique(np.geomspace(1, len(candidates), n).round().astype(int))
    return [candidates[rank - 1] for rank in ranks]


def _id_of(word: str, corpus: PreparedCorpus) -> int:
    if word not in corpus.vocabulary or word in SPECIAL_WORDS:
        raise CorpusError(
            f"{word!r} is not in the vocabulary of {corpus.path}: choose a more frequent word."
        )
    return corpus.vocabulary[word]


def _embedded(
    encoder: SentenceEncoder, corpus: PreparedCorpus, places: np.ndarray
) -> tuple[list[list[str]], list[int], np.ndarray]:
    """Sentences, positions and vectors of the words at some places of the training text."""
    bounds = np.asarray(corpus.train.bounds)
    which = np.searchsorted(bounds, places, side="right") - 1
    positions = (places - bounds[which]).tolist()
    sentences = sentences_of(corpus.train.select(which), corpus)
    shape = (encoder.options.n_layers + 1, len(places), 2 * encoder.options.projection_dim)
    vectors = np.empty(shape, np.float32)
    for place, layers in encoder.encode_each(sentences):
        vectors[:, place] = layers[:, positions[place]]
    return sentences, positions, vectors


def _random_places(split: Split, n: int, seed: int) -> np.ndarray:
    """One word each of sentences drawn at random."""
    generator = np.random.default_rng(seed)
    bounds = np.asarray(split.bounds)
    which = generator.choice(split.n_sentences, min(n, split.n_sentences), replace=False)
    return generator.integers(bounds[which], bounds[which + 1])


def _mean_by_layer(vectors: np.ndarray) -> np.ndarray:
    return np.array([mean_similarity(layer) for layer in vectors])
