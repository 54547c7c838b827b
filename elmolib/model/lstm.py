"""An LSTM with projection and clipping, which Keras does not have."""

from functools import partial

import keras
from keras import ops

from elmolib.backend import jit, uses_tensorflow
from elmolib.model.layers import FLOAT32, Weights


@keras.saving.register_keras_serializable(package="elmolib")
class ProjectedLSTM(keras.Layer):
    """An LSTM layer for one direction. Its output is projected to fewer features.

    The first rows of the kernel are for the input, the other rows for the previous output. The
    order of the gates is input, candidate, forget, output. A constant 1 is added to the forget gate
    before its sigmoid. The cell state is clipped before the output gate is applied; the output is
    clipped after the projection. The gradient is 0 where a value is clipped.

    Args:
        dim: the number of features of the cell state.
        projection_dim: the number of features of the output; if it equals `dim`, no projection.
        cell_clip, proj_clip: the bounds on the absolute values of the cell state and of the
            projected output, or None.

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
        self.create_weights(Weights(), input_shape[-1])

    def create_weights(self, weights: Weights, features: int) -> None:
        weight, dim, projection_dim = partial(weights.add, self), self.dim, self.projection_dim
        self.features = features
        self.kernel = weight("kernel", (features + projection_dim, 4 * dim), "glorot_uniform")
        self.bias = weight("bias", (4 * dim,), "zeros")
        self.projection = None
        if projection_dim != dim:
            self.projection = weight("projection", (dim, projection_dim), "glorot_uniform")
        self.built = True

    def call(self, x, c, h, lengths=None):
        # Keras allows a custom gradient for a function with several outputs only on TensorFlow. Up
        # to a length of 128, an unrolled loop is faster in training.
        may_unroll = lengths is None and uses_tensorflow()
        if may_unroll and x.shape[0] is not None and x.shape[0] <= 128:
            weights = [weight.value for weight in self.weights]
            return unrolled(x, c, h, weights, self.cell_clip, self.proj_clip)
        from_inputs = self._from_inputs(ops.reshape(x, (-1, self.features)))
        from_inputs = ops.reshape(from_inputs, (-1, ops.shape(x)[1], 4 * self.dim))
        # Scan over the inputs, because a gradient of `from_inputs[step]` is as large as all inputs.
        # With lengths, no gradient is needed: scan over the steps, which does not copy the inputs.
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
            gates = from_input_of(current), from_output
            new_c, m = jit(masked_cell)(*gates, c, is_running, self.cell_clip)
            new_h = project(m, self.projection, self.proj_clip)
            return new_c, new_h if is_running is None else ops.where(is_running, new_h, h)

        return scan(step, c, h, steps)


def cell(from_input, from_output, c, cell_clip: float | None):
    """Take one step, except for the matrix products.

    `from_input` and `from_output` are what the input with the bias and the previous output add to
    the gates (batch, 4 * dim). `c` is the previous cell state (batch, dim). Return the new c, the
    output m before the projection, and the values that `cell_gradient` needs.
    """
    gates = from_input + from_output
    dim = c.shape[-1]
    # Slicing is several times faster than TensorFlow's split.
    i, j, f, o = (gates[:, k : k + dim] for k in range(0, 4 * dim, dim))
    i, j, f, o = ops.sigmoid(i), ops.tanh(j), ops.sigmoid(f + 1.0), ops.sigmoid(o)
    new_c = f * c + i * j
    if cell_clip is not None:
        new_c = ops.clip(new_c, -cell_clip, cell_clip)
    squashed = ops.tanh(new_c)
    return new_c, o * squashed, (i, j, f, o, squashed)


def masked_cell(from_input, from_output, c, is_running, cell_clip: float | None):
    """Return c and m of `cell`; rows whose `is_running` (batch, 1) is False keep their c."""
    new_c, m, _ = cell(from_input, from_output, c, cell_clip)
    return new_c if is_running is None else ops.where(is_running, new_c, c), m


def cell_gradient(kept, c, new_c, d_m, d_c, cell_clip: float | None):
    """Return the gradients of the gates (batch, 4 * dim) and of the previous c.

    `kept` is the third result of `cell`, `c` and `new_c` are the cell states before and after the
    step, and `d_m` and `d_c` are the gradients of the results m and c of `cell`.
    """
    i, j, f, o, squashed = kept
    d_c = d_c + d_m * o * (1.0 - squashed * squashed)
    if cell_clip is not None:
        d_c = ops.where(ops.abs(new_c) < cell_clip, d_c, 0.0)
    d_gates = [
        d_c * j * (i - i * i),
        d_c * i * (1.0 - j * j),
        d_c * c * (f - f * f),
        d_m * squashed * (o - o * o),
    ]
    return ops.concatenate(d_gates, axis=-1), d_c * f


def project(m, projection, clip: float | None):
    """Compute the output h (batch, projection_dim) from m (batch, dim)."""
    if projection is None:
        return m
    h = ops.matmul(m, projection)
    return h if clip is None else ops.clip(h, -clip, clip)


def _project_gradient(h, d_h, projection, clip: float | None):
    """Return the gradients of m and of h before clipping."""
    if projection is None:
        return d_h, d_h
    if clip is not None:
        d_h = ops.where(ops.abs(h) < clip, d_h, 0.0)
    return ops.matmul(d_h, ops.transpose(projection)), d_h


def scan(step, c, h, xs):
    """Compute `c, h = step(c, h, x)` for each x in xs. Return all h, and the last c and h."""
    if not uses_tensorflow():
        (c, h), outputs = ops.scan(lambda s, x: ((n := step(*s, x)), n[1]), (c, h), xs)
        return outputs, c, h
    # On TensorFlow, `ops.scan` also keeps c of every step, and cannot be exported to ONNX.
    import tensorflow as tf

    time = tf.shape(xs)[0]
    inputs = tf.TensorArray(xs.dtype, time, element_shape=xs.shape[1:]).unstack(xs)
    outputs = tf.TensorArray(h.dtype, time, element_shape=h.shape)

    def body(t, c, h, outputs):
        c, h = step(c, h, inputs.read(t))
        return t + 1, c, h, outputs.write(t, h)

    _, c, h, outputs = tf.while_loop(
        lambda t, *_: t < time, body, (0, c, h, outputs), parallel_iterations=1
    )
    return outputs.stack(), c, h


def unrolled(x, c, h, weights, cell_clip: float | None, proj_clip: float | None):
    """Run a `ProjectedLSTM` over a short sequence of known length, with a hand-written gradient.

    The gradient of a weight is one product over all steps, after the backward loop; automatic
    differentiation would add a product per step. `weights` are the kernel, the bias and, if there
    is one, the projection; x, c and h are as in `ProjectedLSTM`.
    """
    time, features = x.shape[0], x.shape[2]

    @ops.custom_gradient
    def run(flat, c, h, kernel, bias, projection=None):  # flat: (time * batch, features)
        for_inputs, recurrent = kernel[:features], kernel[features:]
        cs, hs, ms, kept = [c], [h], [], []
        for from_input in ops.split(ops.matmul(flat, for_inputs) + bias, time):
            step = jit(cell)(from_input, ops.matmul(hs[-1], recurrent), cs[-1], cell_clip)
            for values, value in zip((cs, ms, kept), step, strict=True):
                values.append(value)
            hs.append(project(ms[-1], projection, proj_clip))

        def gradient(d_outputs, d_c, d_h):
            d_gates, d_projected = [], []
            for t, d_output in reversed(list(enumerate(ops.split(d_outputs, time)))):
                d_m, d_product = _project_gradient(hs[t + 1], d_output + d_h, projection, proj_clip)
                d_gate, d_c = jit(cell_gradient)(kept[t], cs[t], cs[t + 1], d_m, d_c, cell_clip)
                d_h = ops.matmul(d_gate, ops.transpose(recurrent))
                d_gates.append(d_gate)
                d_projected.append(d_product)
            d_gates = ops.concatenate(d_gates[::-1])  # (time * batch, 4 * dim)
            read = ops.transpose(ops.concatenate([flat, ops.concatenate(hs[:-1])], axis=1))
            result = [
                ops.matmul(d_gates, ops.transpose(for_inputs)),
                d_c,
                d_h,
                ops.matmul(read, d_gates),
                # A product with ones is faster than a sum over the first axis.
                ops.matmul(ops.transpose(ops.ones_like(d_gates[:, :1])), d_gates)[0],
            ]
            if projection is not None:
                m = ops.transpose(ops.concatenate(ms))
                result.append(ops.matmul(m, ops.concatenate(d_projected[::-1])))
            return tuple(result)

        return (ops.concatenate(hs[1:]), cs[-1], hs[-1]), gradient

    outputs, c, h = run(ops.reshape(x, (-1, features)), c, h, *weights)
    return ops.reshape(outputs, (time, -1, outputs.shape[-1])), c, h
