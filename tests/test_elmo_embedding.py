"""ElmoEmbedding in Keras models: it equals the encoder, and can be saved, loaded and trained."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from small_models import TINY, bilm_options, random_arrays

from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.keras_layer import ElmoEmbedding
from elmolib.embedding.keras_runtime import KerasRuntime
from elmolib.errors import ParameterError, WeightsError
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model
from elmolib.settings.architecture import Architecture
from elmolib.text.characters import PREDICTION_SHIFT, character_ids
from elmolib.text.tokenizer import Tokenizer

TOLERANCE = 1e-5

SENTENCES = [
    ["The", "river", "bank"],
    [],
    ["."],
    ["Donaudampfschifffahrt", "fährt", "河岸", "The", "\x00", "👩‍👧", "<S>", "</S>", "<S>x"],
    ["The", "The", "The", "bank"],
    ["bank", "river", "The"],
]

FORMS = ["strings", "ids"]


def made(options: Architecture = TINY, seed: int = 0, **kwargs) -> ElmoEmbedding:
    """A layer whose weights are so large that an error in any part would change the vectors."""
    layer = ElmoEmbedding(options, **{"dropout": 0.0, **kwargs})
    arrays = random_arrays(options, seed=seed)
    for name, variable in layer.bilm.weights_by_name().items():
        variable.assign(0.5 * arrays[name])
    layer.mix.scalars.assign(np.linspace(-1, 1, options.n_layers + 1))
    layer.mix.gamma.assign(1.5)
    return layer


def as_input(sentences, form: str, options: Architecture = TINY, time: int | None = None):
    """Sentences as a tensor, padded to equal length or to `time`."""
    time = max(map(len, sentences)) if time is None else time
    if form == "strings":
        return tf.constant([[*words, *[""] * (time - len(words))] for words in sentences])
    ids = np.zeros((len(sentences), time, options.max_characters), np.int16)
    for row, words in zip(ids, sentences, strict=True):
        row[: len(words)] = character_ids(words, options.max_characters) + PREDICTION_SHIFT
    return ids


def symbolic_input(form: str) -> keras.KerasTensor:
    if form == "strings":
        return keras.Input((None,), dtype="string")
    return keras.Input((None, TINY.max_characters), dtype="int16")


def tagger(form: str, layer: ElmoEmbedding) -> keras.Model:
    words = symbolic_input(form)
    return keras.Model(words, keras.layers.Dense(4)(layer(words)))


def expected_vectors(layer: ElmoEmbedding, sentences, time: int) -> np.ndarray:
    """The weighted mix of the encoder's layers, computed one sentence at a time."""
    weights = np.exp(layer.mix.scalars) / np.exp(layer.mix.scalars).sum()
    encoder = SentenceEncoder(KerasRuntime(layer.bilm))
    vectors = np.zeros((len(sentences), time, 2 * layer.architecture.projection_dim))
    for row, words in zip(vectors, sentences, strict=True):
        (layers,) = encoder.encode([words])
        row[: len(words)] = float(layer.mix.gamma) * np.tensordot(weights, layers, 1)
    return vectors


@pytest.mark.parametrize("form", FORMS)
def test_vectors_are_those_of_the_sentence_encoder(form):
    layer = made()
    expected = expected_vectors(layer, SENTENCES, 9)
    np.testing.assert_allclose(layer(as_input(SENTENCES, form)), expected, atol=TOLERANCE)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
MARKS = st.sampled_from(["<S>", "</S>", "<S>\x00", "\x00", "\x00\x00"])


@pytest.mark.slow
@settings(max_examples=10)
@given(bilm_options(), st.lists(st.lists(WORDS | MARKS, max_size=5), min_size=1, max_size=4))
def test_any_words_in_either_form_have_the_vectors_of_the_encoder(options, sentences):
    time = max(1, *map(len, sentences))
    layer = made(options)
    expected = expected_vectors(layer, sentences, time)
    for form in FORMS:
        got = layer(as_input(sentences, form, options, time))
        np.testing.assert_allclose(got, expected, atol=TOLERANCE)


