"""Gradient clipping, and the Adagrad optimizer, which updates only a batch's softmax rows."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf


class Adagrad:
    """Adagrad as bilm-tf uses it: `acc += g * g; var -= learning_rate * g / sqrt(acc)`.

    Args:
        variables: the variables to train, by name.
        learning_rate: the step size. The attribute of this name may be changed between steps.
        initial_accumulator: the value of all accumulators before the first step.

    References:
        Duchi et al. 2011, JMLR 12:2121-2159.
    """

    def __init__(
        self, variables: dict[str, keras.Variable], learning_rate: float, initial_accumulator: float
    ) -> None:
        self.variables = variables
        self.learning_rate = tf.Variable(learning_rate, dtype=tf.float32, trainable=False)
        self.accumulators = {
            name: tf.Variable(np.full(variable.shape, initial_accumulator, np.float32))
            for name, variable in variables.items()
        }
        self.slots = {f"accumulator/{name}": slot for name, slot in self.accumulators.items()}

    def update(self, gradients: Mapping[str, tf.Tensor], rows: Mapping[str, tf.Tensor]) -> None:
        """Update all variables; where `rows` has a name (distinct, int64), only these rows."""
        for name, gradient in gradients.items():
            update, which = tf.raw_ops.ResourceApplyAdagradV2, {}
            if name in rows:
                update, which = tf.raw_ops.ResourceSparseApplyAdagradV2, {"indices": rows[name]}
            var, accum = (
                self.variables[name].value.handle,
                self.accumulators[name].handle,
            )
            update(var=var, accum=accum, lr=self.learning_rate, epsilon=0.0, grad=gradient, **which)


def clip_by_global_norm(
    gradients: Sequence[tf.Tensor], clip_norm: float
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Scale all gradients by one factor so that their common norm is at most `clip_norm`.

    Returns:
        the scaled gradients, and the common norm before scaling.
    """
    norm = tf.sqrt(tf.add_n([2.0 * tf.nn.l2_loss(gradient) for gradient in gradients]))
    factor = clip_norm / tf.maximum(norm, clip_norm)
    return [gradient * factor for gradient in gradients], norm
