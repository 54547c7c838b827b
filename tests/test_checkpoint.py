"""Damage in the latest checkpoint is detected, and an earlier checkpoint is always usable."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
from small_corpus import made_up_sentences, small_parameters
from small_disk import limited_files

from elmolib.corpus.prepare import prepare_corpus
from elmolib.errors import CorpusError, ElmolibError, TrainingError, WeightsError
from elmolib.files import exclusive_lock
from elmolib.formats import hdf5
from elmolib.live.reports import DetailedMetrics
from elmolib.training.checkpoint import (
    CheckpointMetadata,
    Checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from elmolib.training.loop import Training

ARRAYS = {
    "weights/CNN/b_cnn_0": np.arange(6, dtype=np.float32),
    "state/c": np.zeros((2, 1, 0, 3), np.float32),
    "epoch_losses": np.array([1.5, math.pi]),
}


def metadata(step: int) -> CheckpointMetadata:
    line = {"epoch": 1.0, "heldout_mean": 12.25}
    return CheckpointMetadata(
        identity={"filters": [[1, 2]], "learning_rate": 0.1, "romanian_commas": False},
        step=step,
        epoch_steps=3,
        epoch_seconds=0.25,
        history=[line],
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "step-000000007.h5"
    write_checkpoint(path, ARRAYS, metadata(7))
    return path


def test_a_checkpoint_is_read_as_written(path: Path) -> None:
    read = read_checkpoint(path)
    assert read.metadata == metadata(7)
    assert read.arrays.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        assert read.arrays[name].dtype == values.dtype
        assert read.arrays[name].tobytes() == values.tobytes()


def test_every_changed_byte_is_detected(path: Path) -> None:
    whole = path.read_bytes()
    with h5py.File(path) as file:
        places = [
            dataset.id.get_offset() + i
            for dataset in (file[name] for name in [*ARRAYS, "metadata", "sha256"])
            for i in range(dataset.nbytes)
        ]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(WeightsError, match=r"step-000000007\.h5"):
            read_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_checkpoint_is_detected(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(WeightsError, match="damaged"):
        read_checkpoint(path)


def rewritten(path: Path, **changes: object) -> None:
    """Change a checkpoint's metadata to values that no run writes, and correct the checksum."""
    with h5py.File(path) as file:
        written = json.loads(file["metadata"][()].tobytes())
    written["metadata"] |= changes

    class Forged(CheckpointMetadata):
        def model_dump(self, **_: object) -> dict:
            return written["metadata"]

    write_checkpoint(path, ARRAYS, Forged(**metadata(7).model_dump()))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"step": -1}, "step"),
        ({"step": "7"}, "step"),
        ({"history": [{"epoch": "one"}]}, "history"),
        ({"identity": None}, "identity"),
        ({"more": 1}, "more"),
    ],
)
def test_invalid_metadata_is_refused(path: Path, changes: dict, named: str) -> None:
    rewritten(path, **changes)
    with pytest.raises(WeightsError, match=rf"damaged: {named}.* is missing or invalid"):
        read_checkpoint(path)


def test_links_to_other_files_are_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["epoch_losses"]
        file["epoch_losses"] = h5py.ExternalLink("other.h5", "x")
    with pytest.raises(WeightsError, match="epoch_losses is a link, not data"):
        read_checkpoint(path)


def test_the_latest_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    assert checkpoints.read_latest() is None
    for step in (5, 90, 1000, 10**10):
        written = checkpoints.write(ARRAYS, metadata(step))
        assert checkpoints.latest() == written
        assert checkpoints.read_latest().metadata.step == step
    assert [path.name for path in checkpoints.paths()] == [
        "step-000001000.h5",
        "step-10000000000.h5",
    ]


def test_other_files_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    mine = tmp_path / "checkpoints" / "step-best.h5"
    mine.write_text("mine")
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in (1, 2):
        checkpoints.write(ARRAYS, metadata(step))
    assert sorted(mine.parent.iterdir()) == [mine.with_name("step-000000002.h5"), mine]


