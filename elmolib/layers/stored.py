"""Creating a weight with the value it had in a file, rather than a random one to be overwritten."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

import numpy as np
from keras import ops

Initializer = str | Callable
Choice = Callable[[str, Initializer], Initializer]
"""Chooses a weight's initializer, given its published name and the usual initializer."""


def fresh(name: str, usual: Initializer) -> Initializer:
    """Begin with the usual random values."""
    return usual


def stored(values: MutableMapping[str, np.ndarray]) -> Choice:
    """Begin with stored values.

    Each array is taken out of `values` as it is used, so that none is held twice: a large model
    loads in little more than the memory that its weights need.

    Args:
        values: arrays by published name.
    """

    def choose(name: str, usual: Initializer) -> Initializer:
        return lambda shape, dtype=None: ops.convert_to_tensor(values.pop(name), dtype)

    return choose
