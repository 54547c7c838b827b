"""What every layer owes to Keras: a configuration, a known shape, and a life after saving."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import TINY

import elmolib.layers
from elmolib.layers.char_cnn import CharCNN
from elmolib.layers.elmo_embedding import ElmoEmbedding
from elmolib.layers.highway import Highway
from elmolib.layers.projected_lstm import ProjectedLSTM
from elmolib.layers.scalar_mix import ScalarMix
from elmolib.layers.timestep_dropout import TimestepDropout

GENERATOR = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return GENERATOR.normal(size=shape).astype(np.float32)


def integers(below: int, *shape: int) -> np.ndarray:
    return GENERATOR.integers(0, below, shape).astype(np.int32)


@dataclass(frozen=True)
class Case:
    """A layer with no argument at its default, and something for it to read."""

    make: Callable[[], keras.Layer]
    arguments: tuple[np.ndarray, ...]
    in_a_list: bool = False

    def call(self, layer: keras.Layer, tensors) -> list:
        return keras.tree.flatten(layer(list(tensors)) if self.in_a_list else layer(*tensors))

    def model(self) -> keras.Model:
        inputs = [keras.Input(x.shape[1:], dtype=str(x.dtype)) for x in self.arguments]
        return keras.Model(inputs, self.call(self.make(), inputs))


CASES = {
    "CharCNN": Case(
        lambda: CharCNN(TINY, name="spelt"),
        (integers(261, 5, 10), integers(261, 4, 7)),
    ),
    "Highway": Case(lambda: Highway(name="high"), (floats(4, 6),)),
    "ProjectedLSTM": Case(
        lambda: ProjectedLSTM(5, 3, cell_clip=0.5, proj_clip=0.2, name="lstm"),
        (floats(2, 4, 3), floats(2, 5), floats(2, 3)),
    ),
    "TimestepDropout": Case(lambda: TimestepDropout(0.4, seed=3, name="drop"), (floats(2, 4, 3),)),
    "ScalarMix": Case(
        lambda: ScalarMix(2, do_layer_norm=True, l2=0.1, name="mix"),
        (floats(2, 4, 3), floats(2, 4, 3)),
        in_a_list=True,
    ),
    "ElmoEmbedding": Case(
        lambda: ElmoEmbedding(
            TINY, frozen=False, dropout=0.2, do_layer_norm=True, l2=0.1, seed=3, name="elmo"
        ),
        (integers(262, 2, 4, 10),),
    ),
}

every_layer = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_no_layer_is_forgotten_here():
    modules = [m.name for m in iter_modules(elmolib.layers.__path__, "elmolib.layers.")]
    defined = {
        name
        for module in map(import_module, modules)
        for name, thing in vars(module).items()
        if isinstance(thing, type)
        and issubclass(thing, keras.Layer)
        and thing.__module__ == module.__name__
    }
    assert defined == set(CASES)


@every_layer
def test_the_configuration_is_json_and_makes_the_layer_again(case: Case):
    layer = case.make()
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(stored)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert keras.saving.get_registered_name(type(layer)) == f"elmolib>{type(layer).__name__}"


@every_layer
def test_the_shape_foretold_is_the_shape_that_comes(case: Case):
    model = case.model()
    outputs = keras.tree.flatten(model(list(case.arguments)))
    for foretold, output in zip(model.outputs, outputs, strict=True):
        assert foretold.shape[1:] == tuple(output.shape)[1:]
        assert keras.backend.standardize_dtype(output.dtype) == foretold.dtype


@every_layer
def test_a_saved_model_gives_the_same_outputs(case: Case, tmp_path):
    model = case.model()
    for variable in model.trainable_variables:
        variable.assign(floats(*variable.shape))
    expected = keras.tree.flatten(model(list(case.arguments)))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    outputs = keras.tree.flatten(loaded(list(case.arguments)))
    for got, want in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(got, want)


@every_layer
def test_a_traced_function_gives_the_same_outputs(case: Case):
    layer = case.make()
    expected = case.call(layer, case.arguments)
    traced = tf.function(lambda *tensors: case.call(layer, tensors))
    for got, want in zip(traced(*case.arguments), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
