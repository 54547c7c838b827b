"""The LSTM with projection and clipping that Keras does not have."""

from __future__ import annotations

import keras
from keras import ops

from elmolib.fused import fused
from elmolib.layers.stored import Choice, fresh

LONGEST_UNROLLED = 128
"""Up to so many steps, a loop whose length is known is written out, which is faster to train."""


def cell(from_input, from_output, c, cell_clip: float | None):
    """Take one step, all but its products of matrices.

    Args:
        from_input: float tensor (batch, 4 * dim), the input's share of the gates, with the bias.
        from_output: float tensor (batch, 4 * dim), the share of the output before.
        c: float tensor (batch, dim), the cell state before.
        cell_clip: bound on the absolute value of the cell state, or None.

    Returns:
        the new c, what the output gate lets through of it, and what `cell_back` needs.
    """
    gates = from_input + from_output
    # Four slices are copied several times faster than TensorFlow splits.
    dim = c.shape[-1]
    i, j, f, o = (gates[:, k : k + dim] for k in range(0, 4 * dim, dim))
    i, j, f, o = ops.sigmoid(i), ops.tanh(j), ops.sigmoid(f + 1.0), ops.sigmoid(o)
    new_c = f * c + i * j
    if cell_clip is not None:
        new_c = ops.clip(new_c, -cell_clip, cell_clip)
    squashed = ops.tanh(new_c)
    return new_c, o * squashed, (i, j, f, o, squashed)


def cell_onward(from_input, from_output, c, running, cell_clip: float | None):
    """Take one step with nothing kept for a way back; rows that do not run on keep their c.

    Args:
        running: boolean tensor (batch, 1), or None if all run on; all others as of `cell`.

    Returns:
        the new c, and what the output gate lets through of it.
    """
    new_c, m, _ = cell(from_input, from_output, c, cell_clip)
    return new_c if running is None else ops.where(running, new_c, c), m