def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    first, second, third = (checkpoints.write(ARRAYS, metadata(step)) for step in (1, 2, 3))
    second.write_bytes(second.read_bytes()[:-1000])
    third.write_bytes(b"")
    with pytest.warns(UserWarning, match=rf"{third}.*{second}.* resuming from {first.name}"):
        assert checkpoints.read_latest().path == first
    # Damaged checkpoints remain until a valid one is written. They do not count for `keep`.
    assert checkpoints.paths() == [first, second, third]
    new = checkpoints.write(ARRAYS, metadata(2))
    assert checkpoints.paths() == [first, new]


def test_training_does_not_restart_if_all_checkpoints_are_damaged(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        checkpoints.write(ARRAYS, metadata(step)).write_bytes(b"nothing")
    before = {path: path.read_bytes() for path in checkpoints.paths()}
    with pytest.raises(TrainingError, match=r"step-000000002\.h5 is damaged.* delete the folder"):
        checkpoints.read_latest()
    assert {path: path.read_bytes() for path in checkpoints.paths()} == before


@pytest.mark.parametrize("limit", [0, 2_000, 5_000, 9_000])
def test_a_full_disk_destroys_no_checkpoint(tmp_path: Path, limit: int) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    good = checkpoints.write(ARRAYS, metadata(1))
    before = good.read_bytes()
    larger = {**ARRAYS, "weights/W": np.ones(1000, np.float32)}
    with limited_files(limit), pytest.raises(OSError) as caught:
        checkpoints.write(larger, metadata(2))
    assert caught.value.errno == errno.EFBIG
    assert list(checkpoints.folder.iterdir()) == [good]
    assert good.read_bytes() == before
    assert checkpoints.write(larger, metadata(2)) == checkpoints.latest()


# --- In a run


class At(keras.callbacks.Callback):
    """Callback that calls a function after a step."""

    def __init__(self, step: int, act) -> None:
        super().__init__()
        self.step, self.act = step, act

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.step:
            self.act()


class Stop(BaseException):
    """An exception that stands for a kill, because no handler catches it."""


def stop() -> None:
    raise Stop


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


RECIPES = {"bilm-tf": {}, "elmolib": {"recipe": "elmolib", "learning_rate": 0.02}}


@pytest.fixture(scope="module", params=["bilm-tf"])
def recipe(request) -> str:
    return request.param


both_recipes = pytest.mark.parametrize("recipe", list(RECIPES), indirect=True)


@pytest.fixture
def make(folder, tmp_path, recipe):
    """Create the run of this test; all runs share one corpus."""

    def make(**changes) -> Training:
        run = {"run_dir": str(tmp_path / "run"), "corpus_dir": str(folder / "corpus")}
        run |= {"max_steps": 30, "heldout_fraction": None, **RECIPES[recipe]}
        parameters = small_parameters(folder, **{**run, **changes})
        return Training(parameters, prepare_corpus(parameters))

    return make


@pytest.fixture(scope="module")
def weights(folder, recipe) -> bytes:
    """Return the content of the weight file of an uninterrupted run."""
    run = {"run_dir": str(folder / recipe), "corpus_dir": str(folder / "corpus")}
    run |= {"max_steps": 30, "heldout_fraction": None, **RECIPES[recipe]}
    parameters = small_parameters(folder, **run)
    return content(Training(parameters, prepare_corpus(parameters)).run())


def content(weights: Path) -> bytes:
    """Return a weight file's content without the parameters, such as `checkpoint_steps`."""
    parts = []

    def collect(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset) and name != "record":
            parts.append(name.encode() + node[()].tobytes())

    with h5py.File(weights) as file:
        file.visititems(collect)
        record = json.loads(file["record"][()].tobytes())
    del record["parameters"]
    return b"".join(parts) + json.dumps(record).encode()


def steps_of(training: Training) -> list[int]:
    return [int(path.stem.split("-")[1]) for path in training.checkpoints.paths()]


def test_checkpoints_every_few_steps(make):
    training = make(checkpoint_steps=4, keep_checkpoints=3)
    with pytest.raises(Stop):
        training.run([At(14, stop)])
    assert steps_of(training) == [4, 8, 12]
    assert make(checkpoint_steps=7).step == 12


@pytest.mark.slow
def test_checkpoints_every_few_minutes(make):
    training = make(checkpoint_minutes=1e-9, keep_checkpoints=100)
    with pytest.raises(Stop):
        training.run([At(4, stop)])
    assert steps_of(training) == [0, 1, 2, 3, 4]
    unhurried = make(run_dir=f"{training.folder}-2", checkpoint_minutes=None)
    with pytest.raises(Stop):
        unhurried.run([At(14, stop)])
    assert steps_of(unhurried) == [0]


@both_recipes
@pytest.mark.parametrize("again", ["the same object", "another object"])
def test_an_aborted_step_changes_nothing(make, weights, monkeypatch, again):
    training = make(checkpoint_steps=5)

    def broken_off(batch, state, step, wishes):
        result = take_step(batch, state, step, wishes)
        if step == 12:
            raise Stop
        return result

    take_step = training.training_step
    monkeypatch.setattr(training, "training_step", broken_off)
    with pytest.raises(Stop):
        training.run()
    monkeypatch.undo()
    if again == "another object":
        training = make(checkpoint_steps=5)
    assert content(training.run()) == weights


@both_recipes
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(make, weights):
    training = make(checkpoint_steps=5)
    with pytest.raises(Stop):
        training.run([At(18, stop)])
    training.checkpoints.latest().write_bytes(b"damage")
    with pytest.warns(UserWarning, match=r"step-000000015\.h5 is damaged.*from step-000000010\.h5"):
        training = make(checkpoint_steps=5)
    assert training.step == 10
    assert content(training.run()) == weights
    assert steps_of(training) == [25, 30]


def test_partial_files_are_removed(make):
    training = make(max_steps=2)
    training.run()
    for place in (training.folder, training.checkpoints.latest().parent):
        (place / ".elmo.h5.abc.part").write_text("half")
    make(max_steps=3).run()
    assert not list(training.folder.rglob("*.part"))


def test_a_damaged_history_is_restored(make):
    training = make(max_steps=2)
    training.run()
    whole = training.history_path.read_bytes()
    training.history_path.write_text("epoch,step\n1,2\n1,2\n")
    make(max_steps=2).run()
    assert training.history_path.read_bytes() == whole


def test_a_missing_last_report_is_written(make, tmp_path):
    training = make(max_steps=2)
    callback = DetailedMetrics.of(training.corpus, training.parameters)
    training.run()
    assert not (tmp_path / "run" / "reports").exists()
    make(max_steps=2).run([callback])
    assert (tmp_path / "run" / "reports" / "epoch_001" / "heatmap.png").exists()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("nan", r"losses nan forward and nan backward, gradient norm nan, learning_rate 0\.5"),
        ("inf", r"weights/softmax/b holds .* not finite, gradient norm \d\S+, learning_rate 0\.5"),
    ],
)
def test_divergence_is_reported_and_never_saved(make, damage, what):
    training = make(checkpoint_steps=4)
    bias = training.bilm.softmax_b

    def spoil():
        bias.assign(np.full(bias.shape, float(damage), np.float32))

    with pytest.raises(TrainingError) as caught:
        training.run([At(9 if damage == "nan" else 11, spoil)])
    message = str(caught.value)
    assert caught.match(rf"diverged at step {10 if damage == 'nan' else 12}: {what}")
    assert message.endswith(f"the last good checkpoint is {training.checkpoints.latest()}.")
    assert steps_of(training) == [4, 8]
    assert not training.weights_path.exists()
    # The same object can run again: although its weights are not finite now, it resumes from the
    # last good checkpoint.
    training.run()
    assert training.step == 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"learning_rate": 1e4}, r"step 65: train_forward is inf"),
        (
            {"learning_rate": 100.0, "heldout_fraction": 0.1, "heldout_seed": 0},
            r"step 60: heldout_\w+ is inf",
        ),
    ],
)
def test_an_infinite_perplexity_is_divergence(tmp_path, changes, what):
    """The losses are finite, but their exponentials, the perplexities, overflow."""
    parameters = small_parameters(tmp_path, **{"heldout_fraction": None, **changes})
    for _ in range(2):
        training = Training(parameters, prepare_corpus(parameters))
        with pytest.raises(TrainingError, match=rf"diverged at {what}, gradient norm \d") as caught:
            training.run()
        assert str(caught.value).endswith(
            f"last good checkpoint is {training.checkpoints.latest()}."
        )
        assert steps_of(training) == [0]
        assert not training.weights_path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["state", "history", "weights", "report"])
