"""What is done number by number, in one pass through memory instead of one per operation."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import keras


@cache
def fused(function: Callable) -> Callable:
    """Compile a function of arrays, once for each of their shapes.

    Worth its while for shapes that stay, and for what is not mainly products of matrices.

    Args:
        function: written in `keras.ops`. Arguments that are no arrays become constants.

    Returns:
        the same function, by XLA with TensorFlow; other backends compile as they think fit.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)
