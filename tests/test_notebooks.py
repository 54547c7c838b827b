"""Execute the notebooks without a browser, from the root and their own folder, on a small text."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError
from small_corpus import made_up_sentences, small_parameters

from elmolib.settings.parameters import Parameters

NAMES = ("01_prepare", "02_train", "03_evaluate", "04_explore", "05_probe", "06_tagger")
N_STEPS = 110
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
FUNCTIONS = ast.FunctionDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda
START_SECONDS = 600  # enough for a kernel to start on any machine


class Project:
    """A folder with a copy of the notebooks, a text, and parameters for it."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        shutil.copytree(root / "notebooks", folder / "notebooks")
        parameters = small_parameters(
            folder, run_dir="runs/small", text="text.txt", max_steps=N_STEPS, progress="auto"
        )
        self.values = parameters.to_json()
        (folder / "params").mkdir()
        (folder / "params" / "small.yaml").write_text(yaml.safe_dump(self.values))

    def run(self, name: str, cwd: str = ".", **changes: object) -> Path:
        """Execute a notebook by Papermill's Python function."""
        out = self.folder / f"{name}.ipynb"
        papermill.execute_notebook(
            self.folder / "notebooks" / f"{name}.ipynb",
            out,
            parameters={**self.values, **changes},
            cwd=self.folder / cwd,
            start_timeout=START_SECONDS,
            progress_bar=False,
        )
        return out

    def run_command(self, name: str, *arguments: str) -> subprocess.CompletedProcess:
        """Execute a notebook by the command in the README."""
        return subprocess.run(
            [sys.executable, "-m", "papermill", f"notebooks/{name}.ipynb", f"{name}.ipynb"]
            + ["-f", "params/small.yaml", "--no-progress-bar"]
            + ["--start-timeout", str(START_SECONDS), *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory, root) -> Project:
    with pytest.MonkeyPatch.context() as patch:
        # Kernels must import the same elmolib as this process, even if it is not installed.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        # The notebooks must silence TensorFlow themselves, because most users set no variable.
        patch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
        yield Project(tmp_path_factory.mktemp("project"), root)


@pytest.fixture(scope="module")
def executed(project) -> dict[str, nbformat.NotebookNode]:
    """All notebooks, executed in order, some of them in their own folder, as in JupyterLab."""
    project.run("01_prepare", cwd="notebooks")
    command = project.run_command("02_train")
    assert command.returncode == 0, command.stderr
    project.run("03_evaluate", cwd="notebooks")
    project.run("04_explore")
    project.run("05_probe", cwd="notebooks")
    project.run("06_tagger")
    return {name: nbformat.read(project.folder / f"{name}.ipynb", as_version=4) for name in NAMES}


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook) -> str:
    return "".join(o.text for o in outputs(notebook) if o.output_type == "stream")


def shown(notebook, kind: str) -> list[str]:
    return [o.data[kind] for o in outputs(notebook) if kind in o.get("data", {})]


@pytest.mark.parametrize("name", NAMES)
def test_every_notebook_runs_quietly_and_shows_pictures(executed, project, name):
    notebook = executed[name]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert len(shown(notebook, "image/png")) >= 1
    noise = [o.text for o in outputs(notebook) if o.get("name") == "stderr"]
    assert noise == []
    assert (project.folder / f"{name}.ipynb").stat().st_size < 1_000_000


def test_everything_is_in_the_run_folder(executed, project, root):
    run = project.folder / "runs" / "small"
    for name in ("elmo.h5", "history.csv", "heatmap.png", "corpus/corpus.json"):
        assert (run / name).is_file()
    assert (run / "reports" / "epoch_002" / "heatmap.png").is_file()
    beside, committed = (
        {path.name for path in (folder / "notebooks").iterdir() if not path.name.startswith(".")}
        for folder in (project.folder, root)
    )
    assert beside == committed


def test_preparing_shows_what_was_read(executed):
    table = shown(executed["01_prepare"], "text/plain")[0]
    assert "lines read" in table
    assert "150" in table


def test_training_prints_a_line_per_epoch_and_the_unigram_beside_it(executed):
    lines = printed(executed["02_train"]).splitlines()
    epochs = [line for line in lines if line.startswith("epoch ") and "tokens/s" in line]
    assert len(epochs) == 2
    tables = shown(executed["02_train"], "text/html")
    assert "held-out targets per direction" in tables[0] and "top_5" in tables[0]
    assert tables[0].count("<table") == 1 + 3
    assert any(line.startswith("unigram baseline: perplexity ") for line in lines)
    assert any(line.startswith("held-out perplexity") for line in lines)
    assert any(line.startswith("weights: ") and line.endswith("elmo.h5") for line in lines)


