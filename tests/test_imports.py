"""Subpackages load only what they need, and importing elmolib changes nothing in the process."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LOAD = """
import importlib, sys

first, forgotten, modules = (words.split() for words in sys.argv[1:])
for name in first:
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] in forgotten]:
    del sys.modules[name]
for name in modules:
    importlib.import_module(name)
print(*sys.modules)
"""

NO_KERAS = ("keras", "tensorflow")

# Keras itself loads h5py and Matplotlib if they are installed. To see whether the subpackages in
# `ON_KERAS` load them, import Keras, remove both from `sys.modules`, and import the subpackages.
FORBIDDEN = {
    "settings": NO_KERAS,
    "text": NO_KERAS,
    "formats": NO_KERAS,
    "corpus": NO_KERAS,
    "model": ("h5py", "elmolib.formats", "elmolib.text", "elmolib.corpus"),
    "training": ("matplotlib", "ipywidgets", "elmolib.live", "elmolib.plots"),
    "plots": (*NO_KERAS, "elmolib.model", "elmolib.training"),
}
ON_KERAS = ("model", "training")


def modules_of(root: Path, subpackage: str) -> list[str]:
    names = sorted(file.stem for file in (root / "elmolib" / subpackage).glob("*.py"))
    return [f"elmolib.{subpackage}.{name}" for name in names if not name.startswith("__")]


def loaded(modules: list[str], first: str = "", forgotten: str = "") -> set[str]:
    """Import modules in a fresh process and return the names of all loaded modules."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, first, forgotten, " ".join(modules)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("subpackage", FORBIDDEN)
def test_a_subpackage_loads_no_forbidden_module(root: Path, subpackage: str) -> None:
    modules = modules_of(root, subpackage)
    assert modules
    before = ("keras", "h5py matplotlib") if subpackage in ON_KERAS else ()
    found = loaded(modules, *before)
    assert set(modules) <= found
    assert not set(FORBIDDEN[subpackage]) & found


def test_embedding_loads_keras_only_in_its_layer_and_its_runtime(root: Path) -> None:
    with_keras = {"elmolib.embedding.keras_layer", "elmolib.embedding.keras_runtime"}
    modules = set(modules_of(root, "embedding"))
    assert {"elmolib.embedding.encoder", "elmolib.embedding.vector_file"} < modules - with_keras
    assert with_keras < modules
    assert not set(NO_KERAS) & loaded(sorted(modules - with_keras))


def test_importing_elmolib_loads_nothing_large() -> None:
    found = loaded(["elmolib"])
    assert not {*NO_KERAS, "matplotlib", "pandas", "h5py", "numpy"} & found


def test_training_reports_only_to_callbacks(root: Path) -> None:
    for path in (root / "elmolib" / "training").glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "id")}
        assert not names & {"print", "tqdm", "display"}, path


# Other packages change the process when they are imported. Import them first, so that only the
# changes that elmolib makes are found.
CHANGES = """
import gc, importlib, json, logging, os, pkgutil, sys, warnings
from contextlib import suppress

for name in sys.argv[1:]:
    with suppress(ImportError):
        importlib.import_module(name)

import matplotlib
import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_info

import elmolib


def state():
    root, threading = logging.getLogger(), tf.config.threading
    return {
        "rcParams": dict(matplotlib.rcParams),
        "warnings": list(warnings.filters),
        "logging": [root.level, *map(str, root.handlers)],
        "threads": [
            threading.get_intra_op_parallelism_threads(),
            threading.get_inter_op_parallelism_threads(),
            sorted((pool["filepath"], pool["num_threads"]) for pool in threadpool_info()),
        ],
        "gc": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
        "environment": dict(os.environ),
        "hooks": [sys.excepthook, sys.displayhook],
    }


before = state()
for module in pkgutil.walk_packages(elmolib.__path__, "elmolib."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from elmolib import plots

figure = plots.heatmap(["a", "bank", "河岸"], np.eye(3, dtype=np.float32))
assert figure is not None
after = state()
print(json.dumps([name for name in before if before[name] != after[name]]))
"""


def imports_of(folder: Path) -> set[str]:
    """The modules of other packages that the code in a folder imports, also within functions."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module))
    return {name for name in names if name.partition(".")[0] not in ("elmolib", "__future__")}


def test_importing_everything_and_drawing_a_heatmap_changes_nothing(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHANGES, *sorted(imports_of(root / "elmolib"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


USE = """
import json, os

import elmolib

for name in elmolib.__all__:
    getattr(elmolib, name)
elmolib.ElmoEmbedder(os.environ["MODEL"]).embed("The river bank .")
print(json.dumps(dict(os.environ)))
"""


def test_tensorflow_starts_silently_and_the_environment_stays_as_it_was(root: Path) -> None:
    given = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    given["MODEL"] = str(root / "elmolib" / "models" / "en-tiny.h5")

    def run(program: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", program], env=given, capture_output=True, text=True, check=True
        )

    done = run(USE)
    assert done.stderr == ""
    after = json.loads(done.stdout.splitlines()[-1])
    plain = run("import json, os, keras, tensorflow; print(json.dumps(dict(os.environ)))")
    by_tensorflow = set(json.loads(plain.stdout)) - set(given)
    assert {name: after.get(name) for name in given} == given
    assert set(after) - set(given) <= by_tensorflow
    assert "TF_CPP_MIN_LOG_LEVEL" not in after