def cell_back(kept, c, new_c, by_m, by_c, cell_clip: float | None):
    """Return the gradients by the gates and the earlier c from those by what `cell` returned."""
    i, j, f, o, squashed = kept
    by_c = by_c + by_m * o * (1.0 - squashed * squashed)
    if cell_clip is not None:
        by_c = ops.where(ops.abs(new_c) < cell_clip, by_c, 0.0)
    by_gates = [
        by_c * j * (i - i * i),
        by_c * i * (1.0 - j * j),
        by_c * c * (f - f * f),
        by_m * squashed * (o - o * o),
    ]
    return ops.concatenate(by_gates, axis=-1), by_c * f


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
        outputs, c, h = self.run(ops.swapaxes(x, 0, 1), c, h, lengths)
        return ops.swapaxes(outputs, 0, 1), c, h

    def run(self, x, c, h, lengths=None):
        """Do what a call does, with x and the outputs (time, batch, features)."""
        # Of several outputs, Keras lets only TensorFlow have a gradient of one's own.
        may_unroll = lengths is None and keras.backend.backend() == "tensorflow"
        if may_unroll and x.shape[0] is not None and x.shape[0] <= LONGEST_UNROLLED:
            return self._window(x, c, h)
        return self._scan(x, c, h, lengths)

    def read(self, vectors, words, c, h, lengths):
        """Do what `run` does, with the inputs' share of the gates computed once per distinct word.

        Args:
            vectors: float tensor (words, features), the inputs.
            words: integer tensor (time, batch), which of them is read when.
            c, h, lengths: as of a call, but lengths must be given.
        """
        from_vectors = self._from_inputs(vectors)  # (words, 4 * dim)
        steps = ops.arange(ops.shape(words)[0], dtype="int32")
        return self._steps(
            steps, lambda step: ops.take(from_vectors, words[step], axis=0), c, h, lengths
        )

    def _scan(self, x, c, h, lengths):
        """Run over a sequence of any length."""
        from_inputs = self._from_inputs(ops.reshape(x, (-1, self.input_dim)))
        from_inputs = ops.reshape(from_inputs, (-1, ops.shape(x)[1], 4 * self.dim))
        # Handed out by the scan, TensorFlow copies the inputs' shares once more; looked up, the way
        # back makes an array as large as all of them at every step. Lengths are for embedding,
        # which knows no way back.
        if lengths is None:
            return self._steps(from_inputs, lambda from_input: from_input, c, h, None)
        steps = ops.arange(ops.shape(from_inputs)[0], dtype="int32")
        return self._steps(steps, lambda step: from_inputs[step], c, h, lengths)

    def _from_inputs(self, inputs):
        """Return the inputs' share of all gates at all steps: one product of two matrices."""
        return ops.matmul(inputs, self.kernel[: self.input_dim]) + self.bias

    def _steps(self, to_read, from_input_of, c, h, lengths):
        """Take one step after the other, numbered ones if some rows end before others."""
        recurrent = self.kernel[self.input_dim :]
        if lengths is not None:
            lengths = ops.cast(lengths, "int32")

        def step(state, read):
            c, h = state
            running = None if lengths is None else (read < lengths)[:, None]
            product = ops.matmul(h, recurrent)
            new_c, m = fused(cell_onward)(from_input_of(read), product, c, running, self.cell_clip)
            new_h = self._project(m, self.projection)
            if running is not None:
                new_h = ops.where(running, new_h, h)
            state = new_c, new_h
            # On TensorFlow, `ops.scan` can only collect what has the form of the state itself.
            return state, state

        (c, h), (_, outputs) = ops.scan(step, (c, h), to_read)
        return outputs, c, h

    def _project(self, m, projection):
        """Return the output h for what the output gate lets through."""
        if projection is None:
            return m
        h = ops.matmul(m, projection)  # (batch, projection)
        return h if self.proj_clip is None else ops.clip(h, -self.proj_clip, self.proj_clip)

    def _window(self, x, c, h):
        """Run over a short sequence of known length, with the gradient written out.

        The gradient of a weight is one product over all steps, made after the loop back through
        time, where automatic differentiation makes one per step and adds them up.
        """
        time = x.shape[0]
        flat = ops.reshape(x, (-1, self.input_dim))  # (time * batch, input)
        weights = [self.kernel, self.bias] + ([] if self.projection is None else [self.projection])

        @ops.custom_gradient
        def run(flat, c, h, kernel, bias, projection=None):
            first_h = h
            for_inputs, recurrent = kernel[: self.input_dim], kernel[self.input_dim :]
            from_inputs = ops.split(ops.matmul(flat, for_inputs) + bias, time)
            tape = []
            for inputs in from_inputs:
                before = c
                c, m, kept = fused(cell)(inputs, ops.matmul(h, recurrent), c, self.cell_clip)
                h = self._project(m, projection)
                tape.append(((kept, before, c), m, h))
            outputs = [h for _, _, h in tape]

            def gradient(by_outputs, by_c, by_h):
                by_gates, by_projected = [], []
                for (kept, _, h), by_output in zip(
                    reversed(tape), reversed(ops.split(by_outputs, time)), strict=True
                ):
                    by_m, by_product = self._project_back(h, by_output + by_h, projection)
                    by_gate, by_c = fused(cell_back)(*kept, by_m, by_c, self.cell_clip)
                    by_h = ops.matmul(by_gate, ops.transpose(recurrent))
                    by_gates.append(by_gate)
                    by_projected.append(by_product)
                by_gates = ops.concatenate(by_gates[::-1])  # (time * batch, 4 * dim)
                before = ops.concatenate([first_h, *outputs[:-1]])
                read = ops.transpose(ops.concatenate([flat, before], axis=1))
                result = [
                    ops.matmul(by_gates, ops.transpose(for_inputs)),
                    by_c,
                    by_h,
                    ops.matmul(read, by_gates),
                    # A product with ones is faster than a sum over the first axis.
                    ops.matmul(ops.transpose(ops.ones_like(by_gates[:, :1])), by_gates)[0],
                ]
                if projection is not None:
                    m = ops.transpose(ops.concatenate([m for _, m, _ in tape]))
                    result.append(ops.matmul(m, ops.concatenate(by_projected[::-1])))
                return tuple(result)

            return (ops.concatenate(outputs), c, h), gradient

        outputs, c, h = run(flat, c, h, *(weight.value for weight in weights))
        return ops.reshape(outputs, (time, -1, self.projection_dim)), c, h

    def _project_back(self, h, by_h, projection):
        """Return the gradients by m and by the product with the projection."""
        if projection is None:
            return by_h, by_h
        if self.proj_clip is not None:
            by_h = ops.where(ops.abs(h) < self.proj_clip, by_h, 0.0)
        return ops.matmul(by_h, ops.transpose(projection)), by_h

    def get_config(self) -> dict:
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "dim": self.dim,
            "projection_dim": self.projection_dim,
            "cell_clip": self.cell_clip,
            "proj_clip": self.proj_clip,
        }
