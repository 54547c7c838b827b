"""Settings and fixtures of all tests. With ELMOLIB_NO_SKIPS=1, a skipped test fails the run."""

from __future__ import annotations

import gc
import os

# TensorFlow reads this variable when it is first imported, so set it before other imports.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest
from hypothesis import settings

# Hypothesis tries the same examples in every run, and has no time limit.
settings.register_profile("elmolib", deadline=None, derandomize=True)
settings.load_profile("elmolib")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

_NEEDS = {
    "shared": ("the folder ../shared", SHARED.is_dir),
    "peers": ("the extra `peers`", lambda: _installed("bilm", "simple_elmo", "tf_keras")),
    "backends": ("the extra `backends`", lambda: _installed("jax", "torch")),
    "onnx": ("the extra `backends`", lambda: _installed("tf2onnx")),
    "clusters": (
        "the extra `clusters` and the program java",
        lambda: _installed("duckdb", "polars", "pyspark", "ray") and bool(which("java")),
    ),
    "spacy": ("the extra `spacy`", lambda: _installed("spacy")),
    "wordnet": ("the package `wordnet-base`", Path("/usr/share/wordnet/index.noun").is_file),
    "browser": (
        "the extra `browser` and the programs chromium and npm",
        lambda: _installed("playwright") and bool(which("chromium") and which("npm")),
    ),
}

_FORBID_SKIPS = os.environ.get("ELMOLIB_NO_SKIPS") == "1"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data. Only tests marked `shared` may use it."""
    return SHARED


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


def pytest_itemcollected(item: pytest.Item) -> None:
    for mark, (what, is_there) in _NEEDS.items():
        if item.get_closest_marker(mark) and not is_there():
            item.add_marker(pytest.mark.skip(reason=f"needs {what}"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Parallel processes take the files in this order. Slow files come first, so that no process is
    # still busy with a slow file when the other processes have nothing left to do.
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    # Imported modules are never freed, so the garbage collector does not have to check them.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if skipped := _skipped(terminalreporter.config):
        terminalreporter.write_line(
            f"ELMOLIB_NO_SKIPS=1: {len(skipped)} skipped tests fail the run", red=True
        )


def _skipped(config: pytest.Config) -> list:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get("skipped", []) if _FORBID_SKIPS and reporter else []


def _installed(*modules: str) -> bool:
    return all(find_spec(module) for module in modules)
