"""A release has the same version everywhere, an sdist, and a wheel that works once installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import elmolib


def run(*command: str | Path, **options) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, root)
    return folder


def test_the_version_is_the_same_everywhere(root: Path, dist: Path) -> None:
    version = elmolib.__version__
    assert yaml.safe_load((root / "CITATION.cff").read_text())["version"] == version
    assert f"## [{version}]" in (root / "CHANGELOG.md").read_text()
    names = {path.name for path in dist.iterdir()}
    assert names == {f"elmolib-{version}.tar.gz", f"elmolib-{version}-py3-none-any.whl"}


def test_twine_finds_nothing_wrong(dist: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())


def test_the_wheel_holds_the_package_the_parameter_files_and_the_notebooks(
    root: Path, dist: Path
) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("elmolib/")}
    tracked = set(run("git", "-C", root, "ls-files", "elmolib").split())
    assert tracked <= packed
    for folder, pattern in (("params", "*.yaml"), ("notebooks", "*.ipynb")):
        for path in (root / folder).glob(pattern):
            assert f"elmolib/{folder}/{path.name}" in packed
    assert not [
        name
        for name in packed
        if "__pycache__" in name or "checkpoint" in name.lower() and name.endswith(".ipynb")
    ]


def test_the_wheel_works_outside_the_clone(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        tmp_path / "site",
        wheel,
    )
    code = (
        "import elmolib\n"
        "embedder = elmolib.ElmoEmbedder.from_pretrained('en-tiny')\n"
        "print(elmolib.__file__, embedder.embed('A river .').shape)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    printed = run(sys.executable, "-c", code, cwd=tmp_path, env=environment)
    assert printed.split(maxsplit=1) == [
        str(tmp_path / "site/elmolib/__init__.py"),
        "(3, 256)\n",
    ]
