"""The highway layer between the character convolutions and the word vector."""

from __future__ import annotations

import math

import keras
from keras import ops

from elmolib.layers.stored import Choice, fresh


@keras.saving.register_keras_serializable(package="elmolib")
class Highway(keras.Layer):
    """Mix a transformed input with the input itself, feature by feature.

    `gate * relu(x @ W_transform + b_transform) + (1 - gate) * x` with
    `gate = sigmoid(x @ W_carry + b_carry)`. The gate's bias begins at -2, so that a new layer
    passes most of its input through.

    Call arguments:
        x: float tensor (..., features).

    Returns:
        float tensor of the shape of `x`.

    Example:
        >>> Highway()(keras.ops.ones((2, 3))).shape
        TensorShape([2, 3])

    References:
        Srivastava et al. 2015, arXiv:1505.00387; the names of the gates are those of the stored
        arrays `CNN_high_*`, where "carry" is the gate that lets the transformed input pass.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights with random values."""
        self.create_weights(input_shape[-1], fresh)

    def create_weights(self, features: int, choose: Choice, prefix: str = "") -> None:
        """Create the two square matrices and their biases, as `choose` says."""

        def weight(name: str, shape: tuple[int, ...], usual):
            chosen = choose(f"{prefix}{name}", usual)
            return self.add_weight(name=name, shape=shape, initializer=chosen)

        normal = keras.initializers.RandomNormal(stddev=math.sqrt(1.0 / features))
        square = (features, features)
        self.W_carry = weight("W_carry", square, normal.clone())
        self.b_carry = weight("b_carry", (features,), keras.initializers.Constant(-2.0))
        self.W_transform = weight("W_transform", square, normal.clone())
        self.b_transform = weight("b_transform", (features,), "zeros")
        self.built = True

    def call(self, x):
        """Apply the layer."""
        gate = ops.sigmoid(ops.matmul(x, self.W_carry) + self.b_carry)
        transformed = ops.relu(ops.matmul(x, self.W_transform) + self.b_transform)
        return x + gate * (transformed - x)

    def compute_output_shape(self, input_shape):
        """Return the shape of the input."""
        return input_shape
