"""Check, before anything is timed, that two programs compute the same values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

LOSS_TOLERANCE = 1e-5
UPDATE_TOLERANCE = 1e-3
VECTOR_TOLERANCE = 1e-5


class Disagreement(Exception):
    """The results of two programs differ, so a comparison of their speeds would be meaningless."""


def require_same_step(theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> float:
    """Require that one training step of elmolib and of bilm-tf changes all weights equally.

    This checks the gradients, the clipping of their global norm, and Adagrad.

    Args:
        theirs: bilm-tf's array `losses`, and each weight as `before/NAME` and `after/NAME`.
        ours: elmolib's array `losses`, and each weight as `after/NAME`.

    Returns:
        the largest relative difference of a weight's change.

    Raises:
        Disagreement: the losses or a weight's change differ.
    """
    if not np.allclose(ours["losses"], theirs["losses"], rtol=LOSS_TOLERANCE, atol=0):
        raise Disagreement(
            f"The losses are {ours['losses']} in elmolib, and {theirs['losses']} in bilm-tf."
        )
    worst = 0.0
    for name in (key.removeprefix("after/") for key in theirs if key.startswith("after/")):
        before = theirs[f"before/{name}"].astype(np.float64)
        change = theirs[f"after/{name}"] - before
        difference = np.linalg.norm(ours[f"after/{name}"] - before - change)
        relative = difference / np.linalg.norm(change)
        if not relative <= UPDATE_TOLERANCE:
            raise Disagreement(
                f"The training step changes {name} differently in elmolib and in bilm-tf: the "
                f"relative difference is {relative:.1e}."
            )
        worst = max(worst, relative)
    return worst


def require_same_vectors(theirs: Path, ours: Path, name: str) -> float:
    """Require that two programs wrote the same sentence vectors to their `.npz` files.

    Returns:
        the largest difference.

    Raises:
        Disagreement: a vector differs by more than 1e-5.
    """
    with np.load(theirs, allow_pickle=False) as a, np.load(ours, allow_pickle=False) as b:
        if a.files != b.files:
            raise Disagreement(
                f"{name} wrote vectors of {len(a.files)} sentences, elmolib of {len(b.files)}."
            )
        worst = max(float(np.abs(a[key] - b[key]).max()) for key in a.files)
    if not worst <= VECTOR_TOLERANCE:
        raise Disagreement(f"The vectors of elmolib and {name} differ by up to {worst:.1e}.")
    return worst
