"""The runtimes by name, and the choice of a runtime for an embedder."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from elmolib.backend import silence_tensorflow
from elmolib.embedding.int8 import scales_of
from elmolib.embedding.numpy_runtime import NumpyRuntime
from elmolib.embedding.runtime import Runtime, Scales
from elmolib.embedding.sentences import Sentence
from elmolib.errors import ParameterError
from elmolib.formats.weights import StoredModel

RUNTIMES = {
    "onnx": ("onnxruntime onnx", "'elmolib[fast]'"),
    "numpy": ("numpy", "numpy"),
    "tensorflow": ("tensorflow", "'elmolib[train]'"),
    "jax": ("jax", "keras jax"),
    "torch": ("torch", "keras torch"),
}
"""For each runtime, the packages that it needs, and the arguments of `pip install` for them.
"auto" means the first runtime whose packages are installed."""
PRECISIONS = ("float32", "int8")


def make_runtime(
    model: StoredModel,
    name: str = "auto",
    precision: str = "float32",
    calibrate: Iterable[Sentence] | Scales | None = None,
) -> Runtime:
    """Make a runtime for a stored model.

    Args:
        model: the model without its softmax. Keras runtimes empty `model.arrays` to save memory.
        name: a name in `RUNTIMES`, or "auto".
        precision: the dtype of the matrix products, a name in `PRECISIONS`.
        calibrate: for "int8", as in `elmolib.embedding.int8.scales_of`.

    Raises:
        ParameterError: there is no such runtime, its package is missing, it cannot compute in this
            precision, or Keras already runs on another backend.
    """
    if name == "auto":
        installed = (each for each in RUNTIMES if not _missing(each))
        name = "onnx" if precision == "int8" else next(installed)
    if name not in RUNTIMES:
        names = ", ".join(map(repr, RUNTIMES))
        raise ParameterError(f"runtime must be 'auto' or one of {names}, not {name!r}.")
    if missing := _missing(name):
        raise ParameterError(
            f"runtime={name!r} needs the package {missing[0]}, which is not installed: "
            f"pip install {RUNTIMES[name][1]}."
        )
    if precision not in PRECISIONS[: 1 + (name == "onnx")]:
        raise ParameterError(
            f"precision must be 'float32', or 'int8' with runtime='onnx', not {precision!r}."
        )
    runtime = _made(model, name, precision, calibrate)
    runtime.mix = model.mix
    return runtime


def _made(
    model: StoredModel, name: str, precision: str, calibrate: Iterable[Sentence] | Scales | None
) -> Runtime:
    if name == "numpy":
        return NumpyRuntime(model.architecture, model.arrays, model.spelling)
    if name == "onnx":
        from elmolib.embedding.onnx_runtime import OnnxRuntime, require_int8

        if precision == "int8":
            require_int8()
        scales = scales_of(model, calibrate) if precision == "int8" else None
        return OnnxRuntime(model.architecture, model.arrays, scales, model.spelling)
    with _keras_backend(name), silence_tensorflow():
        from elmolib.embedding.keras_runtime import KerasRuntime
        from elmolib.model.bilm import BiLM
    bilm = BiLM(model.architecture, values=model.arrays, **model.spelling.sizes)
    return KerasRuntime(bilm, model.spelling)


def _missing(name: str) -> list[str]:
    return [package for package in RUNTIMES[name][0].split() if find_spec(package) is None]


@contextmanager
def _keras_backend(name: str) -> Iterator[None]:
    """Make Keras use this backend if the `with` block is the first to import Keras."""
    variable, earlier = "KERAS_BACKEND", os.environ.get("KERAS_BACKEND")
    if "keras" not in sys.modules:
        os.environ[variable] = name
    try:
        yield
        backend = sys.modules["keras"].backend.backend()
    finally:
        os.environ.pop(variable, None)
        if earlier is not None:
            os.environ[variable] = earlier
    if backend != name:
        raise ParameterError(
            f"runtime={name!r} needs Keras on {name}, but here Keras runs on {backend}: start "
            f"Python with KERAS_BACKEND={name}."
        )