@pytest.mark.parametrize("form", FORMS)
def test_vectors_depend_on_neither_the_padding_nor_the_batch(form):
    layer = made()
    together = np.asarray(layer(as_input(SENTENCES, form, time=14)))
    for row, words in zip(together, SENTENCES, strict=True):
        alone = layer(as_input([words], form, time=max(1, len(words))))
        np.testing.assert_allclose(row[: len(words)], alone[0, : len(words)], atol=TOLERANCE)
        assert not row[len(words) :].any()


@pytest.mark.parametrize("form", FORMS)
def test_gaps_between_words_change_nothing(form):
    layer = made()
    dense = np.asarray(layer(as_input([["The", "river", "bank"]], form)))
    words = np.asarray(as_input([["The", "river", "bank"]], form))
    holed = np.zeros_like(words, shape=(1, 7, *words.shape[2:]))
    if form == "strings":
        holed[:] = b""
    places = [1, 2, 5]
    holed[:, places] = words
    got = np.asarray(layer(tf.constant(holed)))
    np.testing.assert_allclose(got[:, places], dense, atol=TOLERANCE)
    assert not np.delete(got, places, axis=1).any()


@pytest.mark.parametrize("form", FORMS)
def test_the_mask_marks_words_and_reaches_the_next_layer(form):
    x = as_input(SENTENCES, form)
    mask = np.arange(9) < np.array([[len(words)] for words in SENTENCES])
    layer = made()
    np.testing.assert_array_equal(layer(x)._keras_mask, mask)
    words = symbolic_input(form)
    vectors = layer(words)
    last = keras.Model(words, [vectors, keras.layers.LSTM(2)(vectors)])
    longer = as_input(SENTENCES, form, time=12)
    np.testing.assert_allclose(last(longer)[1], last(x)[1], atol=TOLERANCE)


def test_layer_norm_uses_the_statistics_of_words_only():
    layer = made(do_layer_norm=True)
    weights = np.asarray(layer.mix.layer_weights())
    encoded = SentenceEncoder(KerasRuntime(layer.bilm)).encode(SENTENCES)
    everything = np.concatenate(encoded, axis=1)
    mean = everything.mean(axis=(1, 2), keepdims=True)
    std = everything.std(axis=(1, 2), keepdims=True)
    got = np.asarray(layer(as_input(SENTENCES, "strings", time=11)))
    for row, layers in zip(got, encoded, strict=True):
        expected = 1.5 * np.tensordot(weights, (layers - mean) / std, 1)
        np.testing.assert_allclose(row[: len(expected)], expected, atol=TOLERANCE)


@pytest.mark.parametrize("form", FORMS)
class TestWithinModels:
    """The layer within Keras models."""

    @pytest.mark.slow
    @pytest.mark.parametrize("frozen", [True, False])
    def test_a_saved_model_needs_nothing_else(self, form, frozen, tmp_path):
        model = tagger(form, made(frozen=frozen, do_layer_norm=True, l2=0.1, dropout=0.3))
        x = as_input(SENTENCES, form)
        expected = model.predict(x, verbose=0)
        model.save(tmp_path / "m.keras")
        loaded = keras.models.load_model(tmp_path / "m.keras")
        np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
        assert loaded.layers[1].get_config() == model.layers[1].get_config()
        assert len(loaded.trainable_variables) == len(model.trainable_variables)

    def test_a_subclassed_model_can_hold_it(self, form, tmp_path):
        model = Subclassed(made())
        x = as_input(SENTENCES, form)
        expected = np.asarray(model(x))
        model.save(tmp_path / "m.keras")
        loaded = keras.models.load_model(tmp_path / "m.keras")
        np.testing.assert_array_equal(loaded(x), expected)

    def test_a_traced_function_gives_the_same(self, form):
        layer = made()
        shape = [None, None] if form == "strings" else [None, None, TINY.max_characters]
        dtype = tf.string if form == "strings" else tf.int16
        traced = tf.function(layer, input_signature=[tf.TensorSpec(shape, dtype)])
        for time in (9, 40):  # the LSTM's loop is unrolled up to 32 steps
            x = as_input(SENTENCES, form, time=time)
            np.testing.assert_allclose(traced(x), layer(x), atol=TOLERANCE)

    @pytest.mark.slow
    def test_an_exported_model_gives_the_same(self, form, tmp_path):
        model = tagger(form, made())
        x = as_input(SENTENCES, form)
        model.export(tmp_path / "exported", verbose=False)
        exported = tf.saved_model.load(tmp_path / "exported")
        np.testing.assert_allclose(exported.serve(x), model(x), atol=TOLERANCE)


