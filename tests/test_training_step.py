"""Losses, gradients and updates compared with values that bilm-tf computed.

The reference data has two steps from random weights, and `TRAINING.md` with the tolerances.
"""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from elmolib.corpus.stream import BACKWARD, FORWARD
from elmolib.formats.names import hdf5_arrays
from elmolib.formats.options import architecture_from_options
from elmolib.model.bilm import BiLM
from elmolib.training.adagrad import Adagrad, clip_by_global_norm
from elmolib.training.batches import Batch, log_expected_count
from elmolib.training.step import TrainingStep, direction_losses

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
    options = architecture_from_options(json.loads((folder / "options.json").read_text()))
    bilm = BiLM(options, VOCABULARY)
    variables = bilm.weights_by_name()
    with h5py.File(folder / "weights.hdf5") as file:
        for name, variable in variables.items():
            variable.assign(file[hdf5_name(bilm, name)][...].reshape(variable.shape))
    return TrainingStep(bilm, Adagrad(variables, 0.2, 1.0), CLIP_NORM)


def hdf5_name(bilm: BiLM, name: str) -> str:
    """The name of a weight in bilm-tf's files."""
    return hdf5_arrays(bilm.architecture, VOCABULARY)[name].name


def window(expected, w: int, sampled: bool) -> Batch:
    """Convert window `w` (1 or 2) to elmolib's form of a batch, which is time-major."""

    def both(name: str) -> np.ndarray:
        values = np.stack([expected[name], expected[f"{name}_reverse"]])
        return values[:, w - 1].swapaxes(1, 2)  # (2, time, batch, ...)

    def both_sampled(name: str) -> np.ndarray:
        return np.stack([expected[f"sampled_w{w}_{name}{s}"] for s in ("", "_reverse")])

    spelled, targets = both("tokens_characters").astype(np.int32), both("next_token_id")
    characters, words = np.unique(
        spelled.reshape(-1, spelled.shape[-1]), axis=0, return_inverse=True
    )
    common = {
        "characters": (characters,),
        "words": words.reshape(targets.shape).astype(np.int32),
        "weights": np.ones(targets.shape[1:], np.float32),
        "n_weighted": np.float32(targets[0].size),
    }
    if not sampled:
        return Batch(targets=targets.astype(np.int32), **common)
    negatives = both_sampled("ids")
    rows, places = np.unique(
        np.concatenate([targets.ravel(), negatives.ravel()]), return_inverse=True
    )
    return Batch(
        rows=rows.astype(np.int64),
        targets=places[: targets.size].reshape(targets.shape).astype(np.int32),
        negatives=places[targets.size :].reshape(negatives.shape).astype(np.int32),
        log_expected_targets=np.log(both_sampled("true_expected_count")).swapaxes(1, 2),
        log_expected_negatives=np.log(both_sampled("expected_count")),
        **common,
    )


def assert_gradients(step, gradients, expected, prefix, rows=None):
    for name, gradient in gradients.items():
        wanted = expected[f"{prefix}/{hdf5_name(step.bilm, name)}"]
        got = np.asarray(gradient) / UNROLL
        if rows is not None and name.startswith("softmax/"):
            dense = np.zeros_like(wanted)
            dense[rows] = got
            got = dense
        np.testing.assert_allclose(
            got.reshape(wanted.shape),
            wanted,
            rtol=0,
            atol=5e-5 * np.abs(wanted).max(),
            err_msg=name,
        )


def assert_state(state, expected, prefix, atol=5e-5):
    np.testing.assert_allclose(state[0], expected[f"{prefix}_final_c"], rtol=0, atol=atol)
    np.testing.assert_allclose(state[1], expected[f"{prefix}_final_h"], rtol=0, atol=atol)


def test_full_softmax_losses_gradients_and_carried_state(step, expected):
    state = step.bilm.initial_state(4)
    for w in (1, 2):
        losses, state, gradients = step.gradients(window(expected, w, False), state)
        np.testing.assert_allclose(
            losses,
            [expected[f"full_w{w}_loss_fwd"], expected[f"full_w{w}_loss_bwd"]],
            rtol=2e-6,
        )
        assert_gradients(step, gradients, expected, f"full_w{w}_grad")
        assert_state(state, expected, f"full_w{w}")


def test_layers(step, expected):
    state = step.bilm.initial_state(4)
    for w in (1, 2):
        batch = window(expected, w, False)
        layers, state = step.bilm(batch.characters, batch.words, state)
        for d in (FORWARD, BACKWARD):
            for layer, name, atol in ((0, "token_embedding", 1e-5), (-1, "lstm_output", 5e-5)):
                wanted = expected[f"full_w{w}_{name}"][d].swapaxes(0, 1)
                np.testing.assert_allclose(layers[d][layer], wanted, rtol=0, atol=atol)


def test_sampled_softmax_losses_and_gradients(step, expected):
    state = step.bilm.initial_state(4)
    for w in (1, 2):
        batch = window(expected, w, True)
        losses, state, gradients = step.gradients(batch, state)
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
            assert_gradients(step, gradients, expected, "sampled_w1_grad", batch.rows)


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
        for name, variable in step.bilm.weights_by_name().items():
            wanted = expected[f"train_step{w}_var/{hdf5_name(step.bilm, name)}"]
            np.testing.assert_allclose(
                variable, wanted.reshape(variable.shape), rtol=0, atol=1e-5, err_msg=name
            )
    # With such large weights, a rounding error of a sigmoid grows up to a thousandfold.
    assert_state(state, expected, "train_step2", atol=3e-4)


def test_updating_sampled_rows_equals_adagrad_on_the_dense_gradient(step, expected):
    batch = window(expected, 1, True)
    before = {name: np.asarray(v.value) for name, v in step.bilm.weights_by_name().items()}
    step(batch, step.bilm.initial_state(4), 1)
    factor = CLIP_NORM / max(CLIP_NORM, float(expected["sampled_w1_global_norm_before_clip"]))
    for name, variable in step.bilm.weights_by_name().items():
        gradient = expected[f"sampled_w1_grad/{hdf5_name(step.bilm, name)}"] * UNROLL * factor
        gradient = gradient.reshape(variable.shape)
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


def test_predictions_of_weight_0_change_no_loss(step, expected):
    batch = window(expected, 1, False)
    weights = np.ones((UNROLL, 4), np.float32)
    weights[4:, 2] = 0
    targets = batch.targets.copy()
    targets[:, 4:, 2] = 5
    losses = [
        np.asarray(
            direction_losses(
                step.bilm,
                batch._replace(weights=weights, targets=t),
                step.bilm.softmax_W.value,
                step.bilm.softmax_b.value,
                step.bilm.initial_state(4),
            )[0]
        )
        for t in (batch.targets, targets)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
