"""elmolib's runtimes, measured in turns on text in which no sentence repeats.

Both the elapsed time and the processors' working time are measured, because other work on the
machine affects the working time less.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from statistics import median

from benchmarks.prediction import settings_of
from benchmarks.rounds import in_turns
from benchmarks.texts import sentences_to_embed
from benchmarks.workspace import Workspace
from elmolib.embedding.onnx_runtime import require_int8
from elmolib.errors import ParameterError
from elmolib.formats.published import SHIPPED

CONTESTANTS: dict[str, dict] = {
    "tensorflow": {"runtime": "tensorflow"},
    "numpy": {"runtime": "numpy"},
    "onnx": {"runtime": "onnx"},
    "onnx, remembered words": {"runtime": "onnx", "remembers": True},
    "onnx int8": {"runtime": "onnx", "precision": "int8"},
    "onnx int8, remembered words": {"runtime": "onnx", "precision": "int8", "remembers": True},
}
"""The settings of each runtime to measure. All other runtimes are compared with the first one."""

REMEMBERED, CALIBRATION = 20_000, 300
"""The number of words to remember (the text's most frequent), and of sentences to calibrate on."""


def contestants() -> dict[str, dict]:
    """Return the runtimes that this processor can run."""
    try:
        require_int8()
    except ParameterError as error:
        print(error)
        return {name: each for name, each in CONTESTANTS.items() if "int8" not in name}
    return CONTESTANTS


def compare(workspace: Workspace, model: str) -> dict:
    """Measure each runtime on a model, with an empty cache of words and with a full one.

    Args:
        model: the name of a model of the workspace, or "en-tiny".
    """
    sentences = sentences_to_embed(workspace.text, 2 * workspace.n_embedded(model))
    sentences = list(dict.fromkeys(map(tuple, sentences)))[: workspace.n_embedded(model)]
    text = workspace.write_json(f"distinct_sentences_{model}", sentences)
    n_words = sum(map(len, sentences))
    if model in SHIPPED:
        settings = {"folder": str(SHIPPED[model])}
    else:
        settings = settings_of(workspace, model)
    known, all_sentences = set(sentences), sentences_to_embed(workspace.text, 10**9)
    others = [words for words in all_sentences if tuple(words) not in known][-CALIBRATION:]
    counts = Counter(word for words in all_sentences for word in words)
    settings |= {
        "batch_size": None,
        "calibrate": workspace.write_json(f"calibration_{model}", others),
        "frequent": workspace.write_json(
            "frequent_words", [word for word, _ in counts.most_common(REMEMBERED)]
        ),
    }
    chosen = contestants()
    first = next(iter(chosen))
    found: dict = {"words": n_words, "runtimes": {name: {} for name in chosen}}
    with ExitStack() as stack:
        programs = {
            name: stack.enter_context(workspace.program("ours", "predict", settings | own))
            for name, own in chosen.items()
        }
        for state, forget in (("cold", True), ("warm", False)):
            measured = {
                name: partial(program.ask, sentences=text, forget=forget)
                for name, program in programs.items()
            }
            in_turns(measured, 1)
            answers = in_turns(measured, workspace.rounds)
            for unit in ("seconds", "cpu_seconds"):
                rounds = {name: [answer[unit] for answer in answers[name]] for name in chosen}
                for name, seconds in rounds.items():
                    pairs = zip(rounds[first], seconds, strict=True)
                    found["runtimes"][name][f"{state}, words per {unit[:-1]}"] = {
                        "rate": n_words / median(seconds),
                        "ratio": median(slower / own for slower, own in pairs),
                    }
        for name, program in programs.items():
            answer = program.ask(sentences=text, forget=False)
            found["runtimes"][name] |= {key: answer[key] for key in ("peak_memory", "blas")}
    return found
