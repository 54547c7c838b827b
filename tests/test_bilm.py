"""The biLM and its layers against plain loops, and what each direction may see."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from small_models import TINY, random_arrays

from elmolib.batches import BACKWARD, FORWARD
from elmolib.bilm import BiLM
from elmolib.layers.char_cnn import CharCNN
from elmolib.layers.highway import Highway
from elmolib.layers.projected_lstm import ProjectedLSTM
from elmolib.layers.timestep_dropout import TimestepDropout
from elmolib.scoring import windows_of_sentences
from elmolib.vocabulary import Vocabulary

VOCABULARY = Vocabulary(["the", "river", "bank", "was", "steep", "."])
ROUNDING = 2e-6
"""Of logits: batches with another number of distinct words are added up in another order."""

SENTENCE = ["the", "river", "bank", "was", "steep", "."]


def random_model(**changes) -> BiLM:
    return BiLM.from_arrays(TINY, random_arrays(TINY, len(VOCABULARY), seed=1), **changes)


@pytest.fixture(scope="module")
def bilm() -> BiLM:
    return random_model()


def top_layer(bilm, sentence, **kwargs) -> np.ndarray:
    """Top layer (2, time, projection) for one sentence, each direction in its reading order."""
    (window,) = windows_of_sentences([sentence], VOCABULARY, bilm.options)
    layers, _ = bilm(window.characters, window.words, bilm.initial_state(1), **kwargs)
    return np.asarray(layers[-1])[:, 0]


def logits_by_word(bilm, sentence) -> tuple[np.ndarray, np.ndarray]:
    """What decides the prediction of each word, and of the end: arrays (words + 1, vocabulary).

    Row k is the prediction of word k in both; the last row of the first is that of `</S>`, and
    the first row of the second that of `<S>`.
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
    # Row k + 1 of `backward` is the prediction of word k; row 0 that of the sentence's beginning.
    moved = np.abs(new_backward - backward).max(axis=1)
    assert (moved[k + 1 :] < ROUNDING).all()
    assert (moved[: k + 1] > 20 * ROUNDING).all()


def test_directions_share_only_characters_and_softmax(bilm):
    """Nothing of one direction's LSTMs reaches the other."""
    other = random_model()
    for name, variable in other.named_variables().items():
        if name.startswith("RNN_1/"):
            variable.assign(variable + 1.0)
    one, two = top_layer(bilm, SENTENCE), top_layer(other, SENTENCE)
    np.testing.assert_array_equal(one[FORWARD], two[FORWARD])
    assert np.abs(one[BACKWARD] - two[BACKWARD]).max() > 1e-3
    names = [name for name in bilm.named_variables() if name.startswith("RNN_")]
    assert len(names) == 2 * len([name for name in names if name.startswith("RNN_0/")]) > 0


def test_rows_of_a_batch_do_not_mix(bilm):
    (window,) = windows_of_sentences([SENTENCE], VOCABULARY, bilm.options)
    words = np.concatenate([window.words, window.words[:, :, ::-1]], axis=1)
    both, _ = bilm(window.characters, words, bilm.initial_state(2))
    alone, _ = bilm(window.characters, window.words, bilm.initial_state(1))
    np.testing.assert_allclose(both[-1][:, :1], alone[-1], rtol=0, atol=1e-6)


def test_state_goes_on(bilm):
    (window,) = windows_of_sentences([SENTENCE], VOCABULARY, bilm.options)
    whole, last = bilm(window.characters, window.words, bilm.initial_state(1))
    first, state = bilm(window.characters, window.words[:, :, :3], bilm.initial_state(1))
    second, state = bilm(window.characters, window.words[:, :, 3:], state)
    for layer in range(3):
        joined = np.concatenate([first[layer], second[layer]], axis=2)
        np.testing.assert_allclose(joined, whole[layer], rtol=0, atol=1e-6)
    for part, wanted in zip(state, last, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=1e-6)


def test_lengths_stop_the_state(bilm):
    """A row's final state is that of its own length, whatever padding follows."""
    (window,) = windows_of_sentences([SENTENCE], VOCABULARY, bilm.options)
    _, short = bilm(window.characters, window.words[:, :, :4], bilm.initial_state(1))
    _, padded = bilm(window.characters, window.words, bilm.initial_state(1), np.array([4]))
    for part, wanted in zip(padded, short, strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=3e-6)


