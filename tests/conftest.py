"""What every test may rely on, and what makes a skipped test count."""

from __future__ import annotations

import gc
import os

# Read when TensorFlow is first imported, hence above every other import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from importlib.util import find_spec
from pathlib import Path
from shutil import which

import pytest
from hypothesis import settings

# The same examples every time, however slow the machine.
settings.register_profile("elmolib", deadline=None, derandomize=True)
settings.load_profile("elmolib")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

_NEEDS = {
    "shared": ("the folder ../shared", SHARED.is_dir),
    "peers": ("the extra `peers`", lambda: _installed("bilm", "simple_elmo", "tf_keras")),
    "backends": ("the extra `backends`", lambda: _installed("jax", "torch")),
    "wordnet": ("the package `wordnet-base`", Path("/usr/share/wordnet/index.noun").is_file),
    "browser": (
        "the extra `browser` and the program chromium",
        lambda: _installed("playwright") and bool(which("chromium")),
    ),
}

_FORBID_SKIPS = os.environ.get("ELMOLIB_NO_SKIPS") == "1"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data; only for tests marked `shared`."""
    return SHARED


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


def pytest_itemcollected(item: pytest.Item) -> None:
    for mark, (what, is_there) in _NEEDS.items():
        if item.get_closest_marker(mark) and not is_there():
            item.add_marker(pytest.mark.skip(reason=f"needs {what}"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Several processes share the files out in this order: a long one last would be waited for.
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    # What was imported stays; to look for garbage in it again and again takes a while.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if skipped := _skipped(terminalreporter.config):
        terminalreporter.write_line(
            f"ELMOLIB_NO_SKIPS: {len(skipped)} skipped where every test has to run", red=True
        )


def _skipped(config: pytest.Config) -> list:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get("skipped", []) if _FORBID_SKIPS and reporter else []


def _installed(*modules: str) -> bool:
    return all(find_spec(module) for module in modules)
