"""Predict the sentiment of a sentence or review from the vectors of its words."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.tasks.archives import member, unescape_penn
from benchmarks.tasks.common import LSTM, TaskConfig, split_vectors
from benchmarks.tasks.lstm import Examples, classify_sentences
from benchmarks.tasks.probe import probe_layers
from benchmarks.tasks.results import Row
from benchmarks.tasks.vectors import Embedder, WordVectors, word_vectors
from elmolib.errors import TextError
from elmolib.scoring.confidence import bootstrap
from elmolib.text.lines import split_lines
from elmolib.text.tokenizer import Tokenizer

TASK = "sentiment"
SST = "sentiment/sst-trees.zip"
LAROSEDA = "sentiment/laroseda-ro.zip"
FINE, BINARY, ROMANIAN = "SST-5", "SST-2", "LaRoSeDa"

TRAINING_REVIEWS = 4000
"""The number of Romanian reviews that are drawn for training and development, because all reviews
would take too long. A tenth of them are for development."""

WORDS_PER_REVIEW = 100
"""Longer reviews are cut after this number of words."""


class Opinion(NamedTuple):
    """The words of a sentence or review, and its class."""

    words: list[str]
    label: int


class Opinions(NamedTuple):
    """Examples for training, development and test."""

    training: list[Opinion]
    development: list[Opinion]
    test: list[Opinion]


def read_sst(data: Path, binary: bool) -> Opinions:
    """Read the whole sentences of the Stanford Sentiment Treebank, not their phrases.

    Args:
        data: the folder with the datasets.
        binary: leave out neutral sentences, and distinguish only positive from negative ones.

    References:
        Socher et al. 2013, "Recursive Deep Models for Semantic Compositionality".
    """
    parts = (_trees(data / SST, part) for part in ("train", "dev", "test"))
    if binary:
        parts = ([Opinion(w, int(label > 2)) for w, label in p if label != 2] for p in parts)
    return Opinions(*parts)


def read_laroseda(data: Path, seed: int) -> Opinions:
    """Read Romanian product reviews, negative with one or two stars, positive with four or five.

    The test part is the dataset's own. The other reviews are split at random into training and
    development.

    References:
        Tache et al. 2021, "Clustering Word Embeddings with Self-Organizing Maps. Application on
        LaRoSeDa", arXiv:2101.04197.
    """
    tokenizer = Tokenizer(language="ro", romanian_commas=True)
    archive = data / LAROSEDA
    try:
        test = _reviews(member(archive, "*/laroseda_test.json"))
        others = _reviews(member(archive, "*/positive_reviews.json"))
        others |= _reviews(member(archive, "*/negative_reviews.json"))
        for number in test:
            others.pop(number, None)
        drawn = np.random.default_rng(seed).permutation(sorted(others))[:TRAINING_REVIEWS]
        reviews = [_review(others[number], tokenizer) for number in drawn]
        end = len(reviews) - len(reviews) // 10
        unseen = [_review(review, tokenizer) for review in test.values()]
        return Opinions(reviews[:end], reviews[end:], unseen)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, TextError):
            raise
        raise TextError(f"{archive} does not have the reviews of LaRoSeDa: {error}.") from None


def measure(embedder: Embedder | None, config: TaskConfig, data: str) -> list[Row]:
    """Classify the test sentences of a dataset.

    Args:
        embedder: the embedder to measure; None for the baseline, the majority class.
        config: the data folder and the seed.
        data: "SST-5", "SST-2" or "LaRoSeDa".

    Returns:
        accuracy for a linear probe on the mean of a sentence's vectors, with each layer and with
        the learned mix of layers, and for a small LSTM on the vectors of all words. The accuracy
        on the development part decides the number of epochs.
    """
    if data == ROMANIAN:
        opinions = read_laroseda(config.data, config.seed)
    else:
        opinions = read_sst(config.data, data == BINARY)
    labels = [np.array([opinion.label for opinion in part], np.int32) for part in opinions]
    if embedder is None:
        majority = np.bincount(labels[0]).argmax()
        predicted = np.full(len(labels[2]), majority)
        return [_row(data, "majority class", predicted, labels, config.seed)]
    sentences = [opinion.words for part in opinions for opinion in part]
    split = split_vectors(word_vectors(embedder, sentences), [len(part) for part in opinions])
    n_classes = int(labels[0].max()) + 1
    means = [_means(part) for part in split]
    learned = dict(probe_layers(means, labels, n_classes, config.seed))
    examples = [Examples(*each) for each in zip(split[:2], labels[:2], strict=True)]
    learned[LSTM] = classify_sentences(*examples, split[2], n_classes, config.seed)
    return [
        _row(data, system, classes.predicted, labels, config.seed, epochs=classes.epochs)
        for system, classes in learned.items()
    ]


def _means(vectors: WordVectors) -> np.ndarray:
    """Average each sentence's word vectors: float32 (sentences, layers, dim)."""
    lengths = np.diff(vectors.bounds)
    means = np.zeros((len(lengths), *vectors.values.shape[1:]), np.float32)
    for k in np.flatnonzero(lengths):
        words = vectors.values[vectors.bounds[k] : vectors.bounds[k + 1]]
        means[k] = words.mean(axis=0, dtype=np.float32)
    return means


def _row(
    data: str,
    system: str,
    predicted: np.ndarray,
    labels: Sequence[np.ndarray],
    seed: int,
    **notes: object,
) -> Row:
    interval = bootstrap(predicted == labels[2], seed=seed)
    parts = "reviews" if data == ROMANIAN else "sentences"
    fields = (TASK, data, system, "accuracy", interval, parts, seed)
    return Row.of(*fields, n_training=len(labels[0]), **notes)


def _trees(archive: Path, part: str) -> list[Opinion]:
    opinions = []
    for number, line in enumerate(split_lines(member(archive, f"*/{part}.txt")), start=1):
        found = re.match(r"\(([0-4]) ", line)
        if found is None:
            raise TextError(f"{archive}, {part}.txt, line {number} is not a tree with a class.")
        words = [unescape_penn(word) for word in re.findall(r"\([0-4] ([^()]+)\)", line)]
        opinions.append(Opinion(words, int(found.group(1))))
    return opinions


def _reviews(text: str) -> dict[str, dict]:
    return {review["index"]: review for review in json.loads(text)["reviews"]}


def _review(review: dict, tokenizer: Tokenizer) -> Opinion:
    words = tokenizer.words(f"{review['title']} . {review['content']}")[:WORDS_PER_REVIEW]
    return Opinion(words, int(int(review["starRating"]) > 3))
