"""TensorFlow's thread counts, each case in its own process because they can be set only once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

REPORT = """
import tensorflow as tf
{before}
from elmolib.backend import one_thread_per_direction
one_thread_per_direction()
threading = tf.config.threading
print(threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())
"""


def threads(cpu_count: int, before: str = "", **environment: str) -> str:
    """Return TensorFlow's thread counts within and between operations; 0 is its own choice."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < cpu_count:
        pytest.skip(f"needs {cpu_count} processors")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TF_NUM_")}
    chosen = sorted(os.sched_getaffinity(0))[:cpu_count]
    pin = f"import os\nos.sched_setaffinity(0, {chosen})\n"
    done = subprocess.run(
        [sys.executable, "-c", pin + REPORT.format(before=before)],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_with_two_processors_each_operation_has_one_thread():
    assert threads(2) == "1 2"


def test_with_one_processor_tensorflow_chooses():
    assert threads(1) == "0 0"


@pytest.mark.parametrize("name", ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"])
def test_thread_counts_in_the_environment_are_kept(name):
    assert threads(2, **{name: "2"}) == "0 0"


def test_thread_counts_set_by_the_program_are_kept():
    assert threads(2, "tf.config.threading.set_intra_op_parallelism_threads(2)") == "2 0"


def test_a_running_tensorflow_is_left_unchanged():
    assert threads(2, "tf.constant(1.0) + 1.0") == "0 0"
