"""The command line, compared with the same work in Python, and its answers to mistakes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import venv
import warnings
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from click.testing import CliRunner, Result
from small_corpus import made_up_sentences, small_parameters

import elmolib
from elmolib import cli
from elmolib.corpus.prepared import PreparedCorpus
from elmolib.embedding.vector_file import EmbeddedCorpus
from elmolib.formats.readers import read_model
from elmolib.formats.weights import write_published
from elmolib.live import terminal, watch
from elmolib.live.progress import Progress
from elmolib.settings.parameters import Parameters
from elmolib.text.characters import PREDICTION_SHIFT, character_ids
from elmolib.training import advice

READING = (
    "prepare",
    "train",
    "watch",
    "evaluate",
    "embed",
    "predict",
    "heatmap",
    "convert",
    "info",
)
LARGE = {"tensorflow", "keras", "pandas", "matplotlib"}
CALL = "import sys; from elmolib.cli import main; main(prog_name='elmolib')"
SENTENCE = "the river bank was steep ."


@pytest.fixture(autouse=True)
def quiet():
    """Leave the logger of the package as it was."""
    logger = logging.getLogger("elmolib")
    before = list(logger.handlers), logger.level
    yield
    logger.handlers[:], logger.level = before


def run(*arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(cli.main, [*map(str, arguments)], prog_name="elmolib")
    assert done.exit_code == code, (done.output, done.exception)
    return done


def found(*arguments: object, code: int = 0):
    return json.loads(run(*arguments, "--json", code=code).stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a text and a parameter file for a run that takes a second."""
    folder = tmp_path_factory.mktemp("run")
    values = small_parameters(folder, progress="line").to_json()
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    (folder / "test.txt").write_text("\n".join(made_up_sentences(40, seed=5)) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    done = CliRunner().invoke(cli.main, ["train", "-f", str(folder / "small.yaml")])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "epoch 2/2 | held-out perplexity" in done.stdout
    assert done.stdout.endswith(f"The model is in {folder / 'run/elmo.h5'}.\n")
    assert "\r" not in done.output  # no bar, because this is not a terminal
    return folder / "run" / "elmo.h5"


@pytest.fixture
def settings_of(monkeypatch):
    """Return the parameters that a command gets."""

    def settings_of(*arguments: object) -> Parameters:
        seen = []
        command = cli.main.commands["prepare"]
        monkeypatch.setattr(command, "callback", lambda given: (seen.append(given.settings), ""))
        run("prepare", *arguments)
        return seen[0]

    return settings_of


# --- Parameters and mistakes


@pytest.mark.parametrize("name", READING)
def test_help_shows_an_example_and_the_letters_of_papermill(name):
    text = run(name, "--help").output
    assert re.search(rf"Example:\n    elmolib {name} ", text)
    assert {"-f", "-p", "--json"} <= set(re.findall(r"(?<!\S)-+\w+", text))


def test_every_command_is_there():
    assert set(cli.main.commands) == {*READING, "notebooks"}
    assert elmolib.__version__ in run("--version").output


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("run_dir", "007", "007"),
        ("run_dir", "true", "true"),
        ("text", "null", "null"),
        ("sentence", "null", "null"),
        ("pretrained", "null", None),
        ("vocabulary_size", "null", None),
        ("learning_rate", "1e-2", 0.01),
        ("epochs", "3", 3),
        ("shuffle", "false", False),
        ("tokenized", "tabs", "tabs"),
        ("text", '["a.txt", "b.txt"]', ("a.txt", "b.txt")),
        ("text", "[ab].txt", "[ab].txt"),
        ("filters", "[[1, 4], [2, 8]]", ((1, 4), (2, 8))),
    ],
)
def test_a_value_is_read_by_the_type_of_its_key(folder, settings_of, key, text, value):
    assert getattr(settings_of("-f", folder / "small.yaml", "-p", key, text), key) == value


def test_a_parameter_file_has_a_name_and_the_last_value_counts(settings_of):
    settings = settings_of("-f", "tiny", "-p", "epochs", 3, "-p", "epochs", 4)
    assert settings == Parameters.from_yaml("tiny", epochs=4)


