"""An LSTM with projection and clipping, which Keras does not have."""

from functools import partial

import keras
from keras import ops

from elmolib.backend import jit, uses_tensorflow
from elmolib.model.layers import FLOAT32, Weights
from elmolib.model.lstm_cell import masked_cell, project, scan, unrolled

LONGEST_UNROLLED = 128  # Up to this length, an unrolled loop is faster in training.


@keras.saving.register_keras_serializable(package="elmolib")
class ProjectedLSTM(keras.Layer):
    """An LSTM layer for one direction. Its output is projected to fewer features.

    The first rows of the kernel are for the input, the other rows for the previous output. The
    order of the gates is input, candidate, forget, output. A constant 1 is added to the forget gate
    before its sigmoid. The cell state is clipped before the output gate is applied; the output is
    clipped after the projection. The gradient is 0 where a value is clipped.

    Args:
        dim: the number of features of the cell state.
        projection_dim: the number of features of the output. If it equals `dim`, there is no
            projection.
        cell_clip: the bound on the absolute value of the cell state, or None.
        proj_clip: the bound on the absolute value of the projected output, or None.

    Call arguments:
        x: the input, a float tensor (time, batch, features).
        c: the initial cell state, a float tensor (batch, dim).
        h: the initial output, a float tensor (batch, projection_dim).
        lengths: the number of steps of each row, an integer tensor (batch,), or None. Later steps
            do not change the state of the row, and their outputs have no meaning.

    Returns:
        the outputs (time, batch, projection_dim) and the final c and h.

    References:
        Sak et al. 2014, arXiv:1402.1128, without peepholes; TensorFlow 1 `LSTMCell`.
    """

    def __init__(
        self,
        dim: int,
        projection_dim: int,
        cell_clip: float | None = None,
        proj_clip: float | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs | FLOAT32)
        self.dim, self.projection_dim = dim, projection_dim
        self.cell_clip, self.proj_clip = cell_clip, proj_clip

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create random weights."""
        self.create_weights(Weights(), input_shape[-1])

    def create_weights(self, weights: Weights, features: int) -> None:
        """Create the weights for inputs with this number of features."""
        weight, dim, projection_dim = partial(weights.add, self), self.dim, self.projection_dim
        self.features = features
        self.kernel = weight("kernel", (features + projection_dim, 4 * dim), "glorot_uniform")
        self.bias = weight("bias", (4 * dim,), "zeros")
        self.projection = None
        if projection_dim != dim:
            self.projection = weight("projection", (dim, projection_dim), "glorot_uniform")
        self.built = True

    def call(self, x, c, h, lengths=None):
        """Run over the sequence."""
        # Keras allows a custom gradient for a function with several outputs only on TensorFlow.
        may_unroll = lengths is None and uses_tensorflow()
        if may_unroll and x.shape[0] is not None and x.shape[0] <= LONGEST_UNROLLED:
            weights = [weight.value for weight in self.weights]
            return unrolled(x, c, h, weights, self.cell_clip, self.proj_clip)
        from_inputs = self._from_inputs(ops.reshape(x, (-1, self.features)))
        from_inputs = ops.reshape(from_inputs, (-1, ops.shape(x)[1], 4 * self.dim))
        # Without lengths, a gradient may be needed, so scan over the inputs themselves: a gradient
        # of each `from_inputs[step]` would be as large as `from_inputs`. With lengths, no gradient
        # is needed, so scan over the step numbers: a scan over the inputs would copy them all.
        if lengths is None:
            return self._scan(from_inputs, lambda from_input: from_input, c, h, None)
        steps = ops.arange(ops.shape(from_inputs)[0], dtype="int32")
        return self._scan(steps, lambda step: from_inputs[step], c, h, lengths)

    def read_words(self, vectors, words, c, h, lengths):
        """Run over `words` (time, batch), which are row numbers of `vectors` (words, features).

        Each vector is multiplied by the kernel only once. Use this only if no gradient is needed.
        """
        from_vectors = self._from_inputs(vectors)  # (words, 4 * dim)
        steps = ops.arange(ops.shape(words)[0], dtype="int32")
        return self._scan(
            steps, lambda step: ops.take(from_vectors, words[step], axis=0), c, h, lengths
        )

    def _from_inputs(self, inputs):
        """Compute what the inputs and the bias add to the gates, for all steps in one product."""
        return ops.matmul(inputs, self.kernel[: self.features]) + self.bias

    def _scan(self, steps, from_input_of, c, h, lengths):
        """Loop over `steps`. `from_input_of(step)` returns what the input adds to the gates."""
        recurrent = self.kernel[self.features :]
        if lengths is not None:
            lengths = ops.cast(lengths, "int32")

        def step(c, h, current):
            is_running = None if lengths is None else (current < lengths)[:, None]
            from_output = ops.matmul(h, recurrent)
            new_c, m = jit(masked_cell)(
                from_input_of(current), from_output, c, is_running, self.cell_clip
            )
            new_h = project(m, self.projection, self.proj_clip)
            if is_running is not None:
                new_h = ops.where(is_running, new_h, h)
            return new_c, new_h

        return scan(step, c, h, steps)

    def get_config(self) -> dict:
        """Return the constructor's arguments."""
        names = ("dim", "projection_dim", "cell_clip", "proj_clip")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
