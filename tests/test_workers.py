"""Several processes train one model: their results, how they resume, and what ends them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from children import Child, started
from keras.callbacks import LambdaCallback
from small_corpus import made_up_sentences, small_parameters

from elmolib.cli import main
from elmolib.corpus.prepare import prepare_corpus
from elmolib.errors import ParameterError
from elmolib.settings.parameters import Parameters
from elmolib.training import launch
from elmolib.training.checkpoint import Checkpoints
from elmolib.training.loop import Training
from elmolib.training.workers import Workers, answers, join

STOP = 20  # the step at which some runs stop
RUNS = {
    "muon": {"recipe": "elmolib", "learning_rate": 0.01, "dropout": 0.0},
    "muon-dropout": {"recipe": "elmolib", "learning_rate": 0.01, "dropout": 0.2},
    "adagrad": {"recipe": "bilm-tf", "learning_rate": 0.2, "dropout": 0.0},
    "adagrad-dropout": {"recipe": "bilm-tf", "learning_rate": 0.2, "dropout": 0.2},
}
for _name, _run in RUNS.items():
    _run |= {"epochs": 1, "batch_size": 7, "timestep_dropout": _run["dropout"] / 2}
OF = {1: list(RUNS), 2: list(RUNS), 3: ["muon-dropout", "adagrad"]}
"""The names of the runs that each number of workers trains."""


@contextmanager
def group(work, folder: Path, n: int, *arguments: object) -> Iterator[list[Child]]:
    """Start `work(send, index, addresses, *arguments)` in `n` processes; kill them at the end."""
    addresses = json.loads(launch.tf_configs(str(n), None)[0])["cluster"]["worker"]
    with ExitStack() as running:
        children = []
        for index in range(n):
            own = folder / f"worker-{n}-{index}"
            own.mkdir(parents=True, exist_ok=True)
            children.append(Child(work, own, index, addresses, *arguments))
            running.callback(children[-1].kill)
        yield children


def set_environment(index: int, addresses: list[str]) -> None:
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


def train_runs(send, index: int, addresses: list[str], folder: Path, steps: list[tuple]) -> None:
    """Train runs one after the other, and write what they give to files."""
    set_environment(index, addresses)
    workers = join()
    for name, run_dir, stop in steps:
        parameters = small_parameters(folder, run_dir=str(folder / run_dir), **RUNS[name])
        parameters = parameters.model_copy(update={"corpus_dir": str(folder / "corpus")})
        corpus = workers.chief_first(lambda p=parameters: prepare_corpus(p))
        training = Training(parameters, corpus, workers)
        found = {} if RUNS[name]["dropout"] else gradients(training)
        losses: list[list[float]] = []

        def record(step: int, logs: dict, training=training, losses=losses, stop=stop) -> None:
            losses.append([logs["loss_forward"], logs["loss_backward"]])
            training.bilm.stop_training |= step + 1 == stop

        training.run([LambdaCallback(on_train_batch_end=record)])
        variables = training.bilm.weights_by_name() | training.optimizer.slots
        found |= {f"final/{key}": variable.numpy() for key, variable in variables.items()}
        found |= {"step": np.array(training.step), "losses": np.array(losses)}
        np.savez(folder / f"{run_dir}-of-{len(addresses)}-{index}.npz", **found)
        send(training.step)


def gradients(training: Training) -> dict[str, np.ndarray]:
    """Return the gradients of the first step, summed over the workers."""
    workers, step = training.workers, training.training_step
    batch = training.batches[0]

    def compute(batch, state):
        found = step.gradients(batch, state)[2]
        return dict(zip(found, workers.sum(list(found.values())), strict=True))

    own = workers.rows(training.parameters.batch_size)
    state = tuple(part[:, :, own] for part in training.state)
    return {
        f"gradient/{k}": np.asarray(v) for k, v in workers.compile(compute)(batch, state).items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the files of runs by 2, 3 and 1 workers."""
    folder = tmp_path_factory.mktemp("workers")
    small_parameters(folder)  # writes the text
    begun = [("muon-dropout", f"begun-{n}", STOP) for n in (1, 2, 3)]
    for n, first in ((2, begun), (3, []), (1, [])):
        runs = [*((name, f"{name}-{n}", None) for name in OF[n]), *first]
        runs.append(("muon-dropout", f"begun-{n}", None))
        with group(train_runs, folder, n, folder, runs) as children:
            for child in children:
                child.finish()
    return folder


def arrays(folder: Path, run_dir: str, n: int, index: int = 0) -> dict[str, np.ndarray]:
    with np.load(folder / f"{run_dir}-of-{n}-{index}.npz") as file:
        return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "name"), [(n, name) for n in (2, 3) for name in OF[n]])
