"""Start a separate JupyterLab, and a browser to use it with."""

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

TIMEOUT = 600  # seconds


class JupyterLab:
    """A running JupyterLab that ignores the settings and kernels of this machine.

    Args:
        folder: the folder of the notebooks, of JupyterLab's settings, and of its log `server.log`.

    Attributes:
        port: the port on 127.0.0.1.
        token: the access token.
        settings: the folder of JupyterLab's settings.
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
        # Most users do not set this variable, so the notebooks must silence TensorFlow themselves.
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
        """Return the URL that opens a notebook of `folder` in an empty workspace."""
        return f"http://127.0.0.1:{self.port}/lab/tree/{notebook}?token={self.token}&reset"

    def stop(self) -> None:
        """Stop JupyterLab and its kernels."""
        self._server.terminate()
        self._server.wait(TIMEOUT)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-background-networking"],
            # Users see scrollbars, so the tested pages must show them, too.
            ignore_default_args=["--hide-scrollbars"],
        )
        yield browser
        browser.close()


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds.

    Args:
        condition: function that is called until it returns true.
        what: the condition in words, for the error message.
    """
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"waited {TIMEOUT} s until {what}"
        time.sleep(0.05)
