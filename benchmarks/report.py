"""Write the measured figures as JSON, as a table and as plots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

MEGA = 1e6

KEYS = {
    "train_small_ratio": ("train_small", "ratio"),
    "train_small_bfloat16_ratio": ("train_small_bfloat16", "ratio"),
    "train_tiny_ratio": ("train_tiny", "ratio"),
    "predict_small_ratio": ("predict_small", "ratio"),
    "predict_original_ratio": ("predict_original", "ratio"),
    "vocabulary_cost_ratio": ("vocabulary", "ratio"),
    "product_rate_share": ("train_small", "product_rate_share"),
    "start_extra_s": ("start_small", "programs", "elmolib", "extra_seconds"),
}
"""Paths, within the measured parts, of the important figures at the top level of the JSON."""


def results(parts: dict[str, dict], machine: dict, peers_missing: list[str]) -> dict:
    """Return the content of `results.json`; important figures that were not measured are None."""
    return {
        **{key: _found(parts, *path) for key, path in KEYS.items()},
        "machine": machine,
        "peers_missing": peers_missing,
        "parts": parts,
    }


def _found(parts: dict, *path: str) -> float | None:
    for key in path:
        parts = parts.get(key) or {}
    return parts or None


def earlier_parts(path: Path) -> dict[str, dict]:
    """Read the parts of an earlier run, each with the machine on which it was measured."""
    if not path.exists():
        return {}
    earlier = json.loads(path.read_text())
    return {
        name: {"machine": earlier["machine"], **part} for name, part in earlier["parts"].items()
    }


def write_json(results: dict, path: Path) -> None:
    """Write results to a file that `earlier_parts` reads."""
    path.write_text(json.dumps(results, indent=1) + "\n")


def table(results: dict) -> str:
    """Return all figures as Markdown: the machines, a table, and a list of sentences."""
    headings = (
        "part",
        "program",
        "tokens/s",
        "relative time",
        "GFLOP/s",
        "of matmul rate",
        "memory",
    )
    rows = [headings, *_rows(results["parts"])]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    machines = _machines(results["parts"], results["machine"])
    return "\n".join([*machines, "", *lines, "", *_sentences(results["parts"])])


def _machines(parts: dict, machine: dict) -> Iterator[str]:
    """Say on which machine each part was measured, in one line if all parts share one."""
    where: dict[str, list[str]] = {}
    for name, part in parts.items():
        where.setdefault(_described(part.get("machine", machine)), []).append(name)
    for described, names in where.items():
        listed = ", ".join(name.replace("_", " ") for name in names)
        yield described if len(where) == 1 else f"{described}: {listed}"


def _described(machine: dict) -> str:
    described = f"{machine['processor']}, {machine['cores_used']} cores"
    if "product_gflops" in machine:
        described += f", large matmul {machine['product_gflops']:.0f} GFLOP/s"
    day = f", {machine['day']}" if "day" in machine else ""
    return f"{described}, TensorFlow {machine['tensorflow']}{day}"


def _rows(parts: dict) -> Iterator[tuple[str, ...]]:
    for name, part in _compared(parts).items():
        ours = part["programs"]["elmolib"]["seconds"]
        for program, measured in part["programs"].items():
            gflops = measured.get("gflops")
            yield (
                name.replace("_", " "),
                program,
                f"{measured['tokens_per_second']:,.0f}",
                f"{measured['seconds'] / ours:.2f}",
                f"{gflops:.0f}" if gflops else "",
                f"{gflops / part['product_gflops']:.0%}" if gflops else "",
                f"{measured['peak_memory'] / MEGA:,.0f} MB",
            )


def _compared(parts: dict) -> dict:
    """Return the parts that measured several programs."""
    return {n: part for n, part in parts.items() if n.startswith(("train", "predict"))}


def _sentences(parts: dict) -> Iterator[str]:
    if part := parts.get("vocabulary"):
        small, large = part["sizes"][0], part["sizes"][-1]
        yield (
            f"A training step with a vocabulary of {large:,} words takes {part['ratio']:.2f} times "
            f"as long as with {small:,} words and needs {part['memory_growth'] / MEGA:,.0f} MB "
            f"more memory (weights and accumulators: "
            f"{part['weights_and_accumulators'] / MEGA:,.0f} MB)."
        )
    if part := parts.get("evaluation"):
        memory = (part["peak_memory"] - part["memory_before"]) / MEGA
        yield (
            f"Scoring with the full softmax over {part['vocabulary']:,} words: "
            f"{part['tokens_per_second']:,.0f} words/s, {memory:,.0f} MB of memory in addition to "
            "the model."
        )
    if part := parts.get("workers_small"):
        yield (
            f"Training by two workers with one thread and {part['rows_per_process']} rows each: "
            f"{part['speed_ratio']:.2f} times the tokens/s of one process with two threads and as "
            f"many rows; {part['processor_ratio']:.2f} times the processor time per token and "
            f"{part['memory_ratio']:.2f} times the memory of one process with one thread."
        )
    for model in ("small", "original"):
        for program, found in parts.get(f"start_{model}", {}).get("programs", {}).items():
            if "extra_peak_memory" in found:
                yield (
                    f"{program}, {model}: in addition to `import tensorflow`, "
                    f"{found['extra_seconds']:.1f} s to the first vector and "
                    f"{found['extra_peak_memory'] / MEGA:,.0f} MB of memory to embed a text "
                    f"({found['extra_peak_memory_of_weights']:.1f} times the weights)."
                )
    for name, part in parts.items():
        for runtime, found in part.get("runtimes", {}).items():
            speeds = (
                f"{what} {found[what]['rate']:,.0f} ({found[what]['ratio']:.2f}x)"
                for what in found
                if "words per" in what
            )
            kernels = ", ".join(filter(None, found["blas"]))
            yield (
                f"{runtime}, {name.removeprefix('runtimes_')}: {'; '.join(speeds)}; "
                f"{found['peak_memory'] / MEGA:,.0f} MB; OpenBLAS for {kernels or 'no processor'}."
            )
        if name == "ray":
            alone, by_ray = (part["tasks"][task] for task in ("embed_corpus", "embed_dataset"))
            yield (
                f"`embed_dataset` on this machine, {part['words']:,} words: "
                f"{by_ray['words_per_second']:,.0f} words/s, {part['ratio']:.2f} times the speed "
                f"of `embed_corpus`, and {by_ray['start_seconds']:.0f} s to start; an actor needs "
                f"{by_ray['peak_memory'] / MEGA:,.0f} MB, `embed_corpus` "
                f"{alone['peak_memory'] / MEGA:,.0f} MB."
            )
        if name.startswith("prepare"):
            kind = "tokenized" if part["tokenized"] else "raw"
            yield (
                f"Preparing {part['bytes'] / MEGA:,.0f} MB of {kind} text: "
                f"{part['megabytes_per_second']:.1f} MB/s, "
                f"{part['peak_memory'] / MEGA:,.0f} MB of memory."
            )


def plot_comparison(results: dict, path: Path) -> None:
    """Draw the tokens per second of all programs, one panel per part."""
    parts = _compared(results["parts"])
    if not parts:
        return
    figure = Figure(figsize=(3.2 * len(parts), 2.4), layout="constrained")
    all_axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for axes, (name, part) in zip(all_axes, parts.items(), strict=True):
        speeds = {n: p["tokens_per_second"] for n, p in part["programs"].items()}
        # Beside horizontal bars, the names of the programs cannot overlap.
        bars = axes.barh(list(speeds), list(speeds.values()), color=_colors(speeds))
        axes.bar_label(bars, fmt="{:,.0f}", padding=3)
        axes.set(title=name.replace("_", " "), xlabel="tokens per second", xticks=[])
        axes.margins(x=0.3)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _colors(programs) -> list:
    palette = matplotlib.colormaps["tab10"]
    return [palette(0 if program.startswith("elmolib") else 7) for program in programs]


def plot_growth(results: dict, path: Path) -> None:
    """Draw how the cost grows with vocabulary, batch, model and sentence length."""
    part = results["parts"].get("growth")
    if part is None:
        return
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    per_step, per_second = "seconds_per_step", "tokens_per_second"
    panels = {
        "vocabulary": ("training, small model", "vocabulary size", "words", per_step),
        "batch": ("training, small model", "batch size", "rows", per_second),
        "model": ("training", "model", "names", per_second),
        "sentence": ("embedding, small model", "words per sentence", "words", per_second),
    }
    all_axes = figure.subplots(1, len(panels))
    for axes, (name, (title, label, x, y)) in zip(all_axes, panels.items(), strict=True):
        axes.plot(part[name][x], part[name][y], marker="o")
        axes.set(title=title, xlabel=label, ylabel=y.replace("_", " "))
        if name == "model":
            axes.set_yscale("log")
        else:
            axes.set_xscale("log")
            axes.set_xticks(part[name][x], [f"{number:,}" for number in part[name][x]])
            axes.minorticks_off()
            axes.set_ylim(0, 1.1 * max(part[name][y]))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
