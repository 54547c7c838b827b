"""Predict the senses of the four words line, hard, serve and interest."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.tasks.archives import member, unescape_penn
from benchmarks.tasks.common import TaskConfig, vectors_at, with_average
from benchmarks.tasks.results import Row
from benchmarks.tasks.vectors import Embedder
from elmolib.embedding.cosine import cosine_similarities
from elmolib.scoring.confidence import bootstrap
from elmolib.text.lines import split_lines

TASK = "senses of one word"
ARCHIVE = "wsd/senseval.zip"
WORDS = ("line", "hard", "serve", "interest")

DRAWN_PER_WORD = 1000
"""Sentences drawn for each of `WORDS`, half of them for training."""


class Example(NamedTuple):
    """A sentence, the position of the ambiguous word, and its sense."""

    words: list[str]
    position: int
    sense: str


def read_examples(archive: Path, word: str) -> list[Example]:
    """Read the sentences with the given word, which is one of `WORDS`, from NLTK's files."""
    text = member(archive, f"*/{word}.pos")
    examples = map(_example, text.split("<instance ")[1:])
    return [example for example in examples if example is not None]


def _example(instance: str) -> Example | None:
    sense = re.search(r'senseid="([^"]*)"', instance).group(1)
    for line in split_lines(instance):
        before, head, after = line.partition("<head>")
        if head:
            words = _tokens(before)
            return Example([*words, *_tokens(after)], len(words), sense)
    return None


def _tokens(text: str) -> list[str]:
    words = re.findall(r">([^<>\s]+)</wf>", text)
    return [unescape_penn(html.unescape(word)) for word in words]


def measure(embedder: Embedder | None, config: TaskConfig) -> list[Row]:
    """Learn the senses of each word from half of its sentences, and predict them in the other half.

    Args:
        embedder: the embedder to measure; None for the baseline, the most frequent sense.
        config: the data folder and the seed.

    Returns:
        accuracy for each word, with each layer and with the average of layers. A word gets the
        sense whose mean vector is nearest.
    """
    rows = []
    for word in WORDS:
        examples = read_examples(config.data / ARCHIVE, word)
        order = np.random.default_rng(config.seed).permutation(len(examples))[:DRAWN_PER_WORD]
        drawn = [examples[k] for k in order]
        training, test = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
        for system, predicted in _predictions(embedder, training, test):
            right = np.array([a == each.sense for a, each in zip(predicted, test, strict=True)])
            fields = (TASK, word, system, "accuracy", bootstrap(right, seed=config.seed))
            rows.append(Row.of(*fields, "sentences", config.seed, n_training=len(training)))
    return rows


def _predictions(
    embedder: Embedder | None, training: list[Example], test: list[Example]
) -> Iterator[tuple[str, list[str]]]:
    if embedder is None:
        most_frequent = Counter(each.sense for each in training).most_common(1)[0][0]
        yield "most frequent sense", [most_frequent] * len(test)
        return
    examples = training + test
    sentences = [each.words for each in examples]
    vectors = vectors_at(embedder, sentences, [each.position for each in examples])
    labels = np.array([each.sense for each in training])
    senses = sorted(set(labels))
    for system, layer in with_average(vectors):
        known, unknown = layer[: len(training)], layer[len(training) :]
        means = np.stack([known[labels == sense].mean(axis=0) for sense in senses])
        yield system, [senses[k] for k in cosine_similarities(unknown, means).argmax(axis=1)]
