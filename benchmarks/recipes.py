"""Compare training recipes on the demo text: python -m benchmarks.recipes

The program prints the table of docs/training.md and writes all figures to a JSON file. Every run
is a process of its own; the recipes take turns, seed by seed. For fewer runs, name them, or give
the keys to change: --runs bilm-tf elmolib '{"dropout": 0.2}' --seeds 1
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import mean

BILM_TF = {"recipe": "bilm-tf", "dropout": 0.1, "batch_size": 32, "epochs": 5}
RUNS: dict[str, dict] = {
    "bilm-tf": BILM_TF,
    "elmolib": {},
    "elmolib in bfloat16": {"precision": "bfloat16"},
}
"""What each run changes in params/tiny.yaml."""


def train(folder: str, seed: int, changes: dict) -> dict:
    """Train once. Return the history and the time of the run, without preparation."""
    from elmolib.corpus.prepare import prepare_corpus
    from elmolib.settings.parameters import Parameters
    from elmolib.training.loop import Training

    with tempfile.TemporaryDirectory(dir=folder) as run_dir:
        places = {"run_dir": run_dir, "corpus_dir": f"{folder}/corpus"}
        parameters = Parameters.from_yaml("tiny", **places, seed=seed, **changes)
        training = Training(parameters, prepare_corpus(parameters))
        before, started = _cpu_seconds(), time.perf_counter()
        training.run()
        minutes = (time.perf_counter() - started) / 60
    return {
        "history": training.history,
        "minutes_of_steps": sum(line["seconds"] for line in training.history) / 60,
        "minutes": minutes,
        "cpu_minutes": (_cpu_seconds() - before) / 60,
    }


def _cpu_seconds() -> float:
    return sum(getrusage(RUSAGE_SELF)[:2])


def row(name: str, runs: list[dict], base: list[dict]) -> str:
    """Return one row of the table, with the ratios to the runs of another recipe."""
    ends = [run["history"][-1] for run in runs]
    per_seed = ", ".join(
        f"{end['heldout_forward']:.1f} / {end['heldout_backward']:.1f}" for end in ends
    )
    perplexity, minutes = _geometric_mean(runs), mean(run["minutes"] for run in runs)
    cells = [name, ", ".join(str(run["seed"]) for run in runs), f"{ends[0]['epoch']:g}", per_seed]
    cells += [f"{perplexity:.1f}", f"{perplexity / _geometric_mean(base):.3f}"]
    cells += [f"{minutes:.2f}", f"{minutes / mean(run['minutes'] for run in base):.2f}"]
    cells += [f"{mean(run['cpu_minutes'] for run in runs):.2f}"]
    return f"| {' | '.join(cells)} |"


def _geometric_mean(runs: list[dict]) -> float:
    return math.exp(mean(math.log(run["history"][-1]["heldout_mean"]) for run in runs))


def main() -> None:
    """Read the arguments, train in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("recipes.json"))
    parser.add_argument("--runs", nargs="+", default=list(RUNS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    found: dict[str, list[dict]] = {name: [] for name in arguments.runs}
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for name, runs in found.items():
                changes = RUNS[name] if name in RUNS else json.loads(name)
                with get_context("spawn").Pool(1) as pool:
                    run = pool.apply(train, (folder, seed, changes))
                runs.append({"seed": seed, "changes": changes, **run})
                arguments.output.write_text(json.dumps(found, indent=1) + "\n")
                print(row(name, runs[-1:], runs[-1:]), flush=True)
    print(
        "\n| run | seeds | epochs | held-out perplexity, forward / backward | mean | ratio "
        "| minutes | ratio | CPU minutes |\n|---|---|---:|---|---:|---:|---:|---:|---:|"
    )
    base = next(iter(found.values()))
    print("\n".join(row(name, runs, base) for name, runs in found.items()))


if __name__ == "__main__":
    main()
