"""All tasks by name, with the files that each needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from elmolib.errors import ParameterError
from elmolib.evaluation import (
    entities,
    part_of_speech,
    senses,
    sentiment,
    similarity,
    word_in_context,
)
from elmolib.evaluation.results import Row
from elmolib.evaluation.setting import Setting
from elmolib.evaluation.vectors import Embedder
from elmolib.evaluation.wordnet import FILES as WORDNET_FILES


class Task(NamedTuple):
    """One table's worth of figures.

    Attributes:
        language: of its sentences, "en" or "ro".
        measure: function of an embedder, or None for the baseline without vectors, and a setting.
        files: what it reads, beneath the data folder.
        wordnet: whether it reads WordNet too.
    """

    language: str
    measure: Callable[[Embedder | None, Setting], list[Row]]
    files: tuple[str, ...]
    wordnet: bool = False

    def missing(self, setting: Setting) -> list[Path]:
        """List the files that it needs and that are not there."""
        needed = [setting.data / name for name in self.files]
        if self.wordnet:
            kinds = WORDNET_FILES.values()
            needed += [setting.wordnet / f"{what}.{k}" for k in kinds for what in ("index", "data")]
        return [path for path in needed if not path.is_file()]


def _part_of_speech(language: str, data: str) -> Task:
    measure = partial(part_of_speech.measure, data=data)
    return Task(language, measure, part_of_speech.SETS[data].files)


def _sentiment(data: str) -> Task:
    return Task("en", partial(sentiment.measure, data=data), (sentiment.SST,))


def _similarity(data: str) -> Task:
    source = similarity.SETS[data]
    return Task(source.language, partial(similarity.measure, data=data), (source.archive,))


TASKS = {
    "pos-ewt": _part_of_speech("en", part_of_speech.EWT),
    "pos-wsj": _part_of_speech("en", part_of_speech.WSJ),
    "pos-brown": _part_of_speech("en", part_of_speech.BROWN),
    "senses": Task("en", senses.measure, (senses.SEMCOR, senses.ALL_WORDS), wordnet=True),
    "one-word": Task("en", senses.measure_one_word, (senses.ONE_WORD,)),
    "wic": Task("en", word_in_context.measure, (word_in_context.ARCHIVE,)),
    "entities": Task("en", entities.measure, (entities.ARCHIVE,)),
    "sst5": _sentiment(sentiment.FINE),
    "sst2": _sentiment(sentiment.BINARY),
    "sts": _similarity("STS benchmark"),
    "pos-rrt": _part_of_speech("ro", part_of_speech.RRT),
    "ro-sts": _similarity("RO-STS"),
    "laroseda": Task(
        "ro", partial(sentiment.measure, data=sentiment.ROMANIAN), (sentiment.LAROSEDA,)
    ),
}


def tasks_named(names: Sequence[str] | None, language: str) -> dict[str, Task]:
    """Look up tasks.

    Args:
        names: of `TASKS`; None for all of the language.
        language: "en" or "ro".

    Raises:
        ParameterError: there is no task of such a name.
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
    setting: Setting,
    tell: Callable[[str], None] = print,
) -> tuple[list[Row], list[str]]:
    """Measure on every set that is there.

    Args:
        tasks: by name.
        embedder: of the vectors; None for the baselines that need none.
        setting: the data and the seed.
        tell: is given a line about each figure and about each set that is missing.

    Returns:
        the figures, and a sentence for each set that was skipped.
    """
    rows: list[Row] = []
    skipped: list[str] = []
    for name, task in tasks.items():
        if missing := task.missing(setting):
            skipped.append(f"skipped {name}: there is no {missing[0]} (see docs/evaluation.md)")
            tell(skipped[-1])
            continue
        for each in task.measure(embedder, setting):
            tell(
                f"{each.task}, {each.data}, {each.system}: {each.metric} {each.value:.4f} "
                f"[{each.low:.4f}, {each.high:.4f}] of {each.n:,} {each.examples}"
            )
            rows.append(each)
    return rows, skipped
