"""One step of an LSTM with projection and clipping, and a loop with a hand-written gradient."""

from keras import ops

from elmolib.backend import jit, uses_tensorflow


def cell(from_input, from_output, c, cell_clip: float | None):
    """Take one step, except for the matrix products.

    Args:
        from_input: what the input and the bias add to the gates, a float tensor (batch, 4 * dim).
        from_output: what the previous output adds to the gates, a float tensor (batch, 4 * dim).
        c: the previous cell state, a float tensor (batch, dim).
        cell_clip: the bound on the absolute value of the cell state, or None.

    Returns:
        the new c, the output m before the projection, and the values that `cell_gradient` needs.
    """
    gates = from_input + from_output
    # Slicing is several times faster than TensorFlow's split.
    dim = c.shape[-1]
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

    Args:
        kept: the third result of `cell`.
        c, new_c: the cell states (batch, dim) before and after the step.
        d_m, d_c: the gradients of the loss with respect to the results m and c of `cell`.
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

    The gradient of a weight is computed as one product over all steps, after the backward loop.
    Automatic differentiation would compute one product per step and add them. `weights` are the
    kernel, the bias and, if there is one, the projection; x, c and h are as in `ProjectedLSTM`.
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
