"""The figures as a table, as JSON and as plots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

GIGA, MEGA = 1e9, 1e6

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
"""Where the figures at the top level of the JSON stand in the parts."""


def results(parts: dict[str, dict], machine: dict, peers_missing: list[str]) -> dict:
    """Put the figures that matter above the parts they come from, null where not measured."""
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
    """Read the parts that were measured before, each with the machine that it was measured on."""
    if not path.exists():
        return {}
    earlier = json.loads(path.read_text())
    return {
        name: {"machine": earlier["machine"], **part} for name, part in earlier["parts"].items()
    }


def write_json(results: dict, path: Path) -> None:
    path.write_text(json.dumps(results, indent=1) + "\n")


# --- The table


def table(results: dict) -> str:
    """Lay the figures out in lines of Markdown."""
    rows = [
        ("part", "program", "tokens/s", "time", "GFLOP/s", "share of product rate", "peak memory"),
        *_rows(results["parts"]),
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    machines = _machines(results["parts"], results["machine"])
    return "\n".join([*machines, "", *lines, "", *_sentences(results["parts"])])


def _machines(parts: dict, machine: dict) -> Iterator[str]:
    """Say where each part was measured, in one line if that was always the same machine."""
    where: dict[str, list[str]] = {}
    for name, part in parts.items():
        where.setdefault(_described(part.get("machine", machine)), []).append(name)
    for described, names in where.items():
        listed = ", ".join(name.replace("_", " ") for name in names)
        yield described if len(where) == 1 else f"{described}: {listed}"


def _described(machine: dict) -> str:
    facts = f"{machine['processor']}, {machine['cores_used']} cores"
    if "product_gflops" in machine:
        facts += f", {machine['product_gflops']:.0f} GFLOP/s in a large product"
    when = f", on {machine['day']}" if "day" in machine else ""
    return f"{facts}, TensorFlow {machine['tensorflow']}{when}"


def _rows(parts: dict) -> Iterator[tuple[str, ...]]:
    for name, part in parts.items():
        if not name.startswith(("train", "predict")):
            continue
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


def _sentences(parts: dict) -> Iterator[str]:
    if part := parts.get("vocabulary"):
        small, large = part["sizes"][0], part["sizes"][-1]
        yield (
            f"A training step with {large:,} words takes {part['ratio']:.2f} times one with "
            f"{small:,}; memory grows by {part['memory_growth'] / MEGA:,.0f} MB (weights and "
            f"accumulators: {part['weights_and_accumulators'] / MEGA:,.0f} MB)."
        )
    if part := parts.get("evaluation"):
        yield (
            f"Scoring by a full softmax of {part['vocabulary']:,} words: "
            f"{part['tokens_per_second']:,.0f} words/s in at most "
            f"{(part['peak_memory'] - part['memory_before']) / MEGA:,.0f} MB beside the model."
        )
    for model in ("small", "original"):
        for program, found in parts.get(f"start_{model}", {}).get("programs", {}).items():
            if "extra_peak_memory" in found:
                yield (
                    f"{program}, {model}: first vector {found['extra_seconds']:.1f} s after a bare "
                    f"import of TensorFlow, {found['extra_peak_memory'] / MEGA:,.0f} MB of memory "
                    f"({found['extra_peak_memory_of_weights']:.1f} times the weights)."
                )
    for name, part in parts.items():
        if name.startswith("prepare"):
            kind = "tokenised" if part["tokenized"] else "raw"
            yield (
                f"Preparing {part['bytes'] / MEGA:,.0f} MB of {kind} text: "
                f"{part['megabytes_per_second']:.1f} MB/s in {part['peak_memory'] / MEGA:,.0f} MB."
            )


# --- The plots


def plot_comparison(results: dict, path: Path) -> None:
    """Draw tokens per second of all programs, one panel per part."""
    parts = {
        name: part
        for name, part in results["parts"].items()
        if name.startswith(("train", "predict"))
    }
    if not parts:
        return
    figure = Figure(figsize=(3.2 * len(parts), 2.4), layout="constrained")
    for axes, (name, part) in zip(
        figure.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True
    ):
        speeds = {n: p["tokens_per_second"] for n, p in part["programs"].items()}
        # Sideways, the names of the programs never meet.
        bars = axes.barh(list(speeds), list(speeds.values()), color=_colours(speeds))
        axes.bar_label(bars, fmt="{:,.0f}", padding=3)
        axes.set(title=name.replace("_", " "), xlabel="tokens per second", xticks=[])
        axes.margins(x=0.3)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _colours(programs) -> list:
    palette = matplotlib.colormaps["tab10"]
    return [palette(0 if program.startswith("elmolib") else 7) for program in programs]


def plot_growth(results: dict, path: Path) -> None:
    """Draw how cost grows with vocabulary, batch, model and sentence length."""
    part = results["parts"].get("growth")
    if part is None:
        return
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    panels = figure.subplots(1, 4)
    drawn = {
        "vocabulary": ("words in the softmax", "words", "seconds_per_step", "seconds per step"),
        "batch": ("rows of a batch", "rows", "tokens_per_second", "tokens per second"),
        "model": ("model", "names", "tokens_per_second", "tokens per second"),
        "sentence": ("words of a sentence", "words", "tokens_per_second", "tokens per second"),
    }
    titles = ("training, small", "training, small", "training", "embedding, small")
    for axes, title, (name, (xlabel, x, y, ylabel)) in zip(
        panels, titles, drawn.items(), strict=True
    ):
        axes.plot(part[name][x], part[name][y], marker="o")
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        if name == "model":
            axes.set_yscale("log")
        else:
            axes.set_xscale("log")
            axes.set_xticks(part[name][x], [f"{number:,}" for number in part[name][x]])
            axes.minorticks_off()
            axes.set_ylim(0, 1.1 * max(part[name][y]))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
