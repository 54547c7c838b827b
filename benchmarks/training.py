"""Training steps of elmolib and bilm-tf, measured in turns."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import agreement
from benchmarks.rounds import in_turns, ratio, summary
from benchmarks.work import Work, work_of_step
from benchmarks.workspace import Workspace
from elmolib.formats.options import options_of
from elmolib.settings.architecture import Architecture

OURS, THEIRS = "elmolib", "bilm-tf"


def compare(workspace: Workspace, model: str, with_peers: bool = True, **changes) -> dict:
    """Measure words predicted per second by one direction, including the time to make batches.

    Args:
        workspace: the workspace, which provides the scale and the text.
        model: a name in `MODELS`.
        with_peers: measure bilm-tf too, if it is installed.
        **changes: training parameters to change in elmolib; those of bilm-tf stay as they are.
    """
    parameters = workspace.parameters(model) | changes
    architecture = workspace.models[model]
    found: dict = {"text": workspace.text_name, "dimensions": options_of(architecture)}
    found |= {
        key: parameters[key] for key in ("batch_size", "unroll_steps", "n_negatives", "dropout")
    }
    ours = {"parameters": {**parameters, "run_dir": workspace.new_folder()}}
    commands = {OURS: ("ours", "train", ours)}
    if with_peers and not workspace.peers_missing:
        theirs = bilm_settings(workspace, model)
        commands[THEIRS] = ("peers", "train", theirs)
        found["largest_disagreement"] = check_step(workspace, theirs)
    with ExitStack() as stack:
        programs = {
            name: stack.enter_context(workspace.program(*command))
            for name, command in commands.items()
        }
        found |= programs[OURS].ask()
        steps = workspace.steps(model)
        for program in programs.values():
            program.ask(steps=steps.warmup)
        n_steps = {OURS: steps.ours, THEIRS: steps.theirs}
        measured = {
            name: partial(program.ask, steps=n_steps[name]) for name, program in programs.items()
        }
        measured["matmul"] = lambda: {"rate": workspace.matmul_rate()}
        answers = in_turns(measured, workspace.rounds)
    rate = median(answer["rate"] for answer in answers.pop("matmul"))
    work = _work(found, architecture)
    targets = parameters["batch_size"] * parameters["unroll_steps"]
    found["programs"] = {
        name: _with_rates(summary(answers[name], n_steps[name]), targets, work[name])
        for name in answers
    }
    found["product_gflops"] = rate / 1e9
    found["product_rate_share"] = found["programs"][OURS]["gflops"] * 1e9 / rate
    found["gflop_of_parts"] = {part: n / 1e9 for part, n in vars(work[OURS]).items()}
    if THEIRS in found["programs"]:
        found |= ratio(found["programs"][THEIRS], found["programs"][OURS])
    return found


def _work(found: dict, architecture: Architecture) -> dict[str, Work]:
    slots, negatives = found["slots"], found["n_negatives"]
    return {
        OURS: work_of_step(architecture, found["words"], found["columns"], slots, negatives),
        # bilm-tf runs the character CNN on every occurrence of a word, including the padding.
        THEIRS: work_of_step(architecture, slots, architecture.max_characters, slots, negatives),
    }


def _with_rates(measured: dict, targets: int, work: Work) -> dict:
    return {
        **measured,
        "tokens_per_second": targets / measured["seconds"],
        "gflop": work.total / 1e9,
        "gflops": work.total / 1e9 / measured["seconds"],
    }


def check_step(workspace: Workspace, theirs: dict) -> float:
    """Require that elmolib takes the same training step as bilm-tf; see `agreement`.

    Args:
        workspace: the workspace, which stores the largest difference for each set of options.
        theirs: the settings of bilm-tf, made by `bilm_settings`.
    """
    key = json.dumps(theirs["options"])
    if key not in workspace.step_differences:
        files = {name: workspace.folder("step") / f"{name}.npz" for name in ("theirs", "ours")}
        settings = theirs | {"written": str(files["theirs"])}
        with workspace.program("peers", "one_step", settings) as program:
            program.ask()
        our_step(workspace, theirs["options"], files["theirs"], files["ours"])
        with np.load(files["theirs"]) as a, np.load(files["ours"]) as b:
            difference = agreement.require_same_step(dict(a), dict(b))
        workspace.step_differences[key] = difference
    return workspace.step_differences[key]


def our_step(workspace: Workspace, options: dict, theirs: Path, written: Path) -> None:
    """Repeat the step in the file `theirs` with elmolib, and write the result to `written`."""
    settings = {"options": options, "theirs": str(theirs), "written": str(written)}
    with workspace.program("ours", "one_step", settings) as program:
        program.ask()


def bilm_settings(workspace: Workspace, model: str) -> dict:
    """Return the settings of bilm-tf's training program."""
    parameters = workspace.parameters(model)
    options = options_of(workspace.models[model])
    # bilm-tf trains with 261 character ids. It predicts with 262, where id 0 is padding.
    options["char_cnn"]["n_characters"] = 261
    options |= {
        "bidirectional": True,
        "dropout": parameters["dropout"],
        "learning_rate": parameters["learning_rate"],
        "all_clip_norm_val": parameters["clip_norm"],
        "n_epochs": parameters["epochs"],
        "n_train_tokens": workspace.n_targets,
        "n_tokens_vocab": len(workspace.corpus.vocabulary),
        "batch_size": parameters["batch_size"],
        "unroll_steps": parameters["unroll_steps"],
        "n_negative_samples_batch": parameters["n_negatives"],
    }
    return {
        "options": options,
        "vocabulary": str(workspace.corpus.path / "vocabulary.txt"),
        "text": str(workspace.text),
        "folder": str(workspace.folder(f"train_{model}")),
    }
