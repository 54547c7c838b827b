"""Measuring several programs in turns, so that a busy machine is equally unfair to all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median


def in_turns(contestants: Mapping[str, Callable[[], dict]], n_rounds: int) -> dict[str, list[dict]]:
    """Ask every contestant once per round. Returns the answers of each, in order."""
    answers: dict[str, list[dict]] = {name: [] for name in contestants}
    for _ in range(n_rounds):
        for name, measure in contestants.items():
            answers[name].append(measure())
    return answers


def seconds(answers: list[dict], n: int = 1) -> dict:
    """Sum up the rounds of one contestant.

    Args:
        answers: with `seconds` and `peak_memory`.
        n: steps or words per round; seconds are given for one.
    """
    rounds = [answer["seconds"] / n for answer in answers]
    return {
        "seconds": median(rounds),
        "seconds_best": min(rounds),
        "seconds_of_rounds": rounds,
        "peak_memory": answers[-1]["peak_memory"],
    }


def ratio(slower: dict, faster: dict) -> dict[str, float]:
    """How many times faster: by medians, and by the best rounds, which neighbours disturb least."""
    return {
        "ratio": slower["seconds"] / faster["seconds"],
        "ratio_of_best": slower["seconds_best"] / faster["seconds_best"],
    }
