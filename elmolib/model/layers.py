"""The character CNN, the highway layers, and the class that creates all weights."""

import math
from collections.abc import Callable, MutableMapping
from copy import copy
from functools import partial

import keras
import numpy as np
from keras import ops

from elmolib.backend import refuse_promotion
from elmolib.settings.architecture import N_BYTE_CHARACTERS, Architecture

FLOAT32 = {"dtype": "float32"}
"""The dtype in which a stored model computes, whatever dtype Keras gives new layers."""


class Weights:
    """Create the weights of a model's layers, with values by name or random, and list them by name.

    Each array is removed from `values` when it is used, so loading needs little more memory.
    """

    def __init__(self, values: MutableMapping[str, np.ndarray] | None = None) -> None:
        self.by_name: dict[str, keras.Variable] = {}  # all weights so far
        self._values = values
        self._prefix = ""

    def of(self, layer: str) -> "Weights":
        """Return an object that creates the weights of an inner layer, with names `layer/name`."""
        inner = copy(self)
        inner._prefix = f"{self._prefix}{layer}/"
        return inner

    def add(
        self, layer: keras.Layer, name: str, shape: tuple[int, ...], random: str | Callable
    ) -> keras.Variable:
        """Create a weight; `random` is its initializer if there are no stored values."""
        path, values = self._prefix + name, self._values

        def stored(shape: tuple[int, ...], dtype: str | None = None):
            return ops.convert_to_tensor(values.pop(path), dtype)

        initializer = random if values is None else stored
        # Without autocast, the weight stays float32 even if an enclosing layer uses another dtype.
        weight = layer.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)
        self.by_name[path] = weight
        return weight


@keras.saving.register_keras_serializable(package="elmolib")
class CharCNN(keras.Layer):
    """Character embedding, convolutions, maximum over positions, highway layers, projection.

    Call arguments:
        *groups: character ids from 0 to 260, integer tensors (words, characters). Columns of
            padding may be cut off as in `elmolib.text.characters.trim_columns`.
        padded: whether every word ends with padding at least as wide as the widest filter. True is
            faster for inference but slower for training.

    Returns:
        the vectors of the words in all groups, a float tensor (words, projection_dim).

    References:
        Peters et al. 2018, arXiv:1802.05365, section 3.4; Kim et al. 2016, arXiv:1508.06615.
    """

    def __init__(
        self, architecture: Architecture | dict, n_characters: int = N_BYTE_CHARACTERS, **kwargs
    ) -> None:
        super().__init__(**kwargs | FLOAT32)
        self.architecture = a = Architecture.model_validate(architecture)
        self.n_characters = n_characters
        self.activation = keras.activations.get(a.activation)
        self.highways = [Highway(name=f"highway_{i}") for i in range(a.n_highway)]

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        self.create_weights(Weights())

    def create_weights(self, weights: Weights) -> None:
        a, dim = self.architecture, self.architecture.char_embedding_dim
        uniform, normal = keras.initializers.RandomUniform, keras.initializers.RandomNormal
        weight = partial(weights.add, self)
        self.embedding = weight("embedding", (self.n_characters, dim), uniform(-1.0, 1.0))
        self.kernels, self.biases = [], []
        for i, (width, count) in enumerate(a.filters):
            spread = math.sqrt(1 / (width * dim))
            random = uniform(-0.05, 0.05) if a.activation == "relu" else normal(stddev=spread)
            self.kernels.append(weight(f"kernel_{i}", (width, dim, count), random))
            self.biases.append(weight(f"bias_{i}", (count,), "zeros"))
        for highway in self.highways:
            highway.create_weights(weights.of(highway.name), a.n_filters)
        self.projection = self.projection_bias = None
        if a.n_filters != a.projection_dim:
            random = normal(stddev=math.sqrt(1 / a.n_filters))
            self.projection = weight("projection", (a.n_filters, a.projection_dim), random)
            self.projection_bias = weight("projection_bias", (a.projection_dim,), "zeros")
        self.built = True

    def call(self, *groups, padded: bool = False):
        refuse_promotion()
        x = ops.concatenate([self._convolve(characters, padded) for characters in groups], axis=0)
        for highway in self.highways:
            x = highway(x)  # (words, filters)
        if self.projection is not None:
            x = ops.matmul(x, self.projection) + self.projection_bias  # (words, projection)
        return x

    def _convolve(self, characters, padded: bool):
        x = ops.take(self.embedding, characters, axis=0)  # (words, characters, embedding)
        as_usual = partial(ops.conv, data_format="channels_last")
        convolve = self._windows_product if padded else as_usual
        # Bias and activation are monotonic, so apply them only to the maxima, which are fewer.
        pooled = [
            self.activation(ops.max(convolve(x, kernel), axis=1) + bias)
            for kernel, bias in zip(self.kernels, self.biases, strict=True)
        ]
        return ops.concatenate(pooled, axis=-1)  # (words, filters)

    def _windows_product(self, x, kernel):
        """Compute a convolution as one matrix product. All words must end with padding.

        Characters have few features, so this is faster than `ops.conv`; its gradient is slower.
        """
        width, dim, count = kernel.shape
        # All windows that contain only padding give the same values, so compute only one of them.
        n = ops.shape(x)[1] - self.architecture.widest_filter + 1
        windows = ops.concatenate([x[:, i : i + n] for i in range(width)], axis=-1)
        windows = ops.reshape(windows, (-1, width * dim))  # (words * n, width * embedding)
        found = ops.matmul(windows, ops.reshape(kernel, (width * dim, count)))
        return ops.reshape(found, (-1, n, count))

    def get_config(self) -> dict:
        config = {"architecture": self.architecture.to_json(), "n_characters": self.n_characters}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="elmolib")
class TimestepDropout(keras.layers.Dropout):
    """Dropout of whole words; input and output are float tensors (time, batch, features)."""

    def __init__(self, rate: float, noise_shape=(None, None, 1), **kwargs) -> None:
        super().__init__(rate, noise_shape, **kwargs)


@keras.saving.register_keras_serializable(package="elmolib")
class Highway(keras.Layer):
    """Mix a transformed input with the input itself, both float tensors (..., features).

    The output is `gate * relu(x @ transform + transform_bias) + (1 - gate) * x` with
    `gate = sigmoid(x @ carry + carry_bias)`. The bias of the gate starts at -2, so a new layer
    returns mostly its input. See Srivastava et al. 2015, arXiv:1505.00387.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs | FLOAT32)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.create_weights(Weights(), input_shape[-1])

    def create_weights(self, weights: Weights, features: int) -> None:
        weight, square = partial(weights.add, self), (features, features)
        normal = keras.initializers.RandomNormal(stddev=math.sqrt(1.0 / features))
        self.carry = weight("carry", square, normal.clone())
        self.carry_bias = weight("carry_bias", (features,), keras.initializers.Constant(-2.0))
        self.transform = weight("transform", square, normal.clone())
        self.transform_bias = weight("transform_bias", (features,), "zeros")
        self.built = True

    def call(self, x):
        gate = ops.sigmoid(ops.matmul(x, self.carry) + self.carry_bias)
        transformed = ops.relu(ops.matmul(x, self.transform) + self.transform_bias)
        return x + gate * (transformed - x)
