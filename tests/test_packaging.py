"""Dependencies are declared, public names exist, importing is fast, and skips can be failures."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
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
from elmolib.errors import MissingPackageError, needs_extras

ALL = "all,test"  # the extras that every way to set up a clone installs

# Packages that no code imports, because people or the Makefile run their programs.
PROGRAMS = {"ipykernel", "jupyterlab", "papermill"}


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def packages(project: dict, *extras: str) -> set[str]:
    """The packages of the base, of some extras, and of all extras that these extras include."""
    found, lines = set(), list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        found |= packages(project, *requirement.extras) if name == project["name"] else {name}
    return found


def modules_in(code: ast.AST) -> set[str]:
    """The first names of the modules that some code imports, also within functions."""
    modules = set()
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(str(node.module).partition(".")[0])
    return modules


def imported(folder: Path) -> set[str]:
    """The distributions that the code in a folder imports, also within functions."""
    trees = [ast.parse(path.read_text()) for path in folder.rglob("*.py")]
    modules = set().union(*map(modules_in, trees))
    homes = packages_distributions()
    neighbours = {path.stem for path in folder.glob("*.py")}
    theirs = modules - sys.stdlib_module_names - neighbours - {"elmolib", "benchmarks", "notebooks"}
    return {canonicalize_name(homes.get(module, [module])[0]) for module in theirs}


def notebook_source(root: Path) -> str:
    return "".join(path.read_text() for path in (root / "notebooks").glob("*.ipynb"))


def test_the_library_imports_exactly_the_declared_dependencies(root: Path, project: dict) -> None:
    declared = packages(project, "all", "ray", "spacy")
    used = imported(root / "elmolib")
    assert used <= declared | packages(project, "backends")
    unused = {
        name for name in declared - used - PROGRAMS if f"import {name}" not in notebook_source(root)
    }
    assert not unused


def test_what_the_tests_import_is_declared(root: Path, project: dict) -> None:
    assert imported(root / "tests") <= packages(project, *project["optional-dependencies"])


def test_errors_name_the_extra_that_brings_a_package(root: Path, project: dict) -> None:
    homes, base = packages_distributions(), packages(project)
    trees = [ast.parse(path.read_text()) for path in root.glob("elmolib/**/*.py")]
    for module in set().union(*map(modules_in, trees)) & set(homes) - {"elmolib", "jax", "torch"}:
        package = canonicalize_name(homes[module][0])
        if package in base:
            continue
        with pytest.raises(MissingPackageError) as error, needs_extras():
            raise ModuleNotFoundError(name=f"{module}.part")
        said = re.fullmatch(
            r"This needs the package (\w+), which is not installed: "
            r"pip install 'elmolib\[(\w+)\]'\.",
            str(error.value),
        )
        assert said[1] == module
        own = project["optional-dependencies"][said[2]]
        assert package in {canonicalize_name(Requirement(line).name) for line in own}
    with pytest.raises(ModuleNotFoundError), needs_extras():
        importlib.import_module("elmolib.no_such_module")


def test_the_extras_bring_all_that_the_demo_and_the_tests_need(root: Path, project: dict) -> None:
    needed = {"ipywidgets", "jupyterlab", "matplotlib", "numpy", "papermill", "seaborn"}
    needed |= {"tensorflow"}
    # The Makefile installs the extras `all` and `test`; .ci/run installs `test` without `all`.
    for extras in (("all", "test"), ("test",)):
        assert needed <= packages(project, *extras)
    assert f"EXTRAS ?= {ALL}\n" in (root / "Makefile").read_text()
    assert f".venv/bin/pip install -e '.[{ALL}]'" in (root / "README.md").read_text()
    kinds = {extra: packages(project, extra) for extra in ("plots", "fast", "train", "notebooks")}
    assert packages(project, "all") == set().union(*kinds.values())
    assert kinds["plots"] < kinds["train"] < kinds["notebooks"]
    assert not packages(project) & {*needed, "gensim", "keras", "pandas", "scipy"} - {"numpy"}


def test_conda_brings_python_and_leaves_the_rest_to_pip(root: Path, project: dict) -> None:
    environment = yaml.safe_load((root / "environment.yml").read_text())
    assert environment["name"] == project["name"]
    python, pip, by_pip = environment["dependencies"]
    assert pip == "pip"
    assert by_pip == {"pip": [f"-e .[{ALL}]"]}
    name, _, version = python.partition("=")
    assert name == "python"
    assert version in SpecifierSet(project["requires-python"])


def test_the_makefile_accepts_the_pythons_that_the_package_does(root: Path, project: dict) -> None:
    makefile = (root / "Makefile").read_text()
    allowed = SpecifierSet(project["requires-python"])
    inside = [minor for minor in range(30) if f"3.{minor}" in allowed]
    assert f"(3, {inside[0]}) <= sys.version_info < (3, {inside[-1] + 1})" in makefile
    assert f"Python 3.{inside[0]} to 3.{inside[-1]}" in makefile


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
    # An imported submodule becomes an attribute of the package, and could hide a public name.
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
    assert ("skipped tests fail the run" in done.stdout) == bool(status)
