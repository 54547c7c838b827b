"""Measure elmolib beside bilm-tf and simple-elmo.

python -m benchmarks                     everything, about an hour
python -m benchmarks --only train_small  one part again; others stay as they were measured before
python -m benchmarks --quick             next to nothing, to see that the benchmark works
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import growth, machine, prediction, preparation, report, training, vocabulary
from benchmarks.agreement import Disagreement
from benchmarks.program import N_THREADS, ROOT, Program, ProgramFailed
from benchmarks.setting import Setting
from elmolib.precision import has_bfloat16

BFLOAT16 = {"precision": "bfloat16"}
"""The one parameter in which such training differs, left out where the processor lacks it."""


def parts(setting: Setting) -> dict[str, Callable[[], dict]]:
    """Everything that can be measured, by name."""
    sizes = (200, 800) if setting.quick else (10_000, 800_000)
    megabytes = {
        "prepare_tokenized": (100, True),
        "prepare_raw": (20, False),
        "prepare_gigabyte": (1000, True),
    }
    bfloat16 = {"train_small_bfloat16": partial(training.compare, setting, "small", **BFLOAT16)}
    return {
        "train_small": partial(training.compare, setting, "small"),
        **(bfloat16 if has_bfloat16() else {}),
        "train_tiny": partial(training.compare, setting, "tiny"),
        "predict_small": partial(prediction.compare, setting, "small"),
        "predict_original": partial(prediction.compare, setting, "original"),
        "vocabulary": partial(vocabulary.training_cost, setting, sizes),
        "evaluation": partial(
            vocabulary.evaluation_cost, setting, sizes[-1], 1 if setting.quick else 8
        ),
        "start_small": partial(prediction.start, setting, "small"),
        "start_original": partial(prediction.start, setting, "original"),
        **{
            name: partial(preparation.measure, setting, 0.1 if setting.quick else size, tokenized)
            for name, (size, tokenized) in megabytes.items()
        },
        "growth": partial(growth.measure, setting),
    }


def main() -> int:
    """Measure, print, and write `results.json` and the plots."""
    arguments = _arguments()
    cores = machine.pin(N_THREADS, arguments.cores)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as work:
        setting = Setting(Path(work), arguments.data, arguments.quick)
        if setting.peers_missing:
            names = ", ".join(setting.peers_missing)
            print(f"Not installed: {names}. Only elmolib is measured; the extra is `peers`.")
        facts = machine.describe(cores)
        with Program("ours", "product", {}, setting.work) as product:
            facts["product_gflops"] = product.ask(seconds=setting.product_seconds)["rate"] / 1e9
        written = arguments.output / "results.json"
        measured = report.earlier_parts(written) if arguments.only else {}
        measurements = parts(setting)
        wanted = arguments.only or list(measurements)
        if unknown := set(wanted) - set(measurements):
            print(f"--only: {', '.join(unknown)} is none of {', '.join(measurements)}.")
            return 2
        for name in wanted:
            print(f"{name} ...", file=sys.stderr, flush=True)
            try:
                measured[name] = {**measurements[name](), "machine": facts}
            except (Disagreement, ProgramFailed) as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 1
            # After each part, for an hour is long and much can happen.
            results = report.results(measured, facts, setting.peers_missing)
            report.write_json(results, written)
    report.plot_comparison(results, arguments.output / "comparison.png")
    report.plot_growth(results, arguments.output / "growth.png")
    print(report.table(results))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", type=lambda names: names.split(","), help="parts, with commas")
    parser.add_argument("--quick", action="store_true", help="see that it works, nothing more")
    parser.add_argument("--cores", type=_numbers, help="which two, with a comma; default the first")
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT.parent / "shared" / "data",
        help="folder with lm/wikitext-2.zip; without it, a Wikipedia excerpt is used",
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks", help="where results.json goes"
    )
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
