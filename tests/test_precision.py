"""Training with products of bfloat16 numbers."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from small_corpus import small_parameters

from elmolib.corpus import prepare_corpus
from elmolib.errors import ParameterError
from elmolib.precision import bfloat16_products, has_bfloat16
from elmolib.training import Training


@pytest.fixture
def processor_has_it(monkeypatch):
    """Where the processor lacks it, TensorFlow's stand-in does for a model as small as these."""
    monkeypatch.setattr("elmolib.training.has_bfloat16", lambda: True)


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("fpu avx512f avx512_bf16 avx_vnni", True),
        ("fpu amx_bf16", True),
        ("fpu avx512f avx512_bf16x", False),
        ("", False),
    ],
)
def test_the_processor_says_what_it_can_do(tmp_path, flags, has):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nmodel name : avx512_bf16\nflags : {flags}\n")
    assert has_bfloat16(cpuinfo) is has
    assert has_bfloat16(tmp_path / "none") is False


def test_without_the_instruction_bfloat16_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("elmolib.training.has_bfloat16", lambda: False)
    parameters = small_parameters(tmp_path, precision="bfloat16")
    with pytest.raises(ParameterError, match=r"precision: .*avx512_bf16.* set it to float32"):
        Training(parameters, prepare_corpus(parameters))


def test_products_are_float32_again_after_the_block():
    matrix = tf.random.stateless_uniform((64, 64), [1, 2])
    exact = matrix.numpy().astype(np.float64) @ matrix.numpy().astype(np.float64)

    def largest_error() -> float:
        product = tf.function(lambda x: tf.matmul(x, x))(matrix).numpy()
        return np.abs(product - exact).max() / exact.max()

    assert largest_error() < 1e-6
    with bfloat16_products():
        inside = largest_error()
    assert largest_error() < 1e-6
    if has_bfloat16():
        assert 1e-4 < inside < 2**-7


def test_a_model_learns_as_well_as_in_float32(tmp_path, processor_has_it):
    perplexities = {}
    for precision in ("float32", "bfloat16"):
        parameters = small_parameters(
            tmp_path, run_dir=str(tmp_path / precision), precision=precision, epochs=4
        )
        training = Training(parameters, prepare_corpus(parameters))
        training.run()
        assert all(v.value.dtype == tf.float32 for v in training.bilm.named_variables().values())
        perplexities[precision] = training.history[-1]["heldout_mean"]
    # A model of 6 features and 200 steps: chance alone moves it by some per cent.
    assert perplexities["bfloat16"] == pytest.approx(perplexities["float32"], rel=0.1)
    if has_bfloat16():
        assert perplexities["bfloat16"] != perplexities["float32"]
