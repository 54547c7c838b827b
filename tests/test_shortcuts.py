"""Optimizations give the same results as the plain computation, gradients included.

The plain computation reads the characters of every position of the batch at full width,
differentiates the whole softmax, and lets TensorFlow differentiate the loop over time.
"""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_corpus import lexicon_of, split_of, training_settings
from small_models import words_of

from elmolib.model.bilm import BiLM
from elmolib.model.lstm import ProjectedLSTM
from elmolib.settings.architecture import Architecture
from elmolib.text.characters import character_ids
from elmolib.training.adagrad import Adagrad
from elmolib.training.batches import Batch, Batches
from elmolib.training.step import TrainingStep

OPTIONS = Architecture(
    char_embedding_dim=5,
    filters=((1, 4), (2, 6), (3, 8)),
    n_highway=2,
    activation="relu",
    max_characters=30,
    lstm_dim=12,
    projection_dim=7,
    n_layers=2,
    cell_clip=0.3,
    proj_clip=0.2,
    use_skip_connections=True,
)
KNOWN = [letter * length for letter in "abcdefg" for length in (1, 3, 12)]
WORDS = ["<S>", "</S>", "<UNK>", *KNOWN]


@pytest.fixture
def batch() -> Batch:
    rng = np.random.default_rng(5)
    sentences = [rng.integers(3, len(WORDS), rng.integers(1, 9)).tolist() for _ in range(60)]
    settings = training_settings(batch_size=4, unroll_steps=6, n_negatives=9, seed=2)
    corpus = SimpleNamespace(train=split_of(sentences), lexicon=lexicon_of(KNOWN), vocabulary=WORDS)
    return Batches(corpus, OPTIONS, settings)[1]


@pytest.fixture
def step() -> TrainingStep:
    keras.utils.set_random_seed(3)
    bilm = BiLM(OPTIONS, len(WORDS))
    return TrainingStep(bilm, Adagrad(bilm.weights_by_name(), 0.2, 1.0), 10.0)


def state_of(bilm: BiLM, n_rows: int):
    rng = np.random.default_rng(8)
    return tuple(
        tf.constant(rng.normal(0, 0.1, part.shape), tf.float32)
        for part in bilm.initial_state(n_rows)
    )


def clipped_lstm(projection_dim: int) -> ProjectedLSTM:
    keras.utils.set_random_seed(4)
    lstm = ProjectedLSTM(12, projection_dim, cell_clip=0.3, proj_clip=0.2)
    lstm.build((None, None, 5))
    return lstm


def normal(rng: np.random.Generator, *shapes: tuple[int, ...]) -> list[tf.Tensor]:
    return [tf.constant(rng.normal(0, 1, shape), tf.float32) for shape in shapes]


def plain(batch: Batch) -> Batch:
    """The same batch with the characters of every position at full width."""
    words = np.array([word for group in batch.characters for word in words_of(group)])
    characters = character_ids(words[batch.words].ravel().tolist(), OPTIONS.max_characters)
    rows = np.arange(batch.words.size, dtype=np.int32).reshape(batch.words.shape)
    return batch._replace(characters=(characters,), words=rows)


def whole_softmax(batch: Batch) -> Batch:
    """The same batch, with targets and negatives as row numbers of the whole softmax."""
    rows = batch.rows.astype(np.int32)
    return batch._replace(
        rows=np.arange(len(WORDS)), targets=rows[batch.targets], negatives=rows[batch.negatives]
    )


def require_close(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


def test_distinct_words_and_trimmed_columns_change_no_loss_and_no_gradient(step, batch):
    assert sum(map(len, batch.characters)) < batch.words.size / 2
    assert max(group.shape[1] for group in batch.characters) < OPTIONS.max_characters
    state = state_of(step.bilm, 4)
    losses, last, gradients = step.gradients(batch, state)
    plain_losses, plain_last, plain_gradients = step.gradients(plain(batch), state)
    np.testing.assert_allclose(losses, plain_losses, atol=1e-5)
    np.testing.assert_allclose(last[0], plain_last[0], atol=1e-5)
    require_close(gradients, plain_gradients)
    assert all(np.abs(gradient).max() > 1e-4 for gradient in gradients.values())


def test_gradients_of_softmax_rows_equal_those_of_the_whole_softmax(step, batch):
    state = state_of(step.bilm, 4)
    *_, gradients = step.gradients(batch, state)
    *_, whole = step.gradients(whole_softmax(batch), state)
    for name in ("softmax/W", "softmax/b"):
        spread = np.zeros_like(whole[name])
        spread[batch.rows] = gradients.pop(name)
        np.testing.assert_allclose(spread, whole.pop(name), atol=1e-5)
    require_close(gradients, whole)


def test_the_gradient_of_a_scan_makes_no_array_of_all_steps_at_each_step():
    lstm = ProjectedLSTM(12, 7)
    lstm.build((None, None, 5))

    @tf.function
    def gradient(x, c, h):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs, _, _ = lstm._scan(x, lambda from_input: from_input, c, h, None)
        return tape.gradient(outputs, x)

    graph = gradient.get_concrete_function(
        *(tf.TensorSpec(shape) for shape in ((200, 3, 48), (3, 12), (3, 7)))
    ).graph.as_graph_def()
    loops = [
        node.op
        for function in graph.library.function
        if function.signature.name.startswith("while_body")
        for node in function.node_def
    ]
    assert "MatMul" in loops
    assert "StridedSliceGrad" not in loops


@pytest.mark.parametrize("projection_dim", [7, 12])
def test_the_hand_written_gradient_equals_that_of_the_scan(projection_dim):
    lstm = clipped_lstm(projection_dim)
    rng = np.random.default_rng(9)
    inputs = normal(rng, (6, 3, 5), (3, 12), (3, projection_dim))
    upstream = normal(rng, (6, 3, projection_dim), (3, 12), (3, projection_dim))
    sources = inputs + [variable.value for variable in lstm.trainable_variables]

    def gradients(run) -> dict:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = run(*inputs)
        return dict(enumerate(tape.gradient(outputs, sources, upstream)))

    def scan(x, c, h):
        from_inputs = tf.reshape(lstm._from_inputs(tf.reshape(x, (-1, 5))), (6, 3, 48))
        return lstm._scan(from_inputs, lambda from_input: from_input, c, h, None)

    require_close(gradients(lstm), gradients(scan))


@pytest.mark.parametrize("projection_dim", [7, 12])
def test_reading_words_equals_reading_their_vectors(projection_dim):
    lstm = clipped_lstm(projection_dim)
    rng = np.random.default_rng(10)
    vectors, c, h = normal(rng, (4, 5), (3, 12), (3, projection_dim))
    words, lengths = rng.integers(0, 4, (6, 3)), np.array([6, 2, 4])
    outputs, *last = lstm.read_words(vectors, words, c, h, lengths)
    expected, *expected_last = lstm(tf.gather(vectors, words), c, h, lengths)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(outputs[:length, row], expected[:length, row], atol=1e-6)
    for found, wanted in zip(last, expected_last, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
