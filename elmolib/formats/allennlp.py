"""ELMo inside a model of AllenNLP: a `model.tar.gz`, its folder, or its `weights.th` alone."""

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from elmolib.errors import WeightsError
from elmolib.formats import assembly, torch_file
from elmolib.formats.assembly import Array, Arrays, Request, StoredModel
from elmolib.formats.options import read_options

_WEIGHTS, _CHARACTERS = "weights.th", "_elmo_lstm._token_embedder._char_embedding_weights"
_CONVOLUTION = r"(?:char_conv_|convolutions\.)(\d+)"
_LAYER = r"(forward|backward)_layer_(\d+)\."


def _gates(values: np.ndarray) -> np.ndarray:
    """Put the gates into the order input, candidate, forget, output."""
    return values.reshape(4, -1, *values.shape[1:])[[0, 2, 1, 3]].reshape(values.shape)


def _bias(values: np.ndarray) -> np.ndarray:
    """Take the constant 1 from the forget gate, because elmolib adds it."""
    forget = np.repeat(np.array([0, 0, 1, 0], np.float32), len(values) // 4)
    return _gates(values) - forget


def _matrix(values: np.ndarray) -> np.ndarray:
    return values.reshape(values.shape[0], values.shape[1])


# For each name in AllenNLP and ELMoForManyLangs, elmolib's names and the values.
_NAMES: dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    r"_char_embedding_weights|char_emb_layer\.embedding\.weight": {"char_cnn/embedding": _matrix},
    r"word_emb_layer\.embedding\.weight": {"words/embedding": _matrix},
    rf"{_CONVOLUTION}\.weight": {"char_cnn/kernel_{0}": lambda x: x.transpose(2, 1, 0)[None]},
    rf"{_CONVOLUTION}\.bias": {"char_cnn/bias_{0}": lambda x: x},
    r"_?highways\._layers\.(\d+)\.(weight|bias)": {
        "char_cnn/highway_{0}/transform{1}": lambda x: x[: len(x) // 2].T,
        "char_cnn/highway_{0}/carry{1}": lambda x: -x[len(x) // 2 :].T,
    },
    r"_?projection\.weight": {"char_cnn/projection": lambda x: _matrix(x).T},
    r"_?projection\.bias": {"char_cnn/projection_bias": lambda x: x},
    rf"{_LAYER}input_linearity\.weight": {"{0}_{1}/input": lambda x: _gates(_matrix(x)).T},
    rf"{_LAYER}state_linearity\.weight": {"{0}_{1}/state": lambda x: _gates(_matrix(x)).T},
    rf"{_LAYER}state_linearity\.bias": {"{0}_{1}/bias": _bias},
    rf"{_LAYER}state_projection\.weight": {"{0}_{1}/projection": np.transpose},
}


def recognizes(path: Path) -> bool:
    """Whether a path is a file of PyTorch, or a folder with AllenNLP's `weights.th`."""
    return torch_file.recognizes(path / _WEIGHTS if path.is_dir() else path)


def read(path: Path, request: Request, source: str) -> StoredModel:
    """Read the ELMo in a model of AllenNLP, with its mix.

    The options are those in the archive, if any, or else the usual ones. The archive may also
    hold an HDF5 file, but the weights in `weights.th` may have been trained further.

    References:
        AllenNLP 0.9, `modules/elmo.py` and `modules/elmo_lstm.py`.
    """
    file = path / _WEIGHTS if path.is_dir() else path
    tensors = torch_file.read_tensors(file, source)
    found = [name.removesuffix(_CHARACTERS) for name in tensors if name.endswith(_CHARACTERS)]
    if not found:
        is_other = any("_contextualizer" in name for name in tensors)
        what = "has another encoder than ELMo, such as a Transformer" if is_other else "has no ELMo"
        raise WeightsError(f"{source} {what}: name a model with the ELMo of Peters et al. 2018.")
    if len(found) > 1:
        warnings.warn(f"{source} has several ELMos: {found[0]!r} is read.", stacklevel=2)
    named = sorted(path.glob("fta/*options_file"))
    options = read_options(named[0], f"{source}/fta/{named[0].name}") if named else None
    parts = [f"{found[0]}_elmo_lstm.{part}." for part in ("_token_embedder", "_elmo_lstm")]
    own = {n.removeprefix(p): a for n, a in tensors.items() for p in parts if n.startswith(p)}
    mix = f"{found[0]}scalar_mix_0"
    names = [f"{mix}.scalar_parameters.{k}" for k in range(len(tensors))]
    scalars = [tensors[name] for name in names if name in tensors]
    factors = [tensors[name] for name in (f"{mix}.gamma",) if name in tensors]
    arrays, weights = from_torch(own, source), assembly.mix_of(scalars, factors, source)
    before = partial(torch_file.require_stored, [file], source)
    return assembly.assemble(arrays, options, request, source, file, before, mix=weights)


def from_torch(tensors: Arrays, source: str) -> dict[str, Array]:
    """Return the arrays of AllenNLP or ELMoForManyLangs by elmolib's names."""
    found: dict[str, Array] = {}
    for theirs, tensor in tensors.items():
        for pattern, changes in _NAMES.items():
            if match := re.fullmatch(pattern, theirs):
                groups = [{"weight": "", "bias": "_bias"}.get(g, g) for g in match.groups()]
                for name, change in changes.items():
                    try:
                        found[name.format(*groups)] = changed(tensor, change)
                    except (LookupError, ValueError):
                        shape = f"the shape {tensor.shape}"
                        raise WeightsError(f"{source}: {theirs} cannot have {shape}.") from None
    for layer in [name.removesuffix("/input") for name in found if name.endswith("/input")]:
        pair = [found.pop(f"{layer}/{part}", None) for part in ("input", "state")]
        if None not in pair:
            shape = sum(each.shape[0] for each in pair), pair[0].shape[1]
            found[f"{layer}/kernel"] = Array(pair[0].name, shape, partial(_joined, pair, shape))
    return found


def changed(array: Array, change: Callable[[np.ndarray], np.ndarray]) -> Array:
    """Return an array whose values are changed when it is read."""
    shape = change(np.broadcast_to(np.float32(0), array.shape)).shape
    return Array(array.name, shape, lambda: change(array.read()))


def _joined(arrays: list[Array], shape: tuple[int, int]) -> np.ndarray:
    # `np.concatenate` would need all arrays in memory, and their copy.
    joined, at = np.empty(shape, np.float32), 0
    for array in arrays:
        joined[at : at + array.shape[0]] = array.read()
        at += array.shape[0]
    return joined
