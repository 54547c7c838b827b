"""The optimizer of the recipe `elmolib`: Muon for most matrices, Adam for all other weights."""

import math
from collections import defaultdict
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from elmolib.model.bilm import SOFTMAX

LARGEST = 512
"""Muon is for matrices whose shorter side is at most this long: its time grows with that side."""

MUON_RATE = 2.5
"""The step size of Muon, in relation to that of Adam."""

MOMENTUM, BETA_1, BETA_2, EPSILON = 0.95, 0.9, 0.999, 1e-8

POLYNOMIALS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)
"""Coefficients a, b, c of `a x + b x^3 + c x^5`. Applied in turn, they bring every x from 0.01 to 1
to a value from 0.73 to 1.27; each is the best polynomial of its kind for the values it gets."""


class MuonAdam:
    """Muon for the matrices of LSTMs, highway layers and projections; Adam for all other weights.

    Muon keeps a momentum M of the gradients G of a matrix W:

        M = 0.95 M + G
        W = W - learning_rate * 2.5 * sqrt(max(1, rows / columns)) * orthogonal(G + 0.95 M)

    `orthogonal` brings all singular values close to 1 (see `orthogonalize`). The kernel of an LSTM
    is taken as four matrices, one per gate. In step t, Adam updates a weight w with gradient g by

        m = 0.9 m + 0.1 g
        v = 0.999 v + 0.001 g^2
        w = w - learning_rate * sqrt(1 - 0.999^t) / (1 - 0.9^t) * m / (sqrt(v) + 1e-8)

    With a sampled softmax, only the rows of a batch and their m and v are updated.

    Args:
        variables: the variables to train, by name.
        learning_rate: the step size. The attribute of this name may be changed between steps.

    References:
        Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; Liu et al. 2025,
        arXiv:2502.16982; Kingma and Ba 2015, arXiv:1412.6980.
    """

    def __init__(self, variables: dict[str, keras.Variable], learning_rate: float) -> None:
        self.variables = variables
        self.learning_rate = tf.Variable(learning_rate, dtype=tf.float32, trainable=False)
        # Matrices of the same shape are computed together; each direction has its own thread.
        self.groups: dict[tuple, list[str]] = defaultdict(list)
        for name, variable in variables.items():
            if key := _group(name, variable.shape):
                self.groups[key].append(name)
        by_muon = {name for names in self.groups.values() for name in names}
        self.slots = {"steps": tf.Variable(0.0)}
        for name, variable in variables.items():
            for slot in ("momentum",) if name in by_muon else ("m", "v"):
                self.slots[f"{slot}/{name}"] = tf.Variable(np.zeros(variable.shape, np.float32))

    def update(self, gradients: Mapping[str, tf.Tensor], rows: Mapping[str, tf.Tensor]) -> None:
        """Update all variables; where `rows` has a name (distinct, int64), only these rows."""
        step = self.slots["steps"].assign_add(1.0)
        left = dict(gradients)
        for (*_, n_gates), names in self.groups.items():
            self._muon({name: left.pop(name) for name in names}, n_gates)
        powers = tf.pow(BETA_1, step), tf.pow(BETA_2, step)
        for name, gradient in left.items():
            self._adam(name, gradient, rows.get(name), powers)

    def _muon(self, gradients: Mapping[str, tf.Tensor], n_gates: int) -> None:
        looked_ahead = []
        for name, gradient in gradients.items():
            momentum = self.slots[f"momentum/{name}"]
            ahead = gradient + MOMENTUM * momentum.assign(MOMENTUM * momentum + gradient)
            looked_ahead += tf.split(ahead, n_gates, axis=1)
        directions = tf.unstack(orthogonalize(tf.stack(looked_ahead)))
        rows, columns = looked_ahead[0].shape
        rate = self.learning_rate * MUON_RATE * math.sqrt(max(1.0, rows / columns))
        for i, name in enumerate(gradients):
            gates = directions[i * n_gates : (i + 1) * n_gates]
            self.variables[name].value.assign_sub(rate * tf.concat(gates, axis=1))

    def _adam(self, name: str, gradient: tf.Tensor, rows: tf.Tensor | None, powers: tuple) -> None:
        variable = self.variables[name].value
        m, v = (self.slots[f"{slot}/{name}"] for slot in "mv")
        if rows is None:
            handles = {"var": variable.handle, "m": m.handle, "v": v.handle}
            betas = {"beta1": BETA_1, "beta2": BETA_2, "epsilon": EPSILON}
            betas |= {"beta1_power": powers[0], "beta2_power": powers[1]}
            tf.raw_ops.ResourceApplyAdam(**handles, **betas, lr=self.learning_rate, grad=gradient)
            return
        new_m = BETA_1 * tf.gather(m, rows) + (1.0 - BETA_1) * gradient
        new_v = BETA_2 * tf.gather(v, rows) + (1.0 - BETA_2) * gradient * gradient
        for slot, values in ((m, new_m), (v, new_v)):
            tf.raw_ops.ResourceScatterUpdate(resource=slot.handle, indices=rows, updates=values)
        rate = self.learning_rate * tf.sqrt(1.0 - powers[1]) / (1.0 - powers[0])
        step = rate * new_m / (tf.sqrt(new_v) + EPSILON)
        tf.raw_ops.ResourceScatterSub(resource=variable.handle, indices=rows, updates=step)


def _group(name: str, shape: tuple[int, ...]) -> tuple | None:
    """Return the direction or part, shape and number of gates of a matrix for Muon, else None."""
    if len(shape) != 2 or name in SOFTMAX or name == "char_cnn/embedding":
        return None
    part, layer = name.split("/")[0].split("_")[0], name.split("/")[-1]
    n_gates = 4 if layer == "kernel" else 1
    rows, columns = shape[0], shape[1] // n_gates
    return (part, rows, columns, n_gates) if min(rows, columns) <= LARGEST else None


def orthogonalize(matrices: tf.Tensor) -> tf.Tensor:
    """Bring the singular values of each matrix (number, rows, columns) close to 1.

    The singular vectors do not change. A matrix X is divided by a bound on its singular values, the
    fourth root of the sum of their fourth powers. Then `X = a X + b (X X^T) X + c (X X^T)^2 X` is
    computed with each of `POLYNOMIALS`.

    References:
        Amsel et al. 2025, arXiv:2505.16932, who choose the polynomials in this way.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = tf.linalg.matrix_transpose(matrices) if is_tall else matrices
    products = tf.matmul(x, x, transpose_b=True)
    # The small excess is for bfloat16: rounding must not bring a singular value above 1.
    square = 1.04 * tf.norm(products, axis=(1, 2), keepdims=True) + 1e-30
    x, products = x / tf.sqrt(square), products / square
    for i, (a, b, c) in enumerate(POLYNOMIALS):
        if i > 0:
            products = tf.matmul(x, x, transpose_b=True)
        x = a * x + tf.matmul(b * products + c * tf.matmul(products, products), x)
    return tf.linalg.matrix_transpose(x) if is_tall else x
