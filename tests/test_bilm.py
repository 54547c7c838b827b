"""The biLM and its layers equal plain loops; no direction depends on words that it predicts."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from small_models import TINY, random_arrays
from tensorflow.python.framework import ops as tf_ops

from elmolib.corpus.stream import BACKWARD, FORWARD
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.keras_runtime import KerasRuntime
from elmolib.errors import ParameterError
from elmolib.model.bilm import BiLM
from elmolib.model.layers import Highway
from elmolib.model.lstm import ProjectedLSTM
from elmolib.scoring.perplexity import windows_of_sentences
from elmolib.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(["the", "river", "bank", "was", "steep", "."])
ROUNDING = 2e-6
"""Tolerance for logits, because the number of distinct words changes the order of additions."""

SENTENCE = ["the", "river", "bank", "was", "steep", "."]


def random_model(**changes) -> BiLM:
    return BiLM.from_arrays(TINY, random_arrays(TINY, len(VOCABULARY), seed=1), **changes)


@pytest.fixture(scope="module")
def bilm() -> BiLM:
    return random_model()


def top_layer(bilm, sentence, **kwargs) -> np.ndarray:
    """Return a sentence's top layer (2, time, projection), in each direction's reading order."""
    (window,) = windows_of_sentences([sentence], VOCABULARY, bilm.architecture)
    layers, _ = bilm(window.characters, window.words, bilm.initial_state(1), **kwargs)
    return np.stack([direction[-1] for direction in layers])[:, :, 0]


def logits_by_word(bilm, sentence) -> tuple[np.ndarray, np.ndarray]:
    """Forward and backward logits (words + 1, vocabulary), each in the order of the text.

    In the forward array, row k predicts word k, and the last row predicts `</S>`. In the backward
    array, the first row predicts `<S>`, and row k + 1 predicts word k.
    """
    logits = top_layer(bilm, sentence) @ np.asarray(bilm.softmax_W).T + np.asarray(bilm.softmax_b)
    return logits[FORWARD], logits[BACKWARD][::-1]


@pytest.mark.parametrize("new_word", ["bank", "unheard-of"])
@pytest.mark.parametrize("k", range(len(SENTENCE)))
def test_no_prediction_sees_its_word(bilm, k, new_word):
    changed = [*SENTENCE[:k], new_word, *SENTENCE[k + 1 :]]
    if changed == SENTENCE:
        changed[k] = "was"
    n = len(SENTENCE)
    forward, backward = logits_by_word(bilm, SENTENCE)
    new_forward, new_backward = logits_by_word(bilm, changed)
    assert forward.shape == backward.shape == (n + 1, len(VOCABULARY))

    moved = np.abs(new_forward - forward).max(axis=1)
    assert (moved[: k + 1] < ROUNDING).all()
    assert (moved[k + 1 :] > 20 * ROUNDING).all()
    moved = np.abs(new_backward - backward).max(axis=1)
    assert (moved[k + 1 :] < ROUNDING).all()
    assert (moved[: k + 1] > 20 * ROUNDING).all()


def test_directions_share_only_characters_and_softmax(bilm):
    """The LSTMs of one direction do not change the output of the other direction."""
    other = random_model()
    for name, variable in other.weights_by_name().items():
        if name.startswith("backward_"):
            variable.assign(variable + 1.0)
    one, two = top_layer(bilm, SENTENCE), top_layer(other, SENTENCE)
    np.testing.assert_array_equal(one[FORWARD], two[FORWARD])
    assert np.abs(one[BACKWARD] - two[BACKWARD]).max() > 1e-3
    names = [name for name in bilm.weights_by_name() if name.startswith(("forward_", "backward_"))]
    assert len(names) == 2 * len([name for name in names if name.startswith("forward_")]) > 0


def test_rows_of_a_batch_do_not_mix(bilm):
    (window,) = windows_of_sentences([SENTENCE], VOCABULARY, bilm.architecture)
    words = np.concatenate([window.words, window.words[:, ::-1]], axis=2)
    both, _ = bilm(window.characters, words, bilm.initial_state(2))
    alone, _ = bilm(window.characters, window.words, bilm.initial_state(1))
    for d in (FORWARD, BACKWARD):
        np.testing.assert_allclose(both[d][-1][:, :1], alone[d][-1], rtol=0, atol=1e-6)


def test_the_state_carries_over_to_the_next_call(bilm):
    # The values may round differently: some processors sum in another order for fewer words.
    (window,) = windows_of_sentences([SENTENCE], VOCABULARY, bilm.architecture)
    whole, last = bilm(window.characters, window.words, bilm.initial_state(1))
    first, state = bilm(window.characters, window.words[:, :3], bilm.initial_state(1))
    second, state = bilm(window.characters, window.words[:, 3:], state)
    for d in (FORWARD, BACKWARD):
        for layer in range(3):
            joined = np.concatenate([first[d][layer], second[d][layer]])
            np.testing.assert_allclose(joined, whole[d][layer], rtol=0, atol=1e-5)
    for part, wanted in zip(state, last, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=1e-5)


def test_lengths_stop_the_state(bilm):
    """A row's final state is the state after its last word, whatever padding follows."""
    (window,) = windows_of_sentences([SENTENCE], VOCABULARY, bilm.architecture)
    _, short = bilm(window.characters, window.words[:, :4], bilm.initial_state(1))
    _, padded = bilm(window.characters, window.words, bilm.initial_state(1), np.array([4]))
    for part, wanted in zip(padded, short, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=3e-6)


