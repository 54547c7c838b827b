"""How TensorFlow's threads are set, each case in a process of its own: they are set once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

REPORT = """
import tensorflow as tf
{before}
import elmolib.bilm
threading = tf.config.threading
print(threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())
"""


def threads(processors: int, before: str = "", **environment: str) -> str:
    """The threads of one operation and of operations side by side; 0 is TensorFlow's own choice."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < processors:
        pytest.skip(f"{processors} processors cannot be had here")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TF_NUM_")}
    chosen = sorted(os.sched_getaffinity(0))[:processors]
    pin = f"import os\nos.sched_setaffinity(0, {chosen})\n"
    done = subprocess.run(
        [sys.executable, "-c", pin + REPORT.format(before=before)],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_two_processors_work_on_one_operation_each():
    assert threads(2) == "1 2"


def test_with_one_processor_tensorflow_chooses():
    assert threads(1) == "0 0"


@pytest.mark.parametrize("name", ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"])
def test_a_number_of_threads_in_the_environment_stays(name):
    assert threads(2, **{name: "2"}) == "0 0"


def test_a_number_of_threads_set_in_the_program_stays():
    assert threads(2, "tf.config.threading.set_intra_op_parallelism_threads(2)") == "2 0"


def test_a_tensorflow_at_work_is_left_alone():
    assert threads(2, "tf.constant(1.0) + 1.0") == "0 0"
