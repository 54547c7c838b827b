"""Before anything is timed: do two programs compute the same?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

LOSS_TOLERANCE = 1e-5
UPDATE_TOLERANCE = 1e-3
VECTOR_TOLERANCE = 1e-5


class Disagreement(Exception):
    """Two programs computed different things, so comparing their speed would mean nothing."""


def require_same_step(theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> float:
    """Compare one training step from the same weights on the same words.

    The change of every variable holds its gradient, the common clip and Adagrad all at once.

    Args:
        theirs: `losses`, and `before/...` and `after/...` for every variable.
        ours: `losses` and `after/...`.

    Returns:
        the largest relative difference of a variable's change.

    Raises:
        Disagreement: the losses or a variable's change differ.
    """
    if not np.allclose(ours["losses"], theirs["losses"], rtol=LOSS_TOLERANCE, atol=0):
        raise Disagreement(f"The losses are {ours['losses']}, bilm-tf's {theirs['losses']}.")
    worst = 0.0
    for name in (key.removeprefix("after/") for key in theirs if key.startswith("after/")):
        before = theirs[f"before/{name}"].astype(np.float64)
        change = theirs[f"after/{name}"] - before
        difference = np.linalg.norm(ours[f"after/{name}"] - before - change)
        relative = difference / np.linalg.norm(change)
        if not relative <= UPDATE_TOLERANCE:
            raise Disagreement(
                f"A training step changes {name} otherwise than bilm-tf's: the difference is "
                f"{relative:.1e} of the change."
            )
        worst = max(worst, relative)
    return worst


def require_same_vectors(theirs: Path, ours: Path, name: str) -> float:
    """Compare the vectors of sentences, which two programs wrote into `.npz` files.

    Returns:
        the largest difference.

    Raises:
        Disagreement: a vector differs by more than 1e-5.
    """
    with np.load(theirs, allow_pickle=False) as a, np.load(ours, allow_pickle=False) as b:
        if a.files != b.files:
            raise Disagreement(
                f"{name} gave vectors for {len(a.files)} sentences, not {len(b.files)}."
            )
        worst = max(float(np.abs(a[key] - b[key]).max()) for key in a.files)
    if not worst <= VECTOR_TOLERANCE:
        raise Disagreement(f"Vectors differ from those of {name} by up to {worst:.1e}.")
    return worst
