"""Training steps of elmolib and bilm-tf in turns."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import agreement
from benchmarks.program import Program
from benchmarks.rounds import in_turns, ratio, seconds
from benchmarks.setting import Setting
from benchmarks.work import Work, work_of_step
from elmolib.options import BiLMOptions

OURS, THEIRS = "elmolib", "bilm-tf"


def compare(setting: Setting, model: str, with_peers: bool = True, **changes) -> dict:
    """Measure targets of one direction per second, the making of batches included.

    Args:
        setting: the scale and the text.
        model: a name of `MODELS`.
        with_peers: measure bilm-tf too, if it is installed.
        **changes: parameters of the recipe to change; they do not reach bilm-tf.
    """
    recipe = setting.recipe(model) | changes
    folder = setting.folder(f"train_{model}")
    found: dict = {"text": setting.text_name, "dimensions": setting.models[model].to_json()}
    found |= {key: recipe[key] for key in ("batch_size", "unroll_steps", "n_negatives", "dropout")}
    commands = {OURS: ("ours", {"parameters": {**recipe, "run_dir": setting.new_folder()}})}
    if with_peers and not setting.peers_missing:
        theirs = {
            "options": bilm_options(setting, model),
            "vocabulary": str(setting.vocabulary),
            "text": str(setting.text),
            "folder": str(folder),
        }
        commands[THEIRS] = ("peers", theirs)
        found["largest_disagreement"] = check_step(folder, theirs)
    with ExitStack() as stack:
        programs = {
            name: stack.enter_context(Program(module, "train", settings, folder))
            for name, (module, settings) in commands.items()
        }
        machine = stack.enter_context(Program("ours", "product", {}, folder))
        found |= programs[OURS].ask()
        steps = setting.steps(model)
        for program in programs.values():
            program.ask(steps=steps.warm)
        n_steps = {OURS: steps.ours, THEIRS: steps.theirs}
        contestants = {
            name: partial(program.ask, steps=n_steps[name]) for name, program in programs.items()
        }
        contestants["product"] = partial(machine.ask, seconds=setting.product_seconds)
        answers = in_turns(contestants, setting.rounds)
    rate = median(answer["rate"] for answer in answers.pop("product"))
    work = _work(found, recipe, setting.models[model])
    found["programs"] = {
        name: _summary(seconds(answers[name], n_steps[name]), recipe, work[name])
        for name in answers
    }
    found["product_gflops"] = rate / 1e9
    found["product_rate_share"] = found["programs"][OURS]["gflops"] * 1e9 / rate
    found["gflop_of_parts"] = {part: n / 1e9 for part, n in vars(work[OURS]).items()}
    if THEIRS in found["programs"]:
        found |= ratio(found["programs"][THEIRS], found["programs"][OURS])
    return found


def _work(found: dict, recipe: dict, options: BiLMOptions) -> dict[str, Work]:
    slots, negatives = found["slots"], recipe["n_negatives"]
    return {
        OURS: work_of_step(options, found["words"], found["columns"], slots, negatives),
        # No word is shared, no column left out.
        THEIRS: work_of_step(options, slots, options.max_characters, slots, negatives),
    }


def _summary(measured: dict, recipe: dict, work: Work) -> dict:
    targets = recipe["batch_size"] * recipe["unroll_steps"]
    return {
        **measured,
        "tokens_per_second": targets / measured["seconds"],
        "gflop": work.total / 1e9,
        "gflops": work.total / 1e9 / measured["seconds"],
    }


def check_step(folder: Path, theirs: dict) -> float:
    """Require that a step of elmolib is the step that bilm-tf takes; see `agreement`."""
    written = {name: str(folder / f"{name}.npz") for name in ("theirs", "ours")}
    with Program("peers", "one_step", theirs | {"written": written["theirs"]}, folder) as program:
        program.ask()
    step_of_ours(theirs["options"], written["theirs"], written["ours"], folder)
    with np.load(written["theirs"]) as a, np.load(written["ours"]) as b:
        return agreement.require_same_step(dict(a), dict(b))


def step_of_ours(options: dict, theirs: str, written: str, folder: Path) -> None:
    """Let elmolib take the step that is described in the file `theirs`."""
    settings = {"options": options, "theirs": theirs, "written": written}
    with Program("ours", "one_step", settings, folder) as program:
        program.ask()


def bilm_options(setting: Setting, model: str) -> dict:
    """The options of bilm-tf's training program."""
    recipe = setting.recipe(model)
    stored = setting.models[model].to_json()
    # One less than for prediction, where 0 stands for positions without a word.
    stored["char_cnn"]["n_characters"] = 261
    return {
        **stored,
        "bidirectional": True,
        "dropout": recipe["dropout"],
        "learning_rate": recipe["learning_rate"],
        "all_clip_norm_val": recipe["clip_norm"],
        "n_epochs": recipe["epochs"],
        "n_train_tokens": setting.n_targets,
        "n_tokens_vocab": setting.vocabulary_size,
        "batch_size": recipe["batch_size"],
        "unroll_steps": recipe["unroll_steps"],
        "n_negative_samples_batch": recipe["n_negatives"],
    }
