"""The dashboard of a run in a terminal: its progress, its curves, and a key that stops the run."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from elmolib.live.progress import Progress, read_progress, read_steps, request_stop


def show_in_terminal(run_folder: Path) -> None:
    """Show a run of another process until the run ends or q is pressed. The key s stops the run."""
    note, n_lines = "s: stop the run | q: leave it running", 0
    with _keys() as pressed_key:
        while True:
            progress = read_progress(run_folder)
            width = shutil.get_terminal_size().columns - 1
            lines = dashboard_lines(run_folder, progress, width)
            lines += [note] * progress.is_running
            # Go up to the first line of the previous picture, and clear the screen from there.
            print(f"\x1b[{n_lines}F\x1b[J" if n_lines else "", "\n".join(lines), sep="", flush=True)
            n_lines = len(lines)
            key = pressed_key() if progress.is_running else b""
            if key == b"s":
                request_stop(run_folder)
                note = "The run stops after the current step and saves everything."
            elif key == b"q" or not progress.is_running:
                return


@contextmanager
def _keys() -> Iterator[Callable[[], bytes]]:
    """Give a function that waits up to two seconds and returns the key that was pressed, or b""."""
    if sys.platform == "win32":
        import msvcrt

        def pressed_key() -> bytes:
            time.sleep(2.0)
            return msvcrt.getch() if msvcrt.kbhit() else b""

        yield pressed_key
    else:
        import select
        import termios
        import tty

        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
        try:
            tty.setcbreak(terminal)  # keys arrive without Enter
            yield lambda: os.read(terminal, 1) if select.select([terminal], [], [], 2.0)[0] else b""
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def dashboard_lines(run_folder: Path, progress: Progress, width: int) -> list[str]:
    """Return lines of at most `width` characters: the state, a bar and perplexities over time."""
    done, room = progress.step / progress.last_step, max(width - 7, 1)
    lines = [str(run_folder), f"{'█' * round(done * room):░<{room}} {done:6.1%}"]
    lines += str(progress).split(" | ")
    if progress.unigram is not None:
        lines.append(f"word frequencies alone: perplexity {progress.unigram:.1f}")
    steps = read_steps(run_folder)
    for name, title in (("heldout_mean", "held-out"), ("train_text_mean", "training text")):
        values = steps[name].dropna().to_numpy()
        if len(values) > 1:
            first, last = f"{title} {values[0]:.1f} ", f" {values[-1]:.1f}"
            lines.append(first + sparkline(values, width - len(first + last)) + last)
    return [line[:width] for line in lines]


def sparkline(values: np.ndarray, width: int) -> str:
    """Draw positive values as blocks, on a logarithmic scale, in at most `width` characters."""
    parts = np.array_split(values, max(1, min(width, len(values))))
    logs = np.log([part.mean() for part in parts])
    heights = np.round(7 * (logs - logs.min()) / (np.ptp(logs) or 1)).astype(int)
    return "".join("▁▂▃▄▅▆▇█"[height] for height in heights)
