"""The bidirectional language model."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping

import keras
import numpy as np
from keras import ops

from elmolib.layers.char_cnn import CharCNN
from elmolib.layers.projected_lstm import ProjectedLSTM
from elmolib.layers.stored import Choice, fresh, stored
from elmolib.layers.timestep_dropout import TimestepDropout
from elmolib.options import BiLMOptions
from elmolib.processors import read_side_by_side

# Later is too late: TensorFlow starts its threads with the first thing that it computes.
read_side_by_side()


@keras.saving.register_keras_serializable(package="elmolib")
class BiLM(keras.Model):
    """A forward and a backward language model over one character CNN and one softmax.

    The two directions are separate stacks of LSTMs. Each reads its own sequence in its own reading
    order, so nothing that one direction reads can reach a prediction of the other.

    Args:
        options: dimensions and switches; see `elmolib.options.BiLMOptions`.
        vocabulary_size: words of the softmax, or None for a model that only embeds.
        dropout: rate, on the input of every LSTM and on the output of the last.
        timestep_dropout: rate at which whole word positions are dropped before the LSTMs.
        seed: begins the sequence of all random masks.
        values: what the weights begin with, arrays by published name, each taken out of the mapping
            as it is used; or None for random weights.

    Call arguments:
        characters: integer tensor (words, characters), the distinct words of the batch, or
            several such tensors for words of different length; see `CharCNN`.
        words: integer tensor (2, batch, time), rows of all `characters`: what the forward and the
            backward direction read, each in its reading order.
        state: `(c, h)` as returned by an earlier call or by `initial_state`.
        lengths: integer tensor (batch,) or None; see `ProjectedLSTM`.
        training: apply dropout.

    Returns:
        layers: list of `n_layers + 1` float tensors (2, batch, time, projection_dim): the
            character CNN, then each LSTM layer.
        state: c (2, n_layers, batch, lstm_dim) and h (2, n_layers, batch, projection_dim).

    References:
        Peters et al. 2018, arXiv:1802.05365, sections 3.1 and 3.4.
    """

    def __init__(
        self,
        options: BiLMOptions,
        vocabulary_size: int | None = None,
        dropout: float = 0.0,
        timestep_dropout: float = 0.0,
        seed: int = 0,
        values: MutableMapping[str, np.ndarray] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.options = options
        self.vocabulary_size = vocabulary_size
        self.dropout = dropout
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.timestep_dropout = TimestepDropout(timestep_dropout, seed=self.seed_generator)
        self.char_cnn = CharCNN(options, name="char_cnn")
        self.lstms = [
            [
                ProjectedLSTM(
                    options.lstm_dim,
                    options.projection_dim,
                    options.cell_clip,
                    options.proj_clip,
                    name=f"{direction}_lstm_{layer}",
                )
                for layer in range(options.n_layers)
            ]
            for direction in ("forward", "backward")
        ]
        self._create_weights(fresh if values is None else stored(values))

    def _create_weights(self, choose: Choice) -> None:
        dim = self.options.projection_dim
        self.char_cnn.create_weights(choose)
        for d, lstms in enumerate(self.lstms):
            for layer, lstm in enumerate(lstms):
                lstm.create_weights(dim, choose, f"{self._cell(d, layer)}/")
        self.softmax_W = self.softmax_b = None
        if self.vocabulary_size is not None:
            random = keras.initializers.RandomNormal(stddev=1.0 / math.sqrt(dim))
            self.softmax_W = self.add_weight(
                name="softmax_W",
                shape=(self.vocabulary_size, dim),
                initializer=choose("softmax/W", random),
            )
            self.softmax_b = self.add_weight(
                name="softmax_b",
                shape=(self.vocabulary_size,),
                initializer=choose("softmax/b", "zeros"),
            )
        self.built = True

    @staticmethod
    def _cell(direction: int, layer: int) -> str:
        return f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"

    def call(self, characters, words, state, lengths=None, training: bool = False):
        """Compute all layers in both directions."""
        groups = characters if isinstance(characters, tuple | list) else (characters,)
        vectors = self.char_cnn(*groups)  # (words, projection)
        return self.contextualise(vectors, words, state, lengths, training)

    def contextualise(self, vectors, words, state, lengths=None, training: bool = False):
        """Compute all layers from word vectors (words, projection_dim) that are known already."""
        directions, state = self.each_direction((vectors,) * 2, words, state, lengths, training)
        layers = [
            ops.swapaxes(ops.stack(pair), 1, 2) for pair in zip(*directions, strict=True)
        ]  # (2, batch, time, projection)
        return layers, state

    def each_direction(self, vectors, words, state, lengths=None, training: bool = False):
        """Compute what `contextualise` does, as the LSTMs leave it.

        Args:
            vectors: pair of float tensors (words, projection_dim), for the forward and the backward
                direction, in which `words` counts the rows.

        Returns:
            for the forward and the backward direction a list of all layers, each (time, batch,
            projection_dim), and the state.
        """
        directions, c, h = [], [], []
        for d, lstms in enumerate(self.lstms):
            read = ops.transpose(words[d])
            x = ops.take(vectors[d], read, axis=0)  # (time, batch, projection)
            layers = [x]
            x = self.timestep_dropout(x, training=training)
            for layer, lstm in enumerate(lstms):
                begin = state[0][d][layer], state[1][d][layer]
                if layer == 0 and lengths is not None and not training:
                    # Nothing is dropped, so that a word is the same wherever it stands.
                    y, last_c, last_h = lstm.read(vectors[d], read, *begin, lengths)
                else:
                    x = self._drop(x, training)
                    y, last_c, last_h = lstm.run(x, *begin, lengths)
                residual = self.options.use_skip_connections and layer > 0
                x = x + y if residual else y
                layers.append(x)
                c.append(last_c)
                h.append(last_h)
            directions.append(layers)
        return directions, self._stack_state(c, h)

    def _stack_state(self, c, h):
        n_layers = self.options.n_layers
        return tuple(
            ops.stack([ops.stack(part[:n_layers]), ops.stack(part[n_layers:])]) for part in (c, h)
        )

    def _drop(self, x, training: bool):
        if not training or self.dropout == 0.0:
            return x
        return keras.random.dropout(x, self.dropout, seed=self.seed_generator)

    def language_model_output(self, top, training: bool = False):
        """Drop features of the top layer, as it goes into the softmax."""
        return self._drop(top, training)

    def initial_state(self, batch_size: int):
        """Return the zero state: c (2, layers, batch, lstm_dim), h (..., projection_dim)."""
        shape = (2, self.options.n_layers, batch_size)
        return (
            ops.zeros((*shape, self.options.lstm_dim)),
            ops.zeros((*shape, self.options.projection_dim)),
        )

    def named_variables(self) -> dict[str, keras.Variable]:
        """Return every weight under its name in the HDF5 layout of bilm-tf and AllenNLP."""
        cnn = self.char_cnn
        named = {"char_embed": cnn.char_embed}
        for i, (kernel, bias) in enumerate(zip(cnn.kernels, cnn.biases, strict=True)):
            named[f"CNN/W_cnn_{i}"], named[f"CNN/b_cnn_{i}"] = kernel, bias
        for i, highway in enumerate(cnn.highways):
            for part in ("W_carry", "b_carry", "W_transform", "b_transform"):
                named[f"CNN_high_{i}/{part}"] = getattr(highway, part)
        if cnn.W_proj is not None:
            named["CNN_proj/W_proj"], named["CNN_proj/b_proj"] = cnn.W_proj, cnn.b_proj
        for d, lstms in enumerate(self.lstms):
            for layer, lstm in enumerate(lstms):
                cell = self._cell(d, layer)
                named[f"{cell}/W_0"], named[f"{cell}/B"] = lstm.kernel, lstm.bias
                if lstm.projection is not None:
                    named[f"{cell}/W_P_0"] = lstm.projection
        if self.softmax_W is not None:
            named["softmax/W"], named["softmax/b"] = self.softmax_W, self.softmax_b
        return named

    @classmethod
    def from_arrays(cls, options: BiLMOptions, arrays: Mapping[str, np.ndarray], **kwargs) -> BiLM:
        """Make a model from stored arrays; it has a softmax if they do.

        Args:
            options: the architecture.
            arrays: float arrays under the names and in the shapes of `named_variables`. Give a
                dict that nobody else holds with `values=` to `BiLM` to save memory.
            **kwargs: what else the constructor takes.
        """
        softmax = arrays.get("softmax/W")
        size = None if softmax is None else len(softmax)
        return cls(options, size, values=dict(arrays), **kwargs)

    def get_config(self) -> dict:
        """Return the arguments that make this model again."""
        return {
            "name": self.name,
            "options": self.options.to_json(),
            "vocabulary_size": self.vocabulary_size,
            "dropout": self.dropout,
            "timestep_dropout": self.timestep_dropout.rate,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> BiLM:
        """Make the model from what `get_config` returned."""
        return cls(BiLMOptions.from_json(config.pop("options")), **config)