USAGE = [
    (["train", "-f", "tiny", "-p", "epoch", "3"], "the nearest known one is 'epochs'"),
    (["train", "-f", "tiny", "-p", "epochs", "many"], "epochs must be a whole number"),
    (["train", "-f", "tiny", "-p", "path", "x"], "unknown parameter 'path'"),
    (["train", "-p", "run_dir", "x"], "the key text is missing"),
    (["train", "-f", "nothing.yaml"], "nothing.yaml cannot be read"),
    (["train"], "no parameters are given"),
    (["predict"], "no model is given"),
    (["predict", "en-tiny"], "SENTENCE is missing"),
    (["embed", "en-tiny", "a.txt"], "OUT is missing"),
    (["info", "en-tiny", "en-tiny"], "one argument too many"),
    (["convert", "en-tiny", "a.txt"], "must end in .onnx, .h5 or .hdf5"),
    (["train", "--nothing"], "No such option"),
]
MISSING = [
    (["train", "-f", "tiny", "-p", "text", "nothing.txt"], "There is no file"),
    (["prepare", "-f", "tiny", "-p", "pretrained", "nothing.h5"], "There is no model"),
    (["evaluate", "-f", "tiny", "-p", "run_dir", "nothing"], "nothing/elmo.h5"),
    (["evaluate", "en-tiny", "nothing.txt"], "There is no file"),
    (["embed", "en-tiny", "nothing.txt", "out.h5"], "There is no file"),
    (["predict", "nothing.h5", "words"], "or one of en-tiny"),
    (["heatmap", "nothing", "words"], "There is no model"),
    (["watch", "nothing"], "start the training first"),
]
MODULES = f"""
import sys
sys.argv = ["elmolib"]
from elmolib.cli import main
for arguments in {[arguments for arguments, _ in USAGE + MISSING]}:
    try:
        main(arguments, prog_name="elmolib")
    except SystemExit:
        pass
print(*sys.modules)
"""


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [(*case, 2) for case in USAGE] + [(*case, 1) for case in MISSING],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    tmp_path, monkeypatch, arguments, sentence, code
):
    monkeypatch.chdir(tmp_path)
    error = run(*arguments, code=code).stderr
    assert sentence in error
    assert error.splitlines()[-1].startswith("Error: ")
    assert ("elmolib --help" if code == 2 else "Traceback") not in error


def test_mistakes_are_reported_before_large_libraries_are_loaded(tmp_path, root):
    environment = os.environ | {"PYTHONPATH": str(root)}
    command, places = [sys.executable, "-c", MODULES], {"cwd": tmp_path, "env": environment}
    done = subprocess.run(command, capture_output=True, text=True, check=True, **places)
    loaded = set(done.stdout.split())
    assert "elmolib.cli" in loaded
    assert not LARGE & loaded
    assert "numpy" not in loaded


def test_a_mistake_takes_at_most_three_times_as_long_as_importing_numpy(tmp_path, root):
    def seconds(*command: str) -> float:
        with subprocess.Popen(
            [sys.executable, *command],
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(root)},
        ) as process:
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0
        return usage.ru_utime + usage.ru_stime

    mistake = ["-c", CALL, "train", "-f", "tiny", "-p", "epoch", "3"]
    pairs = [(seconds(*mistake), seconds("-c", "import numpy")) for _ in range(5)]
    ours, numpy = map(min, zip(*pairs, strict=True))
    assert ours < 3 * numpy


@pytest.mark.parametrize(
    ("module", "extra"),
    [("tensorflow", "train"), ("keras", "train"), ("matplotlib.axes", "plots"), ("onnx", "fast")],
)
def test_a_missing_extra_is_named(monkeypatch, module, extra):
    def fail(_):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(cli.main.commands["info"], "callback", fail)
    assert f"pip install 'elmolib[{extra}]'." in run("info", "en-tiny", code=1).stderr


def test_warnings_and_interrupts_are_one_line(monkeypatch):
    def interrupted(_):
        warnings.warn("Mind this.", stacklevel=1)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.main.commands["info"], "callback", interrupted)
    lines = run("info", "en-tiny", code=130).stderr.splitlines()
    assert lines == ["Warning: Mind this.", "", lines[-1]]
    assert lines[-1] == "Interrupted: give the same command again to continue."


# --- Prepare and train


def test_prepare_says_which_settings_suit_the_text(folder, trained):
    data = found("prepare", "-f", folder / "small.yaml")
    corpus = PreparedCorpus(folder / "run" / "corpus")
    assert data["n_words"] == corpus.train.n_words == data["counts"]["words"]["train"]
    assert data["parameter_file"] == "params/tiny.yaml"
    assert 0 < data["minutes_per_epoch"] < 5
    text = run("prepare", "-f", folder / "small.yaml", "--no-timing").stdout
    assert f"suit a text of {corpus.train.n_words:,} words" in text
    assert "minutes" not in text


