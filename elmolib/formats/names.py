"""Names and shapes of the weights, in elmolib and in HDF5 files of bilm-tf and AllenNLP."""

from typing import NamedTuple

from elmolib.settings.architecture import N_BYTE_CHARACTERS, Architecture

SOFTMAX = ("softmax/W", "softmax/b")


class StoredArray(NamedTuple):
    """The name and shape of an array in a file. elmolib may use another shape for the values."""

    name: str
    shape: tuple[int, ...]


def hdf5_arrays(
    architecture: Architecture, vocabulary_size: int | None = None
) -> dict[str, StoredArray]:
    """Map elmolib's name of each weight to its array in an HDF5 file of bilm-tf or AllenNLP.

    `vocabulary_size` is the number of words of the softmax, or None for a file without softmax.

    References:
        bilm-tf, `bilm/training.py`. If `n_filters` equals `projection_dim`, there is no projection
        after the convolutions. If `lstm_dim` equals `projection_dim`, the LSTM has no projection.
    """
    a, n = architecture, architecture.n_filters
    arrays = {"char_cnn/embedding": ("char_embed", (N_BYTE_CHARACTERS, a.char_embedding_dim))}
    for i, (width, count) in enumerate(a.filters):
        shape = (1, width, a.char_embedding_dim, count)
        arrays[f"char_cnn/kernel_{i}"] = (f"CNN/W_cnn_{i}", shape)
        arrays[f"char_cnn/bias_{i}"] = (f"CNN/b_cnn_{i}", (count,))
    for i in range(a.n_highway):
        for gate in ("carry", "transform"):
            ours, theirs = f"char_cnn/highway_{i}/{gate}", f"CNN_high_{i}"
            arrays[ours] = (f"{theirs}/W_{gate}", (n, n))
            arrays[f"{ours}_bias"] = (f"{theirs}/b_{gate}", (n,))
    if n != a.projection_dim:
        arrays["char_cnn/projection"] = ("CNN_proj/W_proj", (n, a.projection_dim))
        arrays["char_cnn/projection_bias"] = ("CNN_proj/b_proj", (a.projection_dim,))
    for d, direction in enumerate(("forward", "backward")):
        for layer in range(a.n_layers):
            ours = f"{direction}_{layer}"
            theirs = f"RNN_{d}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            arrays[f"{ours}/kernel"] = (f"{theirs}/W_0", (2 * a.projection_dim, 4 * a.lstm_dim))
            arrays[f"{ours}/bias"] = (f"{theirs}/B", (4 * a.lstm_dim,))
            if a.lstm_dim != a.projection_dim:
                shape = (a.lstm_dim, a.projection_dim)
                arrays[f"{ours}/projection"] = (f"{theirs}/W_P_0", shape)
    if vocabulary_size is not None:
        arrays["softmax/W"] = ("softmax/W", (vocabulary_size, a.projection_dim))
        arrays["softmax/b"] = ("softmax/b", (vocabulary_size,))
    return {ours: StoredArray(*array) for ours, array in arrays.items()}


def hdf5_surplus(architecture: Architecture) -> dict[str, str]:
    """For arrays that only larger models have, return the options key whose value is too low."""
    a = architecture
    cells = [f"RNN_{direction}/RNN/MultiRNNCell" for direction in range(2)]
    surplus = {
        f"CNN/W_cnn_{len(a.filters)}": "char_cnn.filters",
        f"CNN_high_{a.n_highway}/W_carry": "char_cnn.n_highway",
        "CNN_proj/W_proj": "lstm.projection_dim",
        **{f"{cell}/Cell{a.n_layers}/LSTMCell/W_0": "lstm.n_layers" for cell in cells},
        **{f"{cell}/Cell0/LSTMCell/W_P_0": "lstm.projection_dim" for cell in cells},
    }
    own = {array.name for array in hdf5_arrays(a).values()}
    return {name: key for name, key in surplus.items() if name not in own}


def weight_shapes(
    architecture: Architecture, vocabulary_size: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Map elmolib's name of every weight to its shape. The arguments are those of `hdf5_arrays`."""
    arrays = hdf5_arrays(architecture, vocabulary_size)
    # Files store the kernel of a convolution as a two-dimensional filter of height 1.
    return {n: a.shape[1:] if len(a.shape) == 4 else a.shape for n, a in arrays.items()}
