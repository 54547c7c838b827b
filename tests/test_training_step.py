"""The mathematics of training, against values computed by bilm-tf.

The stored windows are two steps on random weights; `TRAINING.md` beside them gives the tolerances.
"""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from elmolib.adagrad import Adagrad, clip_by_global_norm
from elmolib.batches import Batch
from elmolib.bilm import BiLM
from elmolib.negatives import log_expected_count
from elmolib.options import BiLMOptions
from elmolib.training_step import TrainingStep, direction_losses

pytestmark = pytest.mark.shared

VOCABULARY = 60
UNROLL = 7
CLIP_NORM = 10.0


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "reference" / "train-a"


@pytest.fixture(scope="module")
def expected(folder):
    return np.load(folder / "expected.npz", allow_pickle=False)


@pytest.fixture
def step(folder):
    options = BiLMOptions.from_json(json.loads((folder / "options.json").read_text()))
    bilm = BiLM(options, VOCABULARY)
    variables = bilm.named_variables()
    with h5py.File(folder / "weights.hdf5") as file:
        for name, variable in variables.items():
            variable.assign(file[name][...])
    return TrainingStep(bilm, Adagrad(variables, 0.2, 1.0), CLIP_NORM)


def window(expected, w: int, sampled: bool) -> Batch:
    """Window `w` (1 or 2) in our form: each distinct word once, softmax rows by position."""
    spelled = np.stack(
        [expected["tokens_characters"][w - 1], expected["tokens_characters_reverse"][w - 1]]
    ).astype(np.int32)
    targets = np.stack([expected["next_token_id"][w - 1], expected["next_token_id_reverse"][w - 1]])
    characters, words = np.unique(
        spelled.reshape(-1, spelled.shape[-1]), axis=0, return_inverse=True
    )
    common = {
        "characters": (characters,),
        "words": words.reshape(targets.shape).astype(np.int32),
        "weights": np.ones(targets.shape[1:], np.float32),
    }
    if not sampled:
        return Batch(
            rows=np.empty(0, np.int64),
            targets=targets.astype(np.int32),
            negatives=np.empty((2, 0), np.int32),
            log_expected_targets=np.zeros(targets.shape, np.float32),
            log_expected_negatives=np.empty((2, 0), np.float32),
            **common,
        )
    negatives = np.stack([expected[f"sampled_w{w}_ids"], expected[f"sampled_w{w}_ids_reverse"]])
    rows, places = np.unique(
        np.concatenate([targets.ravel(), negatives.ravel()]), return_inverse=True
    )
    return Batch(
        rows=rows.astype(np.int64),
        targets=places[: targets.size].reshape(targets.shape).astype(np.int32),
        negatives=places[targets.size :].reshape(negatives.shape).astype(np.int32),
        log_expected_targets=np.log(
            np.stack([expected[f"sampled_w{w}_true_expected_count{s}"] for s in ("", "_reverse")])
        ),
        log_expected_negatives=np.log(
            np.stack([expected[f"sampled_w{w}_expected_count{s}"] for s in ("", "_reverse")])
        ),
        **common,
    )


def assert_gradients(gradients, expected, prefix, rows=None):
    for name, gradient in gradients.items():
        wanted = expected[f"{prefix}/{name}"]
        got = np.asarray(gradient) / UNROLL
        if rows is not None and name.startswith("softmax/"):
            dense = np.zeros_like(wanted)
            dense[rows] = got
            got = dense
        np.testing.assert_allclose(
            got, wanted, rtol=0, atol=5e-5 * np.abs(wanted).max(), err_msg=name
        )


def assert_state(state, expected, prefix, atol=5e-5):
    np.testing.assert_allclose(state[0], expected[f"{prefix}_final_c"], rtol=0, atol=atol)
    np.testing.assert_allclose(state[1], expected[f"{prefix}_final_h"], rtol=0, atol=atol)


def test_full_softmax_losses_gradients_and_carried_state(step, expected):
    state = step.bilm.initial_state(4)
    for w in (1, 2):
        losses, state, gradients = step.gradients(window(expected, w, False), state, training=True)
        np.testing.assert_allclose(
            losses,
            [expected[f"full_w{w}_loss_fwd"], expected[f"full_w{w}_loss_bwd"]],
            rtol=2e-6,
        )
        assert_gradients(gradients, expected, f"full_w{w}_grad")
        assert_state(state, expected, f"full_w{w}")


