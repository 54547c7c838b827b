"""Type checkers read the types of an installed elmolib."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import elmolib

MISTAKES = """\
from elmolib import Elmo
from elmolib import ELMo, ElmoEmbedder, Parameters, perplexity, prepare_corpus

embedder = ElmoEmbedder(1)
embedder = ElmoEmbedder("elmo.h5")
embedder.train()
one: list = embedder.embed("A river .")
many: str = embedder.embed(["A river ."])[0]
embedder.embed(7)
embedder.embed_sentences("A river .", pooling="sum")
embedder.embed_corpus("text.txt", "vectors.h5", dtype="int8")
elmo: ELMo = ELMo.from_pretrained("small")
prepare_corpus("text.txt")
perplexity("elmo.h5", "text.txt").backwards
Parameters.from_yaml("params/tiny.yaml").lstm_dims
"""
RIGHT = {2, 3, 5}


def run(*command: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    # Without PYTHONPATH, Python finds the installed elmolib.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd=folder, env=environment
    )


@pytest.fixture(scope="module", params=["ordinary", "editable"])
def python(request, root: Path, tmp_path_factory) -> Path:
    """An environment with elmolib installed; all other packages come from the current one."""
    folder = tmp_path_factory.mktemp(request.param)
    run(sys.executable, "-m", "venv", "--without-pip", folder).check_returncode()
    site_packages = sysconfig.get_path("purelib", "venv", {"base": folder})
    Path(site_packages, "everything_else.pth").write_text(sysconfig.get_path("purelib"))
    interpreter = folder / "bin/python"
    how = ["--editable"] if request.param == "editable" else []
    # Without --force-reinstall, pip would think that elmolib is already installed.
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--force-reinstall"]
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "install", *options, *how, root]
    done = run(*pip)
    assert done.returncode == 0, done.stdout + done.stderr
    return interpreter


def errors(tool: str, python: Path, folder: Path, cache: Path) -> list[tuple[str, int]]:
    """Return the file name and line of every error that a type checker finds."""
    commands = {
        "mypy": ["--python-executable", python, "--cache-dir", cache],
        "pyright": ["--pythonpath", python],
    }
    done = run(sys.executable, "-m", tool, *commands[tool], *folder.glob("*.py"), folder=folder)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^\s*(\S+?):(\d+)(?::\d+)?(?: -|:) error", done.stdout, re.MULTILINE)
    assert bool(found) == bool(done.returncode), done.stdout
    return [(Path(name).name, int(line)) for name, line in found]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("tool", ["mypy", "pyright"])
def test_type_checkers_accept_right_use_and_find_every_mistake(
    root: Path, tmp_path: Path, cache: Path, python: Path, tool: str
) -> None:
    shutil.copy(root / "tests/typing_client.py", tmp_path)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    wrong = {("mistakes.py", n + 1) for n in range(MISTAKES.count("\n"))}
    wrong -= {("mistakes.py", n) for n in RIGHT}
    assert set(errors(tool, python, tmp_path, cache)) == wrong


def test_the_client_uses_every_public_name(root: Path) -> None:
    client = (root / "tests/typing_client.py").read_text()
    imported = re.search(r"from elmolib import \((.*?)\)", client, re.DOTALL)
    assert imported is not None
    assert set(re.findall(r"\w+", imported[1])) == set(elmolib.__all__)