@pytest.mark.parametrize(
    ("n_words", "name"),
    [(400_000, "tiny"), (26_000_000, "en-tiny"), (200_000_000, "small"), (800_000_000, "full")],
)
def test_a_parameter_file_that_exists_suits_every_size(root, n_words, name):
    corpus = SimpleNamespace(train=SimpleNamespace(n_words=n_words))
    file = advice.advise(corpus, None, timing=False).parameter_file
    assert file == f"params/{name}.yaml"
    assert all((root / f"params/{each}.yaml").is_file() for each in advice.LARGEST_TEXT)


def test_preparing_without_timing_loads_no_large_library(folder, tmp_path, root):
    arguments = ["prepare", "-f", str(folder / "small.yaml"), "-p", "run_dir", str(tmp_path)]
    code = (
        "import sys; from elmolib.cli import main\n"
        "try:\n  main(prog_name='elmolib')\nexcept SystemExit as end:\n  assert not end.code\n"
        f"assert not {LARGE} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, *arguments, "--no-timing"]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(root)})


def test_ctrl_c_saves_the_run_and_the_same_command_continues_it(folder, tmp_path, monkeypatch):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                os.kill(os.getpid(), signal.SIGINT)

    usual = watch.progress_callbacks
    with monkeypatch.context() as patch:
        patch.setattr(watch, "progress_callbacks", lambda run: [*usual(run), Interrupt()])
        command = ["train", "-f", folder / "small.yaml", "-p", "run_dir", tmp_path]
        text = run(*command, code=130).stdout.splitlines()[-1]
    assert re.fullmatch(r"Stopped after 6 of \d+ steps and saved: give the same .*", text)
    data = found(*command)
    assert data["step"] == data["last_step"] > 6
    assert data["weights"] == str(tmp_path / "elmo.h5")
    assert len(data["history"]) == 2


def test_a_terminal_shows_a_bar_instead_of_lines(folder, tmp_path, monkeypatch, capsys):
    parameters = small_parameters(folder, run_dir=str(tmp_path), progress="auto")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    training = elmolib.Training(parameters, elmolib.prepare_corpus(parameters))
    training.run(watch.progress_callbacks(training))
    shown = capsys.readouterr().err
    assert "reading" in shown
    assert f"{training.last_step}/{training.last_step}" in shown


# --- Use a model


def test_evaluation_of_a_text_is_its_perplexity_and_calibration(folder, trained):
    data = found("evaluate", trained, folder / "test.txt")
    expected = elmolib.perplexity(trained, folder / "test.txt")
    for name in ("forward", "backward", "mean"):
        assert data[name] == pytest.approx(getattr(expected, name), rel=1e-5)
    assert (data["n_targets"], data["vocabulary_size"]) == (
        expected.n_targets,
        expected.vocabulary_size,
    )
    for direction in ("forward", "backward"):
        bins = data["calibration"][direction]["bins"]
        assert sum(each["predictions"] for each in bins) == expected.n_targets
        error = sum(
            each["predictions"] * abs(each["confidence"] - each["accuracy"]) for each in bins
        )
        assert data["calibration"][direction]["error"] == pytest.approx(error / expected.n_targets)
    assert "calibration error" in run("evaluate", trained, folder / "test.txt").stdout


def test_evaluation_of_a_run_is_that_of_its_heldout_text(folder, trained):
    last = (folder / "run" / "history.csv").read_text().splitlines()
    history = dict(zip(last[0].split(","), map(float, last[-1].split(",")), strict=True))
    data = found("evaluate", "-f", folder / "small.yaml")
    assert data["mean"] == pytest.approx(history["heldout_mean"], rel=1e-5)


def test_embed_writes_the_vectors_of_each_line(folder, trained, tmp_path):
    out = tmp_path / "vectors.h5"
    text = run("embed", trained, folder / "test.txt", out, "--layers", 1).stdout
    assert text.endswith(f"The vectors are in {out}.\n")
    line = (folder / "test.txt").read_text().splitlines()[7]
    with EmbeddedCorpus(out) as embedded:
        expected = elmolib.ElmoEmbedder(trained).embed(line, layers=1)
        np.testing.assert_allclose(embedded[7], expected, atol=1e-6)
    again = found("embed", "-f", folder / "small.yaml", folder / "test.txt", out, "--layers", 1)
    assert again == {"vectors": str(out), "layers": 1, "dim": 12}


def test_predict_lists_the_words_of_the_embedder(folder, trained):
    rows = found("predict", trained, SENTENCE, "-k", 2)
    expected = elmolib.ElmoEmbedder(trained).predict(SENTENCE, 2)
    assert [row["word"] for row in rows] == expected.sentence
    for place, row in enumerate(rows):
        for kind in ("forward", "backward", "substitutes"):
            words, probabilities = zip(*row[kind], strict=True)
            assert list(words) == getattr(expected, kind).words[place]
            known = getattr(expected, kind).probabilities[place]
            np.testing.assert_allclose(probabilities, known, rtol=1e-4)
    by_run = run("predict", "-f", folder / "small.yaml", "-k", 2).stdout
    assert by_run == run("predict", trained, SENTENCE, "-k", 2).stdout
    assert by_run.startswith("the\n  forward ")


def test_heatmap_draws_a_picture(trained, tmp_path):
    out = tmp_path / "bank.png"
    run("heatmap", trained, SENTENCE, "the bank was deep .", "--layer", 0, "-o", out)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "must end in .png or .svg" in run("heatmap", trained, "a", "-o", "b", code=1).stderr


def test_an_onnx_file_embeds_from_ids_alone(trained, tmp_path):
    out = tmp_path / "model.onnx"
    assert found("convert", trained, out) == {"model": str(out)}
    stored = read_model(trained)
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata["tokenizer"] == stored.tokenizer.to_json()
    assert metadata["options"]["lstm"]["dim"] == stored.architecture.lstm_dim
    sentences = [SENTENCE.split(), ["the", "money"]]
    ids = np.zeros((2, 6, stored.architecture.max_characters), np.int64)
    for row, words in enumerate(sentences):
        shifted = character_ids(words, stored.architecture.max_characters) + PREDICTION_SHIFT
        ids[row, : len(words)] = shifted
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (layers,) = session.run(None, {"characters": ids})
    embedder = elmolib.ElmoEmbedder(trained, runtime="numpy")
    for row, vectors in enumerate(embedder.embed(sentences, layers="all")):
        np.testing.assert_allclose(layers[:, row, : vectors.shape[1]], vectors, atol=1e-5)


@pytest.mark.parametrize("target", ["copy.h5", "published"])
def test_converted_weights_are_the_same(trained, tmp_path, target):
    run("convert", trained, tmp_path / target)
    before, after = read_model(trained), read_model(tmp_path / target)
    assert before.vocabulary == after.vocabulary
    assert before.arrays.keys() == after.arrays.keys()
    for name, values in before.arrays.items():
        np.testing.assert_array_equal(after.arrays[name], values)


def test_info_tells_what_a_model_is(folder, trained, tmp_path):
    data, corpus = found("info", trained), PreparedCorpus(folder / "run" / "corpus")
    assert data["sha256"] == hashlib.sha256(trained.read_bytes()).hexdigest()
    assert (data["format"], data["layers"], data["dim"]) == ("elmolib 1", 2, 12)
    assert data["vocabulary"] == len(corpus.vocabulary)
    arrays = read_model(trained, softmax=False).arrays.values()
    assert data["parameters"] == sum(values.size for values in arrays)
    assert data["record"]["parameters"]["epochs"] == 2
    assert found("info", "-f", folder / "small.yaml") == data
    write_published(tmp_path, read_model(trained))
    other = found("info", tmp_path)
    assert other["model"] == str(tmp_path / "weights.hdf5")
    assert other["vocabulary"] == data["vocabulary"]
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path)
    assert found("info", packed)["model"] == packed
    assert yaml.safe_load(run("info", "en-tiny").stdout)["dim"] == 256


