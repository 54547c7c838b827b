"""The figures of the speed benchmark are correct, and it stops if two programs' results differ."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import agreement, machine, report
from benchmarks.__main__ import parts
from benchmarks.models import MODELS, random_weights
from benchmarks.preparation import write_large_text
from benchmarks.texts import split_wikitext
from benchmarks.training import bilm_settings, check_step, our_step
from benchmarks.work import work_of_step
from benchmarks.workspace import Workspace
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.keras_runtime import KerasRuntime
from elmolib.model.bilm import BiLM

REQUIRED = {
    "train_small_ratio",
    "train_small_bfloat16_ratio",
    "train_tiny_ratio",
    "predict_small_ratio",
    "predict_original_ratio",
    "vocabulary_cost_ratio",
    "product_rate_share",
    "start_extra_s",
    "machine",
}


def run(folder, root, *arguments):
    """Run the command with `--quick`; return the results, standard output and standard error."""
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--output", folder, *arguments],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    results = json.loads((folder / "results.json").read_text())
    return results, finished.stdout, finished.stderr


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """A folder that the next two tests share: the second adds its results to the first's."""
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def train_tiny(output, root):
    """The results, standard output and standard error of a run of one part."""
    return run(output, root, "--only", "train_tiny")


@pytest.mark.slow
def test_one_part_is_measured_and_the_others_are_null(train_tiny, output):
    results, printed, _ = train_tiny
    assert results.keys() >= REQUIRED
    assert results["parts"]["train_tiny"]["programs"]["elmolib"]["tokens_per_second"] > 0
    assert results["predict_small_ratio"] is None
    assert (results["train_tiny_ratio"] is None) == bool(results["peers_missing"])
    assert "train tiny" in printed
    assert (output / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.peers
def test_every_part_is_measured(train_tiny, output, root, tmp_path):
    data = root.parent / "shared" / "data"
    names = list(parts(Workspace(tmp_path, data, quick=True)))
    others = [name for name in names if name != "train_tiny"]
    results, _, messages = run(output, root, "--only", ",".join(others))
    assert [line for line in messages.splitlines() if line.endswith(" ...")] == [
        f"{name} ..." for name in others
    ]
    assert set(results["parts"]) == set(names)
    unmeasured = {key for key in REQUIRED if results[key] is None}
    assert unmeasured <= {"train_small_bfloat16_ratio"}
    compared = [part for part in results["parts"].values() if "largest_disagreement" in part]
    assert len(compared) == len([name for name in names if name.startswith(("train", "predict"))])
    assert all(part["largest_disagreement"] <= agreement.UPDATE_TOLERANCE for part in compared)
    assert (output / "growth.png").exists()


@pytest.mark.slow
@pytest.mark.peers
def test_a_step_that_differs_from_bilm_tf_is_refused(tmp_path):
    with Workspace(tmp_path, None, quick=True) as workspace:
        theirs = bilm_settings(workspace, "tiny")
        assert check_step(workspace, theirs) <= agreement.UPDATE_TOLERANCE

        with np.load(tmp_path / "step" / "theirs.npz") as file:
            step = dict(file)
        name = "before/RNN_1/RNN/MultiRNNCell/Cell1/LSTMCell/W_0"
        perturbed, ours = tmp_path / "perturbed.npz", tmp_path / "ours.npz"
        np.savez(perturbed, **(step | {name: step[name] * np.float32(1.01)}))
        our_step(workspace, theirs["options"], perturbed, ours)
    with np.load(ours) as file, pytest.raises(agreement.Disagreement):
        agreement.require_same_step(step, dict(file))


def test_vectors_of_other_weights_are_refused(tmp_path):
    arrays = random_weights(MODELS["tiny"])
    for name, factor in (("same", 1.0), ("other", 1.001)):
        arrays["char_cnn/projection"] *= np.float32(factor)
        encoder = SentenceEncoder(KerasRuntime(BiLM.from_arrays(MODELS["tiny"], arrays)))
        np.savez(tmp_path / name, *encoder.encode([["a", "river"], ["bank"]]))
    same, other = tmp_path / "same.npz", tmp_path / "other.npz"
    assert agreement.require_same_vectors(same, same, "itself") == 0.0
    with pytest.raises(agreement.Disagreement):
        agreement.require_same_vectors(same, other, "another")


def test_nan_in_vectors_is_refused(tmp_path):
    np.savez(tmp_path / "a", np.array([np.nan]))
    with pytest.raises(agreement.Disagreement):
        agreement.require_same_vectors(tmp_path / "a.npz", tmp_path / "a.npz", "another")


def test_operations_of_a_step_match_a_simple_count():
    """Count the multiplications of the tiny model again, one word and one position at a time."""
    architecture = MODELS["tiny"]
    words, columns, slots, negatives = 3, 12, 5, 7
    convolutions = 0
    for width, count in architecture.filters:
        positions = columns - width + 1
        # The forward pass applies a filter at all positions of a word. The backward pass computes
        # two gradients, only at the position of the maximum.
        convolutions += words * count * width * 16 * (positions + 2)
    highway = words * (192 * 192 + 192 * 192 + 192 * 64)
    lstms = slots * 2 * ((64 + 64) * 4 * 128 + 128 * 64)
    softmax = slots * (negatives + 1) * 64
    work = work_of_step(architecture, words, columns, slots, negatives)
    assert work.total == 2 * (convolutions + 3 * (highway + lstms + softmax))


def test_matmul_rate_and_memory_of_this_process():
    before = machine.memory()
    block = np.ones(30_000_000)
    assert machine.memory() - before > 0.9 * block.nbytes
    assert machine.peak_memory() >= machine.memory() - block.nbytes
    assert 1e8 < machine.matmul_rate(0.01) < 1e15


def test_wikitext_is_split_after_single_periods():
    lines = [" \n", " = Title = \n", " It is . He said No. 5 . <unk> ran . \n"]
    assert list(split_wikitext(lines)) == ["It is .", "He said No. 5 .", "<UNK> ran ."]


def test_a_large_text_has_new_words_in_every_copy(tmp_path):
    source, target = tmp_path / "source.txt", tmp_path / "target.txt"
    source.write_text("the the rarity\n")
    write_large_text(source, target, 40)
    assert target.read_text() == "the the rarity\nthe the rarity1\nthe the rarity2\n"


def test_figures_that_were_not_measured_are_null():
    found = report.results({"vocabulary": {"ratio": 1.1}}, {}, [])
    assert found["vocabulary_cost_ratio"] == 1.1
    assert found["start_extra_s"] is None


def test_a_part_measured_again_leaves_the_others_with_their_machine(tmp_path):
    old = {"processor": "old", "cores_used": 2, "tensorflow": "2"}
    new = {**old, "processor": "new", "day": "2026-02-03", "product_gflops": 51.2}
    path = tmp_path / "results.json"
    assert report.earlier_parts(path) == {}
    report.write_json(report.results({"a_b": {"ratio": 1.0}, "c": {}}, old, []), path)
    parts = report.earlier_parts(path)
    assert report.table(report.results(parts, new, [])).startswith("old, 2 cores, TensorFlow 2\n")
    parts["c"] = {"machine": new}
    report.write_json(report.results(parts, new, []), path)
    assert report.earlier_parts(path) == parts
    first, second, *_ = report.table(report.results(parts, new, [])).splitlines()
    assert first == "old, 2 cores, TensorFlow 2: a b"
    assert second == "new, 2 cores, large matmul 51 GFLOP/s, TensorFlow 2, 2026-02-03: c"


def test_the_speed_page_has_the_figures_of_the_last_run(root):
    results = json.loads((root / "benchmarks" / "results.json").read_text())
    page = (root / "docs" / "speed.md").read_text()
    for line in report.table(results).splitlines():
        assert line in page
