"""Every layer works in Keras: configuration, output shape, saving and loading."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import walk_packages

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import TINY

import elmolib
from elmolib.embedding.keras_layer import ElmoEmbedding
from elmolib.model.layers import CharCNN, Highway, TimestepDropout
from elmolib.model.lstm import ProjectedLSTM
from elmolib.model.scalar_mix import ScalarMix

GENERATOR = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return GENERATOR.normal(size=shape).astype(np.float32)


def integers(below: int, *shape: int) -> np.ndarray:
    return GENERATOR.integers(0, below, shape).astype(np.int32)


@dataclass(frozen=True)
class Case:
    """A layer whose arguments all differ from their defaults, and inputs for the layer.

    Attributes:
        in_a_list: whether the layer takes its inputs as one list.
        time_major: whether the first axis of the inputs is time; Keras then needs fixed sizes.
    """

    make: Callable[[], keras.Layer]
    arguments: tuple[np.ndarray, ...]
    in_a_list: bool = False
    time_major: bool = False

    def call(self, layer: keras.Layer, tensors) -> list:
        return keras.tree.flatten(layer(list(tensors)) if self.in_a_list else layer(*tensors))

    def model(self) -> keras.Model:
        sizes = [x.shape if self.time_major else (None, *x.shape[1:]) for x in self.arguments]
        inputs = [
            keras.Input(batch_shape=size, dtype=str(x.dtype))
            for size, x in zip(sizes, self.arguments, strict=True)
        ]
        return keras.Model(inputs, self.call(self.make(), inputs))


CASES = {
    "CharCNN": Case(
        lambda: CharCNN(TINY, name="cnn"),
        (integers(261, 5, 10), integers(261, 4, 7)),
    ),
    "Highway": Case(lambda: Highway(name="high"), (floats(4, 6),)),
    "ProjectedLSTM": Case(
        lambda: ProjectedLSTM(5, 3, cell_clip=0.5, proj_clip=0.2, name="lstm"),
        (floats(4, 2, 3), floats(2, 5), floats(2, 3)),
        time_major=True,
    ),
    "TimestepDropout": Case(
        lambda: TimestepDropout(0.25, seed=3, name="drop"), (floats(4, 2, 3),), time_major=True
    ),
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


def test_all_layers_are_tested_here():
    modules = [
        m.name for m in walk_packages(elmolib.__path__, "elmolib.") if "__main__" not in m.name
    ]
    defined = {
        name
        for module in map(import_module, modules)
        for name, thing in vars(module).items()
        if isinstance(thing, type)
        and issubclass(thing, keras.Layer)
        and not issubclass(thing, keras.Model)
        and thing.__module__ == module.__name__
    }
    assert defined == set(CASES)


@every_layer
def test_the_layer_is_restored_from_its_configuration_in_json(case: Case):
    layer = case.make()
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(stored)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert keras.saving.get_registered_name(type(layer)) == f"elmolib>{type(layer).__name__}"


@every_layer
def test_the_output_shape_is_predicted_correctly(case: Case):
    model = case.model()
    outputs = keras.tree.flatten(model(list(case.arguments)))
    for predicted, output in zip(model.outputs, outputs, strict=True):
        assert predicted.shape[1:] == tuple(output.shape)[1:]
        assert keras.backend.standardize_dtype(output.dtype) == predicted.dtype


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
