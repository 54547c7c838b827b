"""Dropout of whole word positions."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="elmolib")
class TimestepDropout(keras.Layer):
    """Set whole positions of a sequence to zero, in training only.

    Each position of each sequence is dropped on its own with probability `rate`, all of its
    features at once; the positions that stay are scaled by `1 / (1 - rate)`.

    Args:
        rate: probability of dropping a position, from 0 up to but not including 1.
        seed: a number, a `keras.random.SeedGenerator` shared with other layers, or None.

    Call arguments:
        x: float tensor (batch, time, features).
        training: drop only if True.

    Returns:
        float tensor of the shape of `x`.

    Raises:
        ValueError: if `rate` is not a probability below 1.

    Example:
        >>> TimestepDropout(0.5)(keras.ops.ones((1, 4, 3)), training=False).shape
        TensorShape([1, 4, 3])
    """

    def __init__(
        self,
        rate: float,
        seed: int | keras.random.SeedGenerator | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate is {rate}; it must be at least 0 and below 1.")
        self.rate = rate
        self.seed = None if isinstance(seed, keras.random.SeedGenerator) else seed
        if isinstance(seed, keras.random.SeedGenerator):
            self.seed_generator = seed
        elif rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, x, training: bool = False):
        """Drop positions."""
        if not training or self.rate == 0.0:
            return x
        batch, time, _ = ops.shape(x)
        return keras.random.dropout(
            x, self.rate, noise_shape=(batch, time, 1), seed=self.seed_generator
        )

    def compute_output_shape(self, input_shape):
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
