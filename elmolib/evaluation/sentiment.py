"""Whether a sentence speaks well or ill of something, from the vectors of its words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elmolib.errors import TextError
from elmolib.evaluation.confidence import bootstrap
from elmolib.evaluation.probe import Labelled, Learnt, linear_probe
from elmolib.evaluation.reader import Examples, read_sentences, split_vectors
from elmolib.evaluation.reading import as_written, member
from elmolib.evaluation.results import Row, row
from elmolib.evaluation.setting import Setting
from elmolib.evaluation.vectors import MIX, Embedder, WordVectors, single_layers, word_vectors
from elmolib.text import Tokenizer

TASK = "sentiment"
SST = "sentiment/sst-trees.zip"
LAROSEDA = "sentiment/laroseda-ro.zip"
FINE, BINARY, ROMANIAN = "SST-5", "SST-2", "LaRoSeDa"

READER = "LSTM reader"

REVIEWS_LEARNT_FROM = 4000
"""Of the Romanian reviews that are not for the test, so many are drawn, a tenth of them to choose
by; more would take long."""
WORDS_OF_A_REVIEW = 100
"""Longer reviews are cut there."""


class Opinion(NamedTuple):
    """The words of a sentence or review, and its class."""

    words: list[str]
    label: int


class Opinions(NamedTuple):
    """What is learnt from, chosen by and judged by."""

    training: list[Opinion]
    development: list[Opinion]
    test: list[Opinion]


def read_sst(data: Path, binary: bool) -> Opinions:
    """Read the whole sentences of the Stanford Sentiment Treebank, not their phrases.

    Args:
        data: the folder of all sets.
        binary: leave out neutral sentences, and tell good from bad only.

    References:
        Socher et al. 2013, "Recursive Deep Models for Semantic Compositionality".
    """
    parts = (_trees(data / SST, part) for part in ("train", "dev", "test"))
    if binary:
        parts = ([Opinion(w, int(label > 2)) for w, label in p if label != 2] for p in parts)
    return Opinions(*parts)


def read_laroseda(data: Path, seed: int) -> Opinions:
    """Read Romanian product reviews with one or two stars, or with four or five.

    The reviews of the set's own test part are for the test; of the others some are drawn.

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
        drawn = np.random.default_rng(seed).permutation(sorted(others))[:REVIEWS_LEARNT_FROM]
        learnt = [_review(others[number], tokenizer) for number in drawn]
        end = len(learnt) - len(learnt) // 10
        judged = [_review(review, tokenizer) for review in test.values()]
        return Opinions(learnt[:end], learnt[end:], judged)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, TextError):
            raise
        raise TextError(f"{archive} holds no reviews in the form of LaRoSeDa: {error}.") from None


def measure(embedder: Embedder | None, setting: Setting, data: str) -> list[Row]:
    """Class the test sentences of a set.

    Args:
        embedder: of the vectors; None for the commonest class.
        setting: the data and the seed.
        data: "SST-5", "SST-2" or "LaRoSeDa".

    Returns:
        accuracy: of a linear probe on the mean of a sentence's vectors, for each layer and for
        their learnt mix, and of a small LSTM that reads the vectors of all words. The development
        part decides how long they are trained.
    """
    if data == ROMANIAN:
        opinions = read_laroseda(setting.data, setting.seed)
    else:
        opinions = read_sst(setting.data, data == BINARY)
    labels = [np.array([opinion.label for opinion in part], np.int32) for part in opinions]
    if embedder is None:
        commonest = np.bincount(labels[0]).argmax()
        given = np.full(len(labels[2]), commonest)
        return [_row(data, "commonest class", given, labels, setting.seed)]
    sentences = [opinion.words for part in opinions for opinion in part]
    split = split_vectors(word_vectors(embedder, sentences), [len(part) for part in opinions])
    n_classes = int(labels[0].max()) + 1
    return [
        _row(data, system, learnt.predicted, labels, setting.seed, epochs=learnt.epochs)
        for system, learnt in _learnt(split, labels, n_classes, setting.seed)
    ]


def _learnt(
    split: Sequence[WordVectors], labels: Sequence[np.ndarray], n_classes: int, seed: int
) -> Iterator[tuple[str, Learnt]]:
    means = [_means(part) for part in split]
    layers = [dict(single_layers(part)) for part in means]
    if means[0].shape[1] > 1:
        layers = [{**of_part, MIX: part} for of_part, part in zip(layers, means, strict=True)]
    for system in layers[0]:
        train, dev, unseen = (of_part[system] for of_part in layers)
        known = Labelled(train, labels[0]), Labelled(dev, labels[1])
        yield system, linear_probe(*known, unseen, n_classes, seed)
    training, development, test = split
    examples = Examples(training, labels[0]), Examples(development, labels[1])
    yield READER, read_sentences(*examples, test, n_classes, seed)


def _means(vectors: WordVectors) -> np.ndarray:
    """Average the vectors of each sentence: float32 (sentences, layers, dim)."""
    lengths = np.diff(vectors.bounds)
    means = np.zeros((len(lengths), *vectors.values.shape[1:]), np.float32)
    for k in np.flatnonzero(lengths):
        words = vectors.values[vectors.bounds[k] : vectors.bounds[k + 1]]
        means[k] = words.mean(axis=0, dtype=np.float32)
    return means


def _row(
    data: str,
    system: str,
    given: np.ndarray,
    labels: Sequence[np.ndarray],
    seed: int,
    **notes: object,
) -> Row:
    return row(
        TASK,
        data,
        system,
        "accuracy",
        bootstrap(given == labels[2], seed=seed),
        "reviews" if data == ROMANIAN else "sentences",
        seed,
        n_training=len(labels[0]),
        **notes,
    )


def _trees(archive: Path, part: str) -> list[Opinion]:
    opinions = []
    for number, line in enumerate(member(archive, f"*/{part}.txt").splitlines(), start=1):
        found = re.match(r"\(([0-4]) ", line)
        if found is None:
            raise TextError(f"{archive}, {part}.txt, line {number}: no tree with a class.")
        words = [as_written(word) for word in re.findall(r"\([0-4] ([^()]+)\)", line)]
        opinions.append(Opinion(words, int(found.group(1))))
    return opinions


def _reviews(text: str) -> dict[str, dict]:
    return {review["index"]: review for review in json.loads(text)["reviews"]}


def _review(review: dict, tokenizer: Tokenizer) -> Opinion:
    words = tokenizer.words(f"{review['title']} . {review['content']}")[:WORDS_OF_A_REVIEW]
    return Opinion(words, int(int(review["starRating"]) > 3))
