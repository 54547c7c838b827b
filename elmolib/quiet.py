"""Starting TensorFlow without the greetings it writes past Python to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_start() -> Iterator[None]:
    """Keep TensorFlow silent if it is first imported within the block.

    It tells of missing graphics cards and of its own compiler in every notebook otherwise, and of
    what would be faster on another processor, as if that were an error. Errors are Python's
    exceptions all the same. To hear it, set `TF_CPP_MIN_LOG_LEVEL` to 0 or 1.
    """
    wanted = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") in ("0", "1")
    if wanted or "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
        if "tensorflow" in sys.modules:
            # It looks for devices at its first work only, and complains of what it did not find.
            sys.modules["tensorflow"].config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
