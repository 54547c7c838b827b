"""The recipe elmolib: Muon and Adam compared with NumPy's singular values and Keras' Adam."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from elmolib.training import muon
from elmolib.training.muon import LARGEST, MuonAdam, orthogonalize

RATE = 0.01


def matrices(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def expected_orthogonal(matrix: np.ndarray) -> np.ndarray:
    """The same function of the singular values, which NumPy finds."""
    U, values, V = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    values = values / (1.04**0.5 * (values**4).sum() ** 0.25)
    for a, b, c in muon.POLYNOMIALS:
        values = a * values + b * values**3 + c * values**5
    return (U * values) @ V


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 12), (1, 12, 5), (2, 1, 6)])
def test_singular_vectors_stay_and_singular_values_come_close_to_1(shape):
    given = matrices(*shape)
    found = orthogonalize(tf.constant(given)).numpy()
    for before, after in zip(given, found, strict=True):
        np.testing.assert_allclose(after, expected_orthogonal(before), atol=1e-4)
        assert np.all(np.abs(np.linalg.svd(after, compute_uv=False) - 1) < 0.28)


def test_every_singular_value_from_a_hundredth_of_the_bound_comes_close_to_1():
    values = np.geomspace(0.01, 1, 1000)
    for a, b, c in muon.POLYNOMIALS:
        values = a * values + b * values**3 + c * values**5
    assert values.min() > 0.729 and values.max() < 1.27


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_size_of_a_gradient_does_not_matter(scale):
    given = matrices(2, 6, 4)
    found = orthogonalize(tf.constant(given * np.float32(scale)))
    np.testing.assert_allclose(found, orthogonalize(tf.constant(given)), atol=1e-4)


def test_a_gradient_of_zeros_moves_nothing():
    np.testing.assert_array_equal(orthogonalize(tf.zeros((2, 3, 4))), np.zeros((2, 3, 4)))


def variables_of(**shapes: tuple[int, ...]) -> dict[str, keras.Variable]:
    return {
        name.replace("__", "/"): keras.Variable(matrices(*shape, seed=3))
        for name, shape in shapes.items()
    }


def test_muon_updates_each_gate_by_its_own_momentum():
    variables = variables_of(forward_0__kernel=(6, 32), forward_0__projection=(8, 3))
    before = {name: variable.numpy() for name, variable in variables.items()}
    optimizer = MuonAdam(variables, RATE)
    momenta = {name: np.zeros_like(values) for name, values in before.items()}
    for step in range(3):
        gradients = {n: matrices(*v.shape, seed=step) for n, v in variables.items()}
        optimizer.update({n: tf.constant(g) for n, g in gradients.items()}, {})
        for name, gradient in gradients.items():
            momenta[name] = 0.95 * momenta[name] + gradient
            ahead = gradient + 0.95 * momenta[name]
            gates = np.split(ahead, 4, axis=1) if name.endswith("kernel") else [ahead]
            moved = np.concatenate([expected_orthogonal(gate) for gate in gates], axis=1)
            factor = 2.5 * max(1, gates[0].shape[0] / gates[0].shape[1]) ** 0.5
            before[name] = before[name] - RATE * factor * moved
            np.testing.assert_allclose(variables[name], before[name], atol=1e-5)


def test_other_weights_are_updated_as_by_keras_adam():
    shapes = {"softmax__W": (9, 4), "char_cnn__kernel_0": (2, 4, 3), "char_cnn__embedding": (5, 4)}
    ours, theirs = variables_of(**shapes), variables_of(**shapes)
    optimizer = MuonAdam(ours, RATE)
    adam = keras.optimizers.Adam(RATE, epsilon=1e-8)
    for step in range(4):
        gradients = {n: tf.constant(matrices(*v.shape, seed=step)) for n, v in ours.items()}
        optimizer.update(gradients, {})
        adam.apply(list(gradients.values()), list(theirs.values()))
        for name, variable in ours.items():
            np.testing.assert_allclose(variable, theirs[name], atol=1e-6, err_msg=name)


def test_rows_of_a_batch_are_updated_like_the_whole_and_the_others_stay():
    ours, whole = variables_of(softmax__W=(9, 4)), variables_of(softmax__W=(9, 4))
    before = ours["softmax/W"].numpy()
    some, every = MuonAdam(ours, RATE), MuonAdam(whole, RATE)
    rows = np.array([1, 4, 8])
    for step in range(3):
        gradient = matrices(9, 4, seed=step)
        every.update({"softmax/W": tf.constant(gradient)}, {})
        some.update({"softmax/W": tf.constant(gradient[rows])}, {"softmax/W": tf.constant(rows)})
    found, others = ours["softmax/W"].numpy(), np.setdiff1d(np.arange(9), rows)
    np.testing.assert_allclose(found[rows], whole["softmax/W"].numpy()[rows], atol=1e-6)
    np.testing.assert_array_equal(found[others], before[others])
    for name in ("m/softmax/W", "v/softmax/W"):
        assert not some.slots[name].numpy()[others].any()


def test_large_matrices_and_those_of_words_and_characters_are_left_to_adam():
    side = LARGEST + 1
    optimizer = MuonAdam(
        variables_of(
            forward_0__kernel=(4, 4 * side),
            char_cnn__highway_0__carry=(side, side),
            char_cnn__projection=(side, 3),
            softmax__W=(7, 3),
            char_cnn__embedding=(7, 3),
        ),
        RATE,
    )
    momenta = {name.removeprefix("momentum/") for name in optimizer.slots if "momentum/" in name}
    assert momenta == {"forward_0/kernel", "char_cnn/projection"}
