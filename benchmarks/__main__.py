"""Measure the speed and memory of elmolib, bilm-tf and simple-elmo.

python -m benchmarks                     measure everything, about an hour
python -m benchmarks --only train_small  measure one part again; the other results stay
python -m benchmarks --quick             measure as little as possible, to test the benchmark
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks import (
    clusters,
    growth,
    machine,
    prediction,
    preparation,
    report,
    runtimes,
    training,
    vocabulary,
    workers,
)
from benchmarks.agreement import Disagreement
from benchmarks.program import N_THREADS, ROOT, ProgramFailed
from benchmarks.workspace import Workspace
from elmolib.backend import has_bfloat16


def parts(workspace: Workspace) -> dict[str, Callable[[], dict]]:
    """Return the functions that measure each part, by the part's name."""
    quick = workspace.quick
    sizes = (200, 800) if quick else (10_000, 800_000)
    train = partial(training.compare, workspace)
    megabytes = {
        "prepare_tokenized": (100, True),
        "prepare_raw": (20, False),
        "prepare_gigabyte": (1000, True),
    }
    bfloat16 = {"train_small_bfloat16": partial(train, "small", precision="bfloat16")}
    return {
        "train_small": partial(train, "small"),
        **(bfloat16 if has_bfloat16() else {}),
        "train_tiny": partial(train, "tiny"),
        "predict_small": partial(prediction.compare, workspace, "small"),
        "predict_original": partial(prediction.compare, workspace, "original"),
        **{
            f"runtimes_{model}": partial(runtimes.compare, workspace, model)
            for model in ("en-tiny", "small", "original")
        },
        "vocabulary": partial(vocabulary.training_cost, workspace, sizes),
        "evaluation": partial(vocabulary.evaluation_cost, workspace, sizes[-1], 1 if quick else 8),
        "start_small": partial(prediction.start, workspace, "small"),
        "start_original": partial(prediction.start, workspace, "original"),
        **{
            name: partial(preparation.measure, workspace, 0.1 if quick else size, tokenized)
            for name, (size, tokenized) in megabytes.items()
        },
        **({"ray": partial(clusters.measure, workspace)} if find_spec("ray") else {}),
        "growth": partial(growth.measure, workspace),
        "workers_small": partial(workers.compare, workspace, "small"),
    }


def main() -> int:
    """Measure the parts, print the table, and write `results.json` and the plots."""
    arguments = _arguments()
    cores = machine.pin(N_THREADS, arguments.cores)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        Workspace(Path(folder), arguments.data, arguments.quick) as workspace,
    ):
        measurements = parts(workspace)
        wanted = arguments.only or list(measurements)
        if unknown := set(wanted) - set(measurements):
            print(f"--only: there is no {', '.join(unknown)}, only {', '.join(measurements)}.")
            return 2
        if workspace.peers_missing:
            names = ", ".join(workspace.peers_missing)
            print(f"Only elmolib is measured, because the extra `peers` is missing: {names}.")
        described = machine.describe(cores) | {"product_gflops": workspace.matmul_rate() / 1e9}
        written = arguments.output / "results.json"
        measured = report.earlier_parts(written) if arguments.only else {}
        for name in wanted:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                measured[name] = {**measurements[name](), "machine": described}
            except (Disagreement, ProgramFailed) as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 1
            # Write the results after each part, because a later part may fail.
            results = report.results(measured, described, workspace.peers_missing)
            report.write_json(results, written)
    report.plot_comparison(results, arguments.output / "comparison.png")
    report.plot_growth(results, arguments.output / "growth.png")
    print(report.table(results))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", type=lambda names: names.split(","), help="parts to measure, with commas")
    add("--quick", action="store_true", help="measure as little as possible")
    add("--cores", type=_numbers, help="numbers of two cores, with a comma; default: the first two")
    add(
        "--data",
        type=Path,
        default=ROOT.parent / "shared" / "data",
        help="folder with lm/wikitext-2.zip; without it, a Wikipedia excerpt is used",
    )
    add("--output", type=Path, default=ROOT / "benchmarks", help="folder of results.json")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
