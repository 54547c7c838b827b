"""Training with matrix products in bfloat16."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_corpus import small_parameters

from elmolib.backend import bfloat16_matmul, has_bfloat16
from elmolib.corpus.prepare import prepare_corpus
from elmolib.errors import ParameterError
from elmolib.training.loop import Training


@pytest.fixture
def processor_has_it(monkeypatch):
    """TensorFlow emulates bfloat16 on other processors, which is fast enough for a tiny model."""
    monkeypatch.setattr("elmolib.training.loop.has_bfloat16", lambda: True)


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("fpu avx512f avx512_bf16 avx_vnni", True),
        ("fpu amx_bf16", True),
        ("fpu avx512f avx512_bf16x", False),
        ("", False),
    ],
)
def test_bfloat16_is_detected_from_the_processor_flags(tmp_path, flags, has):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nmodel name : avx512_bf16\nflags : {flags}\n")
    assert has_bfloat16(cpuinfo) is has
    assert has_bfloat16(tmp_path / "none") is False


def test_bfloat16_raises_an_error_on_a_processor_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr("elmolib.training.loop.has_bfloat16", lambda: False)
    parameters = small_parameters(tmp_path, precision="bfloat16")
    with pytest.raises(ParameterError, match=r"avx512_bf16.* set precision to float32"):
        Training(parameters, prepare_corpus(parameters))


def test_matrix_products_are_float32_again_after_the_block():
    matrix = tf.random.stateless_uniform((64, 64), [1, 2])
    exact = matrix.numpy().astype(np.float64) @ matrix.numpy().astype(np.float64)

    def largest_error() -> float:
        product = tf.function(lambda x: tf.matmul(x, x))(matrix).numpy()
        return np.abs(product - exact).max() / exact.max()

    assert largest_error() < 1e-6
    with bfloat16_matmul():
        inside = largest_error()
    assert largest_error() < 1e-6
    if has_bfloat16():
        assert 1e-4 < inside < 2**-7


@pytest.mark.parametrize("recipe", ["elmolib", "bilm-tf"])
def test_a_model_learns_as_well_as_in_float32(tmp_path, processor_has_it, recipe):
    perplexities = {}
    for precision in ("float32", "bfloat16"):
        parameters = small_parameters(
            tmp_path,
            run_dir=str(tmp_path / precision),
            precision=precision,
            recipe=recipe,
            learning_rate=0.5 if recipe == "bilm-tf" else 0.02,
            epochs=4,
            heldout_seed=0,
        )
        training = Training(parameters, prepare_corpus(parameters))
        training.run()
        assert all(v.value.dtype == tf.float32 for v in training.bilm.weights_by_name().values())
        perplexities[precision] = training.history[-1]["heldout_mean"]
    # With 6 features and 200 steps, chance alone changes the perplexity by a few percent.
    assert perplexities["bfloat16"] == pytest.approx(perplexities["float32"], rel=0.1)
    if has_bfloat16():
        assert perplexities["bfloat16"] != perplexities["float32"]


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", pytest.param("float64", marks=pytest.mark.slow)]
)
def test_the_dtype_policy_of_keras_does_not_change_training(tmp_path, policy):
    weights = {}
    for dtype in ("float32", policy):
        parameters = small_parameters(tmp_path, run_dir=str(tmp_path / dtype), max_steps=3)
        keras.config.set_dtype_policy(dtype)
        try:
            training = Training(parameters, prepare_corpus(parameters))
            training.run()
        finally:
            keras.config.set_dtype_policy("float32")
        weights[dtype] = training.bilm.arrays()
    for name, expected in weights["float32"].items():
        np.testing.assert_array_equal(weights[policy][name], expected)
