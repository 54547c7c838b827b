"""Parts of speech, read off frozen vectors word by word: table 6 of the paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elmolib.evaluation.confidence import bootstrap, ratio
from elmolib.evaluation.probe import Labelled, Learnt, linear_probe
from elmolib.evaluation.reading import as_written, members
from elmolib.evaluation.results import Row, above_layer_below, row
from elmolib.evaluation.setting import Setting
from elmolib.evaluation.vectors import MIX, Embedder, single_layers, word_vectors
from elmolib.tagging import TaggedSentence, commonest_tags, read_conllu, tag_names

TASK = "part of speech"

BROWN_EVERY = 4
"""Of the Brown corpus, one sentence of so many is taken, for the time that all would need."""


class Treebank(NamedTuple):
    """Tagged sentences to learn from, to choose by, and to be judged by."""

    training: list[TaggedSentence]
    development: list[TaggedSentence]
    test: list[TaggedSentence]


def english_web_treebank(training: Path, development: Path, test: Path) -> Treebank:
    """Read UD English EWT, universal tags, in its official parts."""
    return Treebank(*map(read_conllu, (training, development, test)))


def wsj_sample(archive: Path) -> Treebank:
    """Read nltk's tenth of the Wall Street Journal, Penn tags.

    Of its files every fifth is for the test, of the others every tenth file for development.
    """
    return _by_files([_trees(text) for _, text in members(archive, "*/combined/*.mrg")])


def brown_corpus(archive: Path) -> Treebank:
    """Read a part of the Brown corpus, with its own tags but for what they say of titles and such.

    Files are shared out as those of the WSJ sample; of each, one sentence of `BROWN_EVERY`.
    """
    files = members(archive, "brown/c[a-r][0-9][0-9]", "latin-1")
    sentences = [_slashed(text) for _, text in files]
    return Treebank(*(part[::BROWN_EVERY] for part in _by_files(sentences)))


def romanian_reference_treebank(development: Path, test: Path) -> Treebank:
    """Read UD Romanian RRT, universal tags.

    Its development file is learnt from, but for every fifth sentence, which is for development.
    """
    sentences = read_conllu(development)
    training = [each for k, each in enumerate(sentences) if k % 5 < 4]
    return Treebank(training, sentences[4::5], read_conllu(test))


class Source(NamedTuple):
    """The files of a set beneath the data folder, and what reads their paths."""

    files: tuple[str, ...]
    read: Callable[..., Treebank]


EWT, WSJ, BROWN = "UD English EWT", "WSJ sample", "Brown"
RRT = "UD Romanian RRT (dev as train)"

SETS = {
    EWT: Source(
        tuple(f"pos/en_ewt-ud-{part}.conllu.gz" for part in ("train", "dev", "test")),
        english_web_treebank,
    ),
    WSJ: Source(("pos/treebank.zip",), wsj_sample),
    BROWN: Source(("pos/brown.zip",), brown_corpus),
    RRT: Source(
        tuple(f"multilingual/ro_rrt-ud-{part}.conllu.gz" for part in ("dev", "test")),
        romanian_reference_treebank,
    ),
}


def measure(embedder: Embedder | None, setting: Setting, data: str) -> list[Row]:
    """Tag the test sentences of a set.

    Args:
        embedder: of the vectors; None for the baseline that needs none, the tag that each word
            had most often in training.
        setting: the data and the seed.
        data: one of `SETS`.

    Returns:
        accuracy over words: of a linear probe on each layer and on their learnt mix, or of the
        baseline. The bootstrap draws sentences.
    """
    source = SETS[data]
    treebank = source.read(*(setting.data / name for name in source.files))
    return measure_on(embedder, treebank, data, setting.seed)


def measure_on(embedder: Embedder | None, treebank: Treebank, data: str, seed: int) -> list[Row]:
    """Do what `measure` does with sentences that were read already."""
    training, development, test = treebank
    if embedder is None:
        given = commonest_tags(training, [sentence.words for sentence in test])
        return [_row("commonest tag", _right(given, test), treebank, data, seed)]
    names = tag_names(training)
    vectors = word_vectors(embedder, [s.words for part in treebank for s in part])
    ends = np.cumsum([sum(len(s.words) for s in part) for part in treebank])[:2]
    rows, right = [], {}
    for system, layers in [*single_layers(vectors.values), (MIX, vectors.values)]:
        if system == MIX and layers.shape[1] == 1:
            continue
        train, dev, unseen = np.split(layers, ends)
        learnt = linear_probe(
            Labelled(train, _numbers(training, names)),
            Labelled(dev, _numbers(development, names)),
            unseen,
            len(names),
            seed,
        )
        right[system] = _right(_tags(learnt, test, names), test)
        notes = {"epochs": learnt.epochs} | above_layer_below(system, right, seed)
        if system == MIX:
            notes["layer weights"] = [round(float(share), 3) for share in learnt.mix]
        rows.append(_row(system, right[system], treebank, data, seed, **notes))
    return rows


def _right(given: Sequence[Sequence[str]], test: Sequence[TaggedSentence]) -> np.ndarray:
    """Count right words and words of each sentence: integers (sentences, 2)."""
    pairs = zip(given, test, strict=True)
    return np.array([(sum(map(str.__eq__, tags, s.tags)), len(s.tags)) for tags, s in pairs])


def _row(
    system: str,
    right: np.ndarray,
    treebank: Treebank,
    data: str,
    seed: int,
    **notes: object,
) -> Row:
    return row(
        TASK,
        data,
        system,
        "accuracy",
        bootstrap(right, ratio, seed=seed),
        "sentences",
        seed,
        n=sum(len(sentence.words) for sentence in treebank.test),
        examples="words",
        n_training=sum(len(sentence.words) for sentence in treebank.training),
        **notes,
    )


def _numbers(sentences: Sequence[TaggedSentence], names: Sequence[str]) -> np.ndarray:
    """Number the tags of all words; one that training does not have counts as the first."""
    number = {name: k for k, name in enumerate(names)}
    return np.array([number.get(tag, 0) for s in sentences for tag in s.tags], np.int32)


def _tags(
    learnt: Learnt, sentences: Sequence[TaggedSentence], names: Sequence[str]
) -> list[list[str]]:
    tags = iter([names[k] for k in learnt.predicted])
    return [[next(tags) for _ in sentence.words] for sentence in sentences]


def _by_files(files: Sequence[list[TaggedSentence]]) -> Treebank:
    parts = Treebank([], [], [])
    for k, sentences in enumerate(files):
        if k % 5 == 4:
            parts.test.extend(sentences)
        elif k % 10 == 3:
            parts.development.extend(sentences)
        else:
            parts.training.extend(sentences)
    return parts


_LEAF_OR_BRACKET = re.compile(r"\(([^\s()]+)\s+([^\s()]+)\s*\)|([()])")


def _trees(text: str) -> list[TaggedSentence]:
    """Read the words of bracketed trees, without traces, which nobody wrote."""
    sentences: list[TaggedSentence] = []
    depth, leaves = 0, []
    for tag, word, bracket in _LEAF_OR_BRACKET.findall(text):
        depth += {"(": 1, ")": -1, "": 0}[bracket]
        if not bracket and tag != "-NONE-":
            leaves.append((as_written(word), tag))
        if depth == 0 and leaves:
            sentences.append(TaggedSentence(*zip(*leaves, strict=True)))
            leaves = []
    return sentences


def _slashed(text: str) -> list[TaggedSentence]:
    """Read sentences of `word/tag`, one to a line."""
    sentences = []
    for line in text.splitlines():
        pairs = [token.rpartition("/")[::2] for token in line.split()]
        if pairs:
            words_and_tags = [(as_written(word), _base(tag)) for word, tag in pairs]
            sentences.append(TaggedSentence(*zip(*words_and_tags, strict=True)))
    return sentences


def _base(tag: str) -> str:
    """Take `fw-` and what follows `-`, `+` or `*` off a tag of the Brown corpus."""
    return re.sub(r"(?<=.)[-+*].*", "", tag.removeprefix("fw-"))
