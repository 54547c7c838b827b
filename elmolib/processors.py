"""Which processor works on what."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import keras

Item = TypeVar("Item")
Result = TypeVar("Result")


def processors() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_side_by_side() -> None:
    """With two processors, let TensorFlow give each of them one operation at a time.

    The two directions of a biLM know nothing of each other, and what one step of an LSTM computes
    is so little that two processors at work on it wait for each other longer than they save. With
    one direction each, training and embedding are faster by a tenth and more. With more than two
    processors there is nothing to gain over what TensorFlow does by itself.

    Whoever has set numbers of threads, by `tf.config.threading` or the environment variables
    `TF_NUM_INTRAOP_THREADS` and `TF_NUM_INTEROP_THREADS`, keeps them, and so does a TensorFlow that
    has already begun to work.
    """
    if keras.backend.backend() != "tensorflow" or processors() != 2:
        return
    import tensorflow as tf

    threading = tf.config.threading
    chosen = (
        threading.get_intra_op_parallelism_threads(),
        threading.get_inter_op_parallelism_threads(),
        os.environ.get("TF_NUM_INTRAOP_THREADS"),
        os.environ.get("TF_NUM_INTEROP_THREADS"),
    )
    if any(chosen):
        return
    try:
        threading.set_intra_op_parallelism_threads(1)
        threading.set_inter_op_parallelism_threads(2)
    except RuntimeError:
        # TensorFlow has begun to work, and says that its threads are there to stay.
        return


def work_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], n_threads: int
) -> Iterator[Result]:
    """Yield the work done on each item in turn while threads, if any, are at work on the next ones.

    So processors have something to do where one item leaves some of them waiting. The items
    themselves come from the thread that asks for the results.
    """
    if n_threads == 0:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(n_threads) as threads:
        coming: deque[Future[Result]] = deque()
        for item in items:
            coming.append(threads.submit(work, item))
            if len(coming) > n_threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
