"""Creating a weight with the value it had in a file, rather than a random one to be overwritten."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

import numpy as np
from keras import ops


def stored_or(
    values: MutableMapping[str, np.ndarray] | None, name: str, otherwise: str | Callable
) -> str | Callable:
    """Return an initializer that takes an array out of `values`.

    Taken out as it is used, no array is held twice: a large model loads in little more than the
    memory that its weights need.

    Args:
        values: arrays by their published names, or None.
        name: the published name of the weight.
        otherwise: the initializer to use where `values` is None.
    """
    if values is None:
        return otherwise
    return lambda shape, dtype=None: ops.convert_to_tensor(values.pop(name), dtype)