def test_all_workers_have_the_same_bytes(folder, n, name):
    chief, *others = (arrays(folder, f"{name}-{n}", n, i) for i in range(n))
    for other in others:
        for key in chief.keys() - {"losses"}:
            assert chief[key].tobytes() == other[key].tobytes(), key


@pytest.mark.slow
@pytest.mark.parametrize(("n", "name"), [(n, name) for n in (2, 3) for name in OF[n]])
def test_workers_give_the_numbers_of_one_process(folder, n, name):
    several, one = arrays(folder, f"{name}-{n}", n), arrays(folder, f"{name}-1", 1)
    assert len(one["losses"]) >= 50
    np.testing.assert_allclose(several["losses"], one["losses"], rtol=0, atol=1e-4)
    names = [key for key in one if key.startswith("gradient/")]
    assert bool(names) == ("dropout" not in name)
    if names:
        norm = np.sqrt(sum(np.square(one[key], dtype=np.float64).sum() for key in names))
        error = sum(np.square(several[k] - one[k], dtype=np.float64).sum() for k in names)
        assert np.sqrt(error) <= 1e-6 * norm
    if "adagrad" in name:
        for key in one:
            if key.startswith("final/"):
                np.testing.assert_allclose(several[key], one[key], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_same_number_of_workers_resumes_with_the_same_bytes(folder):
    whole = (folder / "muon-dropout-2" / "elmo.h5").read_bytes()
    assert (folder / "begun-2" / "elmo.h5").read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3])
def test_another_number_of_workers_resumes(folder, n):
    whole, resumed = arrays(folder, "muon-dropout-2", 2), arrays(folder, f"begun-{n}", n)
    assert resumed["step"] == whole["step"]
    rest = whole["losses"][-len(resumed["losses"]) :]
    assert len(whole["losses"]) - len(rest) in (STOP, STOP + 1)
    np.testing.assert_allclose(resumed["losses"], rest, rtol=0, atol=1e-4)


LOST = 75  # the exit code of a worker that has lost another one


def run_command(send, index: int, addresses: list[str], *arguments: str) -> None:
    set_environment(index, addresses)
    # If the tests were started in the background, this process was told to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(["train", "-f", "../parameters.yaml", *arguments], prog_name="elmolib")


def run_until_stopped(send, index: int, addresses: list[str]) -> None:
    """Train twice, and send the number of steps taken each time."""
    set_environment(index, addresses)
    workers = join()
    parameters = Parameters.from_yaml("../parameters.yaml")
    training = Training(
        parameters, workers.chief_first(lambda: prepare_corpus(parameters)), workers
    )
    for _ in range(2):
        training.run()
        send(training.step)


def write_long_run(folder: Path) -> None:
    parameters = small_parameters(
        folder, epochs=2000, checkpoint_steps=7, metrics_every=2000, pictures_every=2000
    )
    parameters.to_yaml(folder / "parameters.yaml")


def wait_for_checkpoint(folder: Path, step: int, seconds: float = 240.0) -> None:
    """Wait until a run has written the checkpoint of this step, or of a later step."""
    ends_at, checkpoints = time.monotonic() + seconds, folder / "run" / "checkpoints"
    while not any(int(path.stem[5:]) >= step for path in checkpoints.glob("step-*.h5")):
        assert time.monotonic() < ends_at, f"no checkpoint in {checkpoints}"
        time.sleep(0.1)


def exit_code(child: Child, seconds: float = 60.0) -> int | None:
    began = time.monotonic()
    code = child.wait(seconds)
    print(f"exit code {code} after {time.monotonic() - began:.1f} s: {child.errors.read_text()}")
    return code


@pytest.mark.slow
@pytest.mark.parametrize(("number", "victim"), [("SIGKILL", 0), ("SIGSTOP", 1)])
def test_when_a_worker_is_lost_the_other_ends_with_a_sentence(tmp_path, number, victim):
    write_long_run(tmp_path)
    with group(run_command, tmp_path, 2) as children:
        wait_for_checkpoint(tmp_path, 7)
        children[victim].send_signal(signal.Signals[number])
        other = children[1 - victim]
        assert exit_code(other) == LOST
        assert other.errors.read_text().startswith(f"Error: Training lost worker {victim} (")
        assert other.errors.read_text().count("\n") == 1
    with warnings.catch_warnings(action="error"):
        assert Checkpoints(tmp_path / "run", 2).read_latest().metadata.step >= 7


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_all_after_the_same_step(tmp_path):
    write_long_run(tmp_path)
    with group(run_until_stopped, tmp_path, 2) as children:
        step = 7
        for number, receiver in ((signal.SIGTERM, 1), (signal.SIGINT, 0)):
            wait_for_checkpoint(tmp_path, step)
            children[receiver].send_signal(number)
            steps = [child.receive() for child in children]
            saved = Checkpoints(tmp_path / "run", 2).read_latest().metadata.step
            assert steps == [saved, saved] and saved > step
            step = saved + 1
        for child in children:
            child.finish()


