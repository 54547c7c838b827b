"""Adagrad that touches only the softmax rows of the batch, and one clip for all gradients."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


class Adagrad:
    """Adagrad as bilm-tf uses it: `acc += g * g; var -= learning_rate * g / sqrt(acc)`.

    Args:
        variables: the variables to train, under their names.
        learning_rate: step size; a variable afterwards, to be changed between steps.
        initial_accumulator: value of all accumulators before the first step.

    References:
        Duchi et al. 2011, JMLR 12:2121-2159.
    """

    def __init__(
        self,
        variables: dict[str, keras.Variable],
        learning_rate: float,
        initial_accumulator: float,
    ) -> None:
        self.variables = variables
        self.learning_rate = tf.Variable(learning_rate, dtype=tf.float32, trainable=False)
        self.accumulators = {
            name: tf.Variable(np.full(variable.shape, initial_accumulator, np.float32))
            for name, variable in variables.items()
        }

    def apply(self, name: str, gradient: tf.Tensor) -> None:
        """Step one variable along its whole gradient."""
        tf.raw_ops.ResourceApplyAdagradV2(
            var=self.variables[name].value.handle,
            accum=self.accumulators[name].handle,
            lr=self.learning_rate,
            epsilon=0.0,
            grad=gradient,
        )

    def apply_rows(self, name: str, rows: tf.Tensor, gradient: tf.Tensor) -> None:
        """Step the named rows of one variable; every row may be named only once."""
        tf.raw_ops.ResourceSparseApplyAdagradV2(
            var=self.variables[name].value.handle,
            accum=self.accumulators[name].handle,
            lr=self.learning_rate,
            epsilon=0.0,
            grad=gradient,
            indices=rows,
        )


def clip_by_global_norm(
    gradients: Sequence[tf.Tensor], clip_norm: float | None
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Scale all gradients by one factor so that their common norm is at most `clip_norm`.

    Returns:
        the gradients and their common norm before clipping.
    """
    norm = tf.sqrt(tf.add_n([2.0 * tf.nn.l2_loss(gradient) for gradient in gradients]))
    if clip_norm is None:
        return list(gradients), norm
    factor = clip_norm / tf.maximum(norm, clip_norm)
    return [gradient * factor for gradient in gradients], norm
