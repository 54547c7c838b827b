"""Keras and TensorFlow settings: messages, threads, compilation and bfloat16.

Importing this module is fast: its functions import Keras and TensorFlow only when they are called.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from traceback import walk_stack

from elmolib.errors import ParameterError
from elmolib.parallel import cpu_count

# TensorFlow computes these operations in float32, even between two bfloat16 products. Without this
# list, LSTM states are bfloat16: perplexity is a few per cent worse, and little time is saved.
_FLOAT32_OPS = "Add,AddN,AddV2,Maximum,Minimum,Mul,RealDiv,Sigmoid,SigmoidGrad,Softmax,Sub,Square"
_FLOAT32_OPS += ",SquaredDifference,Tanh,TanhGrad"


def uses_tensorflow() -> bool:
    import keras

    return keras.backend.backend() == "tensorflow"


def is_live_notebook() -> bool:
    """Whether a person has this notebook open. Jupyter sets this variable; Papermill does not."""
    return "JPY_SESSION_NAME" in os.environ


def is_watched() -> bool:
    """Whether a person would see a progress bar: in a terminal, or in an open notebook."""
    return sys.stderr.isatty() or is_live_notebook()


class _Printer(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print to the current `sys.stdout`, which may have changed since the handler was made."""
        print(self.format(record), flush=True)


def show_messages() -> None:
    """Print the messages of the logger `elmolib`, unless the caller has configured it already."""
    logger = logging.getLogger("elmolib")
    if not logger.handlers and logger.level == logging.NOTSET:
        logger.addHandler(_Printer())
        logger.setLevel(logging.INFO)


def is_notebook() -> bool:
    shell = sys.modules["IPython"].get_ipython() if sys.modules.get("IPython") else None
    return hasattr(shell, "kernel")


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment while the `with` block runs."""
    earlier = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if earlier is not None:
            os.environ[name] = earlier


@contextmanager
def silence_tensorflow() -> Iterator[None]:
    """If the `with` block imports TensorFlow, suppress its startup messages on standard error.

    The messages, such as those of missing GPUs, only look like errors: errors of TensorFlow are
    Python exceptions. To see the messages, set `TF_CPP_MIN_LOG_LEVEL` to 0 or 1.
    """
    # TensorFlow reads this variable only once, before its first message.
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL") or "3"
    if level in ("0", "1") or "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with environment("TF_CPP_MIN_LOG_LEVEL", level), open(os.devnull, "wb") as devnull:
            os.dup2(devnull.fileno(), 2)
            yield
            if "tensorflow" in sys.modules:
                # The first search for devices prints messages, so search now.
                sys.modules["tensorflow"].config.list_physical_devices()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def one_thread_per_direction() -> None:
    """On a machine with two processors, make TensorFlow run each operation on one processor.

    Each processor then computes one direction of a biLM. By default, TensorFlow splits each
    operation between the processors, but an LSTM step is too small for that: training and embedding
    take at least 10 % longer. With more than two processors, the defaults are equally fast. Numbers
    of threads that are set in `tf.config.threading` or in the environment are not changed.
    """
    if not uses_tensorflow() or cpu_count() != 2:
        return
    import tensorflow as tf

    threading = tf.config.threading
    is_chosen = any(map(os.environ.get, ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")))
    is_chosen |= threading.get_intra_op_parallelism_threads() > 0
    is_chosen |= threading.get_inter_op_parallelism_threads() > 0
    if not is_chosen:
        with suppress(RuntimeError):  # TensorFlow is already running
            threading.set_intra_op_parallelism_threads(1)
            threading.set_inter_op_parallelism_threads(2)


def refuse_promotion() -> None:
    """Raise a ParameterError if TensorFlow converts dtypes automatically, as Keras then fails."""
    if uses_tensorflow():
        from tensorflow.python.framework.ops import is_auto_dtype_conversion_enabled

        if is_auto_dtype_conversion_enabled():
            problem = "Keras does not work with TensorFlow's dtype_conversion_mode 'safe' or 'all'"
            advice = "call experimental_enable_numpy_behavior without this argument"
            raise ParameterError(f"{problem}: {advice}.")


def compile_once(function: Callable, signature: list[tuple], xla: bool = False) -> Callable:
    """If TensorFlow is the backend, compile a function once, so that it accepts arrays of any size.

    `signature` has the dtype and shape of each array; None is a dimension of any size. With `xla`,
    XLA compiles the function, so loops of small steps are faster. A ParameterError is raised if
    automatic mixed precision is on in TensorFlow. In PyTorch, the function runs without it.
    """
    if not uses_tensorflow():
        from keras import backend, ops

        def exactly(*arrays):
            return function(*map(ops.convert_to_tensor, arrays))

        if backend.backend() != "torch":
            return exactly
        from torch import autocast

        return autocast(ops.zeros(()).device.type, enabled=False)(exactly)
    import tensorflow as tf

    for option, is_on in tf.config.optimizer.get_experimental_options().items():
        if is_on and option.startswith("auto_mixed_precision"):
            problem = f"TensorFlow's option {option} would change vectors by about 1e-2"
            call = f"tf.config.optimizer.set_experimental_options({{{option!r}: False}})"
            raise ParameterError(f"{problem}: call {call} first.")
    specs = [tf.TensorSpec(shape, dtype) for dtype, shape in signature]
    xla = xla and _may_use_xla()
    return tf.function(function, input_signature=specs, autograph=False, jit_compile=xla or None)


def is_within(function: str) -> bool:
    """Whether a function with this name is on the call stack. Keras does not name the caller."""
    return any(frame.f_code.co_name == function for frame, _ in walk_stack(None))


def _may_use_xla() -> bool:
    """Whether XLA may merge operations. `tf.debugging` and ONNX export need them unmerged."""
    from tensorflow.python.eager import context

    return not context.context().op_callbacks and not is_within("export_onnx")


@cache
def jit(function: Callable) -> Callable:
    """On TensorFlow, compile a function of arrays with XLA, once per combination of array shapes.

    XLA merges elementwise operations into one, which reads each array from memory only once.
    Arguments that are not arrays become constants.
    """
    if not uses_tensorflow():
        return function
    import tensorflow as tf

    compiled = tf.function(function, jit_compile=True, autograph=False)
    return lambda *arguments: (compiled if _may_use_xla() else function)(*arguments)


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 natively; emulation is far slower than float32."""
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))


@contextmanager
def bfloat16_matmul() -> Iterator[None]:
    """Use bfloat16 for the matrix products and convolutions that the `with` block compiles.

    Sums, weights, LSTM states, losses and the optimizer remain in float32. TensorFlow's source file
    `auto_mixed_precision_lists.h` describes the environment variable set here.
    """
    import tensorflow as tf

    option = "auto_mixed_precision_onednn_bfloat16"
    with environment("TF_AUTO_MIXED_PRECISION_GRAPH_REWRITE_INFERLIST_REMOVE", _FLOAT32_OPS):
        tf.config.optimizer.set_experimental_options({option: True})
        try:
            yield
        finally:
            tf.config.optimizer.set_experimental_options({option: False})
