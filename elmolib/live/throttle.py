"""Limit the time that other work, such as drawing, takes from training."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Throttle:
    """Limit how often some work is done, and the largest share of all time that it may take.

    At least `seconds` pass before each start of the work. `clock` measures the work, by default in
    the thread's processor time, because a thread that waits does not slow training.
    """

    def __init__(
        self, fraction: float = 0.02, seconds: float = 1.0, clock: Callable = time.thread_time
    ) -> None:
        self._fraction, self._seconds, self._clock = fraction, seconds, clock
        self._next = time.monotonic() + seconds

    def is_due(self) -> bool:
        """Whether the work may start now; False while it is being done."""
        return time.monotonic() >= self._next

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Measure the time of the `with` block, which does the work in this thread."""
        started, busy = time.monotonic(), self._clock()
        self._next = math.inf
        try:
            yield
        finally:
            self._next = started + max(self._seconds, (self._clock() - busy) / self._fraction)
