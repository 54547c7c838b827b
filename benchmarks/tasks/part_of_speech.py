"""Part-of-speech tagging with a linear probe, as in table 6 of Peters et al. 2018."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.tasks.archives import members, unescape_penn
from benchmarks.tasks.common import TaskConfig
from benchmarks.tasks.probe import MIX, Treebank, count_right, probe_tags
from benchmarks.tasks.results import Row, compare_with_layer_below
from benchmarks.tasks.vectors import Embedder
from elmolib.explore.tagging import TaggedSentence, commonest_tags, read_conllu
from elmolib.scoring.confidence import bootstrap, ratio
from elmolib.text.lines import split_lines

TASK = "part of speech"

BROWN_EVERY = 4
"""Only every fourth sentence of the Brown corpus is used, to save time."""


def english_web_treebank(training: Path, development: Path, test: Path) -> Treebank:
    """Read UD English EWT with universal tags, in its official split."""
    return Treebank(*map(read_conllu, (training, development, test)))


def wsj_sample(archive: Path) -> Treebank:
    """Read NLTK's sample, a tenth of the Wall Street Journal, with Penn tags, split by files."""
    return _split_files([_trees(text) for _, text in members(archive, "*/combined/*.mrg")])


def brown_corpus(archive: Path) -> Treebank:
    """Read every `BROWN_EVERY`th sentence of the Brown corpus, split by files like the WSJ.

    Marks in the tags are removed, such as the mark of words in titles.
    """
    files = members(archive, "brown/c[a-r][0-9][0-9]", "latin-1")
    sentences = [_slash_tagged(text) for _, text in files]
    return Treebank(*(part[::BROWN_EVERY] for part in _split_files(sentences)))


def romanian_reference_treebank(development: Path, test: Path) -> Treebank:
    """Read UD Romanian RRT; a fifth of its dev file is for development, the rest for training."""
    sentences = read_conllu(development)
    training = [each for k, each in enumerate(sentences) if k % 5 < 4]
    return Treebank(training, sentences[4::5], read_conllu(test))


class Source(NamedTuple):
    """The files of a dataset in the data folder, and the function that reads them."""

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


def measure(embedder: Embedder | None, config: TaskConfig, data: str) -> list[Row]:
    """Tag the test sentences of a dataset.

    Args:
        embedder: the embedder to measure; None for the baseline, each word's most frequent tag.
        config: the data folder and the seed.
        data: a name in `SETS`.

    Returns:
        accuracy over words: for a linear probe on each layer and for a probe on the learned mix of
        the layers, or for the baseline. The bootstrap resamples sentences.
    """
    source = SETS[data]
    treebank = source.read(*(config.data / name for name in source.files))
    return measure_on(embedder, treebank, data, config.seed)


def measure_on(embedder: Embedder | None, treebank: Treebank, data: str, seed: int) -> list[Row]:
    """Do the same as `measure` with a treebank that was already read from its files."""
    if embedder is None:
        predicted = commonest_tags(treebank.training, [s.words for s in treebank.test])
        right = {"most frequent tag": count_right(predicted, treebank.test)}
        return [_row("most frequent tag", right, treebank, data, seed)]
    probed = probe_tags(embedder, treebank, seed)
    right = {system: each.right for system, each in probed.items()}
    rows = []
    for system, (_, epochs, mix) in probed.items():
        notes: dict[str, object] = {"epochs": epochs}
        if system == MIX:
            notes["layer weights"] = [round(float(share), 3) for share in mix]
        rows.append(_row(system, right, treebank, data, seed, **notes))
    return rows


def _row(
    system: str,
    right: dict[str, np.ndarray],
    treebank: Treebank,
    data: str,
    seed: int,
    **notes: object,
) -> Row:
    interval = bootstrap(right[system], ratio, seed=seed)
    return Row.of(
        *(TASK, data, system, "accuracy", interval, "sentences", seed),
        n=sum(len(sentence.words) for sentence in treebank.test),
        examples="words",
        n_training=sum(len(sentence.words) for sentence in treebank.training),
        **notes | compare_with_layer_below(system, right, seed),
    )


def _split_files(files: Sequence[list[TaggedSentence]]) -> Treebank:
    """Split files: every fifth is for the test, the fourth of every ten files for development."""
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
    """Read the tagged words of bracketed trees; traces are left out."""
    sentences: list[TaggedSentence] = []
    depth, leaves = 0, []
    for tag, word, bracket in _LEAF_OR_BRACKET.findall(text):
        depth += {"(": 1, ")": -1, "": 0}[bracket]
        if not bracket and tag != "-NONE-":
            leaves.append((unescape_penn(word), tag))
        if depth == 0 and leaves:
            sentences.append(TaggedSentence(*zip(*leaves, strict=True)))
            leaves = []
    return sentences


def _slash_tagged(text: str) -> list[TaggedSentence]:
    """Read sentences of `word/tag`, one per line."""
    sentences = []
    for line in split_lines(text):
        pairs = [token.rpartition("/")[::2] for token in line.split()]
        if pairs:
            words_and_tags = [(unescape_penn(word), _plain_tag(tag)) for word, tag in pairs]
            sentences.append(TaggedSentence(*zip(*words_and_tags, strict=True)))
    return sentences


def _plain_tag(tag: str) -> str:
    """Remove the prefix `fw-`, and what follows `-`, `+` or `*`, from a tag of the Brown corpus."""
    return re.sub(r"(?<=.)[-+*].*", "", tag.removeprefix("fw-"))