def values_of(layer: ElmoEmbedding) -> dict[str, np.ndarray]:
    named = layer.bilm.weights_by_name()
    return {name: ops.convert_to_numpy(variable) for name, variable in named.items()}


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A subclassed model that contains the layer."""

    def __init__(self, elmo: ElmoEmbedding, **kwargs) -> None:
        super().__init__(**kwargs)
        self.elmo = elmo
        self.dense = keras.layers.Dense(3)

    def build(self, input_shape):
        self.elmo.build(input_shape)
        self.dense.build(self.elmo.compute_output_shape(input_shape))
        self.built = True

    def call(self, words, training=False):
        return self.dense(self.elmo(words, training=training))

    def get_config(self):
        return {"elmo": keras.saving.serialize_keras_object(self.elmo)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["elmo"]))


@pytest.mark.slow
@pytest.mark.parametrize(("form", "frozen"), [("strings", True), ("ids", False)])
def test_training_moves_what_it_should_and_nothing_else(form, frozen):
    layer = made(frozen=frozen)
    before, scalars = values_of(layer), ops.convert_to_numpy(layer.mix.scalars)
    model = tagger(form, layer)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    tags = np.tile(np.arange(9) % 4, (len(SENTENCES), 1))
    history = model.fit(as_input(SENTENCES, form), tags, epochs=20, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    after = values_of(layer)
    moved = {name for name in after if not np.array_equal(after[name], before[name])}
    assert moved == (set() if frozen else set(before))
    assert not np.array_equal(layer.mix.scalars, scalars)


@pytest.mark.slow
def test_xla_compiles_character_ids():
    layer = made()
    x = as_input(SENTENCES, "ids")
    np.testing.assert_allclose(tf.function(layer, jit_compile=True)(x), layer(x), atol=TOLERANCE)


def test_keras_may_compile_ids_but_never_strings():
    for form, allowed in (("ids", True), ("strings", False)):
        layer = made()
        layer(as_input(SENTENCES, form))
        assert layer.supports_jit == allowed


def test_a_thawed_model_stays_thawed_when_saved():
    layer = made()
    assert len(layer.trainable_variables) == 2
    layer.bilm.trainable = True
    again = ElmoEmbedding.from_config(layer.get_config())
    assert len(again.trainable_variables) == len(layer.bilm.weights_by_name()) + 2


def test_the_configuration_is_json():
    config = made(frozen=False, dropout=0.2, l2=0.5, seed=7).get_config()
    again = ElmoEmbedding.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config


def test_dropout_is_applied_in_training_only():
    layer = made(dropout=0.5, seed=1)
    x = as_input([["w"] * 200], "strings")
    still = np.asarray(layer(x))
    np.testing.assert_array_equal(layer(x), still)
    dropped = np.asarray(layer(x, training=True))
    zero = dropped == 0
    assert 0.4 < zero.mean() < 0.6
    np.testing.assert_allclose(dropped[~zero], 2 * still[~zero], rtol=1e-5)


def test_the_regularisation_of_the_layer_weights_is_a_loss_of_the_model():
    (loss,) = tagger("strings", made(l2=0.25)).losses
    assert float(loss) == pytest.approx(0.25 * (1 + 0 + 1))


def test_weights_come_from_a_file(tmp_path):
    arrays = random_arrays(TINY, vocabulary_size=5)
    path = tmp_path / "elmo.h5"
    write_model(path, StoredModel(TINY, arrays, None, Tokenizer(tokenized=True, language="en")))
    layer = ElmoEmbedding.from_model(path, frozen=False, dropout=0.25)
    assert layer.architecture == TINY
    assert layer.dropout.rate == 0.25
    for name, variable in layer.bilm.weights_by_name().items():
        np.testing.assert_array_equal(variable, arrays[name])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match="no.h5 cannot be read"):
        ElmoEmbedding.from_model(tmp_path / "no.h5")


WORDS_IN_ROWS = [["The", "river", "bank"], ["Rain", "fällt"], []]


@pytest.mark.parametrize(
    "words",
    [
        WORDS_IN_ROWS,
        tuple(map(tuple, WORDS_IN_ROWS)),
        [[word.encode() for word in row] for row in WORDS_IN_ROWS],
        np.array([*WORDS_IN_ROWS, None], object)[:3],
        np.array([[*row, *[""] * (3 - len(row))] for row in WORDS_IN_ROWS], object),
        np.array([[*row, *[""] * (3 - len(row))] for row in WORDS_IN_ROWS]),
        tf.ragged.constant(WORDS_IN_ROWS),
    ],
    ids=["lists", "tuples", "bytes", "rows of objects", "objects", "NumPy strings", "ragged"],
)
def test_lists_arrays_and_ragged_tensors_are_padded(words):
    layer = made()
    expected = layer(as_input(WORDS_IN_ROWS, "strings"))
    np.testing.assert_array_equal(layer(words), expected)
    np.testing.assert_array_equal(tagger("strings", layer).layers[1](words), expected)


def test_lists_and_ragged_tensors_of_character_ids_are_padded():
    layer = made()
    ids = as_input(WORDS_IN_ROWS, "ids")
    rows = [row[: len(words)].tolist() for row, words in zip(ids, WORDS_IN_ROWS, strict=True)]
    ragged = tf.RaggedTensor.from_tensor(ids, lengths=[3, 2, 0])
    for words in (ids.tolist(), rows, ragged, ids.astype(np.float32)):
        np.testing.assert_allclose(layer(words), layer(ids), atol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float64"])
@pytest.mark.parametrize("form", FORMS)
def test_another_dtype_of_the_layer_rounds_only_its_output(form, dtype):
    x = as_input(SENTENCES, form)
    plain, layer = made(), made(dtype=dtype)
    result = layer(x if form == "strings" else x.astype(np.float32))
    assert keras.backend.standardize_dtype(result.dtype) == layer.compute_dtype
    np.testing.assert_array_equal(result, ops.cast(plain(x), layer.compute_dtype))


def test_a_frozen_layer_stays_frozen_when_the_model_around_it_is_trained_again():
    def trained(model) -> int:
        return len(model.trainable_variables)

    layer = made(frozen=True)
    model = tagger("ids", layer)
    everything = len(layer.bilm.weights_by_name()) + 4
    for _ in range(2):
        model.trainable = False
        assert trained(model) == 0 and layer.frozen
        model.trainable = True
        assert trained(model) == 4 and layer.frozen
    layer.bilm.trainable = True
    assert trained(model) == everything
    for trainable in (False, False, True, True):
        model.trainable = trainable
        assert not layer.frozen and not layer.get_config()["frozen"]
        again = ElmoEmbedding.from_config(layer.get_config())
        again.trainable = True
        assert trained(again) == everything - 2
    assert trained(model) == everything
    assert not trained(made(frozen=False, trainable=False))


def test_the_older_format_of_keras_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"save the model as \.keras"):
        tagger("ids", made()).save(tmp_path / "m.h5")


def test_strings_are_refused_in_an_export_to_onnx():
    def export_onnx() -> None:  # the name of Keras' own function
        made()(as_input(SENTENCES, "strings"))

    with pytest.raises(ParameterError, match="to ONNX with character ids"):
        export_onnx()


@pytest.mark.slow
@pytest.mark.onnx
def test_a_model_of_character_ids_exported_to_onnx_gives_the_same(tmp_path):
    from onnxruntime import InferenceSession

    model = tagger("ids", made())
    x = as_input(SENTENCES, "ids")
    expected = model(x)
    path = str(tmp_path / "m.onnx")
    model.export(path, format="onnx", verbose=False)
    session = InferenceSession(path)
    name = session.get_inputs()[0].name
    np.testing.assert_allclose(session.run(None, {name: x})[0], expected, atol=TOLERANCE)
    longer = as_input([["w"] * 50], "ids")
    np.testing.assert_allclose(session.run(None, {name: longer})[0], model(longer), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (tf.constant(["the river"]), r"one for each word, not string of the shape \(1,\)"),
        (["the river"], r"one for each word, not string of the shape \(1,\)"),
        (tf.constant([[["the"], ["river"]]]), r"not string of the shape \(1, 2, 1\)"),
        ([["the", None]], r"not this list: "),
        ([["the", 3]], r"not this list: "),
        (np.array([["the", np.nan]], object), r"not this ndarray: "),
        (np.zeros((1, 2, 10), np.uint8), "not uint8 with"),
        (tf.zeros((1, 2, 10), tf.bfloat16), "not bfloat16 with"),
        (
            np.zeros((2, 3, 4), np.int32),
            r"\(batch, time, 10\) or, .*, not int32 of the shape \(2, 3, 4\)",
        ),
        (np.zeros((2,), np.int32), r"not int32 of the shape \(2,\)"),
        (np.zeros((2, 3), np.int32), r"not int32 of the shape \(2, 3\)"),
    ],
)
def test_input_of_another_shape_is_refused(words, sentence):
    with pytest.raises(ParameterError, match=sentence):
        made()(words)


def test_one_number_per_word_is_refused_when_the_model_is_built():
    with pytest.raises(ParameterError, match=r"not int32 of the shape \(None, None\)"):
        made()(keras.Input((None,), dtype="int32"))


def test_zeros_within_a_word_are_padding():
    layer = made()
    x = as_input(SENTENCES, "ids")
    x_with_zeros = np.where(x == 260 + PREDICTION_SHIFT, 0, x)
    np.testing.assert_allclose(layer(x_with_zeros), layer(x), atol=TOLERANCE)


def test_long_words_are_cut_within_a_character():
    options = Architecture(**TINY.to_json() | {"max_characters": 5, "filters": ((1, 2), (5, 3))})
    layer = made(options)
    whole, cut = (layer(as_input([[word]], "strings")) for word in ("ab€nd", "ab€"))
    np.testing.assert_allclose(whole, cut, atol=TOLERANCE)
    other = np.asarray(layer(as_input([["ab\N{POUND SIGN}"]], "strings")))
    assert np.abs(other - cut).max() > 1e-3


@pytest.mark.shared
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", ["mix", "mix_ln"])
@pytest.mark.parametrize("variant", ["skip", "noskip", "plain"])
def test_mixes_of_other_programs(shared: Path, variant: str, key: str, form: str):
    folder = shared / "reference" / variant
    options = read_model(folder).architecture
    sentences = json.loads((folder / "sentences.json").read_text())["sentences"]
    layer = ElmoEmbedding.from_model(folder, do_layer_norm=key == "mix_ln")
    with np.load(folder / "expected.npz", allow_pickle=False) as expected:
        layer.mix.scalars.assign(expected["mix_scalars"])
        layer.mix.gamma.assign(expected["mix_gamma"])
        batches = sorted({name.split("_")[0] for name in expected if name.startswith("batch")})
        assert batches
        for batch in batches:
            x = as_input([sentences[i] for i in expected[f"{batch}_index"]], form, options)
            np.testing.assert_allclose(layer(x), expected[f"{batch}_{key}"], atol=TOLERANCE)
