"""The runtimes by name, and the choice of a runtime for an embedder."""

from collections.abc import Iterable
from importlib.util import find_spec

from elmolib.backend import environment, silence_tensorflow
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
        precision: the dtype of the matrix products, "float32" or "int8".
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
    if precision != "float32" and (name, precision) != ("onnx", "int8"):
        raise ParameterError(
            f"precision must be 'float32', or 'int8' with runtime='onnx', not {precision!r}."
        )
    runtime: Runtime
    if name == "numpy":
        runtime = NumpyRuntime(model.architecture, model.arrays, model.spelling)
    elif name == "onnx":
        from elmolib.embedding.onnx_runtime import OnnxRuntime, require_int8

        scales = None
        if precision == "int8":
            require_int8()
            scales = scales_of(model, calibrate)
        runtime = OnnxRuntime(model.architecture, model.arrays, model.spelling, scales)
    else:
        # Keras reads this variable when it is first imported.
        with environment("KERAS_BACKEND", name), silence_tensorflow():
            from elmolib.embedding.keras_runtime import KerasRuntime, backend
            from elmolib.model.bilm import BiLM
        if backend.backend() != name:
            raise ParameterError(
                f"runtime={name!r} needs Keras on {name}, but here Keras runs on "
                f"{backend.backend()}: start Python with KERAS_BACKEND={name}."
            )
        bilm = BiLM(model.architecture, values=model.arrays, **model.spelling.sizes)
        runtime = KerasRuntime(bilm, model.spelling)
    runtime.mix = model.mix
    return runtime


def _missing(name: str) -> list[str]:
    return [package for package in RUNTIMES[name][0].split() if find_spec(package) is None]
