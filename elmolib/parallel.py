"""Processors and threads."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")


def cpu_count() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prefetch(
    work: Callable[[Item], Result], items: Iterable[Item], n_threads: int
) -> Iterator[Result]:
    """Yield `work(item)` for each item in order, while threads work on the next items.

    `items` is iterated in the caller's thread, which also does the work if `n_threads` is 0.
    """
    if n_threads == 0:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(n_threads) as threads:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(threads.submit(work, item))
            if len(pending) > n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class _OneBlasThread:
    """Limit BLAS to one thread while at least one thread is inside the `with` block."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._controller: ThreadpoolController | None = None
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                if self._controller is None:
                    self._controller = ThreadpoolController()
                self._limit = self._controller.limit(limits=1, user_api="blas").__enter__()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._release()
                self._limit.__exit__(None, None, None)
                self._release()

    def _release(self) -> None:
        # Allow any thread to change a limit. threadpoolctl 3.8 allows only the thread that set it.
        for library in self._controller.lib_controllers:
            if hasattr(library, "clear_controlling_thread"):
                library.clear_controlling_thread(force=True)


ONE_BLAS_THREAD = _OneBlasThread()
"""While any thread is in `with ONE_BLAS_THREAD`, each NumPy product runs in its caller's thread.
Otherwise, BLAS threads wait for each other in small products, which can take 20 times as long."""
