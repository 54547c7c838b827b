"""Measure the cost of a large vocabulary in training and in scoring with the full softmax."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from benchmarks.rounds import in_turns, ratio, summary
from benchmarks.workspace import Workspace

BYTES_PER_WORD_AND_FEATURE = 8
"""The number of bytes of a float32 weight together with its Adagrad accumulator."""


def training_cost(workspace: Workspace, sizes: tuple[int, ...]) -> dict:
    """Measure training steps of the small model with vocabularies of different sizes."""
    steps = workspace.steps("small")
    with ExitStack() as stack:
        programs = {}
        for size in sizes:
            settings = {"parameters": parameters_with_vocabulary(workspace, size)}
            programs[size] = stack.enter_context(workspace.program("ours", "train", settings))
            programs[size].ask()
            programs[size].ask(steps=steps.warmup)
        measured = {
            size: partial(program.ask, steps=steps.ours) for size, program in programs.items()
        }
        answers = in_turns(measured, workspace.rounds)
    found = {size: summary(answers[size], steps.ours) for size in sizes}
    for size in sizes:
        found[size]["memory"] = answers[size][-1]["memory"]
    first, last = found[sizes[0]], found[sizes[-1]]
    features = workspace.models["small"].projection_dim + 1
    return {
        "sizes": list(sizes),
        "measured": [found[size] for size in sizes],
        **ratio(last, first),
        "memory_growth": last["memory"] - first["memory"],
        "peak_memory_growth": last["peak_memory"] - first["peak_memory"],
        "weights_and_accumulators": (sizes[-1] - sizes[0]) * features * BYTES_PER_WORD_AND_FEATURE,
    }


def parameters_with_vocabulary(workspace: Workspace, size: int) -> dict:
    """Return the small model's parameters; made-up words fill its vocabulary up to `size`."""
    words = workspace.corpus.vocabulary.words[3:size]
    words += [f"unheard{k}" for k in range(size - 3 - len(words))]
    file = workspace.work / f"vocabulary_{size}.txt"
    if not file.exists():
        file.write_text("\n".join(["<S>", "</S>", "<UNK>", *words]) + "\n", encoding="utf-8")
    return workspace.parameters("small") | {
        "vocabulary_file": str(file),
        "corpus_dir": str(workspace.work / f"corpus_{size}"),
        "run_dir": workspace.new_folder(),
    }


def evaluation_cost(workspace: Workspace, size: int, n_windows: int) -> dict:
    """Measure scoring with the full softmax."""
    parameters = parameters_with_vocabulary(workspace, size)
    settings = {"parameters": parameters, "windows": n_windows}
    with workspace.program("ours", "evaluate", settings) as program:
        answer = program.ask()
    speed = answer["targets"] / answer["seconds"]
    return {"vocabulary": size, **answer, "tokens_per_second": speed}
