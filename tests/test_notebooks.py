"""The notebooks, headless and from their own folder, on a small text."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError
from small_corpus import small_parameters

NAMES = ("01_prepare", "02_train", "03_evaluate", "04_explore", "05_probe", "06_tagger")
N_STEPS = 110
START_SECONDS = 600  # in which a kernel is up on any machine


class Project:
    """A copy of the notebooks, a text and parameters for it, in a folder of its own."""

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
        """Execute a notebook, as Papermill's Python function does it."""
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
        """Execute a notebook by the command that the README shows."""
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
        # Kernels must find elmolib as this process does, installed or not.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        # They are quiet by themselves, as a user's are who has set nothing.
        patch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
        yield Project(tmp_path_factory.mktemp("project"), root)


@pytest.fixture(scope="module")
def executed(project) -> dict[str, nbformat.NotebookNode]:
    """All notebooks in their order; some run from their own folder, as JupyterLab does."""
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
    assert "comes_back" in shown(executed["01_prepare"], "text/plain")[-1]


def test_training_prints_a_line_per_epoch_and_the_unigram_beside_it(executed):
    lines = printed(executed["02_train"]).splitlines()
    epochs = [line for line in lines if line.startswith("epoch ") and "tokens/s" in line]
    assert len(epochs) == 2
    (report,) = [line for line in lines if "held-out targets per direction" in line]
    assert lines.index(report) > lines.index(epochs[-1]) + 1
    assert any(line.startswith("word frequencies alone, over the same words: ") for line in lines)
    assert any(line.startswith("held-out perplexity") for line in lines)
    assert any(line.startswith("weights: ") and line.endswith("elmo.h5") for line in lines)


def test_evaluation_agrees_with_training(executed, project):
    history = (project.folder / "runs/small/history.csv").read_text().splitlines()
    last = dict(zip(history[0].split(","), history[-1].split(","), strict=True))
    table = shown(executed["03_evaluate"], "text/plain")[0]
    rows = {line.split()[0]: line.split()[2] for line in table.splitlines()[1:]}
    for name in ("forward", "backward", "mean"):
        assert float(rows[name]) == pytest.approx(float(last[f"heldout_{name}"]), abs=2e-3)
    assert float(rows["unigram"]) > float(rows["mean"])


def test_a_misspelt_key_stops_the_run(project):
    command = project.run_command("02_train", "-p", "epochz", "3", "-p", "run_dir", "runs/none")
    assert command.returncode == 1
    sentence = "unknown parameter 'epochz': the nearest known one is 'epochs'."
    assert f"ParameterError: parameters cell: {sentence}" in command.stderr
    assert not (project.folder / "runs" / "none").exists()


@pytest.mark.parametrize("prepared", [False, True])
def test_what_is_missing_is_named(project, executed, prepared):
    changes = {"corpus_dir": "runs/small/corpus"} if prepared else {}
    with pytest.raises(PapermillExecutionError) as caught:
        project.run("03_evaluate", run_dir="runs/nowhere", **changes)
    assert "02_train.ipynb with these parameters first." in caught.value.evalue
    assert ("01_prepare.ipynb" in caught.value.evalue) is not prepared


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
