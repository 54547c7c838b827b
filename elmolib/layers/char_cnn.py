"""From the characters of a word to its context-free vector."""

from __future__ import annotations

import math

import keras
from keras import ops

from elmolib.layers.highway import Highway
from elmolib.layers.stored import Choice, fresh
from elmolib.options import N_CHARACTERS, BiLMOptions


@keras.saving.register_keras_serializable(package="elmolib")
class CharCNN(keras.Layer):
    """Character embedding, convolutions, maximum over positions, highway layers, projection.

    Args:
        options: dimensions; see `elmolib.options.BiLMOptions`.

    Call arguments:
        *groups: one or several integer tensors (words, characters), ids 0 to 260. Columns may be
            cut off on the right where all words of a group have padding, as long as one window of
            padding alone is left for the widest filter, or none was there before.
        padded: every word ends with padding at least as wide as the widest filter. Such words are
            spelt faster, but trained with more slowly.

    Returns:
        float tensor (words of all groups, projection_dim).

    References:
        Peters et al. 2018, arXiv:1802.05365, section 3.4; Kim et al. 2016, arXiv:1508.06615.
    """

    def __init__(self, options: BiLMOptions, **kwargs) -> None:
        super().__init__(**kwargs)
        self.options = options
        self.activation = keras.activations.get(options.activation)
        self.highways = [Highway(name=f"highway_{i}") for i in range(options.n_highway)]

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        """Create the weights with random values."""
        self.create_weights(fresh)

    def create_weights(self, choose: Choice) -> None:
        """Create the weights, each in the shape in which it is stored, as `choose` says."""

        def weight(name: str, shape: tuple[int, ...], usual):
            chosen = choose(name, usual)
            return self.add_weight(name=name.replace("/", "_"), shape=shape, initializer=chosen)

        options = self.options
        dim, n_filters = options.char_embedding_dim, options.n_filters
        uniform, normal = keras.initializers.RandomUniform, keras.initializers.RandomNormal
        self.char_embed = weight("char_embed", (N_CHARACTERS, dim), uniform(-1.0, 1.0))
        self.kernels, self.biases = [], []
        for i, (width, count) in enumerate(options.filters):
            spread = math.sqrt(1 / (width * dim))
            random = uniform(-0.05, 0.05) if options.activation == "relu" else normal(stddev=spread)
            self.kernels.append(weight(f"CNN/W_cnn_{i}", (1, width, dim, count), random))
            self.biases.append(weight(f"CNN/b_cnn_{i}", (count,), "zeros"))
        for i, highway in enumerate(self.highways):
            highway.create_weights(n_filters, choose, f"CNN_high_{i}/")
        self.W_proj = self.b_proj = None
        if n_filters != options.projection_dim:
            random = normal(stddev=math.sqrt(1 / n_filters))
            self.W_proj = weight("CNN_proj/W_proj", (n_filters, options.projection_dim), random)
            self.b_proj = weight("CNN_proj/b_proj", (options.projection_dim,), "zeros")
        self.built = True

    def call(self, *groups, padded: bool = False):
        """Compute one vector per word."""
        x = ops.concatenate([self._convolve(characters, padded) for characters in groups], axis=0)
        for highway in self.highways:
            x = highway(x)  # (words, filters)
        if self.W_proj is not None:
            x = ops.matmul(x, self.W_proj) + self.b_proj  # (words, projection)
        return x

    def _convolve(self, characters, padded: bool):
        x = ops.take(self.char_embed, characters, axis=0)  # (words, characters, embedding)
        pooled = []
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            kernel = ops.squeeze(kernel, 0)  # (width, embedding, count)
            convolve = self._match if padded else ops.conv
            found = convolve(x, kernel)  # (words, positions, count)
            # Bias and activation are monotonic, so they may come after the maximum.
            pooled.append(self.activation(ops.max(found, axis=1) + bias))
        return ops.concatenate(pooled, axis=-1)  # (words, filters)

    def _match(self, x, kernel):
        """Convolve words that end with padding, as one product of matrices.

        With so few features that is faster than a convolution, though its way back is slower.
        """
        width, dim, count = kernel.shape
        # One window of padding alone is as good as many.
        n = ops.shape(x)[1] - self.options.widest_filter + 1
        windows = ops.concatenate([x[:, i : i + n] for i in range(width)], axis=-1)
        windows = ops.reshape(windows, (-1, width * dim))  # (words * n, width * embedding)
        found = ops.matmul(windows, ops.reshape(kernel, (width * dim, count)))
        return ops.reshape(found, (-1, n, count))

    def compute_output_shape(self, groups_shape):
        """Return (words of all groups, projection_dim)."""
        words = [shape[0] for shape in groups_shape]
        return (None if None in words else sum(words), self.options.projection_dim)

    def get_config(self) -> dict:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "options": self.options.to_json()}

    @classmethod
    def from_config(cls, config: dict) -> CharCNN:
        """Make the layer from what `get_config` returned."""
        return cls(BiLMOptions.from_json(config.pop("options")), **config)
