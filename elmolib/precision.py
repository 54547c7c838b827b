"""Products of bfloat16 numbers, which some processors make nearly twice as fast as float32."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}

NEVER_BFLOAT16 = "TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_INFERLIST_REMOVE"
ELEMENTWISE = (
    "Add,AddN,AddV2,Maximum,Minimum,Mul,RealDiv,Sigmoid,SigmoidGrad,Softmax,Sub,Square,"
    "SquaredDifference,Tanh,TanhGrad"
)
"""What would otherwise be bfloat16 too between two products. A model whose LSTM states are added up
in it is some per cent more perplexed, and the time saved is next to none."""


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
    """Let what TensorFlow compiles and runs in the block multiply matrices in bfloat16.

    Only products and convolutions are made of numbers of 8 significant bits, summed up in float32.
    Weights, LSTM states, losses and the optimizer stay float32.

    References:
        TensorFlow, `tf.config.optimizer.set_experimental_options`,
        `auto_mixed_precision_onednn_bfloat16`; the environment variable is one of those that
        `auto_mixed_precision_lists.h` reads.
    """
    import tensorflow as tf

    option = "auto_mixed_precision_onednn_bfloat16"
    earlier = os.environ.get(NEVER_BFLOAT16)
    os.environ[NEVER_BFLOAT16] = ELEMENTWISE
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: False})
        if earlier is None:
            del os.environ[NEVER_BFLOAT16]
        else:
            os.environ[NEVER_BFLOAT16] = earlier