def test_layers(step, expected):
    state = step.bilm.initial_state(4)
    for w in (1, 2):
        batch = window(expected, w, False)
        layers, state = step.bilm(batch.characters, batch.words, state)
        np.testing.assert_allclose(
            layers[0], expected[f"full_w{w}_token_embedding"], rtol=0, atol=1e-5
        )
        np.testing.assert_allclose(
            layers[-1], expected[f"full_w{w}_lstm_output"], rtol=0, atol=5e-5
        )


def test_sampled_softmax_losses_and_gradients(step, expected):
    state = step.bilm.initial_state(4)
    for w in (1, 2):
        batch = window(expected, w, True)
        losses, state, gradients = step.gradients(batch, state, training=True)
        np.testing.assert_allclose(
            losses,
            [expected[f"sampled_w{w}_loss_fwd"], expected[f"sampled_w{w}_loss_bwd"]],
            rtol=2e-6,
        )
        _, norm = clip_by_global_norm(list(gradients.values()), CLIP_NORM)
        np.testing.assert_allclose(
            norm, expected[f"sampled_w{w}_global_norm_before_clip"], rtol=1e-5
        )
        if w == 1:
            assert_gradients(gradients, expected, "sampled_w1_grad", batch.rows)


def test_two_adagrad_steps(step, expected):
    state = step.bilm.initial_state(4)
    for w in (1, 2):
        result = step(window(expected, w, False), state, w)
        state = result.state
        np.testing.assert_allclose(
            result.losses,
            [expected[f"train_step{w}_loss_fwd"], expected[f"train_step{w}_loss_bwd"]],
            rtol=2e-6,
        )
        np.testing.assert_allclose(
            result.gradient_norm, expected[f"train_step{w}_global_norm_before_clip"], rtol=1e-5
        )
        for name, variable in step.bilm.named_variables().items():
            np.testing.assert_allclose(
                variable, expected[f"train_step{w}_var/{name}"], rtol=0, atol=1e-5, err_msg=name
            )
    # Weights as large as these make of the last bit of a sigmoid up to a thousand such bits.
    assert_state(state, expected, "train_step2", atol=3e-4)


def test_sampled_rows_step_as_the_whole_softmax_would(step, expected):
    """Updating only the rows that were used equals Adagrad on the dense gradient."""
    batch = window(expected, 1, True)
    before = {name: np.asarray(v.value) for name, v in step.bilm.named_variables().items()}
    step(batch, step.bilm.initial_state(4), 1)
    factor = CLIP_NORM / max(CLIP_NORM, float(expected["sampled_w1_global_norm_before_clip"]))
    for name, variable in step.bilm.named_variables().items():
        gradient = expected[f"sampled_w1_grad/{name}"] * UNROLL * factor
        wanted = before[name] - 0.2 * gradient / np.sqrt(1.0 + gradient**2)
        np.testing.assert_allclose(variable, wanted, rtol=0, atol=1e-5, err_msg=name)


def test_expected_counts(expected):
    for w in (1, 2):
        for suffix in ("", "_reverse"):
            tries = int(expected[f"sampled_w{w}_num_tries{suffix}"])
            for ids, counts in (
                (f"sampled_w{w}_ids{suffix}", f"sampled_w{w}_expected_count{suffix}"),
                (None, f"sampled_w{w}_true_expected_count{suffix}"),
            ):
                ids = expected[ids] if ids else expected[f"next_token_id{suffix}"][w - 1]
                np.testing.assert_allclose(
                    np.exp(log_expected_count(ids, VOCABULARY, tries)), expected[counts], rtol=1e-6
                )


def test_weights_leave_predictions_out(step, expected):
    """A prediction of weight 0 changes neither the loss nor any gradient."""
    batch = window(expected, 1, False)
    weights = np.ones((4, UNROLL), np.float32)
    weights[2, 4:] = 0
    targets = batch.targets.copy()
    targets[:, 2, 4:] = 5
    losses = [
        np.asarray(
            direction_losses(
                step.bilm,
                batch._replace(weights=weights, targets=t),
                step.bilm.softmax_W.value,
                step.bilm.softmax_b.value,
                step.bilm.initial_state(4),
                False,
            )[0]
        )
        for t in (batch.targets, targets)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
