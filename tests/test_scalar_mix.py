"""The mix of layers compared with formulas in NumPy and with values of other programs."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from elmolib.model.scalar_mix import ScalarMix

TOLERANCE = 1e-5

GENERATOR = np.random.default_rng(0)
LAYERS = GENERATOR.normal(2.0, 3.0, (3, 2, 4, 5)).astype(np.float32)
MASK = np.array([[True, True, True, False], [True, False, False, False]])
SCALARS, GAMMA = np.array([0.5, -1.0, 2.0], np.float32), np.float32(1.7)


def made(scalars=SCALARS, gamma=GAMMA, **kwargs) -> ScalarMix:
    mix = ScalarMix(len(scalars), **kwargs)
    mix.build([(None, None, None)] * len(scalars))
    mix.scalars.assign(scalars)
    mix.gamma.assign(gamma)
    return mix


def numpy_mix(layers, scalars, gamma, mask, do_layer_norm):
    """The mix of layers by its formula, in float64."""
    layers = np.asarray(layers, np.float64)
    if do_layer_norm:
        kept = [layer[mask] for layer in layers]
        layers = np.stack(
            [(x - k.mean()) / np.sqrt(k.var() + 1e-12) for x, k in zip(layers, kept, strict=True)]
        )
    weights = np.exp(scalars) / np.exp(scalars).sum()
    return gamma * np.tensordot(weights, layers, 1) * mask[..., None]


@pytest.mark.parametrize("do_layer_norm", [False, True])
@pytest.mark.parametrize("mask", [MASK, np.ones_like(MASK)])
def test_the_mix_follows_the_formula(mask, do_layer_norm):
    mix = made(do_layer_norm=do_layer_norm)
    expected = numpy_mix(LAYERS, SCALARS, GAMMA, mask, do_layer_norm)
    np.testing.assert_allclose(mix(list(LAYERS), mask=mask), expected, atol=TOLERANCE)
    if mask.all():
        np.testing.assert_allclose(mix(list(LAYERS)), expected, atol=TOLERANCE)


def test_a_new_mix_is_the_average():
    mix = ScalarMix(3)
    np.testing.assert_allclose(mix(list(LAYERS)), LAYERS.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(mix.layer_weights(), [1 / 3] * 3, atol=1e-6)


@pytest.mark.parametrize("do_layer_norm", [False, True])
def test_masked_positions_have_no_effect_and_become_zero(do_layer_norm):
    mix = made(do_layer_norm=do_layer_norm)
    changed = np.where(MASK[..., None], LAYERS, 1e6).astype(np.float32)
    expected = np.asarray(mix(list(LAYERS), mask=MASK))
    np.testing.assert_array_equal(mix(list(changed), mask=MASK), expected)
    assert not expected[~MASK].any()


@given(st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=6))
def test_layer_weights_are_a_softmax(scalars):
    weights = np.asarray(made(np.array(scalars, np.float32)).layer_weights())
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    # Adding the same number to all scalars does not change the weights.
    moved = made(np.array(scalars, np.float32) + 5).layer_weights()
    np.testing.assert_allclose(moved, weights, atol=1e-5)


@pytest.mark.parametrize("do_layer_norm", [False, True])
def test_a_batch_without_words_is_zero(do_layer_norm):
    mix = made(do_layer_norm=do_layer_norm)
    assert not np.asarray(mix(list(LAYERS), mask=np.zeros_like(MASK))).any()


def test_l2_is_added_to_the_loss():
    (loss,) = made(l2=0.1).losses
    assert float(loss) == pytest.approx(0.1 * (SCALARS**2).sum())
    assert not made().losses


def test_training_finds_the_useful_layer_and_l2_keeps_the_average():
    def weights_after(l2):
        layers = [keras.Input((4, 5)) for _ in LAYERS]
        mix = ScalarMix(3, l2=l2)
        model = keras.Model(layers, mix(layers))
        model.compile(keras.optimizers.Adam(0.1), "mse")
        model.fit(list(LAYERS), LAYERS[1], epochs=150, verbose=0)
        return np.asarray(mix.layer_weights())

    free, regularized = weights_after(0.0), weights_after(10.0)
    assert free[1] > 0.9
    np.testing.assert_allclose(regularized, [1 / 3] * 3, atol=0.1)


def test_keras_masks_are_used_and_passed_on():
    inputs = keras.Input((4, 5))
    masked = keras.layers.Masking(mask_value=0.0)(inputs)
    mix = made(do_layer_norm=True)
    model = keras.Model(inputs, mix([masked, masked * 2.0, masked + 1.0]))
    x = np.where(MASK[..., None], LAYERS[0], 0.0).astype(np.float32)
    expected = numpy_mix([x, 2 * x, x + 1], SCALARS, GAMMA, MASK, do_layer_norm=True)
    out = model(x)
    np.testing.assert_allclose(out, expected, atol=TOLERANCE)
    np.testing.assert_array_equal(out._keras_mask, MASK)


def test_bfloat16_layers_are_normalized_in_float32():
    mix = made(do_layer_norm=True, dtype="mixed_bfloat16")
    far = [ops.cast(layer + 30.0, "bfloat16") for layer in LAYERS]
    out = mix(far, mask=MASK)
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"
    rounded = [np.asarray(ops.cast(layer, "float32")) for layer in far]
    expected = numpy_mix(rounded, SCALARS, GAMMA, MASK, do_layer_norm=True)
    np.testing.assert_allclose(ops.cast(out, "float32"), expected, atol=0.05)


@pytest.mark.parametrize("n_layers", [0, -1])
def test_no_layers_raise_an_error(n_layers):
    with pytest.raises(ValueError, match=f"n_layers is {n_layers}"):
        ScalarMix(n_layers)


@pytest.mark.parametrize("l2", [-1.0, float("nan")])
def test_a_negative_l2_raises_an_error(l2):
    with pytest.raises(ValueError, match="l2 is"):
        ScalarMix(2, l2=l2)


def test_a_wrong_number_of_layers_raises_an_error():
    with pytest.raises(ValueError, match="mixes 3 layers, not 2"):
        ScalarMix(3)(list(LAYERS[:2]))


@pytest.mark.shared
@pytest.mark.parametrize("variant", ["skip", "noskip", "plain"])
class TestAgainstOtherPrograms:
    """Mixes equal those that AllenNLP and bilm-tf computed."""

    @pytest.fixture
    def expected(self, shared: Path, variant: str):
        with np.load(shared / "reference" / variant / "expected.npz", allow_pickle=False) as arrays:
            yield arrays

    def mixed(self, expected, layers, mask, do_layer_norm):
        scalars, gamma = expected["mix_scalars"], expected["mix_gamma"]
        mix = made(scalars, gamma, do_layer_norm=do_layer_norm)
        return np.asarray(mix(list(np.moveaxis(layers, 1, 0)), mask=mask))

    @pytest.mark.parametrize(("key", "do_layer_norm"), [("mix", False), ("mix_ln", True)])
    def test_batches(self, expected, key, do_layer_norm):
        batches = batch_names(expected)
        assert batches
        for batch in batches:
            mixed = self.mixed(
                expected, expected[f"{batch}_layers"], expected[f"{batch}_mask"], do_layer_norm
            )
            np.testing.assert_allclose(mixed, expected[f"{batch}_{key}"], atol=TOLERANCE)

    def test_statistics_with_boundaries(self, expected, variant):
        batches = [b for b in batch_names(expected) if f"{b}_mix_ln_with_boundaries" in expected]
        assert bool(batches) == (variant != "plain")
        for batch in batches:
            sentences = [expected[f"sent{i}_layers"] for i in expected[f"{batch}_index"]]
            longest = max(layers.shape[1] for layers in sentences)
            padded = np.stack(
                [np.pad(x, [(0, 0), (0, longest - x.shape[1]), (0, 0)]) for x in sentences]
            )
            mask = np.arange(longest) < np.array([[x.shape[1]] for x in sentences])
            mixed = self.mixed(expected, padded, mask, do_layer_norm=True)
            for row, inner in enumerate(expected[f"{batch}_mask"]):
                wanted = expected[f"{batch}_mix_ln_with_boundaries"][row, inner]
                got = mixed[row, 1 : 1 + inner.sum()]
                np.testing.assert_allclose(got, wanted, atol=TOLERANCE)


def batch_names(expected) -> list[str]:
    return sorted({key.split("_")[0] for key in expected if key.startswith("batch")})