# --- Watch


def write_progress(folder: Path, **changes) -> Progress:
    values = {"state": "running", "step": 24, "last_step": 50, "steps_per_epoch": 10}
    values |= {"vocabulary_size": 12, "written": time.time(), "unigram": 578.0}
    progress = Progress(**values | changes)
    (folder / "progress.json").write_text(progress.model_dump_json())
    return progress


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"state": "finished", "step": 50}, 0),
        ({"state": "stopped"}, 0),
        ({"state": "failed"}, 1),
        ({"written": 0.0}, 1),  # killed
    ],
)
def test_watch_tells_how_a_run_ended(tmp_path, changes, code):
    progress = write_progress(tmp_path, **changes)
    assert run("watch", tmp_path, code=code).stdout == f"{progress}\n"
    assert found("watch", tmp_path, code=code) == progress.model_dump()
    assert "nothing to stop" in run("watch", tmp_path, "--stop", code=1).stderr


def test_watch_stops_a_run_by_a_request(tmp_path):
    write_progress(tmp_path)
    assert found("watch", tmp_path)["step"] == 24
    assert "stops after the current step" in run("watch", tmp_path, "--stop").stdout
    assert (tmp_path / "stop").is_file()


def test_in_a_terminal_a_key_stops_the_run(tmp_path, root):
    write_progress(tmp_path)
    main, side = pty.openpty()
    command = [sys.executable, "-c", CALL, "watch", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(root), "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        command, stdin=side, stdout=side, stderr=side, env=environment
    ) as process:
        shown = read_until(main, "q: leave it running")
        os.write(main, b"s")
        shown += read_until(main, "saves everything")
        write_progress(tmp_path, state="stopped")
        shown += read_until(main, "Stopped after 24 steps, 26 left")
        assert process.wait(60) == 0
    assert (tmp_path / "stop").is_file()
    assert "48.0%" in shown
    assert "word frequencies alone: perplexity 578.0" in shown
    os.close(main)
    os.close(side)