def test_evaluation_agrees_with_training(executed, project):
    history = (project.folder / "runs/small/history.csv").read_text().splitlines()
    last = dict(zip(history[0].split(","), history[-1].split(","), strict=True))
    table = shown(executed["03_evaluate"], "text/plain")[0]
    rows = {line.split()[0]: line.split()[1] for line in table.splitlines()[1:]}
    for name in ("forward", "backward", "mean"):
        assert float(rows[name]) == pytest.approx(float(last[f"heldout_{name}"]), abs=2e-3)
    assert float(rows["unigram"]) > float(rows["mean"])


def test_a_misspelt_key_stops_the_run(project):
    command = project.run_command("02_train", "-p", "epochz", "3", "-p", "run_dir", "runs/none")
    assert command.returncode == 1
    sentence = "unknown parameter 'epochz': the nearest known one is 'epochs'."
    assert f"ParameterError: parameters cell: {sentence}" in command.stderr
    assert not (project.folder / "runs" / "none").exists()


@pytest.mark.slow
def test_the_paper_s_model_takes_steps_by_the_command_in_the_readme(project, root):
    """The model has all 93.6 million parameters; only the text and the batch are small."""
    folder = project.folder
    (folder / "heldout.txt").write_text("\n".join(made_up_sentences(20, seed=1)), "utf-8")
    texts = ["-p", "text", "text.txt", "-p", "heldout_text", "heldout.txt"]
    small = ["-p", "batch_size", "4", "-p", "n_negatives", "None", "-p", "max_steps", "3"]
    command = subprocess.run(
        [sys.executable, "-m", "papermill", "notebooks/02_train.ipynb", "out.ipynb"]
        + ["-f", str(root / "params" / "full.yaml"), *texts, *small, "--no-progress-bar"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert command.returncode == 0, command.stderr
    unknown = re.findall(r"Passed unknown parameter: (\w+)", command.stderr)
    assert not set(unknown) & set(yaml.safe_load((root / "params" / "full.yaml").read_text()))
    run = folder / "runs" / "full"
    assert (run / "elmo.h5").stat().st_size > 93e6 * 4
    shutil.rmtree(run)


def test_a_missing_model_is_named(project):
    with pytest.raises(PapermillExecutionError) as caught:
        project.run("03_evaluate", run_dir="runs/nowhere")
    assert "nowhere/elmo.h5: run notebooks/02_train.ipynb" in caught.value.evalue
    assert "set model to an existing model" in caught.value.evalue


@pytest.mark.slow
def test_notebooks_read_en_tiny_in_an_empty_folder(project, root, tmp_path):
    """The model has no softmax, so a sentence replaces each picture that needs a softmax."""
    n_sentences = {"03_evaluate": 7, "04_explore": 1, "05_probe": 0, "06_tagger": 0}
    for name, expected in n_sentences.items():
        command = [sys.executable, "-m", "papermill", str(root / f"notebooks/{name}.ipynb")]
        command += [f"{name}.ipynb", "-p", "model", "en-tiny", "--no-progress-bar"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "unknown parameter" not in done.stderr
        notebook = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code)
        assert [o.text for o in outputs(notebook) if o.get("name") == "stderr"] == []
        assert len(shown(notebook, "image/png")) >= 1
        said = [text for text in shown(notebook, "text/plain") if "has no softmax" in text]
        assert len(said) == expected
        assert all("en-tiny.h5 has no softmax with its vocabulary" in text for text in said)


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_replaces_a_parameter(root, name):
    """If a cell did this, the cell that reads the parameters could not run again."""
    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            nodes = list(ast.walk(ast.parse(cell.source)))
            inside = {id(node) for f in nodes if isinstance(f, FUNCTIONS) for node in ast.walk(f)}
            names = {
                node.id
                for node in nodes
                if isinstance(node, ast.Name)
                and isinstance(node.ctx, ast.Store)
                and id(node) not in inside
            }
            assert not names & set(Parameters.model_fields)


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebooks_are_clean(root, name):
    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata
    assert outputs(notebook) == []
    assert all(cell.get("execution_count") is None for cell in notebook.cells)
    assert notebook.cells[0].cell_type == "markdown"
    for cell in notebook.cells:
        is_parameters = "parameters" in cell.metadata.get("tags", [])
        if cell.cell_type == "code" and not is_parameters:
            assert len(cell.source.splitlines()) <= 15


def test_work_in_the_notebooks_of_make_lab_leaves_the_clone_clean(root, tmp_path):
    clone, bin = tmp_path / "clone", tmp_path / "bin"
    shutil.copytree(root / "notebooks", clone / "notebooks")
    shutil.copytree(root / "params", clone / "params")
    for name in ("Makefile", ".gitignore"):
        shutil.copy(root / name, clone)
    bin.mkdir()
    # This program replaces JupyterLab: it changes the notebook and adds a file to its folder.
    (bin / "jupyter").write_text(
        '#!/bin/sh\necho work >> "$2/02_train.ipynb"; touch "$2/mine.ipynb"\n'
    )
    (bin / "jupyter").chmod(0o755)

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=clone, check=True, capture_output=True, text=True)
        return done.stdout

    run("git", "init", "--quiet")
    run("git", "add", ".")
    for times in (1, 2):
        run("make", "lab", f"BIN={bin}", "INSTALLED=")
        assert (clone / "my-notebooks" / "02_train.ipynb").read_text().endswith("work\n" * times)
    run("git", "add", ".")
    changed = run("git", "status", "--porcelain").split()[1::2]
    assert not [name for name in changed if "my-notebooks" in name]
    assert (clone / "notebooks" / "02_train.ipynb").read_bytes() == (
        root / "notebooks" / "02_train.ipynb"
    ).read_bytes()


def kernel(monkeypatch, root) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")


def notebook_of(path: Path, *sources: str) -> Path:
    """Write a notebook of code cells."""
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, path)
    return path


