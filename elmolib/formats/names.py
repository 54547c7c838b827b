"""Names and shapes of the weights, in elmolib and in HDF5 files of bilm-tf and AllenNLP."""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from elmolib.settings.architecture import Architecture
from elmolib.text.spelling import BYTES, Spelling

SOFTMAX = ("softmax/W", "softmax/b")

# The end of an array's name in the HDF5 files, checkpoints and modules that bilm-tf has made, and
# elmolib's name. Models with one layer have no number of a cell.
_BILM_TF = {
    r"char_embed": "char_cnn/embedding",
    r"CNN/W_cnn_(\d+)": "char_cnn/kernel_{0}",
    r"CNN/b_cnn_(\d+)": "char_cnn/bias_{0}",
    r"CNN_high_(\d+)/W_(carry|transform)": "char_cnn/highway_{0}/{1}",
    r"CNN_high_(\d+)/b_(carry|transform)": "char_cnn/highway_{0}/{1}_bias",
    r"CNN_proj/W_proj": "char_cnn/projection",
    r"CNN_proj/b_proj": "char_cnn/projection_bias",
    r"softmax/([Wb])": "softmax/{0}",
    r"(?:words/)?embedding": "words/embedding",
    r"words/projection": "words/projection",
}
_CELL = r"RNN_([01])/rnn/(?:multi_?rnn_?cell/cell_?(\d+)/)?(?:rnn/)?lstm_?cell/"
_CELL_PARTS = {
    r"(?:kernel|W_0)": "kernel",
    r"(?:bias|B)": "bias",
    r"(?:projection/kernel|W_P_0)": "projection",
}


def bilm_tf_names(names: Iterable[str]) -> dict[str, str]:
    """Map elmolib's names to the names that have the right ends; of several, to the shortest."""
    found = {}
    for name in sorted(names, key=len, reverse=True):
        for end, ours in _BILM_TF.items():
            if match := re.fullmatch(rf"(?:.*/)?{end}", name):
                found[ours.format(*match.groups())] = name
        for end, part in _CELL_PARTS.items():
            if match := re.fullmatch(rf"(?:.*/)?(?i:{_CELL}){end}", name):
                direction = ("forward", "backward")[int(match[1])]
                found[f"{direction}_{int(match[2] or 0)}/{part}"] = name
    return found


def dimensions(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Infer an architecture's dimensions from the shapes of the arrays, by elmolib's names."""

    def number(name: str) -> int:
        return next(k for k in itertools.count() if name.format(k) not in shapes)

    kernels = [shapes[f"char_cnn/kernel_{k}"] for k in range(number("char_cnn/kernel_{}"))]
    inputs, gates = shapes["forward_0/kernel"][-2:]
    return {
        "char_embedding_dim": shapes["char_cnn/embedding"][1],
        "filters": tuple((kernel[-3], kernel[-1]) for kernel in kernels),
        "n_highway": number("char_cnn/highway_{}/carry"),
        "lstm_dim": gates // 4,
        "projection_dim": inputs // 2,
        "n_layers": number("forward_{}/kernel"),
    }


class StoredArray(NamedTuple):
    """The name and shape of an array in a file. elmolib may use another shape for the values."""

    name: str
    shape: tuple[int, ...]


def hdf5_arrays(
    architecture: Architecture, vocabulary_size: int | None = None, spelling: Spelling = BYTES
) -> dict[str, StoredArray]:
    """Map elmolib's name of each weight to its array in an HDF5 file of bilm-tf or AllenNLP.

    `vocabulary_size` is the number of words of the softmax, or None for a file without softmax.
    Only elmolib writes arrays of another `spelling`.

    References:
        bilm-tf, `bilm/training.py`. If `n_filters` equals `projection_dim`, there is no projection
        after the convolutions. If `lstm_dim` equals `projection_dim`, the LSTM has no projection.
    """
    a, n, dim = architecture, architecture.n_filters, architecture.projection_dim
    shapes: dict[str, tuple] = {"char_embed": (spelling.n_characters, a.char_embedding_dim)}
    for i, (width, count) in enumerate(a.filters):
        shapes[f"CNN/W_cnn_{i}"] = (1, width, a.char_embedding_dim, count)
        shapes[f"CNN/b_cnn_{i}"] = (count,)
    for i in range(a.n_highway):
        for gate in ("carry", "transform"):
            shapes[f"CNN_high_{i}/W_{gate}"] = (n, n)
            shapes[f"CNN_high_{i}/b_{gate}"] = (n,)
    if n != dim:
        shapes["CNN_proj/W_proj"] = (n, dim)
        shapes["CNN_proj/b_proj"] = (dim,)
    for direction in (0, 1):
        for layer in range(a.n_layers):
            cell = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            shapes[f"{cell}/W_0"] = (2 * dim, 4 * a.lstm_dim)
            shapes[f"{cell}/B"] = (4 * a.lstm_dim,)
            if a.lstm_dim != dim:
                shapes[f"{cell}/W_P_0"] = (a.lstm_dim, dim)
    if spelling.words is not None:
        shapes["words/embedding"] = (len(spelling.words), spelling.word_dim or dim)
    if spelling.word_dim is not None:
        shapes["words/projection"] = (spelling.word_dim, dim)
    if vocabulary_size is not None:
        shapes["softmax/W"] = (vocabulary_size, dim)
        shapes["softmax/b"] = (vocabulary_size,)
    names = {theirs: ours for ours, theirs in bilm_tf_names(shapes).items()}
    return {names[theirs]: StoredArray(theirs, shape) for theirs, shape in shapes.items()}


def weight_shapes(
    architecture: Architecture, vocabulary_size: int | None = None, spelling: Spelling = BYTES
) -> dict[str, tuple[int, ...]]:
    """Map elmolib's name of every weight to its shape. The arguments are those of `hdf5_arrays`."""
    arrays = hdf5_arrays(architecture, vocabulary_size, spelling)
    # Files store the kernel of a convolution as a two-dimensional filter of height 1.
    return {n: a.shape[1:] if len(a.shape) == 4 else a.shape for n, a in arrays.items()}
