"""From sentences to vectors: elmolib, bilm-tf and simple-elmo in turns."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import agreement
from benchmarks.models import write_random_model
from benchmarks.program import Program
from benchmarks.rounds import in_turns, ratio, seconds
from benchmarks.setting import Setting
from benchmarks.texts import sentences_to_embed

PEERS = {"bilm-tf": "predict_bilm", "simple-elmo": "predict_simple"}
BATCH_SIZE = 32

SENTENCE = ["The", "river", "bank", "was", "steep", "."]


def compare(setting: Setting, model: str, with_peers: bool = True) -> dict:
    """Measure words per second, from their characters to all layers.

    Cold, elmolib knows no word when a round begins and remembers those that it meets, as a user
    would see it who embeds so many sentences. Warm, it knows every word.
    """
    sentences = sentences_to_embed(setting.text, setting.n_embedded(model))
    settings = _settings(setting, model, sentences)
    folder = setting.folder(f"predict_{model}")
    n_words = sum(map(len, sentences))
    with ExitStack() as stack:
        ours = stack.enter_context(Program("ours", "predict", settings, folder))
        contestants = {
            "elmolib": partial(ours.ask, forget=True),
            "elmolib, warm": partial(ours.ask, forget=False),
        }
        peers = {}
        if with_peers and not setting.peers_missing:
            peers = {
                name: stack.enter_context(Program("peers", task, settings, folder))
                for name, task in PEERS.items()
            }
        found = {"largest_disagreement": _check(setting.folder(f"predict_{model}"), ours, peers)}
        contestants |= {name: partial(program.ask, forget=True) for name, program in peers.items()}
        in_turns(contestants, setting.warm_rounds)
        answers = in_turns(contestants, setting.rounds)
    programs = {name: seconds(answers[name]) for name in answers}
    for program in programs.values():
        program["tokens_per_second"] = n_words / program["seconds"]
    found |= {
        "model": setting.models[model].to_json(),
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


def by_length(setting: Setting, lengths: tuple[int, ...], n_words: int) -> list[dict]:
    """Measure how elmolib's speed depends on the length of sentences, words known."""
    words = sum(sentences_to_embed(setting.text, n_words), [])[:n_words]
    found = []
    for length in lengths:
        sentences = [words[k : k + length] for k in range(0, len(words), length)]
        settings = _settings(setting, "small", sentences)
        folder = setting.folder("predict_small")
        with Program("ours", "predict", settings, folder) as program:
            contestants = {length: partial(program.ask, forget=False)}
            in_turns(contestants, 1)
            measured = seconds(in_turns(contestants, setting.rounds)[length])
        found.append({"length": length, "tokens_per_second": len(words) / measured["seconds"]})
    return found


def start(setting: Setting, model: str) -> dict:
    """Measure fresh processes up to the first vector, and what memory they take to embed a text.

    A bare `import tensorflow` is measured in turns with them, for nobody can be quicker or smaller.
    """
    folder = setting.folder(f"start_{model}")
    first = _settings(setting, model, [SENTENCE])
    tasks = {"import tensorflow": ("ours", "bare"), "elmolib": ("ours", "predict")}
    if not setting.peers_missing:
        tasks |= {name: ("peers", task) for name, task in PEERS.items()}
    answers = in_turns(
        {name: partial(_first_vector, *task, first, folder) for name, task in tasks.items()},
        setting.rounds,
    )
    found = {name: seconds(answers[name]) for name in answers}
    bare = found["import tensorflow"]
    many = _settings(setting, model, sentences_to_embed(setting.text, setting.n_embedded(model)))
    for name, (module, task) in tasks.items():
        found[name]["extra_seconds"] = found[name]["seconds"] - bare["seconds"]
        if name != "import tensorflow":
            with Program(module, task, many, folder) as program:
                peak = program.ask(forget=True)["peak_memory"]
            found[name]["extra_peak_memory"] = peak - bare["peak_memory"]
            found[name]["extra_peak_memory_of_weights"] = (
                found[name]["extra_peak_memory"] / first["weight_bytes"]
            )
    return {"weight_bytes": first["weight_bytes"], "programs": found}


def _first_vector(module: str, task: str, settings: dict, folder: Path) -> dict:
    started = time.perf_counter()
    with Program(module, task, settings, folder) as program:
        answer = program.ask(written=str(folder / "vectors.npz"))
        return answer | {"seconds": time.perf_counter() - started}


def _settings(setting: Setting, model: str, sentences: list[list[str]]) -> dict:
    folder = setting.folder(f"model_{model}")
    options = setting.models[model]
    if not (folder / "weights.hdf5").exists():
        write_random_model(folder, options, setting.corpus.vocabulary)
    file = setting.folder("sentences") / f"{abs(hash(str(sentences)))}.json"
    file.write_text(json.dumps(sentences))
    return {
        "folder": str(folder),
        "max_characters": options.max_characters,
        "batch_size": BATCH_SIZE,
        "sentences": str(file),
        "weight_bytes": sum(4 * int(np.prod(s)) for s in options.weight_shapes().values()),
    }


def _check(folder: Path, ours: Program, peers: dict[str, Program]) -> float | None:
    """Require that all programs give the same vectors."""
    written = folder / "ours.npz"
    ours.ask(written=str(written))
    worst = []
    for name, program in peers.items():
        program.ask(written=str(folder / "theirs.npz"))
        worst.append(agreement.require_same_vectors(folder / "theirs.npz", written, name))
    return max(worst, default=None)