def test_a_full_disk_stops_the_run_with_one_sentence(make, monkeypatch, weights, place):
    training = make(checkpoint_steps=5)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    full_hdf5 = SimpleNamespace(**{**vars(hdf5), "create_hdf5": full})
    targets = {
        "state": ("elmolib.training.checkpoint.write_checkpoint", full),
        "history": ("pandas.DataFrame.to_csv", full),
        "weights": ("elmolib.formats.weights.hdf5", full_hdf5),
        "report": ("elmolib.plots.figure.atomic_write", full),
    }
    report = DetailedMetrics.of(training.corpus, training.parameters)
    fill = At(7, lambda: monkeypatch.setattr(*targets[place]))
    with pytest.raises(ElmolibError, match=r"No space left on device") as caught:
        training.run([fill, report])
    assert "\n" not in str(caught.value)
    if place == "state":
        assert f"the last good checkpoint is {training.checkpoints.latest()}." in str(caught.value)
        assert steps_of(training) == [0, 5]
    monkeypatch.undo()
    assert content(make(checkpoint_steps=5).run()) == weights


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [14, 32, 36, 42])
def test_early_stopping_is_the_same_after_a_resume(make, stop_at):
    """Epochs have 11 steps, and only the first epoch counts as an improvement."""

    def train(name: str, *callbacks: keras.callbacks.Callback) -> Training:
        training = make(run_dir=name, max_steps=None, epochs=9, batch_size=36, checkpoint_steps=4)
        assert training.steps_per_epoch == 11
        patient = keras.callbacks.EarlyStopping("train_forward", 1e9, 3, mode="min")
        training.run([patient, *callbacks])
        return training

    folder = make().folder
    whole = train(f"{folder}-whole")
    assert whole.step == 44
    with pytest.raises(Stop):
        train(f"{folder}-stopped", At(stop_at, stop))
    again = train(f"{folder}-stopped")
    assert again.step == 44
    assert content(again.weights_path) == content(whole.weights_path)
    # Starting a finished run again changes nothing.
    before = again.weights_path.read_bytes()
    assert train(f"{folder}-stopped").weights_path.read_bytes() == before


