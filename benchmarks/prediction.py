"""Measure how fast elmolib, bilm-tf and simple-elmo embed sentences, in turns."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial

import numpy as np

from benchmarks import agreement
from benchmarks.models import write_random_model
from benchmarks.program import Program
from benchmarks.rounds import in_turns, ratio, summary
from benchmarks.texts import sentences_to_embed
from benchmarks.workspace import Workspace
from elmolib.formats.names import weight_shapes
from elmolib.formats.options import options_of

PEERS = {"bilm-tf": "predict_bilm", "simple-elmo": "predict_simple"}
BATCH_SIZE = 32

SENTENCE = ["The", "river", "bank", "was", "steep", "."]


def compare(workspace: Workspace, model: str) -> dict:
    """Measure words per second, from characters to the vectors of all layers.

    elmolib is measured twice: with its word cache cleared before each round, as if a user embedded
    only these sentences, and with every word already in the cache ("warm").
    """
    sentences = sentences_to_embed(workspace.text, workspace.n_embedded(model))
    text = workspace.write_json(f"sentences_{model}", sentences)
    settings = settings_of(workspace, model)
    n_words = sum(map(len, sentences))
    with ExitStack() as stack:
        ours = stack.enter_context(workspace.program("ours", "predict", settings))
        tasks = {} if workspace.peers_missing else PEERS
        peers = {
            name: stack.enter_context(workspace.program("peers", task, settings))
            for name, task in tasks.items()
        }
        found = {"largest_disagreement": _check(workspace, text, ours, peers)}
        measured = {
            "elmolib": partial(ours.ask, sentences=text, forget=True),
            "elmolib, warm": partial(ours.ask, sentences=text, forget=False),
            **{name: partial(program.ask, sentences=text) for name, program in peers.items()},
        }
        in_turns(measured, workspace.warmup_rounds)
        answers = in_turns(measured, workspace.rounds)
    programs = {name: summary(answers[name]) for name in answers}
    for program in programs.values():
        program["tokens_per_second"] = n_words / program["seconds"]
    found |= {
        "model": options_of(workspace.models[model]),
        "sentences": len(sentences),
        "words": n_words,
        "batch_size": BATCH_SIZE,
        "programs": programs,
    }
    if peers:
        fastest = min(peers, key=lambda name: programs[name]["seconds"])
        found |= {"fastest_peer": fastest, **ratio(programs[fastest], programs["elmolib"])}
        found["ratio_warm"] = ratio(programs[fastest], programs["elmolib, warm"])["ratio"]
    return found


def by_length(workspace: Workspace, lengths: tuple[int, ...], n_words: int) -> list[float]:
    """Measure elmolib's words per second by sentence length, with all words in its cache."""
    words = sum(sentences_to_embed(workspace.text, n_words), [])[:n_words]
    found = []
    with workspace.program("ours", "predict", settings_of(workspace, "small")) as program:
        for length in lengths:
            sentences = [words[k : k + length] for k in range(0, len(words), length)]
            text = workspace.write_json(f"sentences_of_{length}", sentences)
            measured = {length: partial(program.ask, sentences=text, forget=False)}
            in_turns(measured, 1)
            answers = in_turns(measured, workspace.rounds)[length]
            found.append(len(words) / summary(answers)["seconds"])
    return found


def start(workspace: Workspace, model: str) -> dict:
    """Measure the time from a program's start to its first vector, and its peak memory for a text.

    For comparison, a process that only imports TensorFlow is measured too.
    """
    text = workspace.write_json(
        f"sentences_{model}", sentences_to_embed(workspace.text, workspace.n_embedded(model))
    )
    tasks = {"import tensorflow": ("ours", "bare"), "elmolib": ("ours", "predict")}
    if not workspace.peers_missing:
        tasks |= {name: ("peers", task) for name, task in PEERS.items()}
    settings = settings_of(workspace, model)

    def new_process(name: str, last: bool) -> dict:
        written = str(workspace.folder("first_vectors") / "vectors.npz")
        sentence = workspace.write_json("sentence", [SENTENCE])
        started = time.perf_counter()
        with workspace.program(*tasks[name], settings) as program:
            answer = program.ask(sentences=sentence, written=written)
            answer["seconds"] = time.perf_counter() - started
            if last:
                answer |= {"of_text": program.ask(sentences=text, forget=True)["peak_memory"]}
        return answer

    rounds = [
        in_turns({name: partial(new_process, name, last) for name in tasks}, n)
        for last, n in ((False, workspace.rounds - 1), (True, 1))
    ]
    answers = {name: rounds[0][name] + rounds[1][name] for name in tasks}
    found = {name: summary(answers[name]) for name in tasks}
    bare, weight_bytes = found["import tensorflow"], settings["weight_bytes"]
    for name, program in found.items():
        program["extra_seconds"] = program["seconds"] - bare["seconds"]
        if name != "import tensorflow":
            extra = answers[name][-1]["of_text"] - bare["peak_memory"]
            program["extra_peak_memory"] = extra
            program["extra_peak_memory_of_weights"] = extra / weight_bytes
    return {"weight_bytes": weight_bytes, "programs": found}


def settings_of(workspace: Workspace, model: str) -> dict:
    """Write a random model, and return the settings with which `predict` uses it."""
    folder = workspace.folder(f"model_{model}")
    architecture = workspace.models[model]
    if not (folder / "weights.hdf5").exists():
        write_random_model(folder, architecture, workspace.corpus.vocabulary)
    shapes = weight_shapes(architecture).values()
    return {
        "folder": str(folder),
        "max_characters": architecture.max_characters,
        "batch_size": BATCH_SIZE,
        "weight_bytes": sum(4 * int(np.prod(shape)) for shape in shapes),
    }


def _check(
    workspace: Workspace, text: str, ours: Program, peers: dict[str, Program]
) -> float | None:
    """Require that all programs give the same vectors; return the largest difference."""
    folder = workspace.folder("vectors")
    files = {name: folder / f"{name}.npz" for name in ("ours", *peers)}
    for name, program in {"ours": ours, **peers}.items():
        program.ask(sentences=text, written=str(files[name]))
    return max(
        (agreement.require_same_vectors(files[name], files["ours"], name) for name in peers),
        default=None,
    )