@pytest.mark.slow
@pytest.mark.parametrize("missing", [0, 1])
def test_a_worker_that_does_not_start_is_named(tmp_path, missing):
    write_long_run(tmp_path)
    addresses = json.loads(launch.tf_configs("2", None)[0])["cluster"]["worker"]
    (tmp_path / "own").mkdir()
    with started(run_command, tmp_path / "own", 1 - missing, addresses, "--wait", "0.1") as child:
        assert exit_code(child) == LOST
        named = f"After 0.1 minutes, worker {missing} ({addresses[missing]}) did not start"
        assert child.errors.read_text().startswith(f"Error: {named}: start all workers again")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", -signal.SIGTERM), ("SIGINT", 130)])
def test_a_waiting_worker_ends_at_a_signal(tmp_path, number, code):
    write_long_run(tmp_path)
    addresses = json.loads(launch.tf_configs("2", None)[0])["cluster"]["worker"]
    (tmp_path / "own").mkdir()
    with started(run_command, tmp_path / "own", 0, addresses) as child:
        while not answers(addresses[0]):
            time.sleep(0.1)
        time.sleep(1.0)
        child.send_signal(signal.Signals[number])
        assert exit_code(child, 20.0) == code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (("learning_rate", "0.1"), "learning_rate"),
        (("max_steps", "30"), "last step"),
        (("text", "other.txt"), "held-out text, last step, training text, vocabulary"),
    ],
)
def test_workers_with_other_parameters_or_text_are_refused(tmp_path, change, differing):
    write_long_run(tmp_path)
    with group(run_other, tmp_path, 2, change) as children:
        for child in children:
            assert exit_code(child) == 1
            error = child.errors.read_text()
            assert error.startswith(f"Error: {differing}: worker 0 (127.0.0.1:")
            assert ") differ, so give all workers the same parameters and text." in error
    assert not (tmp_path / "run" / "checkpoints").exists()


def run_other(send, index: int, addresses: list[str], change: tuple[str, str]) -> None:
    """Run the command, with another parameter in worker 1."""
    Path("other.txt").write_text("\n".join(made_up_sentences(150, 1)), encoding="utf-8")
    run_command(send, index, addresses, *(("-p", *change) if index == 1 else ()))


@pytest.mark.slow
def test_local_workers_are_started_again_after_a_kill(folder, tmp_path):
    parameters = small_parameters(tmp_path, **RUNS["muon-dropout"])
    parameters.to_yaml(tmp_path / "parameters.yaml")
    command = [sys.executable, "-c", launch._RUN, "train", "-f", "parameters.yaml"]
    with subprocess.Popen(
        [*command, "--workers", "2", "--restarts", "1"],
        cwd=tmp_path,
        start_new_session=True,
        stderr=(tmp_path / "errors.txt").open("wb"),
    ) as parent:
        try:
            wait_for_checkpoint(tmp_path, 0)
            listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text()
            os.kill(int(listed.split()[1]), signal.SIGKILL)
            assert parent.wait(240) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
    assert "Error: Training lost worker 1 (127.0.0.1:" in (tmp_path / "errors.txt").read_text()
    wanted = (folder / "muon-dropout-2" / "elmo.h5").read_bytes()
    assert (tmp_path / "run" / "elmo.h5").read_bytes() == wanted


def test_each_row_of_a_batch_belongs_to_one_worker():
    for n, size in ((1, 5), (3, 7), (8, 8)):
        slices = [Workers(["a:1"] * n, i).rows(size) for i in range(n)]
        assert [row for s in slices for row in range(size)[s]] == list(range(size))
    with pytest.raises(ParameterError, match="batch_size is 2, but there are 3 workers"):
        Workers(["a:1"] * 3, 1).rows(2)


@pytest.mark.parametrize(
    ("workers", "index", "message"),
    [
        ("two", None, "--workers is 'two': give a number of processes, or addresses"),
        ("0", None, "--workers is '0': give a number"),
        ("a:1,b", 0, "--workers is 'a:1,b': give a number"),
        ("a:1,b:2", None, "--index is None: give a number from 0 to 1"),
        ("a:1,b:2", 2, "--index is 2: give a number from 0 to 1"),
        ("2", 1, "--index is for addresses"),
    ],
)
def test_a_wrong_option_is_one_sentence(workers, index, message):
    with pytest.raises(ParameterError, match=message):
        launch.tf_configs(workers, index)


@pytest.mark.parametrize(
    "text",
    [
        "workers",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "evaluator", "index": 0}}',
    ],
)
def test_an_unusable_tf_config_is_one_sentence(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ParameterError, match="TF_CONFIG is .*: it must list the addresses"):
        join()


@pytest.mark.parametrize("text", ["", "{}", '{"cluster": {"worker": ["a:1"]}}'])
def test_without_other_workers_none_are_awaited(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    assert join().is_alone
