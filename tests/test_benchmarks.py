"""The benchmark measures what it says, and refuses to where programs compute different things."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import agreement, machine, report
from benchmarks.models import MODELS, random_weights
from benchmarks.preparation import write_large_text
from benchmarks.setting import Setting
from benchmarks.texts import split_wikitext
from benchmarks.training import bilm_options, check_step, step_of_ours
from benchmarks.work import work_of_step
from elmolib.bilm import BiLM
from elmolib.embedding import SentenceEncoder

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
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--output", folder, *arguments],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads((folder / "results.json").read_text()), finished.stdout


@pytest.mark.slow
def test_one_part_is_measured_and_what_was_not_is_null(tmp_path, root):
    results, printed = run(tmp_path, root, "--only", "train_tiny")
    assert results.keys() >= REQUIRED
    assert results["parts"]["train_tiny"]["programs"]["elmolib"]["tokens_per_second"] > 0
    assert results["predict_small_ratio"] is None
    assert (results["train_tiny_ratio"] is None) == bool(results["peers_missing"])
    assert "train tiny" in printed
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.peers
def test_everything_is_measured(tmp_path, root):
    results, _ = run(tmp_path, root)
    unmeasured = {key for key in REQUIRED if results[key] is None}
    assert unmeasured <= {"train_small_bfloat16_ratio"}
    assert (tmp_path / "growth.png").exists()


@pytest.mark.slow
@pytest.mark.peers
def test_a_step_that_differs_from_bilm_tf_is_refused(tmp_path):
    setting = Setting(tmp_path, data=None, quick=True)
    folder = setting.folder("step")
    theirs = {
        "options": bilm_options(setting, "tiny"),
        "vocabulary": str(setting.vocabulary),
        "text": str(setting.text),
        "folder": str(folder),
    }
    assert check_step(folder, theirs) <= agreement.UPDATE_TOLERANCE

    with np.load(folder / "theirs.npz") as file:
        step = dict(file)
    name = "before/RNN_1/RNN/MultiRNNCell/Cell1/LSTMCell/W_0"
    perturbed = folder / "perturbed.npz"
    np.savez(perturbed, **(step | {name: step[name] * np.float32(1.01)}))
    ours = folder / "ours of other weights.npz"
    step_of_ours(theirs["options"], str(perturbed), str(ours), folder)
    with np.load(ours) as file, pytest.raises(agreement.Disagreement):
        agreement.require_same_step(step, dict(file))


def test_vectors_of_other_weights_are_refused(tmp_path):
    options = MODELS["tiny"]
    arrays = random_weights(options)
    for name, factor in (("same", 1.0), ("other", 1.001)):
        arrays["CNN_proj/W_proj"] *= np.float32(factor)
        encoder = SentenceEncoder(BiLM.from_arrays(options, arrays))
        np.savez(tmp_path / name, *encoder.encode([["a", "river"], ["bank"]]))
    same, other = tmp_path / "same.npz", tmp_path / "other.npz"
    assert agreement.require_same_vectors(same, same, "itself") == 0.0
    with pytest.raises(agreement.Disagreement):
        agreement.require_same_vectors(same, other, "another")


def test_vectors_that_are_no_numbers_are_refused(tmp_path):
    np.savez(tmp_path / "a", np.array([np.nan]))
    with pytest.raises(agreement.Disagreement):
        agreement.require_same_vectors(tmp_path / "a.npz", tmp_path / "a.npz", "another")


def test_work_is_that_of_a_plain_count():
    """Every multiplication of the tiny model, one word and one slot at a time."""
    options = MODELS["tiny"]
    words, columns, slots, negatives = 3, 12, 5, 7
    convolutions = 0
    for width, count in options.filters:
        positions = columns - width + 1
        # Forward at every position; back to the weights and to the characters at one.
        convolutions += words * count * width * 16 * (positions + 2)
    highway = words * (192 * 192 + 192 * 192 + 192 * 64)
    lstms = slots * 2 * ((64 + 64) * 4 * 128 + 128 * 64)
    softmax = slots * (negatives + 1) * 64
    work = work_of_step(options, words, columns, slots, negatives)
    assert work.total == 2 * (convolutions + 3 * (highway + lstms + softmax))


def test_product_rate_and_memory_are_those_of_this_process():
    before = machine.memory()
    block = np.ones(30_000_000)
    assert machine.memory() - before > 0.9 * block.nbytes
    assert machine.peak_memory() >= machine.memory() - block.nbytes
    assert 1e8 < machine.product_rate(0.01) < 1e15


def test_wikitext_is_cut_after_lone_periods():
    lines = [" \n", " = Title = \n", " It is . He said No. 5 . <unk> ran . \n"]
    assert list(split_wikitext(lines)) == ["It is .", "He said No. 5 .", "<UNK> ran ."]


def test_large_text_has_new_words_in_every_copy(tmp_path):
    source, target = tmp_path / "source.txt", tmp_path / "target.txt"
    source.write_text("the the rarity\n")
    write_large_text(source, target, 40)
    assert target.read_text() == "the the rarity\nthe the rarity1\nthe the rarity2\n"


def test_figures_that_were_not_measured_are_null():
    found = report.results({"vocabulary": {"ratio": 1.1}}, {}, [])
    assert found["vocabulary_cost_ratio"] == 1.1
    assert found["start_extra_s"] is None


def test_what_is_measured_again_leaves_the_rest_with_its_machine(tmp_path):
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
    in_new = "2 cores, 51 GFLOP/s in a large product, TensorFlow 2, on 2026-02-03"
    assert second == f"new, {in_new}: c"


def test_the_readme_shows_the_figures_of_the_last_run(root):
    results = json.loads((root / "benchmarks" / "results.json").read_text())
    readme = (root / "README.md").read_text()
    for line in report.table(results).splitlines():
        assert line in readme
