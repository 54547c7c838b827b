"""One source of truth for dependencies, a cheap import, and skips that count."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import elmolib

# Run by people and by the Makefile, imported by nobody.
PROGRAMS = {"ipykernel", "jupyterlab", "papermill"}


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def imported(folder: Path) -> set[str]:
    """The distributions that a folder's code imports, at any depth."""
    modules = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(str(node.module).partition(".")[0])
    homes = packages_distributions()
    neighbours = {path.stem for path in folder.glob("*.py")}
    theirs = modules - sys.stdlib_module_names - neighbours - {"elmolib", "benchmarks"}
    return {canonicalize_name(homes.get(module, [module])[0]) for module in theirs}


def notebook_source(root: Path) -> str:
    return "".join(path.read_text() for path in (root / "notebooks").glob("*.ipynb"))


def test_what_the_library_imports_is_declared_and_the_reverse(root: Path, project: dict) -> None:
    declared = names(project["dependencies"])
    used = imported(root / "elmolib")
    assert used <= declared
    unused = {
        name for name in declared - used - PROGRAMS if f"import {name}" not in notebook_source(root)
    }
    assert not unused


def test_what_the_tests_import_is_declared(root: Path, project: dict) -> None:
    extras = project["optional-dependencies"].values()
    assert imported(root / "tests") <= names([*project["dependencies"], *sum(extras, [])])


def test_conda_brings_python_and_leaves_the_rest_to_pip(root: Path, project: dict) -> None:
    environment = yaml.safe_load((root / "environment.yml").read_text())
    assert environment["name"] == project["name"]
    python, pip, by_pip = environment["dependencies"]
    assert pip == "pip"
    assert by_pip == {"pip": ["-e .[test]"]}
    name, _, version = python.partition("=")
    assert name == "python"
    assert version in SpecifierSet(project["requires-python"])


def test_the_makefile_accepts_the_pythons_that_the_package_does(root: Path, project: dict) -> None:
    makefile = (root / "Makefile").read_text()
    allowed = SpecifierSet(project["requires-python"])
    inside = [minor for minor in range(30) if f"3.{minor}" in allowed]
    assert f"(3, {inside[0]}) <= sys.version_info < (3, {inside[-1] + 1})" in makefile
    assert f"Python 3.{inside[0]} to 3.{inside[-1]}" in makefile


def test_every_folder_of_the_package_is_installed(root: Path) -> None:
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent.relative_to(root) for path in (root / "elmolib").rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} == set(settings["packages"])


def test_import_is_cheap() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import elmolib, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "elmolib" in loaded
    assert not {"tensorflow", "keras", "numpy", "pydantic", "yaml"} & set(loaded)


@pytest.mark.parametrize("name", elmolib.__all__)
def test_a_public_name_is_there_and_no_module_hides_it(name: str) -> None:
    assert name in dir(elmolib)
    # Importing a submodule binds its name in the package, over a function of that name.
    for module in pkgutil.iter_modules(elmolib.__path__, "elmolib."):
        importlib.import_module(module.name)
    assert not isinstance(getattr(elmolib, name), ModuleType)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Elmo'"):
        elmolib.Elmo  # noqa: B018


@pytest.mark.parametrize("how", [["-q"], ["-q", "-n", "2"]], ids=["alone", "side by side"])
@pytest.mark.parametrize(
    ("forbidden", "body", "status"),
    [
        ("1", "pytest.skip('absent')", 1),
        ("0", "pytest.skip('absent')", 0),
        ("1", "pass", 0),
    ],
)
def test_a_skip_fails_the_run_where_skips_are_forbidden(
    root: Path, tmp_path: Path, how: list[str], forbidden: str, body: str, status: int
) -> None:
    shutil.copy(root / "tests/conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(f"import pytest\ndef test_it():\n    {body}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *how, "-c", os.devnull, "--rootdir", tmp_path, tmp_path],
        env=os.environ | {"ELMOLIB_NO_SKIPS": forbidden},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout
    assert ("where every test has to run" in done.stdout) == bool(status)
