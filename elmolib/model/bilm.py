"""The bidirectional language model."""

import math
from collections.abc import Mapping, MutableMapping
from functools import partial

import keras
import numpy as np
from keras import ops

from elmolib.backend import one_thread_per_direction, refuse_promotion
from elmolib.model.layers import FLOAT32, CharCNN, TimestepDropout, Weights
from elmolib.model.lstm import ProjectedLSTM
from elmolib.settings.architecture import N_BYTE_CHARACTERS, Architecture

DIRECTIONS = ("forward", "backward")
SOFTMAX = ("softmax/W", "softmax/b")


@keras.saving.register_keras_serializable(package="elmolib")
class BiLM(keras.Model):
    """A forward and a backward language model that share one character CNN and one softmax.

    The directions are separate stacks of LSTMs, which read different sequences of words. The words
    of one direction cannot influence the predictions of the other.

    Args:
        vocabulary_size: the number of words in the softmax, or None for a model without softmax.
        dropout: the dropout rate on the input of every LSTM and on the output of the last LSTM.
        timestep_dropout: the rate at which whole words are dropped before the LSTMs.
        values: a mapping from names to initial weights, or None; see `Weights`.
        n_characters: the number of character ids.
        table: the number of words in a table whose rows are added to the words' vectors, and the
            number of features in a row; None means features that need no projection, or no table.

    Call arguments:
        characters: the character ids of the distinct words of the batch, an integer tensor
            (words, characters), or a tuple of them for words of different lengths; see `CharCNN`.
        words: the words that each direction reads, in its order, as row numbers in `characters`:
            an integer tensor (2, time, batch).
        state: (c, h) as returned by an earlier call or by `initial_state`.
        lengths: an integer tensor (batch,) or None; see `ProjectedLSTM`.
        training: whether to apply dropout.

    Returns:
        layers: for each direction a list of `n_layers + 1` float tensors
            (time, batch, projection_dim): the outputs of the character CNN and of each LSTM.
        state: c (2, n_layers, batch, lstm_dim) and h (2, n_layers, batch, projection_dim).

    References:
        Peters et al. 2018, arXiv:1802.05365, sections 3.1 and 3.4.
    """

    def __init__(
        self,
        architecture: Architecture | dict,
        vocabulary_size: int | None = None,
        dropout: float = 0.0,
        timestep_dropout: float = 0.0,
        seed: int = 0,
        values: MutableMapping[str, np.ndarray] | None = None,
        n_characters: int = N_BYTE_CHARACTERS,
        table: tuple[int, int | None] | None = None,
        **kwargs,
    ) -> None:
        refuse_promotion()
        # Thread counts can only be set before TensorFlow runs anything.
        one_thread_per_direction()
        super().__init__(**kwargs | FLOAT32)
        self.architecture = a = Architecture.model_validate(architecture)
        self.vocabulary_size, self.n_characters, self.table = vocabulary_size, n_characters, table
        self.dropout, self.timestep_dropout, self.seed = dropout, timestep_dropout, seed
        self.drop_words = TimestepDropout(timestep_dropout, seed=seed, **FLOAT32)
        # All dropout masks use one generator. `drop_words` has one only if its rate is above 0.
        generator = getattr(self.drop_words, "seed_generator", None)
        self.seed_generator = generator or keras.random.SeedGenerator(seed)
        # In training by several workers: the rows of this worker, and the size of the whole batch.
        self.own_rows: tuple[slice, int] | None = None
        self.char_cnn = CharCNN(a, n_characters, name="char_cnn")
        sizes = a.lstm_dim, a.projection_dim, a.cell_clip, a.proj_clip
        self.lstms = [
            [ProjectedLSTM(*sizes, name=f"{direction}_{layer}") for layer in range(a.n_layers)]
            for direction in DIRECTIONS
        ]
        self._named = weights = Weights(values)
        self.char_cnn.create_weights(weights.of("char_cnn"))
        for lstm in self.lstms[0] + self.lstms[1]:
            lstm.create_weights(weights.of(lstm.name), a.projection_dim)
        self.word_table = self.word_projection = None
        if table is not None:
            n_words, dim = table
            of_words, shape = weights.of("words"), (n_words, dim or a.projection_dim)
            self.word_table = of_words.add(self, "embedding", shape, "uniform")
            if dim is not None:
                shape = (dim, a.projection_dim)
                self.word_projection = of_words.add(self, "projection", shape, "uniform")
        self.softmax_W = self.softmax_b = None
        if vocabulary_size is not None:
            random = keras.initializers.RandomNormal(stddev=1.0 / math.sqrt(a.projection_dim))
            shape = (vocabulary_size, a.projection_dim)
            self.softmax_W = weights.of("softmax").add(self, "W", shape, random)
            self.softmax_b = weights.of("softmax").add(self, "b", shape[:1], "zeros")
        self.built = True

    def call(self, characters, words, state, lengths=None, training: bool = False):
        groups = characters if isinstance(characters, tuple | list) else (characters,)
        vectors = self.char_cnn(*groups)  # (words, projection)
        return self.read_words((vectors, vectors), words, state, lengths, training)

    def spell(self, *groups, rows=None, **kwargs):
        """Compute context-free vectors from character ids and, if given, rows of the word table."""
        vectors = self.char_cnn(*groups, **kwargs)
        return vectors if rows is None else vectors + self.look_up(rows)

    def look_up(self, rows):
        """Return the vectors of rows of the word table, a float tensor (rows, projection_dim)."""
        vectors = ops.take(self.word_table, rows, axis=0)
        return vectors if self.word_projection is None else vectors @ self.word_projection

    def read_words(self, vectors, words, state, lengths=None, training: bool = False):
        """Compute all layers from the context-free vectors of the words.

        `vectors` has a float tensor (number of distinct words, projection_dim) per direction, and
        `words` has the row of each word in these tensors.
        """
        directions, states = [], []
        for d, lstms in enumerate(self.lstms):
            x = ops.take(vectors[d], words[d], axis=0)  # (time, batch, projection)
            layers = [x]
            if training and self.timestep_dropout > 0.0:
                x = self._apply_dropout(x, lambda x: self.drop_words(x, training=True))
            for layer, lstm in enumerate(lstms):
                c, h = state[0][d][layer], state[1][d][layer]
                if layer == 0 and lengths is not None and not training:
                    # Without dropout, equal words have equal inputs: multiply each input only once.
                    y, c, h = lstm.read_words(vectors[d], words[d], c, h, lengths)
                else:
                    x = self._drop(x, training)
                    y, c, h = lstm(x, c, h, lengths)
                x = x + y if self.architecture.use_skip_connections and layer > 0 else y
                layers.append(x)
                states.append((c, h))
            directions.append(layers)
        c, h = map(ops.stack, zip(*states, strict=True))  # (2 * n_layers, batch, dim)
        shape = (2, self.architecture.n_layers, -1)
        return directions, tuple(ops.reshape(s, (*shape, s.shape[-1])) for s in (c, h))

    def _drop(self, x, training: bool):
        if not training or self.dropout == 0.0:
            return x
        drop = partial(keras.random.dropout, rate=self.dropout, seed=self.seed_generator)
        return self._apply_dropout(x, drop)

    def _apply_dropout(self, x, drop):
        """Apply dropout to x (any, batch, any, ...)."""
        if self.own_rows is None:
            return drop(x)
        # The mask of the whole batch is drawn, so the number of workers does not change the masks.
        rows, size = self.own_rows
        return x * drop(ops.ones((x.shape[0], size, *x.shape[2:]), x.dtype))[:, rows]

    def softmax_input(self, tops, training: bool = False):
        """Apply dropout to both directions' top layers (time, batch, projection_dim)."""
        if not training or self.dropout == 0.0:
            return tops
        time, batch, dim = ops.shape(tops[0])
        # Do not reorder the axes of this mask, or a seed will drop other values than before.
        mask = self._drop(ops.ones((2, batch, time, dim), tops[0].dtype), training)
        return [top * ops.swapaxes(mask[d], 0, 1) for d, top in enumerate(tops)]

    def initial_state(self, batch_size: int):
        """Return a state of zeros: c (2, n_layers, batch, lstm_dim), h (..., projection_dim)."""
        a = self.architecture
        shapes = [(2, a.n_layers, batch_size, dim) for dim in (a.lstm_dim, a.projection_dim)]
        return tuple(ops.zeros(shape, **FLOAT32) for shape in shapes)

    def weights_by_name(self) -> dict[str, keras.Variable]:
        """Return every weight by name, in the order of the layers, the softmax last."""
        return dict(self._named.by_name)

    def arrays(self, softmax: bool = True) -> dict[str, np.ndarray]:
        """Return the values of all weights by name, with or without the softmax."""
        names = [name for name in self._named.by_name if softmax or name not in SOFTMAX]
        return {name: ops.convert_to_numpy(self._named.by_name[name].value) for name in names}

    @classmethod
    def from_arrays(cls, architecture: Architecture, arrays: Mapping[str, np.ndarray], **kwargs):
        """Create a model from the result of `arrays`, with a softmax if the result contains one."""
        size = len(arrays[SOFTMAX[0]]) if SOFTMAX[0] in arrays else None
        return cls(architecture, size, values=dict(arrays), **kwargs)

    def get_config(self) -> dict:
        names = ("name", "vocabulary_size", "dropout", "timestep_dropout", "seed")
        values = {name: getattr(self, name) for name in (*names, "n_characters", "table")}
        return {**values, "architecture": self.architecture.to_json()}
