"""One training step: losses of both directions, gradients, clipping, and the update."""

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
from elmolib.training.muon import MuonAdam
from elmolib.training.workers import ALONE, Workers


class StepResult(NamedTuple):
    """The results of one training step."""

    losses: tf.Tensor  # float32 (2,), mean loss of each direction in nats, before the update
    gradient_norm: tf.Tensor  # float32 (), norm of all gradients together, before clipping
    state: tuple[tf.Tensor, tf.Tensor]  # the initial LSTM states of the next step
    wishes: tf.Tensor  # float32 (2,), the sum of the wishes of all workers


def direction_losses(bilm: BiLM, batch: Batch, softmax_W, softmax_b, state):
    """Return the mean cross entropy per direction in nats, float (2,), and the new LSTM states.

    If the batch has the rows of one worker, this is its part of the mean of the whole batch.

    `softmax_W` and `softmax_b`, float tensors (rows, projection_dim) and (rows,), hold the rows
    `batch.rows` of a sampled softmax, or all rows of a full softmax.
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
        losses.append(ops.sum(loss * weights) / batch.n_weighted)
    return ops.stack(losses), state


class TrainingStep:
    """The compiled training step of one model, which has a softmax.

    As in the training of the published models (bilm-tf `training.py`), the gradients are those of
    the mean loss of both directions, multiplied by the number of unrolled steps. The norm of all
    gradients together is at most `clip_norm`. `optimizer` holds the variables to train. With
    `bfloat16`, matrices are multiplied as in `elmolib.backend.bfloat16_matmul`.
    """

    def __init__(
        self,
        bilm: BiLM,
        optimizer: Adagrad | MuonAdam,
        clip_norm: float,
        bfloat16: bool = False,
        workers: Workers = ALONE,
    ) -> None:
        self.bilm, self.optimizer, self.clip_norm = bilm, optimizer, clip_norm
        self.workers = workers
        self._matmul = bfloat16_matmul if bfloat16 else nullcontext
        self._compiled: Callable | None = None

    def __call__(self, batch: Batch, state, step: int, wishes=(0.0, 0.0)) -> StepResult:
        """Take one training step. The step number determines the dropout masks.

        `wishes` are two numbers, which are added up over all workers.
        """
        # There are 256 random states per step; no model has more dropout masks.
        counter = tf.constant([self.bilm.seed, step * 256 % 2**32], tf.uint32)
        wishes = tf.constant(wishes, tf.float32)
        if self._compiled is None:
            # Use one graph for batches of all shapes. Graphs of different shapes could round
            # differently; results would then depend on the step at which a run resumed.
            characters = tuple(tf.TensorSpec((None, None), g.dtype) for g in batch.characters)
            rows = tf.TensorSpec((None,), tf.int64)
            batch_spec, *others = tf.nest.map_structure(
                lambda array: tf.TensorSpec(array.shape, array.dtype),
                (batch, state, counter, wishes),
            )
            signature = [batch_spec._replace(characters=characters, rows=rows), *others]
            self._compiled = self.workers.compile(self._step, signature)
        with self._matmul():
            return self._compiled(batch, state, counter, wishes)

    def _step(self, batch: Batch, state, counter, wishes) -> StepResult:
        self.bilm.seed_generator.state.assign(counter)
        losses, state, gradients = self.gradients(batch, state)
        losses, wishes, *summed = self.workers.sum([losses, wishes, *gradients.values()])
        clipped, norm = clip_by_global_norm(summed, self.clip_norm)
        rows = dict.fromkeys(SOFTMAX, batch.rows) if batch.is_sampled else {}
        self.optimizer.update(dict(zip(gradients, clipped, strict=True)), rows)
        return StepResult(losses, norm, state, wishes)

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
