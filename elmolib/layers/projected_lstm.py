"""The LSTM with projection and clipping that Keras does not have."""

from __future__ import annotations

import keras
from keras import ops

from elmolib.layers.stored import Choice, fresh

LONGEST_UNROLLED = 32
"""Up to so many steps, a loop whose length is known is written out, which is faster to train."""


@keras.saving.register_keras_serializable(package="elmolib")
class ProjectedLSTM(keras.Layer):
    """One LSTM layer in one direction, its output projected to fewer features.

    The kernel holds the input's rows before the output's; the gates stand in the order input,
    candidate, forget, output; 1 is added to the forget gate. The cell state is clipped before the
    output gate, the projected output after it. No gradient flows where a clip bites.

    Args:
        dim: features of the cell state.
        projection_dim: features of the output. Equal to `dim`, there is no projection.
        cell_clip: bound on the absolute value of the cell state, or None.
        proj_clip: bound on the absolute value of the projected output, or None.

    Call arguments:
        x: float tensor (batch, time, features).
        c: float tensor (batch, dim), the cell state to begin with.
        h: float tensor (batch, projection_dim), the output to begin with.
        lengths: integer tensor (batch,) or None. A row's final state is the one after this many
            steps; outputs beyond it have no meaning.

    Returns:
        outputs (batch, time, projection_dim) and the final c and h.

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
        super().__init__(**kwargs)
        self.dim = dim
        self.projection_dim = projection_dim
        self.cell_clip = cell_clip
        self.proj_clip = proj_clip

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights with random values."""
        self.create_weights(input_shape[-1], fresh)

    def create_weights(self, input_dim: int, choose: Choice, prefix: str = "") -> None:
        """Create the weights, each in the shape in which it is stored, as `choose` says."""

        def weight(name: str, shape: tuple[int, ...], usual):
            chosen = choose(f"{prefix}{name}", usual)
            return self.add_weight(name=name, shape=shape, initializer=chosen)

        self.input_dim = input_dim
        gates = 4 * self.dim
        self.kernel = weight("W_0", (self.input_dim + self.projection_dim, gates), "glorot_uniform")
        self.bias = weight("B", (gates,), "zeros")
        self.projection = None
        if self.projection_dim != self.dim:
            self.projection = weight("W_P_0", (self.dim, self.projection_dim), "glorot_uniform")
        self.built = True

    def call(self, x, c, h, lengths=None):
        """Run over the sequence."""
        batch, time = ops.shape(x)[0], x.shape[1]
        for_inputs, recurrent = ops.split(self.kernel.value, [self.input_dim], axis=0)
        # The inputs' share of all gates at all steps is one product of two matrices. The bias is a
        # row of it, for an input that is always 1: then its gradient is part of a product too,
        # which is several times faster than a sum over all steps.
        x = ops.reshape(ops.moveaxis(x, 1, 0), (-1, self.input_dim))  # (time * batch, input)
        x = ops.concatenate([x, ops.ones_like(x[:, :1])], axis=1)
        for_inputs = ops.concatenate([for_inputs, self.bias.value[None]], axis=0)
        from_inputs = ops.reshape(ops.matmul(x, for_inputs), (-1, batch, 4 * self.dim))

        def step(state, inputs):
            c, h, t = state
            new_c, new_h = self._step(inputs + ops.matmul(h, recurrent), c)
            if lengths is not None:
                running = (t < ops.cast(lengths, "int32"))[:, None]
                new_c, new_h = ops.where(running, new_c, c), ops.where(running, new_h, h)
            state = new_c, new_h, t + 1
            # On TensorFlow, `ops.scan` can only collect what has the form of the state itself.
            return state, state

        unroll = time is not None and time <= LONGEST_UNROLLED
        state = (c, h, ops.convert_to_tensor(0, "int32"))
        if not unroll:
            state, (_, outputs, _) = ops.scan(step, state, from_inputs)
        else:
            outputs = []
            for inputs in ops.unstack(from_inputs, time):
                state, _ = step(state, inputs)
                outputs.append(state[1])
            outputs = ops.stack(outputs)
        return ops.moveaxis(outputs, 0, 1), state[0], state[1]

    def _step(self, gates, c):
        i, j, f, o = ops.split(gates, 4, axis=-1)  # each (batch, dim)
        c = ops.sigmoid(f + 1.0) * c + ops.sigmoid(i) * ops.tanh(j)
        if self.cell_clip is not None:
            c = ops.clip(c, -self.cell_clip, self.cell_clip)
        h = ops.sigmoid(o) * ops.tanh(c)
        if self.projection is not None:
            h = ops.matmul(h, self.projection)  # (batch, projection)
            if self.proj_clip is not None:
                h = ops.clip(h, -self.proj_clip, self.proj_clip)
        return c, h

    def get_config(self) -> dict:
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "dim": self.dim,
            "projection_dim": self.projection_dim,
            "cell_clip": self.cell_clip,
            "proj_clip": self.proj_clip,
        }
