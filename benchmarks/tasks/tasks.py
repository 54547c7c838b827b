"""All tasks by name, with the files that each needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.tasks import (
    entities,
    one_word,
    part_of_speech,
    senses,
    sentiment,
    similarity,
    word_in_context,
    wordnet,
)
from benchmarks.tasks.common import TaskConfig
from benchmarks.tasks.results import Row
from benchmarks.tasks.vectors import Embedder
from elmolib.errors import ParameterError


class Task(NamedTuple):
    """A task on one dataset, or on a few that are measured together.

    Attributes:
        language: the language of the sentences, "en" or "ro".
        measure: function of an embedder and a configuration; with None as embedder, it measures
            the baseline that needs no vectors.
        files: the files that the task reads from the data folder.
        wordnet: whether the task also reads WordNet.
    """

    language: str
    measure: Callable[[Embedder | None, TaskConfig], list[Row]]
    files: tuple[str, ...]
    wordnet: bool = False

    def missing(self, config: TaskConfig) -> list[Path]:
        """Return the files that the task needs and that do not exist."""
        needed = [config.data / name for name in self.files]
        if self.wordnet:
            endings = wordnet.FILES.values()
            needed += [
                config.wordnet / f"{kind}.{e}" for e in endings for kind in ("index", "data")
            ]
        return [path for path in needed if not path.is_file()]


def _part_of_speech(language: str, data: str) -> Task:
    measure = partial(part_of_speech.measure, data=data)
    return Task(language, measure, part_of_speech.SETS[data].files)


def _sentiment(language: str, data: str, archive: str) -> Task:
    return Task(language, partial(sentiment.measure, data=data), (archive,))


def _similarity(data: str) -> Task:
    source = similarity.SETS[data]
    return Task(source.language, partial(similarity.measure, data=data), (source.archive,))


TASKS = {
    "pos-ewt": _part_of_speech("en", part_of_speech.EWT),
    "pos-wsj": _part_of_speech("en", part_of_speech.WSJ),
    "pos-brown": _part_of_speech("en", part_of_speech.BROWN),
    "senses": Task("en", senses.measure, (senses.SEMCOR, senses.ALL_WORDS), wordnet=True),
    "one-word": Task("en", one_word.measure, (one_word.ARCHIVE,)),
    "wic": Task("en", word_in_context.measure, (word_in_context.ARCHIVE,)),
    "entities": Task("en", entities.measure, (entities.ARCHIVE,)),
    "sst5": _sentiment("en", sentiment.FINE, sentiment.SST),
    "sst2": _sentiment("en", sentiment.BINARY, sentiment.SST),
    "sts": _similarity("STS benchmark"),
    "pos-rrt": _part_of_speech("ro", part_of_speech.RRT),
    "ro-sts": _similarity("RO-STS"),
    "laroseda": _sentiment("ro", sentiment.ROMANIAN, sentiment.LAROSEDA),
}


def tasks_named(names: Sequence[str] | None, language: str) -> dict[str, Task]:
    """Look up tasks by their names.

    Args:
        names: names from `TASKS`, or None for all tasks of the language.
        language: "en" or "ro".

    Raises:
        ParameterError: there is no task with such a name.
    """
    if names is None:
        return {name: task for name, task in TASKS.items() if task.language == language}
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise ParameterError(f"There is no task {unknown[0]!r}: choose from {', '.join(TASKS)}.")
    return {name: TASKS[name] for name in names}


def measure_all(
    tasks: dict[str, Task],
    embedder: Embedder | None,
    config: TaskConfig,
    log: Callable[[str], None] = print,
) -> tuple[list[Row], list[str]]:
    """Measure all tasks whose files exist.

    Args:
        tasks: the tasks by name.
        embedder: the embedder to measure; None for the baselines that need no vectors.
        config: the folders of the data and of WordNet, and the seed.
        log: called with a line for each figure and for each missing dataset.

    Returns:
        the figures, and one sentence for each task that was skipped.
    """
    rows: list[Row] = []
    skipped: list[str] = []
    for name, task in tasks.items():
        if missing := task.missing(config):
            skipped.append(f"skipped {name}: there is no {missing[0]} (see docs/evaluation.md)")
            log(skipped[-1])
            continue
        for row in task.measure(embedder, config):
            log(
                f"{row.task}, {row.data}, {row.system}: {row.metric} {row.value:.4f} "
                f"[{row.low:.4f}, {row.high:.4f}] on {row.n:,} {row.examples}"
            )
            rows.append(row)
    return rows, skipped
