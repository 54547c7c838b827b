"""Find the occurrences of a word in a text, and measure how much context changes its vectors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from elmolib.corpus.prepared import PreparedCorpus, sentences_of
from elmolib.embedding.cosine import mean_similarity, unit_length
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.errors import CorpusError
from elmolib.text.vocabulary import SPECIAL_WORDS


class Occurrences(NamedTuple):
    """The occurrences of a word in a text."""

    word: str
    sentences: list[list[str]]  # the words of each occurrence's sentence
    positions: list[int]  # index of the word in each sentence, from 0
    vectors: np.ndarray  # float32 (n_layers + 1, n_occurrences, 2 * projection_dim)

    def snippet(self, number: int, around: int = 4) -> str:
        """Return the occurrence with this number, and up to `around` words on each side of it."""
        sentence, position = self.sentences[number], self.positions[number]
        start, end = max(0, position - around), position + around + 1
        before = "\N{HORIZONTAL ELLIPSIS} " if start > 0 else ""
        after = " \N{HORIZONTAL ELLIPSIS}" if end < len(sentence) else ""
        return before + " ".join(sentence[start:end]) + after

    def maps(self) -> list[np.ndarray]:
        """Scale the vectors of each layer to length 1, and project them to two dimensions."""
        return [in_two_dimensions(unit_length(layer)) for layer in self.vectors]


class Senses(NamedTuple):
    """Occurrences of a word in groups of similar vectors."""

    labels: np.ndarray  # the group of each occurrence, int32 (n_occurrences,); 0 is the largest
    examples: list[int]  # for each group, the number of the occurrence nearest to its centre


class SelfSimilarity(NamedTuple):
    """The similarity of a word's vectors in different sentences, compared with random words.

    The baseline of a layer is high if all its vectors have similar directions.
    """

    table: pd.DataFrame  # a row per word, a column per layer: the mean cosine minus the baseline
    baseline: np.ndarray  # mean cosine of random words in each layer, float64 (n_layers + 1,)


def occurrences(
    encoder: SentenceEncoder, corpus: PreparedCorpus, word: str, n: int = 300
) -> Occurrences:
    """Find a word in the training text, and embed the sentences that it occurs in.

    If there are more than `n` occurrences, they are chosen evenly from the whole text. If the word
    is not in the vocabulary or the training text, raise a CorpusError.
    """
    word = corpus.tokenizer.clean_word(word)
    if word not in corpus.vocabulary or word in SPECIAL_WORDS:
        raise CorpusError(
            f"{word!r} is not in the vocabulary of {corpus.path}: choose a more frequent word."
        )
    places = np.flatnonzero(np.asarray(corpus.train.ids) == corpus.vocabulary[word])
    if not len(places):
        raise CorpusError(f"{word!r} is not in the training text of {corpus.path}: choose another.")
    n = min(n, len(places))
    return Occurrences(word, *_embedded(encoder, corpus, places[np.arange(n) * len(places) // n]))


def senses(vectors: np.ndarray, n_groups: int = 3) -> Senses:
    """Group the directions of a word's vectors in one layer, float `(n_occurrences, dim)`.

    There are at most `n_groups` groups, and never more than distinct vectors. A group may be a
    sense of the word. The method is k-means (Lloyd 1982, Least squares quantization in PCM).
    """
    units = unit_length(vectors)
    n_groups = min(n_groups, len(np.unique(units, axis=0)))
    found = KMeans(n_groups, n_init=10, random_state=0).fit(units)
    by_size = np.argsort(-np.bincount(found.labels_), kind="stable")
    labels = np.argsort(by_size)[found.labels_].astype(np.int32)
    distances = found.transform(units)[:, by_size]  # (n_occurrences, groups)
    inside = np.where(labels[:, np.newaxis] == np.arange(n_groups), distances, np.inf)
    return Senses(labels, inside.argmin(axis=0).tolist())


def in_two_dimensions(vectors: np.ndarray) -> np.ndarray:
    """Project vectors `(n, dim)` to their first two principal components, float `(n, 2)`."""
    n_axes = min(2, len(vectors) - 1, vectors.shape[1])
    points = np.zeros((len(vectors), 2), vectors.dtype)
    if n_axes:
        # PCA divides by the variance, which is 0 if all vectors are identical.
        with np.errstate(divide="ignore", invalid="ignore"):
            points[:, :n_axes] = PCA(n_axes, svd_solver="full").fit_transform(vectors)
    return points


def self_similarity(
    encoder: SentenceEncoder,
    corpus: PreparedCorpus,
    words: Sequence[str],
    n: int = 100,
    n_random: int = 1000,
) -> SelfSimilarity:
    """Measure in each layer how much the vectors of words depend on their sentences.

    This is the measure of Ethayarajh 2019, arXiv:1909.00512, sections 3.3 and 3.4, of up to `n`
    occurrences of each word and `n_random` random words, each from a different sentence. If a word
    is not in the vocabulary, or occurs less than twice in the text, raise a CorpusError.
    """
    generator, bounds = np.random.default_rng(0), np.asarray(corpus.train.bounds)
    n_random = min(n_random, corpus.train.n_sentences)
    which = generator.choice(corpus.train.n_sentences, n_random, replace=False)
    random = generator.integers(bounds[which], bounds[which + 1])
    baseline = _mean_by_layer(_embedded(encoder, corpus, random)[2])
    rows = {}
    for word in words:
        found = occurrences(encoder, corpus, word, n)
        if len(found.positions) < 2:
            raise CorpusError(f"{word!r} occurs only once in {corpus.path}: choose another word.")
        rows[word] = _mean_by_layer(found.vectors) - baseline
    return SelfSimilarity(pd.DataFrame.from_dict(rows, orient="index"), baseline)


def spread_words(corpus: PreparedCorpus, n: int = 8, min_count: int = 20) -> list[str]:
    """Choose up to `n` words from frequent to rare, with ranks evenly spaced on a log scale.

    They contain a letter and occur `min_count` times or more, or twice if no word occurs so often.
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


def _embedded(
    encoder: SentenceEncoder, corpus: PreparedCorpus, places: np.ndarray
) -> tuple[list[list[str]], list[int], np.ndarray]:
    """Return sentences, positions and vectors of the training words with these indices."""
    bounds = np.asarray(corpus.train.bounds)
    which = np.searchsorted(bounds, places, side="right") - 1
    positions = (places - bounds[which]).tolist()
    sentences = sentences_of(corpus.train.select(which), corpus)
    sizes = encoder.architecture
    vectors = np.empty((sizes.n_layers + 1, len(places), 2 * sizes.projection_dim), np.float32)
    for place, layers in encoder.encode_each(sentences):
        vectors[:, place] = layers[:, positions[place]]
    return sentences, positions, vectors


def _mean_by_layer(vectors: np.ndarray) -> np.ndarray:
    return np.array([mean_similarity(layer) for layer in vectors])
