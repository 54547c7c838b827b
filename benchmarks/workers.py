"""Measure training by two processes that share each batch, in turns with one process."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from benchmarks.program import N_THREADS
from benchmarks.rounds import in_turns, summary
from benchmarks.workspace import Workspace
from elmolib.training.launch import tf_configs

ONE, ALONE, TWO = "one process", "one process, one thread", "two workers"


def compare(workspace: Workspace, model: str) -> dict:
    """Measure two workers with one thread each, and one process with as many rows as each of them.

    The process runs with two threads, for the speed, and with one thread, for the processor time.
    The batch of the workers is twice as large, so that every process computes equally many rows.
    """
    parameters, steps = workspace.parameters(model), workspace.steps(model)
    # This prepares the corpus, so that the programs need not prepare it at the same time.
    rows, vocabulary = parameters["batch_size"], len(workspace.corpus.vocabulary)
    together = parameters | {"batch_size": N_THREADS * rows, "run_dir": workspace.new_folder()}
    configs = tf_configs(str(N_THREADS), None)
    settings = {
        ONE: {"parameters": parameters | {"run_dir": workspace.new_folder()}},
        ALONE: {
            "parameters": parameters | {"run_dir": workspace.new_folder()},
            "environment": _one_thread(),
        },
        TWO: {"parameters": together, "environment": _one_thread(configs[0])},
    }
    other = {"parameters": together, "environment": _one_thread(configs[1])}
    with ExitStack() as stack:
        second = stack.enter_context(workspace.program("ours", "train", other))
        programs = {
            name: stack.enter_context(workspace.program("ours", "train", each))
            for name, each in settings.items()
        }
        programs[ONE].ask()
        programs[ALONE].ask()
        second.send()
        programs[TWO].ask()
        for program in programs.values():
            program.ask(steps=steps.warmup)
        measured = {
            name: partial(program.ask, steps=steps.ours) for name, program in programs.items()
        }
        answers = in_turns(measured, workspace.rounds)
    targets = rows * parameters["unroll_steps"]
    found = {name: summary(answers[name], steps.ours) for name in answers}
    for name, each in found.items():
        processor = summary(answers[name], steps.ours, "processor_seconds")["seconds"]
        # Each of the workers computes `targets` tokens; the chief's processor time is measured.
        each["processor_seconds_per_token"] = processor / targets
        each["tokens_per_second"] = targets * (1 + (name == TWO)) / each["seconds"]
    return {
        "rows_per_process": rows,
        "vocabulary": vocabulary,
        "programs": found,
        "speed_ratio": found[TWO]["tokens_per_second"] / found[ONE]["tokens_per_second"],
        "processor_ratio": found[TWO]["processor_seconds_per_token"]
        / found[ALONE]["processor_seconds_per_token"],
        "memory_ratio": found[TWO]["peak_memory"] / found[ALONE]["peak_memory"],
    }


def _one_thread(tf_config: str = "") -> dict[str, str]:
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return dict.fromkeys(names, "1") | {"TF_CONFIG": tf_config}
