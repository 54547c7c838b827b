"""JAX and PyTorch compute the same vectors as TensorFlow, and can train the Keras layer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import TINY, random_arrays

from elmolib.formats.weights import StoredModel, write_model
from elmolib.text.characters import PREDICTION_SHIFT, character_ids
from elmolib.text.tokenizer import Tokenizer

TOLERANCE = 1e-5

SENTENCES = [
    ["The", "river", "bank", "was", "steep", "."],
    ["Râul", "河岸", "👩‍👧"],
    ["w"] * 40,
    [],
]

# This program computes vectors with a model, prints the imported modules, and trains a few steps.
PROGRAM = """
import json
import sys
from contextlib import nullcontext
from functools import partial

import keras
import numpy as np

from elmolib import ElmoEmbedder, ElmoEmbedding
from elmolib.formats.readers import read_model
from elmolib.model.bilm import BiLM
from elmolib.model.scalar_mix import ScalarMix

model, sentences, ids, out = sys.argv[1:]
sentences, ids = json.loads(sentences), np.load(ids)
numpy = keras.ops.convert_to_numpy
mixed_precision = nullcontext
if keras.backend.backend() == "torch":
    import torch

    mixed_precision = partial(torch.autocast, "cpu", torch.bfloat16)

stored = read_model(model)
bilm = BiLM.from_arrays(stored.architecture, stored.arrays)
words = np.tile(np.arange(6, dtype="int32")[:, None], (2, 1, 3))
layers, state = bilm(ids[0, :6].astype("int32") - 1, words, bilm.initial_state(3))

encoded = ElmoEmbedder(model, runtime=keras.backend.backend()).embed(sentences, layers="all")
mix = ScalarMix(3, do_layer_norm=True)
layer = ElmoEmbedding.from_model(model, do_layer_norm=True)
embedded = numpy(layer(ids))
needed = list(sys.modules)

# Settings that are meant for the caller's own layers.
keras.config.set_image_data_format("channels_first")
with mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    embedder = ElmoEmbedder(model, runtime=keras.backend.backend())
    unmoved = embedder.embed(sentences, layers="all")
keras.config.set_dtype_policy("float32")

# The next lines come last, because in them Keras itself imports TensorFlow with every backend.
inputs = keras.Input(ids.shape[1:], dtype="int32")
keras.Model(inputs, layer(inputs)).save(out + ".keras")
loaded = keras.models.load_model(out + ".keras")

trained = ElmoEmbedding.from_model(model, frozen=False, dropout=0.0)
short = ids[:, :20]
inputs = keras.Input(short.shape[1:], dtype="int32")
task = keras.Model(inputs, trained(inputs))
untrained = task.predict(short, verbose=0)
task.compile(keras.optimizers.SGD(0.1), "mse")
task.fit(short, np.ones((*short.shape[:2], 6), "float32"), epochs=3, batch_size=4, verbose=0)

np.savez(
    out,
    *encoded,
    layers=np.stack([numpy(layer) for direction in layers for layer in direction]),
    c=numpy(state[0]),
    h=numpy(state[1]),
    mixed=numpy(mix([keras.ops.convert_to_tensor(vectors[None]) for vectors in encoded[0]])),
    embedded=embedded,
    unmoved=np.concatenate(unmoved, axis=1),
    untrained=untrained,
    trained=task.predict(short, verbose=0),
    loaded=loaded.predict(ids, verbose=0),
)
print(keras.backend.backend(), *needed)
"""


def outputs_of(backend: str, folder: Path, root: Path) -> tuple[dict[str, np.ndarray], set[str]]:
    """Run `PROGRAM` in a separate process, because Keras chooses its backend on import."""
    words = np.zeros((len(SENTENCES), 40, TINY.max_characters), np.int16)
    for row, sentence in zip(words, SENTENCES, strict=True):
        row[: len(sentence)] = character_ids(sentence, TINY.max_characters) + PREDICTION_SHIFT
    np.save(folder / "ids.npy", words)
    arrays = {name: 0.5 * values for name, values in random_arrays(TINY).items()}
    write_model(
        folder / "elmo.h5",
        StoredModel(TINY, arrays, None, Tokenizer(tokenized=True, language="en")),
    )
    arguments = [
        str(folder / "elmo.h5"),
        json.dumps(SENTENCES),
        str(folder / "ids.npy"),
        str(folder / f"{backend}.npz"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ
        | {"KERAS_BACKEND": backend, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    used, *modules = done.stdout.split()
    assert used == backend
    with np.load(folder / f"{backend}.npz", allow_pickle=False) as outputs:
        return dict(outputs), set(modules)


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, np.ndarray]:
    return outputs_of("tensorflow", tmp_path_factory.mktemp("tensorflow"), root)[0]


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_vectors_are_the_same_and_tensorflow_is_not_imported(
    backend: str, tensorflow: dict[str, np.ndarray], tmp_path: Path, root: Path
) -> None:
    outputs, modules = outputs_of(backend, tmp_path, root)
    assert set(outputs) == set(tensorflow)
    for name, expected in tensorflow.items():
        assert outputs[name].shape == expected.shape
        np.testing.assert_allclose(outputs[name], expected, atol=TOLERANCE, err_msg=name)
    assert np.abs(outputs["trained"] - outputs["untrained"]).max() > 0.01
    assert "tensorflow" not in modules
