"""One step of training: losses of both directions, gradients, clipping, Adagrad."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import tensorflow as tf
from keras import ops

from elmolib.adagrad import Adagrad, clip_by_global_norm
from elmolib.batches import BACKWARD, FORWARD, Batch
from elmolib.bilm import BiLM
from elmolib.losses import sampled_softmax_loss, softmax_loss
from elmolib.precision import bfloat16_products

DRAWS_PER_STEP = 256
"""Random masks that one step may draw: far more than a model of any published depth needs."""


class StepResult(NamedTuple):
    """What one step reports.

    Attributes:
        losses: float32 (2,), mean cross entropy of each direction in nats, before the update.
        gradient_norm: float32 (), of all gradients together, before clipping.
        state: the LSTM states to begin the next step with.
    """

    losses: tf.Tensor
    gradient_norm: tf.Tensor
    state: tuple[tf.Tensor, tf.Tensor]


def direction_losses(bilm: BiLM, batch: Batch, softmax_W, softmax_b, state, training: bool):
    """Mean cross entropy per direction.

    Args:
        bilm: the model.
        batch: the words and what follows them.
        softmax_W: float tensor (rows, projection_dim), the softmax rows of the batch, or all.
        softmax_b: float tensor (rows,).
        state: LSTM states to begin with.
        training: apply dropout.

    Returns:
        float tensor (2,) in nats, and the LSTM states after the batch.
    """
    layers, state = bilm(batch.characters, batch.words, state, training=training)
    top = bilm.language_model_output(layers[-1], training)  # (2, batch, time, projection)
    # The gradient of two slices would be two arrays of this size, most of them zeros, to add up.
    top = ops.unstack(top)
    weights = ops.reshape(batch.weights, (-1,))
    losses = []
    for d in (FORWARD, BACKWARD):
        outputs = ops.reshape(top[d], (-1, bilm.options.projection_dim))
        targets = ops.reshape(batch.targets[d], (-1,))
        if batch.negatives.shape[1] == 0:
            loss = softmax_loss(outputs, targets, softmax_W, softmax_b)
        else:
            loss = sampled_softmax_loss(
                outputs,
                targets,
                batch.negatives[d],
                softmax_W,
                softmax_b,
                ops.reshape(batch.log_expected_targets[d], (-1,)),
                batch.log_expected_negatives[d],
            )
        losses.append(ops.sum(loss * weights) / ops.sum(weights))
    return ops.stack(losses), state


def any_batch_like(batch: Batch) -> Batch:
    """What all batches of a run have in common, as `tf.TensorSpec`s."""
    return specs_of(batch)._replace(
        characters=tf.nest.map_structure(
            lambda group: tf.TensorSpec((None, None), group.dtype), batch.characters
        ),
        rows=tf.TensorSpec((None,), tf.int64),
    )


def specs_of(arrays):
    """The shapes and types of arrays, in whatever tuples they come."""
    return tf.nest.map_structure(lambda array: tf.TensorSpec(array.shape, array.dtype), arrays)


class TrainingStep:
    """The compiled training step of one model.

    The loss is the mean of both directions, multiplied by the number of unrolled steps before
    the gradient is taken, as the published models were trained.

    Args:
        bilm: the model, with a softmax.
        optimizer: holds the variables to train.
        clip_norm: bound on the norm of all gradients together, or None.
        bfloat16: multiply in bfloat16; see `elmolib.precision`.

    References:
        bilm-tf `training.py`.
    """

    def __init__(
        self,
        bilm: BiLM,
        optimizer: Adagrad,
        clip_norm: float | None,
        bfloat16: bool = False,
    ) -> None:
        self.bilm = bilm
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self._products = bfloat16_products if bfloat16 else nullcontext
        self._compiled: Callable | None = None

    def __call__(self, batch: Batch, state, step: int) -> StepResult:
        """Take one step; `step` decides the dropout masks."""
        counter = tf.constant([self.bilm.seed, step * DRAWS_PER_STEP % 2**32], tf.uint32)
        if self._compiled is None:
            # One graph for all batches: were it made anew for some shapes, the last bits could
            # depend on the step at which a run was begun or gone on with.
            signature = [any_batch_like(batch), *specs_of((state, counter))]
            self._compiled = tf.function(self._step, input_signature=signature)
        with self._products():
            return self._compiled(batch, state, counter)

    def _step(self, batch: Batch, state, counter) -> StepResult:
        self.bilm.seed_generator.state.assign(counter)
        losses, state, gradients = self.gradients(batch, state, training=True)
        names = list(gradients)
        clipped, norm = clip_by_global_norm(list(gradients.values()), self.clip_norm)
        for name, gradient in zip(names, clipped, strict=True):
            if name.startswith("softmax/") and batch.negatives.shape[1] > 0:
                self.optimizer.apply_rows(name, batch.rows, gradient)
            else:
                self.optimizer.apply(name, gradient)
        return StepResult(losses, norm, state)

    def gradients(self, batch: Batch, state, training: bool):
        """Losses, final state, and the gradient of every variable by name.

        With sampled softmax the gradients of `softmax/W` and `softmax/b` hold only the rows
        `batch.rows`, so no array of the vocabulary's size is ever made.
        """
        variables = dict(self.optimizer.variables)
        softmax_W = variables.pop("softmax/W").value
        softmax_b = variables.pop("softmax/b").value
        if batch.negatives.shape[1] > 0:
            softmax_W, softmax_b = (
                tf.gather(softmax_W, batch.rows),
                tf.gather(softmax_b, batch.rows),
            )
        with tf.GradientTape() as tape:
            tape.watch([softmax_W, softmax_b])
            losses, state = direction_losses(
                self.bilm, batch, softmax_W, softmax_b, state, training
            )
            loss = tf.reduce_mean(losses) * batch.words.shape[2]
        sources = {name: variable.value for name, variable in variables.items()}
        sources |= {"softmax/W": softmax_W, "softmax/b": softmax_b}
        gradients = tape.gradient(loss, sources)
        gradients = {name: tf.convert_to_tensor(gradient) for name, gradient in gradients.items()}
        return losses, state, gradients
