"""Products of bfloat16 numbers, which some processors make nearly twice as fast as float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 itself; TensorFlow's stand-in is far slower.

    Args:
        cpuinfo: what Linux says of the processors; elsewhere there is none, and the answer no.
    """
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return bool(INSTRUCTIONS & set(flags.split()))


@contextmanager
def bfloat16_products() -> Iterator[None]:
    """Let what TensorFlow compiles and runs in the block multiply in bfloat16.

    Weights, sums, losses and the optimizer stay float32: only products of matrices, convolutions
    and what lies directly between them are made of numbers of 8 significant bits.

    References:
        TensorFlow, `tf.config.optimizer.set_experimental_options`,
        `auto_mixed_precision_onednn_bfloat16`.
    """
    import tensorflow as tf

    option = "auto_mixed_precision_onednn_bfloat16"
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: False})