def test_dropout_applies_in_training_only():
    bilm = random_model(dropout=0.5, timestep_dropout=0.3, seed=4)
    plain = random_model()
    np.testing.assert_array_equal(top_layer(bilm, SENTENCE), top_layer(plain, SENTENCE))
    dropped = top_layer(bilm, SENTENCE, training=True)
    assert np.abs(dropped - top_layer(plain, SENTENCE)).max() > 1e-3
    again = random_model(dropout=0.5, timestep_dropout=0.3, seed=4)
    np.testing.assert_array_equal(top_layer(again, SENTENCE, training=True), dropped)


def test_a_model_is_restored_from_its_config_and_weights(bilm, tmp_path):
    again = BiLM.from_config(random_model(dropout=0.2, timestep_dropout=0.1, seed=9).get_config())
    assert again.architecture == TINY
    assert (again.vocabulary_size, again.dropout, again.seed) == (len(VOCABULARY), 0.2, 9)
    assert again.timestep_dropout == 0.1

    bilm.save(tmp_path / "bilm.keras")
    loaded = keras.models.load_model(tmp_path / "bilm.keras")
    np.testing.assert_array_equal(top_layer(loaded, SENTENCE), top_layer(bilm, SENTENCE))


def test_a_model_from_arrays_holds_exactly_these_arrays():
    arrays = random_arrays(TINY, len(VOCABULARY), seed=2)
    variables = BiLM.from_arrays(TINY, arrays).weights_by_name()
    assert variables.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(variables[name], array)
    assert BiLM.from_arrays(TINY, random_arrays(TINY)).softmax_W is None


def test_each_array_is_freed_as_soon_as_its_weight_holds_it():
    arrays = random_arrays(TINY, len(VOCABULARY), seed=2)
    BiLM(TINY, len(VOCABULARY), values=arrays)
    assert not arrays


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_by_hand(layer: ProjectedLSTM, x, c, h):
    """Compute the LSTM's formulas step by step, for `x` of shape (time, batch, features)."""
    kernel, bias = np.asarray(layer.kernel, np.float64), np.asarray(layer.bias, np.float64)
    outputs = []
    for step in np.asarray(x, np.float64):
        gates = np.concatenate([step, h], axis=1) @ kernel + bias
        i, j, f, o = np.split(gates, 4, axis=1)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
        if layer.cell_clip:
            c = np.clip(c, -layer.cell_clip, layer.cell_clip)
        h = sigmoid(o) * np.tanh(c)
        if layer.projection is not None:
            h = h @ np.asarray(layer.projection, np.float64)
            if layer.proj_clip:
                h = np.clip(h, -layer.proj_clip, layer.proj_clip)
        outputs.append(h)
    return np.stack(outputs), c, h


