"""Names of persons, places and organisations, by a light tagger on frozen vectors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from elmolib.errors import TextError
from elmolib.evaluation.confidence import bootstrap
from elmolib.evaluation.probe import Labelled, Learnt, linear_probe
from elmolib.evaluation.reader import Examples, read_words, split_vectors
from elmolib.evaluation.reading import member
from elmolib.evaluation.results import Row, row
from elmolib.evaluation.setting import Setting
from elmolib.evaluation.vectors import MIX, Embedder, WordVectors, single_layers, word_vectors
from elmolib.tagging import TaggedSentence, Tags, tag_names

TASK, DATA = "named entities", "CoNLL-2003 English"
ARCHIVE = "ner/conll2003-en.zip"
PARTS = ("eng.train", "eng.testa", "eng.testb")

READER = "LSTM reader"

Span = tuple[str, int, int]
"""The kind of an entity, its first word and the word after its last."""


def read_part(archive: Path, part: str) -> list[TaggedSentence]:
    """Read words and entity tags of one of `PARTS`.

    Raises:
        TextError: a line has not the four columns of the shared task.
    """
    sentences: list[TaggedSentence] = []
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate([*member(archive, f"*{part}").splitlines(), ""], start=1):
        fields = line.split()
        if fields and fields[0] != "-DOCSTART-":
            if len(fields) != 4:
                raise TextError(f"{archive}, {part}, line {number}: not four columns.")
            pairs.append((fields[0], fields[3]))
        elif pairs:
            sentences.append(TaggedSentence(*zip(*pairs, strict=True)))
            pairs = []
    return sentences


def spans(tags: Tags) -> list[Span]:
    """Find the entities that tags stand for, whether they are written as IOB1 or IOB2.

    An entity begins with a `B-`, and with an `I-` after `O` or after an entity of another kind.

    Args:
        tags: of the words of a sentence, such as `["I-PER", "I-PER", "O"]`.

    References:
        The program `conlleval` of the shared task CoNLL-2003.
    """
    found: list[Span] = []
    first, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        mark, _, new_kind = tag.partition("-")
        if kind and (mark != "I" or new_kind != kind):
            found.append((kind, first, place))
            kind = ""
        if mark != "O" and not kind:
            first, kind = place, new_kind
    return found


def as_iob2(tags: Tags) -> list[str]:
    """Write tags so that every entity, and nothing else, begins with `B-`."""
    written = ["O"] * len(tags)
    for kind, first, end in spans(tags):
        written[first:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - first - 1)]
    return written


def measure(embedder: Embedder | None, setting: Setting) -> list[Row]:
    """Find the entities of eng.testb.

    Args:
        embedder: of the vectors; None for the entities of the training sentences that had but
            one kind there, the longest first, which is much like the shared task's own baseline.
        setting: the data and the seed.

    Returns:
        F1 over entities, as `conlleval` counts: of a linear probe on each layer and on their
        learnt mix, and of a small LSTM on the mix. eng.testa decides how long they are trained.
        The bootstrap draws sentences.
    """
    parts = [read_part(setting.data / ARCHIVE, part) for part in PARTS]
    parts = [[TaggedSentence(words, tuple(as_iob2(tags))) for words, tags in p] for p in parts]
    training, development, test = parts
    if embedder is None:
        given = known_entities(training, [sentence.words for sentence in test])
        return [_row("known entities", given, training, test, setting.seed)]
    names = tag_names(training)
    number = {name: k for k, name in enumerate(names)}
    labels = [np.array([number[t] for s in p for t in s.tags], np.int32) for p in parts[:2]]
    vectors = word_vectors(embedder, [sentence.words for p in parts for sentence in p])
    split = split_vectors(vectors, [len(p) for p in parts])
    rows = []
    for system, learnt in _learnt(split, labels, len(names), setting.seed):
        given = _tags(learnt, test, names)
        rows.append(_row(system, given, training, test, setting.seed, epochs=learnt.epochs))
    return rows


def _learnt(
    split: Sequence[WordVectors], labels: Sequence[np.ndarray], n_classes: int, seed: int
) -> Iterator[tuple[str, Learnt]]:
    training, development, test = split
    n_layers = training.values.shape[1]
    layers = [dict(single_layers(part.values)) for part in split]
    if n_layers > 1:
        layers = [
            {**of_part, MIX: part.values} for of_part, part in zip(layers, split, strict=True)
        ]
    for system in layers[0]:
        train, dev, unseen = (of_part[system] for of_part in layers)
        known = Labelled(train, labels[0]), Labelled(dev, labels[1])
        yield system, linear_probe(*known, unseen, n_classes, seed)
    examples = Examples(training, labels[0]), Examples(development, labels[1])
    yield READER, read_words(*examples, test, n_classes, seed)


def known_entities(
    training: Sequence[TaggedSentence], sentences: Sequence[Sequence[str]]
) -> list[list[str]]:
    """Tag what was an entity of one and the same kind wherever it was one in training.

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
    while (place := len(tags)) < len(words):
        for length in range(min(longest, len(words) - place), 0, -1):
            kind = known.get(tuple(words[place : place + length]))
            if kind is not None:
                tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
                break
        else:
            tags.append("O")
    return tags


def span_counts(given: Tags, true: Tags) -> tuple[int, int, int]:
    """Count the entities that are right, given and true."""
    found, wanted = set(spans(given)), set(spans(true))
    return len(found & wanted), len(found), len(wanted)


def f1(drawn: np.ndarray) -> np.ndarray:
    """Score counts of right, given and true: numbers (draws, sentences, 3) to floats (draws,)."""
    right, given, true = drawn.sum(axis=1, dtype=np.float64).T
    return 2 * right / np.maximum(given + true, 1)


def _row(
    system: str,
    given: Sequence[Tags],
    training: Sequence[TaggedSentence],
    test: Sequence[TaggedSentence],
    seed: int,
    **notes: object,
) -> Row:
    pairs = zip(given, test, strict=True)
    counts = np.array([span_counts(tags, sentence.tags) for tags, sentence in pairs])
    return row(
        TASK,
        DATA,
        system,
        "F1",
        bootstrap(counts, f1, seed=seed),
        "sentences",
        seed,
        n=int(counts[:, 2].sum()),
        examples="entities",
        n_training=sum(len(sentence.words) for sentence in training),
        **notes,
    )


def _tags(learnt: Learnt, sentences: Sequence[TaggedSentence], names: Tags) -> list[list[str]]:
    tags = iter([names[k] for k in learnt.predicted])
    return [[next(tags) for _ in sentence.words] for sentence in sentences]