# The cell waits before it kills the kernel, so that the kernel can report that the cell began.
DIES = "import os, time\ntime.sleep(2)\nos._exit(1)"


def test_the_cell_in_which_the_kernel_died_is_named(root, tmp_path, monkeypatch):
    """If a kernel dies, Papermill 2.7 marks all cells as completed and exits with status 138."""
    kernel(monkeypatch, root)
    source = notebook_of(tmp_path / "in.ipynb", "a = 1", DIES, "b = 2")
    papermill_command = [sys.executable, "-m", "papermill", source, tmp_path / "out.ipynb"]
    assert subprocess.run(papermill_command, capture_output=True).returncode != 0
    said = subprocess.run(
        [sys.executable, root / "notebooks" / "which_cell_died.py", tmp_path / "out.ipynb"],
        capture_output=True,
        text=True,
    )
    assert "the kernel died in cell 2 ('import os, time'), and no later cell ran" in said.stderr


def test_a_heatmap_is_shown_once(root, tmp_path, monkeypatch):
    kernel(monkeypatch, root)
    source = notebook_of(
        tmp_path / "in.ipynb",
        "from matplotlib import pyplot\nfrom elmolib import ElmoEmbedder\n"
        "embedder = ElmoEmbedder('en-tiny')",
        "embedder.heatmap('the river bank')",
        "_, ax = pyplot.subplots()\nembedder.heatmap('the river bank', ax=ax);",
        "_, ax = pyplot.subplots()\nfigure = embedder.heatmap('the river bank', ax=ax)",
        "figure = embedder.heatmap('the river bank')",
    )
    papermill.execute_notebook(source, tmp_path / "out.ipynb", start_timeout=START_SECONDS)
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    pictures = [
        len([o for o in cell.outputs if "image/png" in o.get("data", {})]) for cell in cells
    ]
    assert pictures == [0, 1, 1, 1, 0]


IN_A_THREAD_AND_A_TASK = """
import asyncio, threading
from elmolib import Parameters, Training, prepare_corpus
from elmolib.live.reports import DetailedMetrics
from elmolib.live.watch import progress_callbacks

def training_of(name):
    params = Parameters.from_yaml("small.yaml", run_dir=name, progress="auto")
    corpus = prepare_corpus(params)
    training = Training(params, corpus)
    return training, [*progress_callbacks(training), DetailedMetrics.of(corpus, params)]

training, callbacks = training_of("thread")
thread = threading.Thread(target=training.run, args=(callbacks,))

async def train(training, callbacks):
    training.run(callbacks)

thread.start()
task = asyncio.ensure_future(train(*training_of("task")))
"""


def test_training_in_a_thread_or_a_task_keeps_its_reports_and_dashboard(
    root, tmp_path, monkeypatch
):
    """Jupyter drops what a task shows after its cell ended, so show the dashboard before that."""
    kernel(monkeypatch, root)
    monkeypatch.setenv("JPY_SESSION_NAME", "in.ipynb")
    values = small_parameters(tmp_path, metrics_every=1, pictures_every=2).to_json()
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    source = notebook_of(tmp_path / "in.ipynb", IN_A_THREAD_AND_A_TASK, "thread.join(); await task")
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(source, out, cwd=tmp_path, start_timeout=START_SECONDS)
    for name in ("thread", "task"):
        assert (tmp_path / name / "elmo.h5").is_file()
        assert (tmp_path / name / "reports" / "epoch_002" / "heatmap.png").is_file()
    cell = nbformat.read(out, as_version=4).cells[0]
    views = [o for o in cell.outputs if WIDGET_VIEW in o.get("data", {})]
    assert len(views) == 2
