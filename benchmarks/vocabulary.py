"""What a large vocabulary costs: in training, and where every word is scored."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.program import Program
from benchmarks.rounds import in_turns, ratio, seconds
from benchmarks.setting import Setting

PER_WORD_AND_FEATURE = 8
"""Bytes: a weight and its accumulator."""


def training_cost(setting: Setting, sizes: tuple[int, ...]) -> dict:
    """Measure training steps of the small model that differ in the size of the softmax alone."""
    folder = setting.folder("vocabulary")
    n_steps = setting.steps("small").ours
    with ExitStack() as stack:
        programs = {}
        for size in sizes:
            settings = {"parameters": recipe_with_vocabulary(setting, size)}
            programs[size] = stack.enter_context(Program("ours", "train", settings, folder))
            programs[size].ask()
            programs[size].ask(steps=setting.steps("small").warm)
        contestants = {
            size: partial(program.ask, steps=n_steps) for size, program in programs.items()
        }
        answers = in_turns(contestants, setting.rounds)
    found = {size: seconds(answers[size], n_steps) for size in sizes}
    for size in sizes:
        found[size]["memory"] = answers[size][-1]["memory"]
    first, last = found[sizes[0]], found[sizes[-1]]
    features = setting.models["small"].projection_dim + 1
    return {
        "sizes": list(sizes),
        "measured": [found[size] for size in sizes],
        **ratio(last, first),
        "memory_growth": last["memory"] - first["memory"],
        "peak_memory_growth": last["peak_memory"] - first["peak_memory"],
        "weights_and_accumulators": (sizes[-1] - sizes[0]) * features * PER_WORD_AND_FEATURE,
    }


def recipe_with_vocabulary(setting: Setting, size: int) -> dict:
    """The recipe of the small model, its vocabulary filled up with words that do not occur."""
    words = setting.corpus.vocabulary.words[3:size]
    words += [f"unheard{k}" for k in range(size - 3 - len(words))]
    file = setting.work / f"vocabulary_{size}.txt"
    if not file.exists():
        file.write_text("\n".join(["<S>", "</S>", "<UNK>", *words]) + "\n", encoding="utf-8")
    return setting.recipe("small") | {
        "vocabulary_file": str(file),
        "corpus_dir": str(Path(setting.work) / f"corpus_{size}"),
        "run_dir": setting.new_folder(),
    }


def evaluation_cost(setting: Setting, size: int, n_windows: int) -> dict:
    """Measure the scoring of text by the full softmax."""
    settings = {"parameters": recipe_with_vocabulary(setting, size), "windows": n_windows}
    folder = setting.folder("vocabulary")
    with Program("ours", "evaluate", settings, folder) as program:
        answer = program.ask()
    return {
        "vocabulary": size,
        **answer,
        "tokens_per_second": answer["targets"] / answer["seconds"],
    }
