"""A Keras layer that contains a biLM, for use as the first layer of a user's own Keras model."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from elmolib.backend import is_within, uses_tensorflow
from elmolib.errors import ParameterError
from elmolib.formats.readers import read_model
from elmolib.model.bilm import BiLM
from elmolib.model.layers import FLOAT32
from elmolib.model.scalar_mix import ScalarMix
from elmolib.settings.architecture import Architecture
from elmolib.text.characters import (
    BEGIN_WORD,
    END_WORD,
    PADDING,
    PREDICTION_SHIFT,
    SENTENCE_MARKS,
    character_ids,
)
from elmolib.text.spelling import BYTES, Spelling

# The sentence marks are the first two rows in the table of a batch's words.
MARKS = list(SENTENCE_MARKS)
BEGIN_ROW, END_ROW = 0, 1
TOO_SMALL = ("bool", "int8", "uint8", "bfloat16")  # for some character ids


@keras.saving.register_keras_serializable(package="elmolib")
class ElmoEmbedding(keras.Layer):
    """Turn words into a learned weighted sum (a mix) of a biLM's layers, in any Keras model.

    The layer reads each sentence between `<S>` and `</S>`, from a zero state and without padding.
    The vectors of a sentence therefore do not depend on the other sentences, except with
    `do_layer_norm`. `from_model` loads a trained biLM. A saved Keras model contains the biLM.

    Args:
        architecture: the dimensions of the biLM.
        frozen: train only the mix, even if a model that contains the layer is set trainable again.
            `layer.bilm.trainable = True` makes the biLM trainable later.
        dropout: the dropout rate on the output, in training.
        do_layer_norm, l2: normalise each layer, and regularize the layer weights; see `ScalarMix`.
        seed: the seed of the dropout masks; None gives different masks each time.
        values: the initial weights of the biLM by name, or None for random weights.
        spelling: how the biLM spells words. If it has a table of words, give strings.

    Call arguments:
        words: an integer tensor (batch, time, max_characters) of character ids, which are
            `characters.character_ids(...) + PREDICTION_SHIFT`, and 0 where there is no word. With
            TensorFlow also a string tensor (batch, time) in UTF-8, with "" where there is no word.
            Strings are faster, because each distinct word is computed once. Lists, object arrays
            and ragged tensors are padded. For `fit` and `predict`, put strings in `tf.constant`.
            The layer does not clean words: use `ElmoEmbedder.tokenizer.clean_word` first.
        training: whether to apply dropout.

    Returns:
        a tensor (batch, time, 2 * projection_dim), 0 where there is no word, with a Keras mask. It
            is computed in float32, then cast to the layer's own dtype.

    Raises:
        ParameterError: the words have none of these forms; they are strings, but the backend is not
            TensorFlow or the model is exported to ONNX; or the model is saved as `.h5`.

    Example:
        ```python
        words = keras.Input((None,), dtype="string")
        vectors = ElmoEmbedding.from_model("elmo.h5", l2=0.001)(words)
        tags = keras.layers.Dense(17, activation="softmax")(vectors)
        tagger = keras.Model(words, tags)
        tagger(tf.constant([["The", "river", "bank"], ["Rain", "fell", ""]])).shape  # (2, 3, 17)
        ```

    References:
        Peters et al. 2018, arXiv:1802.05365, sections 3.2 and 3.3.
    """

    def __init__(
        self,
        architecture: Architecture,
        frozen: bool = True,
        dropout: float = 0.5,
        do_layer_norm: bool = False,
        l2: float = 0.0,
        seed: int | None = None,
        values: MutableMapping[str, np.ndarray] | None = None,
        spelling: Spelling = BYTES,
        **kwargs: Any,
    ) -> None:
        # Do not cast inputs: half precision would round character ids.
        super().__init__(autocast=False, **kwargs)
        self.architecture, self.spelling = architecture, spelling
        self.bilm = BiLM(architecture, values=values, name="bilm", **spelling.sizes)
        n_layers = architecture.n_layers + 1
        self.mix = ScalarMix(n_layers, do_layer_norm, l2, name="mix", **FLOAT32)
        self.mix.build([self.compute_output_shape((None, None))] * n_layers)
        self.dropout = keras.layers.Dropout(dropout, seed=seed, name="dropout", **FLOAT32)
        self.supports_masking = True
        self.bilm.trainable = not frozen
        self._frozen = frozen
        self.trainable = self.trainable

    @classmethod
    def from_model(cls, path: str | Path, options: str | Path | None = None, **kwargs: Any) -> Self:
        """Make the layer from a stored model, which is given as in `ElmoEmbedder`.

        `kwargs` are the other arguments of the constructor.

        Raises:
            WeightsError: the file is missing, damaged or not a model.
        """
        stored = read_model(path, options, softmax=False)
        return cls(stored.architecture, values=stored.arrays, spelling=stored.spelling, **kwargs)

    @property
    def frozen(self) -> bool:
        """Whether training changes only the mix."""
        return not self.bilm.trainable and (self.trainable or self._frozen)

    @property
    def trainable(self) -> bool:
        """Whether training changes the layer. If you set it to True, a frozen biLM stays frozen."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._frozen = self.frozen
        keras.Layer.trainable.fset(self, value)
        if self._frozen:
            self.bilm.trainable = False

    def __call__(self, words, *args: Any, **kwargs: Any):
        return super().__call__(self._as_tensor(words), *args, **kwargs)

    def _as_tensor(self, words):
        width, is_onnx = self.architecture.max_characters, is_within("export_onnx")
        known = (
            f"ElmoEmbedding reads character ids of the shape (batch, time, {width}) or, with "
            "TensorFlow, strings of the shape (batch, time), one for each word"
        )
        if not (ops.is_tensor(words) or isinstance(words, keras.KerasTensor)):
            try:
                words = _tensor_of(words)
            except (TypeError, ValueError) as error:
                reason, kind = str(error).partition("\n")[0][:200], type(words).__name__
                raise ParameterError(f"{known}, not this {kind}: {reason}") from None
        words = words.to_tensor() if hasattr(words, "to_tensor") else words  # ragged
        dtype = keras.backend.standardize_dtype(words.dtype)
        is_string = dtype == "string"
        # In TensorFlow, the number of axes may be unknown.
        shape = () if getattr(words.shape, "rank", 0) is None else tuple(words.shape)
        if len(shape) != 3 - is_string or shape[2:] not in ((), (None,), (width,)):
            raise ParameterError(f"{known}, not {dtype} of the shape {shape}.")
        if not is_string and self.spelling.words is not None:
            raise ParameterError(f"{known}; this model has a table of words, so give it strings.")
        if is_string and not uses_tensorflow() or dtype in TOO_SMALL:
            raise ParameterError(f"{known}, not {dtype} with {keras.backend.backend()}.")
        if is_onnx and (is_string or not uses_tensorflow()):
            raise ParameterError(f"{known}; export to ONNX with character ids and TensorFlow.")
        return words

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Keep strings from XLA, which does not support them."""
        self.supports_jit = len(input_shape) != 2
        self.built = True

    def call(self, words, training: bool = False):
        mask = self.compute_mask(words)
        if len(words.shape) == 3:
            table = _table_of_ids(words, self.architecture, self.spelling)
        elif self.spelling == BYTES:
            table = _table_of_strings(words, self.architecture)
        else:
            table = _spelled(words, self.architecture, self.spelling)
        layers = self._all_layers(mask, *table)
        if not self.bilm.trainable_variables:
            # Otherwise, TensorFlow would compute unused gradients of the frozen biLM.
            layers = [ops.stop_gradient(layer) for layer in layers]
        mixed = self.dropout(self.mix(layers, mask=mask), training=training)
        return ops.cast(mixed, self.compute_dtype)

    def _all_layers(self, mask, characters, rows, table_rows):
        """Compute all layers, each (batch, time, 2 * projection_dim)."""
        reading, places = _reading_orders(rows, mask)
        vectors = self.bilm.spell(characters, rows=table_rows)
        state = self.bilm.initial_state(ops.shape(rows)[0])
        words = ops.swapaxes(reading, 1, 2)  # (2, time, batch)
        directions, _ = self.bilm.read_words((vectors, vectors), words, state)

        def in_order(layer, place):
            return ops.take_along_axis(ops.swapaxes(layer, 0, 1), place[..., None], axis=1)

        pairs = zip(*directions, strict=True)
        return [ops.concatenate([*map(in_order, pair, places)], axis=-1) for pair in pairs]

    def compute_mask(self, words, previous_mask=None):
        """Return a boolean tensor (batch, time), True where there is a word."""
        if len(words.shape) == 2:
            return ops.not_equal(words, "")
        return ops.any(ops.greater(words, 0), axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:2], 2 * self.architecture.projection_dim)

    def get_config(self) -> dict[str, Any]:
        if is_within("save_model_to_hdf5"):
            raise ParameterError(
                "Keras cannot load ElmoEmbedding from a .h5 file: save the model as .keras."
            )
        return {
            **super().get_config(),
            "architecture": self.architecture.to_json(),
            "spelling": self.spelling.to_json(),
            "frozen": self.frozen,
            "dropout": self.dropout.rate,
            "do_layer_norm": self.mix.do_layer_norm,
            "l2": self.mix.l2,
            "seed": self.dropout.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        spelling = Spelling(**config.get("spelling", {}))
        architecture = Architecture(**config["architecture"])
        return cls(**{**config, "architecture": architecture, "spelling": spelling})


def _tensor_of(words):
    """Turn nested lists or an array into a tensor, which may be ragged."""
    if uses_tensorflow() and getattr(getattr(words, "dtype", None), "kind", "O") not in "biuf":
        import tensorflow as tf

        return tf.ragged.constant(words.tolist() if hasattr(words, "tolist") else words)
    return ops.convert_to_tensor(np.asarray(words))


def _reading_orders(rows, mask):
    """Return table rows in both reading orders (2, batch, time + 2), and the step of each word.

    The rows of a sentence have no gaps between words; after its end, they are arbitrary. The steps
    are two tensors (batch, time), one for each direction.
    """
    batch, time = ops.shape(rows)
    present = ops.cast(mask, "int32")
    n_words = ops.sum(present, axis=1, keepdims=True)  # (batch, 1)
    rank = ops.cumsum(present, axis=1) - 1  # (batch, time), number of a word in its sentence
    position = ops.arange(time, dtype="int32")[None]
    words_first = ops.argsort(ops.where(mask, position, position + time), axis=1)
    words = ops.take_along_axis(rows, words_first, axis=1)
    edge = ops.zeros_like(n_words)
    step = ops.arange(time + 2, dtype="int32")[None]
    forward = ops.concatenate([edge + BEGIN_ROW, words, edge + END_ROW], axis=1)
    forward = ops.where(step == n_words + 1, END_ROW, forward)
    # For a step after the end of its sentence, the index would be below 0.
    mirrored = ops.maximum(n_words + 1 - step, 0)
    backward = ops.take_along_axis(forward, mirrored, axis=1)
    return ops.stack([forward, backward]), (ops.maximum(rank + 1, 0), n_words - rank)


def _table_of_ids(words, architecture: Architecture, spelling: Spelling):
    """Return the ids (rows, characters) of both marks and all words; each word's row; and None."""
    width = architecture.max_characters
    batch, time = ops.shape(words)[:2]
    ids = ops.reshape(ops.cast(words, "int32"), (-1, width))
    raw = ops.where(ids > 0, ids - PREDICTION_SHIFT, PADDING)
    marks = ops.convert_to_tensor(spelling.character_ids(spelling.marks, width), "int32")
    rows = ops.arange(batch * time, dtype="int32") + len(MARKS)
    return ops.concatenate([marks, raw]), ops.reshape(rows, (batch, time)), None