@pytest.mark.parametrize(
    ("dim", "projection_dim", "cell_clip", "proj_clip"),
    [(5, 3, None, None), (5, 3, 0.3, 0.2), (4, 4, 0.3, 0.2)],
    ids=["plain", "clipped", "no projection"],
)
@pytest.mark.parametrize("time", [1, 7, 150])
def test_lstm(dim, projection_dim, cell_clip, proj_clip, time):
    rng = np.random.default_rng(time)
    layer = ProjectedLSTM(dim, projection_dim, cell_clip, proj_clip)
    x = rng.normal(size=(time, 2, 6)).astype(np.float32)
    c = rng.normal(size=(2, dim)).astype(np.float32) * 0.2
    h = rng.normal(size=(2, projection_dim)).astype(np.float32) * 0.2
    layer.build(x.shape)
    for variable in layer.weights:
        variable.assign(rng.normal(size=variable.shape).astype(np.float32))
    wanted = lstm_by_hand(layer, x, c, h)

    unknown_time = tf.function(
        layer.__call__,
        input_signature=[
            tf.TensorSpec((None, None, 6), tf.float32),
            tf.TensorSpec((None, dim), tf.float32),
            tf.TensorSpec((None, projection_dim), tf.float32),
        ],
        autograph=False,
    )
    for call in (layer, unknown_time):
        for got, want in zip(call(x, c, h), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


def test_timestep_dropout_drops_whole_words():
    def drop(bilm, training=True):
        return np.asarray(bilm.drop_words(x, training=training))

    bilm = random_model(timestep_dropout=0.25, seed=1)
    x = np.random.default_rng(0).uniform(1, 2, size=(40, 50, 3)).astype(np.float32)
    np.testing.assert_array_equal(drop(bilm, training=False), x)
    dropped = drop(bilm)
    zero = (dropped == 0).all(axis=2)
    np.testing.assert_allclose(dropped[~zero], x[~zero] / 0.75, rtol=1e-6)
    # The share of dropped positions is within four standard deviations of 0.25.
    assert abs(zero.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / zero.size)
    # Each position of each row is dropped independently.
    assert zero.any(axis=0).all() and not zero.all(axis=0).any()
    assert not zero.all(axis=1).any()

    np.testing.assert_array_equal(drop(random_model(timestep_dropout=0.25, seed=1)), dropped)
    assert not np.array_equal(drop(bilm), dropped)
    assert not np.array_equal(drop(random_model(timestep_dropout=0.25, seed=2)), dropped)


def test_highway_by_hand():
    layer = Highway()
    layer.build((None, 3))
    rng = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(rng.normal(size=variable.shape).astype(np.float32))
    x = rng.normal(size=(4, 3)).astype(np.float32)
    gate = sigmoid(x @ np.asarray(layer.carry) + np.asarray(layer.carry_bias))
    transformed = x @ np.asarray(layer.transform) + np.asarray(layer.transform_bias)
    transformed = np.maximum(transformed, 0)
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(x)), gate * transformed + (1 - gate) * x, rtol=0, atol=1e-6
    )


@pytest.fixture(params=["float64", "mixed_float16", "mixed_bfloat16", "channels_first"])
def global_setting(request):
    """Settings of Keras that are meant for the caller's own layers."""
    config = keras.config
    before = config.dtype_policy(), config.floatx(), config.image_data_format()
    if request.param == "channels_first":
        config.set_image_data_format(request.param)
    else:
        config.set_dtype_policy(request.param)
    if request.param == "float64":
        config.set_floatx(request.param)
    yield
    config.set_dtype_policy(before[0])
    config.set_floatx(before[1])
    config.set_image_data_format(before[2])


def test_settings_of_keras_change_nothing_in_a_stored_model(bilm, global_setting):
    expected = top_layer(bilm, SENTENCE)
    again = random_model()
    np.testing.assert_array_equal(top_layer(again, SENTENCE), expected)
    assert {weight.dtype for weight in again.weights_by_name().values()} == {"float32"}
    assert {str(part.dtype) for part in again.initial_state(1)} == {"<dtype: 'float32'>"}
    sentences = [SENTENCE, SENTENCE[:2]]
    got, wanted = (SentenceEncoder(KerasRuntime(m)).encode(sentences) for m in (again, bilm))
    for vectors, same in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(vectors, same)


@pytest.mark.parametrize(
    ("switch_on", "switch_off"),
    [
        (tf.debugging.enable_check_numerics, tf.debugging.disable_check_numerics),
        tuple(partial(tf.config.run_functions_eagerly, on) for on in (True, False)),
    ],
    ids=["check_numerics", "eagerly"],
)
def test_debugging_tensorflow_changes_only_rounding(bilm, switch_on, switch_off):
    expected = SentenceEncoder(KerasRuntime(bilm)).encode([SENTENCE])
    switch_on()
    try:
        got = SentenceEncoder(KerasRuntime(random_model())).encode([SENTENCE])
    finally:
        switch_off()
    # XLA rounds differently, and such large weights amplify the difference.
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-5)


def test_automatic_mixed_precision_is_refused(bilm):
    option = "auto_mixed_precision_onednn_bfloat16"
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        with pytest.raises(ParameterError, match=f"TensorFlow's option {option}"):
            KerasRuntime(bilm)
    finally:
        tf.config.optimizer.set_experimental_options({option: False})


def test_a_type_promotion_that_keras_does_not_know_is_refused():
    before = tf_ops.get_dtype_conversion_mode()
    tf_ops.set_dtype_conversion_mode("safe")
    try:
        with pytest.raises(ParameterError, match="dtype_conversion_mode"):
            random_model()
    finally:
        tf_ops.set_dtype_conversion_mode(before.name.lower())
