"""Recognize named entities with a small tagger on frozen vectors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.tasks.archives import member
from benchmarks.tasks.common import LSTM, TaskConfig, split_vectors
from benchmarks.tasks.lstm import Examples, classify_words
from benchmarks.tasks.probe import probe_layers
from benchmarks.tasks.results import Row
from benchmarks.tasks.vectors import Embedder, word_vectors
from elmolib.errors import TextError
from elmolib.explore.tagging import TaggedSentence, Tags, tag_names
from elmolib.scoring.confidence import bootstrap
from elmolib.text.lines import split_lines

TASK, DATA = "named entities", "CoNLL-2003 English"
ARCHIVE = "ner/conll2003-en.zip"
PARTS = ("eng.train", "eng.testa", "eng.testb")

Span = tuple[str, int, int]
"""The type of an entity, the position of its first word, and the position after its last word."""


def read_part(archive: Path, part: str) -> list[TaggedSentence]:
    """Read the words and entity tags of one part of CoNLL-2003, named in `PARTS`.

    Raises:
        TextError: a line does not have the four columns of the shared task.
    """
    sentences: list[TaggedSentence] = []
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate([*split_lines(member(archive, f"*{part}")), ""], start=1):
        fields = line.split()
        if fields and fields[0] != "-DOCSTART-":
            if len(fields) != 4:
                raise TextError(f"{archive}, {part}, line {number} does not have four columns.")
            pairs.append((fields[0], fields[3]))
        elif pairs:
            sentences.append(TaggedSentence(*zip(*pairs, strict=True)))
            pairs = []
    return sentences


def spans(tags: Tags) -> list[Span]:
    """Find the entities that IOB1 or IOB2 tags describe.

    An entity begins with `B-`, or with `I-` after `O` or after an entity of another type.

    Args:
        tags: one tag for each word of a sentence, such as `["I-PER", "I-PER", "O"]`.

    References:
        The program `conlleval` of the shared task CoNLL-2003.
    """
    found: list[Span] = []
    first, kind = 0, ""
    for k, tag in enumerate([*tags, "O"]):
        mark, _, new_kind = tag.partition("-")
        if kind and (mark != "I" or new_kind != kind):
            found.append((kind, first, k))
            kind = ""
        if mark != "O" and not kind:
            first, kind = k, new_kind
    return found


def to_iob2(tags: Tags) -> list[str]:
    """Convert tags so that every entity begins with `B-`."""
    converted = ["O"] * len(tags)
    for kind, first, end in spans(tags):
        converted[first:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - first - 1)]
    return converted


def measure(embedder: Embedder | None, config: TaskConfig) -> list[Row]:
    """Find the entities in eng.testb, the test part of CoNLL-2003.

    Args:
        embedder: the embedder to measure; None for the baseline, see `known_entities`.
        config: the data folder and the seed.

    Returns:
        F1 over entities, as `conlleval` computes it: for a linear probe on each layer, for a probe
        on the learned mix of layers, and for a small LSTM on the mix. The accuracy on eng.testa
        decides the number of epochs. The bootstrap resamples sentences.
    """
    parts = [read_part(config.data / ARCHIVE, part) for part in PARTS]
    parts = [[TaggedSentence(words, tuple(to_iob2(tags))) for words, tags in p] for p in parts]
    training, development, test = parts
    if embedder is None:
        predicted = known_entities(training, [sentence.words for sentence in test])
        return [_row("training entities", predicted, training, test, config.seed)]
    names = tag_names(training)
    number = {name: k for k, name in enumerate(names)}
    labels = [np.array([number[t] for s in p for t in s.tags], np.int32) for p in parts[:2]]
    vectors = word_vectors(embedder, [sentence.words for p in parts for sentence in p])
    split = split_vectors(vectors, [len(p) for p in parts])
    learned = dict(probe_layers([p.values for p in split], labels, len(names), config.seed))
    examples = [Examples(*each) for each in zip(split[:2], labels, strict=True)]
    learned[LSTM] = classify_words(*examples, split[2], len(names), config.seed)
    rows = []
    for system, classes in learned.items():
        tags = iter([names[k] for k in classes.predicted])
        predicted = [[next(tags) for _ in sentence.words] for sentence in test]
        row = _row(system, predicted, training, test, config.seed, epochs=classes.epochs)
        rows.append(row)
    return rows


def known_entities(
    training: Sequence[TaggedSentence], sentences: Sequence[Sequence[str]]
) -> list[list[str]]:
    """Tag word sequences that have exactly one entity type in training, longer sequences first.

    References:
        Tjong Kim Sang and De Meulder 2003, "Introduction to the CoNLL-2003 Shared Task",
        section 2.3.
    """
    kinds: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for words, tags in training:
        for kind, first, end in spans(tags):
            kinds[tuple(words[first:end])][kind] += 1
    known = {words: next(iter(of)) for words, of in kinds.items() if len(of) == 1}
    longest = max(map(len, known), default=0)
    return [_known_tags(words, known, longest) for words in sentences]


def _known_tags(words: Sequence[str], known: dict[tuple[str, ...], str], longest: int) -> list[str]:
    tags: list[str] = []
    while (k := len(tags)) < len(words):
        for length in range(min(longest, len(words) - k), 0, -1):
            kind = known.get(tuple(words[k : k + length]))
            if kind is not None:
                tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
                break
        else:
            tags.append("O")
    return tags


def span_counts(predicted: Tags, true: Tags) -> tuple[int, int, int]:
    """Count the correct, predicted and true entities."""
    found, wanted = set(spans(predicted)), set(spans(true))
    return len(found & wanted), len(found), len(wanted)


def f1(drawn: np.ndarray) -> np.ndarray:
    """Return the F1 of each bootstrap draw, given `span_counts` as (draws, sentences, 3)."""
    right, predicted, true = drawn.sum(axis=1, dtype=np.float64).T
    return 2 * right / np.maximum(predicted + true, 1)


def _row(
    system: str,
    predicted: Sequence[Tags],
    training: Sequence[TaggedSentence],
    test: Sequence[TaggedSentence],
    seed: int,
    **notes: object,
) -> Row:
    pairs = zip(predicted, test, strict=True)
    counts = np.array([span_counts(tags, sentence.tags) for tags, sentence in pairs])
    return Row.of(
        *(TASK, DATA, system, "F1", bootstrap(counts, f1, seed=seed), "sentences", seed),
        n=int(counts[:, 2].sum()),
        examples="entities",
        n_training=sum(len(sentence.words) for sentence in training),
        **notes,
    )