def _table_of_strings(words, architecture: Architecture):
    """Do the same as `_table_of_ids` with strings: one row per distinct word, no unused columns."""
    import tensorflow as tf

    distinct, rows = tf.unique(tf.concat([MARKS, tf.reshape(words, [-1])], axis=0))
    most = architecture.max_characters
    lengths = tf.minimum(tf.strings.length(distinct), most - 2)[:, None]  # bytes
    # After the longest word, keep one window of padding for the widest filter.
    width = tf.minimum(tf.reduce_max(lengths) + 2 + architecture.widest_filter, most)
    text = tf.cast(tf.io.decode_raw(distinct, tf.uint8, fixed_length=most - 2), tf.int32)
    ids = tf.pad(text, [[0, 0], [1, 1]])[:, :width]
    column = tf.range(width)[None]
    ids = tf.where(column == 0, BEGIN_WORD, ids)
    ids = tf.where(column == lengths + 1, END_WORD, ids)
    ids = tf.where(column > lengths + 1, PADDING, ids)
    marks = tf.constant(character_ids(MARKS, most), tf.int32)[:, :width]
    table = tf.concat([marks, ids[len(MARKS) :]], axis=0)
    return table, tf.reshape(rows[len(MARKS) :], tf.shape(words)), None


def _spelled(words, architecture: Architecture, spelling: Spelling):
    """Do the same in another spelling; the third result has the rows of the table of words."""
    import tensorflow as tf

    marks, width = list(spelling.marks), architecture.max_characters

    def numbers(distinct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        decoded = [word.decode(errors="replace") for word in distinct]
        rows = np.zeros(0) if spelling.words is None else spelling.rows(decoded, width)
        return spelling.character_ids(decoded, width).astype(np.int32), rows.astype(np.int32)

    distinct, rows = tf.unique(tf.concat([marks, tf.reshape(words, [-1])], axis=0))
    characters, table_rows = tf.numpy_function(numbers, [distinct], (tf.int32, tf.int32))
    characters.set_shape((None, width))
    table_rows = None if spelling.words is None else tf.ensure_shape(table_rows, (None,))
    return characters, tf.reshape(rows[len(marks) :], tf.shape(words)), table_rows