def read_until(terminal: int, text: str) -> str:
    """Read what a program writes to a terminal, until it has written this text."""
    shown, deadline = b"", time.monotonic() + 120
    while text not in shown.decode(errors="ignore"):
        assert select.select([terminal], [], [], deadline - time.monotonic())[0], shown
        shown += os.read(terminal, 4096)
    return shown.decode(errors="ignore")


def test_the_curves_fit_into_the_width(tmp_path):
    progress = write_progress(tmp_path)
    names = "step,epoch,loss_forward,loss_backward,tokens_per_second,heldout_forward,"
    names += "heldout_backward,heldout_mean,train_text_forward,train_text_backward,train_text_mean"
    rows = [f"{i},{i / 10},5,5,100,,,{400 - 3 * i},,,{300 - 2 * i}" for i in range(1, 100)]
    (tmp_path / "steps.csv").write_text("\n".join([names, *rows]) + "\n")
    lines = terminal.dashboard_lines(tmp_path, progress, 50)
    assert max(map(len, lines)) <= 50
    assert lines[-2].startswith("held-out 397.0 █")
    assert lines[-2].endswith("▁ 103.0")
    assert terminal.sparkline(np.array([7.0, 7.0]), 80) == "▁▁"
    assert terminal.sparkline(np.array([1.0, np.e**7, np.e**3]), 80) == "▁█▄"


# --- Notebooks


def test_notebooks_are_copied_into_a_folder_from_which_they_run(root, tmp_path, monkeypatch):
    made = found("notebooks", tmp_path / "mine")
    assert made == [str(tmp_path / "mine" / name) for name in ("notebooks", "params")]
    for path in (root / "notebooks").glob("*.ipynb"):
        assert (tmp_path / "mine" / "notebooks" / path.name).read_bytes() == path.read_bytes()
    monkeypatch.chdir(tmp_path / "mine" / "notebooks")
    parameters = Parameters.from_yaml("params/tiny.yaml")
    assert parameters.run_path == tmp_path / "mine" / "runs" / "tiny"
    assert parameters.path(parameters.tagged_text).is_file()
    assert "choose another folder" in run("notebooks", tmp_path / "mine", code=1).stderr


@pytest.fixture(scope="module")
def dist(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, root]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz", "editable"])
def test_an_installed_program_copies_the_notebooks(root, dist, tmp_path, kind):
    venv.create(tmp_path / "venv")
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # The new environment uses the dependencies and build tools that this Python has.
    (site / "zz.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    what = ["--editable", root] if kind == "editable" else list(dist.glob(kind))
    pip = [sys.executable, "-m", "pip", "--python", tmp_path / "venv" / "bin" / "python"]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    command = [*pip, "install", *options, "--no-index", "--ignore-installed", *what]
    subprocess.run([*map(str, command)], check=True, env=environment, cwd=tmp_path)
    program = [tmp_path / "venv" / "bin" / "elmolib", "notebooks", tmp_path / "mine"]
    subprocess.run([*map(str, program)], check=True, env=environment, cwd=tmp_path)
    copied = {path.name for path in (tmp_path / "mine" / "notebooks").glob("*.ipynb")}
    assert copied == {path.name for path in (root / "notebooks").glob("*.ipynb")}
    assert (tmp_path / "mine" / "params" / "tiny.yaml").is_file()
