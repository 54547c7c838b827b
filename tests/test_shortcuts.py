"""Short cuts beside the plain way: nothing changes, in training gradients included.

The plain way spells every place of the batch out with all its columns, takes the whole softmax
apart from the sample in loss and gradient, and lets TensorFlow differentiate a scan.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_corpus import lexicon_of, split_of

from elmolib.adagrad import Adagrad
from elmolib.batches import Batch, Batches
from elmolib.bilm import BiLM
from elmolib.characters import character_ids, words_of
from elmolib.layers.projected_lstm import ProjectedLSTM
from elmolib.options import BiLMOptions
from elmolib.training_step import TrainingStep

OPTIONS = BiLMOptions(
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
    batches = Batches(split_of(sentences), lexicon_of(KNOWN), len(WORDS), OPTIONS, 4, 6, 9, seed=2)
    return batches[1]


@pytest.fixture
def step() -> TrainingStep:
    keras.utils.set_random_seed(3)
    bilm = BiLM(OPTIONS, len(WORDS))
    return TrainingStep(bilm, Adagrad(bilm.named_variables(), 0.2, 1.0), 10.0)


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
    """The same batch with every place spelt out for itself, in all its columns."""
    spelt = np.array([word for group in batch.characters for word in words_of(group)])
    everywhere = character_ids(spelt[batch.words].ravel().tolist(), OPTIONS.max_characters)
    places = np.arange(batch.words.size, dtype=np.int32).reshape(batch.words.shape)
    return batch._replace(characters=(everywhere,), words=places)


def whole_softmax(batch: Batch) -> Batch:
    """The same batch with targets and sample as rows of the whole softmax."""
    rows = batch.rows.astype(np.int32)
    return batch._replace(
        rows=np.arange(len(WORDS)), targets=rows[batch.targets], negatives=rows[batch.negatives]
    )


def require_close(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)


def test_sharing_words_and_cutting_columns_change_no_loss_and_no_gradient(step, batch):
    assert sum(map(len, batch.characters)) < batch.words.size / 2
    assert max(group.shape[1] for group in batch.characters) < OPTIONS.max_characters
    state = state_of(step.bilm, 4)
    losses, last, gradients = step.gradients(batch, state, training=False)
    plain_losses, plain_last, plain_gradients = step.gradients(plain(batch), state, training=False)
    np.testing.assert_allclose(losses, plain_losses, atol=1e-5)
    np.testing.assert_allclose(last[0], plain_last[0], atol=1e-5)
    require_close(gradients, plain_gradients)
    assert all(np.abs(gradient).max() > 1e-4 for gradient in gradients.values())


def test_rows_of_the_softmax_alone_have_the_gradient_of_the_whole(step, batch):
    state = state_of(step.bilm, 4)
    *_, gradients = step.gradients(batch, state, training=False)
    *_, whole = step.gradients(whole_softmax(batch), state, training=False)
    for name in ("softmax/W", "softmax/b"):
        spread = np.zeros_like(whole[name])
        spread[batch.rows] = gradients.pop(name)
        np.testing.assert_allclose(spread, whole.pop(name), atol=1e-5)
    require_close(gradients, whole)


def test_the_way_back_through_a_long_window_makes_no_array_of_its_size_at_every_step():
    lstm = ProjectedLSTM(12, 7)
    lstm.build((None, None, 5))

    @tf.function
    def gradient(x, c, h):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs, _, _ = lstm._scan(x, c, h, None)
        return tape.gradient(outputs, x)

    graph = gradient.get_concrete_function(
        *(tf.TensorSpec(shape) for shape in ((200, 3, 5), (3, 12), (3, 7)))
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
def test_the_written_out_gradient_is_that_of_the_scan(projection_dim):
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

    scan = gradients(lambda x, c, h: lstm._scan(x, c, h, None))
    require_close(gradients(lstm._window), scan)
    require_close(gradients(lstm.run), scan)


@pytest.mark.parametrize("projection_dim", [7, 12])
def test_inputs_taken_from_a_table_give_what_each_place_gives(projection_dim):
    lstm = clipped_lstm(projection_dim)
    rng = np.random.default_rng(10)
    vectors, c, h = normal(rng, (4, 5), (3, 12), (3, projection_dim))
    words, lengths = rng.integers(0, 4, (6, 3)), np.array([6, 2, 4])
    outputs, *last = lstm.read(vectors, words, c, h, lengths)
    expected, *expected_last = lstm.run(tf.gather(vectors, words), c, h, lengths)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(outputs[:length, row], expected[:length, row], atol=1e-6)
    for found, wanted in zip(last, expected_last, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