def test_restore_best_weights_is_refused(make):
    best = keras.callbacks.EarlyStopping("heldout_mean", restore_best_weights=True)
    with pytest.raises(TrainingError, match="restore_best_weights here, .* set it to False"):
        make().run([best])


# --- What may change on resume


def test_a_run_with_another_checkpoint_format_is_refused(make, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("elmolib.training.checkpoint.FORMAT", 3)
        make(max_steps=2).run()
    with pytest.raises(
        TrainingError, match=r"has checkpoint format 3, .* reads format 2: .*delete"
    ):
        make()


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 7},
        {"max_steps": None},
        {"checkpoint_minutes": 3.0, "checkpoint_steps": 9, "keep_checkpoints": 5},
        {"metrics_every": 3, "pictures_every": 3, "sentence": "a boat .", "progress": "line"},
    ],
)
def test_intervals_and_number_of_steps_may_change(make, changes):
    make(max_steps=2).run()
    assert make(**changes).step == 2


def test_another_text_of_the_same_size_is_refused(make, tmp_path):
    make(max_steps=2).run()
    other = tmp_path / "other"
    other.mkdir()
    lines = made_up_sentences(150)
    random.Random(0).shuffle(lines)
    (other / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="differs in training text: choose another"):
        run = {"run_dir": str(tmp_path / "run"), "heldout_fraction": None}
        parameters = small_parameters(other, **run, max_steps=2)
        Training(parameters, prepare_corpus(parameters))


