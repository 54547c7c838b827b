"""One training step: losses of both directions, gradients, clipping, Adagrad."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import tensorflow as tf
from keras import ops

from elmolib.backend import bfloat16_matmul
from elmolib.corpus.stream import BACKWARD, FORWARD
from elmolib.model.bilm import SOFTMAX, BiLM
from elmolib.model.softmax import sampled_softmax_loss, softmax_loss
from elmolib.training.adagrad import Adagrad, clip_by_global_norm
from elmolib.training.batches import Batch

DRAWS_PER_STEP = 256  # the number of random states per step; no model has more dropout masks


class StepResult(NamedTuple):
    """The results of one training step."""

    losses: tf.Tensor  # float32 (2,), mean loss of each direction in nats, before the update
    gradient_norm: tf.Tensor  # float32 (), norm of all gradients together, before clipping
    state: tuple[tf.Tensor, tf.Tensor]  # the initial LSTM states of the next step


def direction_losses(bilm: BiLM, batch: Batch, softmax_W, softmax_b, state):
    """Compute the mean cross entropy per direction.

    Args:
        softmax_W, softmax_b: float tensors (rows, projection_dim) and (rows,). They hold the rows
            `batch.rows` of a sampled softmax, or all rows of a full softmax.

    Returns:
        the losses in nats, a float tensor (2,), and the LSTM states after the batch.
    """
    layers, state = bilm(batch.characters, batch.words, state, training=True)
    tops = bilm.softmax_input([direction[-1] for direction in layers], training=True)
    weights = ops.reshape(batch.weights, (-1,))
    losses = []
    for d in (FORWARD, BACKWARD):
        outputs = ops.reshape(tops[d], (-1, bilm.architecture.projection_dim))
        targets = ops.reshape(batch.targets[d], (-1,))
        if batch.is_sampled:
            expected = ops.reshape(batch.log_expected_targets[d], (-1,))
            sample = batch.negatives[d], expected, batch.log_expected_negatives[d]
            loss = sampled_softmax_loss(outputs, targets, softmax_W, softmax_b, *sample)
        else:
            loss = softmax_loss(outputs, targets, softmax_W, softmax_b)
        losses.append(ops.sum(loss * weights) / ops.sum(weights))
    return ops.stack(losses), state


class TrainingStep:
    """The compiled training step of one model.

    As in the training of the published models, the gradients are those of the mean loss of both
    directions, multiplied by the number of unrolled steps.

    Args:
        bilm: the model, with a softmax.
        optimizer: the optimizer, which holds the variables to train.
        clip_norm: the largest allowed norm of all gradients together.
        bfloat16: whether to multiply matrices in bfloat16; see `elmolib.backend.bfloat16_matmul`.

    References:
        bilm-tf `training.py`.
    """

    def __init__(
        self, bilm: BiLM, optimizer: Adagrad, clip_norm: float, bfloat16: bool = False
    ) -> None:
        self.bilm, self.optimizer, self.clip_norm = bilm, optimizer, clip_norm
        self._matmul = bfloat16_matmul if bfloat16 else nullcontext
        self._compiled: Callable | None = None

    def __call__(self, batch: Batch, state, step: int) -> StepResult:
        """Take one training step. The step number determines the dropout masks."""
        counter = tf.constant([self.bilm.seed, step * DRAWS_PER_STEP % 2**32], tf.uint32)
        if self._compiled is None:
            # Use one graph for batches of all shapes. Graphs of different shapes could round
            # differently; results would then depend on the step at which a run resumed.
            characters = tuple(tf.TensorSpec((None, None), g.dtype) for g in batch.characters)
            rows = tf.TensorSpec((None,), tf.int64)
            batch_spec, *others = tf.nest.map_structure(
                lambda array: tf.TensorSpec(array.shape, array.dtype), (batch, state, counter)
            )
            signature = [batch_spec._replace(characters=characters, rows=rows), *others]
            self._compiled = tf.function(self._step, input_signature=signature)
        with self._matmul():
            return self._compiled(batch, state, counter)

    def _step(self, batch: Batch, state, counter) -> StepResult:
        self.bilm.seed_generator.state.assign(counter)
        losses, state, gradients = self.gradients(batch, state)
        clipped, norm = clip_by_global_norm(list(gradients.values()), self.clip_norm)
        for name, gradient in zip(gradients, clipped, strict=True):
            is_sampled = name in SOFTMAX and batch.is_sampled
            self.optimizer.apply(name, gradient, batch.rows if is_sampled else None)
        return StepResult(losses, norm, state)

    def gradients(self, batch: Batch, state):
        """Return the losses, the final state, and the gradient of every variable by name.

        With sampled softmax, the gradients of `softmax/W` and `softmax/b` hold only the rows
        `batch.rows`, so no gradient has as many rows as the vocabulary.
        """
        sources = {name: variable.value for name, variable in self.optimizer.variables.items()}
        if batch.is_sampled:
            sources |= {name: tf.gather(sources[name], batch.rows) for name in SOFTMAX}
        W, b = softmax = [sources[name] for name in SOFTMAX]
        with tf.GradientTape() as tape:
            tape.watch(softmax)
            losses, state = direction_losses(self.bilm, batch, W, b, state)
            loss = tf.reduce_mean(losses) * batch.words.shape[1]
        gradients = tape.gradient(loss, sources)
        return losses, state, {name: tf.convert_to_tensor(g) for name, g in gradients.items()}