def test_dropout_is_for_training_only():
    bilm = random_model(dropout=0.5, timestep_dropout=0.3, seed=4)
    plain = random_model()
    np.testing.assert_array_equal(top_layer(bilm, SENTENCE), top_layer(plain, SENTENCE))
    dropped = top_layer(bilm, SENTENCE, training=True)
    assert np.abs(dropped - top_layer(plain, SENTENCE)).max() > 1e-3
    again = random_model(dropout=0.5, timestep_dropout=0.3, seed=4)
    np.testing.assert_array_equal(top_layer(again, SENTENCE, training=True), dropped)


def test_a_model_is_made_again_from_its_config_and_weights(bilm, tmp_path):
    again = BiLM.from_config(random_model(dropout=0.2, timestep_dropout=0.1, seed=9).get_config())
    assert again.options == TINY
    assert (again.vocabulary_size, again.dropout, again.seed) == (len(VOCABULARY), 0.2, 9)
    assert again.timestep_dropout.rate == 0.1

    bilm.save(tmp_path / "bilm.keras")
    loaded = keras.models.load_model(tmp_path / "bilm.keras")
    np.testing.assert_array_equal(top_layer(loaded, SENTENCE), top_layer(bilm, SENTENCE))


def test_arrays_are_taken_over_exactly():
    arrays = random_arrays(TINY, len(VOCABULARY), seed=2)
    variables = BiLM.from_arrays(TINY, arrays).named_variables()
    assert variables.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(variables[name], array)
    assert BiLM.from_arrays(TINY, random_arrays(TINY)).softmax_W is None


@pytest.mark.parametrize(
    "layer",
    [
        CharCNN(TINY),
        Highway(),
        ProjectedLSTM(4, 3, cell_clip=3.0, proj_clip=None),
        TimestepDropout(0.25, seed=3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_are_made_again_from_their_configs(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_by_hand(layer: ProjectedLSTM, x, c, h):
    """The recurrence as the literature writes it, one step of one sequence at a time."""
    kernel, bias = np.asarray(layer.kernel, np.float64), np.asarray(layer.bias, np.float64)
    outputs = []
    for step in np.moveaxis(np.asarray(x, np.float64), 1, 0):
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
    return np.stack(outputs, axis=1), c, h


@pytest.mark.parametrize(
    ("dim", "projection_dim", "cell_clip", "proj_clip"),
    [(5, 3, None, None), (5, 3, 0.3, 0.2), (4, 4, 0.3, 0.2)],
    ids=["plain", "clipped", "no projection"],
)
@pytest.mark.parametrize("time", [1, 7, 150])
def test_lstm(dim, projection_dim, cell_clip, proj_clip, time):
    rng = np.random.default_rng(time)
    layer = ProjectedLSTM(dim, projection_dim, cell_clip, proj_clip)
    x = rng.normal(size=(2, time, 6)).astype(np.float32)
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


def test_timestep_dropout():
    layer = TimestepDropout(0.25, seed=1)
    x = np.random.default_rng(0).uniform(1, 2, size=(40, 50, 3)).astype(np.float32)
    np.testing.assert_array_equal(layer(x), x)
    dropped = np.asarray(layer(x, training=True))
    zero = (dropped == 0).all(axis=2)
    np.testing.assert_allclose(dropped[~zero], x[~zero] / 0.75, rtol=1e-6)
    # 2,000 draws: 0.25 give or take four standard deviations.
    assert abs(zero.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / zero.size)
    # Neither all positions of a row nor one position in all rows goes at once.
    assert zero.any(axis=0).all() and not zero.all(axis=0).any()
    assert not zero.all(axis=1).any()

    np.testing.assert_array_equal(TimestepDropout(0.25, seed=1)(x, training=True), dropped)
    assert not np.array_equal(layer(x, training=True), dropped)
    assert not np.array_equal(TimestepDropout(0.25, seed=2)(x, training=True), dropped)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_timestep_dropout_refuses_what_is_no_rate(rate):
    with pytest.raises(ValueError, match=f"rate is {rate}"):
        TimestepDropout(rate)


def test_highway_by_hand():
    layer = Highway()
    layer.build((None, 3))
    rng = np.random.default_rng(0)
    for variable in layer.weights:
        variable.assign(rng.normal(size=variable.shape).astype(np.float32))
    x = rng.normal(size=(4, 3)).astype(np.float32)
    gate = sigmoid(x @ np.asarray(layer.W_carry) + np.asarray(layer.b_carry))
    transformed = np.maximum(x @ np.asarray(layer.W_transform) + np.asarray(layer.b_transform), 0)
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(x)), gate * transformed + (1 - gate) * x, rtol=0, atol=1e-6
    )