def test_a_run_keeps_its_own_corpus(tmp_path):
    parameters = small_parameters(tmp_path, max_steps=2)
    Training(parameters, prepare_corpus(parameters)).run()
    text = tmp_path / "text.txt"
    before = text.read_text(encoding="utf-8")
    text.write_text(before + "one more .\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=rf"{tmp_path}/run holds a run.* another {text}:"):
        prepare_corpus(parameters)
    with pytest.raises(CorpusError, match="another errors and another min_count and another /"):
        prepare_corpus(small_parameters(tmp_path, min_count=3, errors="replace"))
    text.write_text(before, encoding="utf-8")
    Training(parameters, prepare_corpus(parameters)).run()


# --- One process at a time


HOLD = """
import sys
from pathlib import Path
from types import SimpleNamespace
from elmolib.errors import TrainingError
from elmolib.files import exclusive_lock
from elmolib.formats import hdf5

folder = Path(sys.argv[1])
with exclusive_lock(folder, folder / sys.argv[2], TrainingError):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Start processes that hold a lock until their input ends."""
    started = []

    def hold(folder: Path, lock: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), lock],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_run_is_refused_until_the_first_ends(make, holder):
    training = make(max_steps=2)
    first = holder(training.folder, ".lock")
    wanted = rf"{training.folder} is in use by process {first.pid} on {socket.gethostname()}:"
    with pytest.raises(TrainingError, match=wanted):
        training.run()
    assert training.checkpoints.latest() is None
    first.kill()
    first.communicate()
    assert (training.folder / ".lock").exists()
    training.run()
    assert not (training.folder / ".lock").exists()


def test_a_second_preparation_is_refused(tmp_path, holder):
    parameters = small_parameters(tmp_path)
    first = holder(tmp_path / "run", ".corpus.lock")
    with pytest.raises(CorpusError, match=rf"corpus is in use by process {first.pid} on "):
        prepare_corpus(parameters)
    first.communicate(b"")
    prepare_corpus(parameters)
    # Any number of processes can use a finished corpus.
    holder(tmp_path / "run", ".corpus.lock")
    prepare_corpus(parameters)


@pytest.mark.slow
def test_a_run_resumes_where_another_process_stopped(make, weights):
    behind, ahead = make(), make()
    ahead.run([At(19, lambda: setattr(ahead.bilm, "stop_training", True))])
    record = []
    behind.run([At(20, lambda: record.append(behind.step))])
    assert record == [21]
    assert content(behind.weights_path) == weights


def test_a_lock_that_is_released_between_is_taken(tmp_path):
    lock = tmp_path / ".lock"
    with (
        exclusive_lock(tmp_path, lock, TrainingError),
        pytest.raises(TrainingError, match=f"in use by process {os.getpid()} on "),
        exclusive_lock(tmp_path, lock, TrainingError),
    ):
        pass
    with exclusive_lock(tmp_path, lock, TrainingError):
        assert lock.read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    assert not lock.exists()


@pytest.mark.parametrize("left", ["1 {host}", "1 elsewhere", "", "\0\n\n"])
def test_a_lock_file_that_nobody_holds_stops_nobody(tmp_path, left):
    """The process named in the file may be dead, and another process may have its id now."""
    lock = tmp_path / ".lock"
    lock.write_text(left.format(host=socket.gethostname()))
    with exclusive_lock(tmp_path, lock, TrainingError):
        assert lock.read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    assert not lock.exists()


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", none)
    with (
        pytest.warns(UserWarning, match=r"cannot be locked.*\(No locks available\)"),
        exclusive_lock(tmp_path, tmp_path / ".lock", TrainingError),
    ):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.undo()
        with exclusive_lock(tmp_path, tmp_path / ".lock", TrainingError):
            pass
