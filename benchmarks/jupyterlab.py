"""A JupyterLab of its own and a browser, as a person would have them before them."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.program import ROOT

ENOUGH = 600  # seconds after which something has failed rather than is slow


class JupyterLab:
    """A running JupyterLab that knows nothing of the settings and kernels of this machine.

    Args:
        folder: what it shows; its settings, and what it prints in `server.log`, lie there too.

    Attributes:
        port: on which it listens, on this machine alone.
        token: by which it lets one in.
        settings: the folder of its settings.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.token = secrets.token_hex(16)
        self.settings = folder / "settings"
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(self.settings),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        }
        # Where it is set, it is for programs; notebooks keep TensorFlow quiet by themselves.
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
        options = {
            "ServerApp.port": self.port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": folder,
            "IdentityProvider.token": self.token,
        }
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        self._log = folder / "server.log"
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                command + [f"--{name}={value}" for name, value in options.items()],
                env=environment,
                stdout=log,
                stderr=log,
            )
        until(self._listens, "JupyterLab listens")

    def _listens(self) -> bool:
        assert self._server.poll() is None, self._log.read_text()
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", self.port)) == 0

    def address(self, notebook: str) -> str:
        """Tell where a notebook, named as in the folder, is opened in an empty workspace."""
        return f"http://127.0.0.1:{self.port}/lab/tree/{notebook}?token={self.token}&reset"

    def stop(self) -> None:
        """End it and its kernels."""
        self._server.terminate()
        self._server.wait(ENOUGH)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-background-networking"],
        )
        yield browser
        browser.close()


def until(is_so: Callable[[], bool], what: str) -> None:
    """Wait for something to be so."""
    give_up = time.monotonic() + ENOUGH
    while not is_so():
        assert time.monotonic() < give_up, f"waited {ENOUGH} s until {what}"
        time.sleep(0.05)
