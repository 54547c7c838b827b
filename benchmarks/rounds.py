"""Measure several programs in turns, so that a busy machine slows all of them equally."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median


def in_turns(programs: Mapping[str, Callable[[], dict]], n_rounds: int) -> dict[str, list[dict]]:
    """Measure every program once per round; return each program's answers, one per round."""
    answers: dict[str, list[dict]] = {name: [] for name in programs}
    for _ in range(n_rounds):
        for name, measure in programs.items():
            answers[name].append(measure())
    return answers


def summary(answers: list[dict], n: int = 1, key: str = "seconds") -> dict:
    """Summarize the rounds of one program.

    Args:
        answers: the program's answers, one per round, each with `seconds` and `peak_memory`.
        n: steps or words in a round; the seconds are divided by it.
        key: the seconds to summarize.
    """
    rounds = [answer[key] / n for answer in answers]
    return {
        "seconds": median(rounds),
        "seconds_best": min(rounds),
        "seconds_of_rounds": rounds,
        "peak_memory": answers[-1]["peak_memory"],
    }


def ratio(slower: dict, faster: dict) -> dict[str, float]:
    """Divide the times of two programs: their medians and, less affected by load, their minima."""
    return {
        "ratio": slower["seconds"] / faster["seconds"],
        "ratio_of_best": slower["seconds_best"] / faster["seconds_best"],
    }
