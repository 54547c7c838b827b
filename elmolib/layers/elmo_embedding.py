"""A biLM as the first layer of a task's own model."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

import keras
import numpy as np
from keras import ops

from elmolib.bilm import BiLM
from elmolib.characters import (
    BEGIN_WORD,
    END_WORD,
    PADDING,
    PREDICTION_SHIFT,
    SENTENCE_MARKS,
    character_ids,
)
from elmolib.errors import ParameterError
from elmolib.layers.scalar_mix import ScalarMix
from elmolib.options import BiLMOptions
from elmolib.weights import read_model

BEGIN_ROW, END_ROW = 0, 1
"""Where `<S>` and `</S>` stand in the table of the words of a batch."""


@keras.saving.register_keras_serializable(package="elmolib")
class ElmoEmbedding(keras.Layer):
    """Turn words into the mix of a biLM's layers, as a part of any Keras model.

    Each sentence is read between `<S>` and `</S>`, from zero state and in each direction without
    its padding, so its vectors depend neither on its neighbours nor on the padding (with
    `do_layer_norm` they depend on the batch by the two statistics of each layer). Made by the
    constructor the biLM is random; `from_model` reads a trained one. A saved Keras model holds
    the biLM, so that loading needs no other file.

    Args:
        options: the architecture of the biLM.
        frozen: keep the biLM as it is and learn only the mix. `layer.bilm.trainable = True`
            thaws it later.
        dropout: rate on the output, in training.
        do_layer_norm: normalise each layer before mixing; see `ScalarMix`.
        l2: pull of the layer weights towards the average; see `ScalarMix`.
        seed: begins the sequence of dropout masks, or None for another one every time.
        values: the biLM's arrays by published name, or None for random ones. It is emptied as they
            are taken over.

    Call arguments:
        words: either character ids, an integer tensor (batch, time, max_characters) with
            `characters.character_ids(...) + PREDICTION_SHIFT`, 0 throughout where there is no
            word; or, with TensorFlow as the backend, a string tensor (batch, time) of UTF-8,
            "" where there is no word (`fit` and `predict` take no NumPy strings: make them a
            tensor). Strings are faster, because each distinct word is spelt out only once.
        training: apply dropout.

    Returns:
        float tensor (batch, time, 2 * projection_dim), zero where there is no word, with a Keras
        mask of where there is one.

    Raises:
        ParameterError: words have neither form, or strings meet another backend than TensorFlow.

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
        options: BiLMOptions,
        frozen: bool = True,
        dropout: float = 0.5,
        do_layer_norm: bool = False,
        l2: float = 0.0,
        seed: int | None = None,
        values: MutableMapping[str, np.ndarray] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.options = options
        self.bilm = BiLM(options, values=values, name="bilm")
        self.bilm.trainable = not frozen
        n_layers = options.n_layers + 1
        self.mix = ScalarMix(n_layers, do_layer_norm, l2, name="mix")
        self.mix.build([self.compute_output_shape((None, None))] * n_layers)
        self.dropout = keras.layers.Dropout(dropout, seed=seed, name="dropout")
        self.supports_masking = True

    @classmethod
    def from_model(
        cls, path: str | Path, options: str | Path | None = None, **kwargs
    ) -> ElmoEmbedding:
        """Make the layer from a stored biLM.

        Args:
            path: an `elmo.h5`, or any other form that `weights.read_model` reads.
            options: an `options.json` for a weight file that does not hold its own.
            **kwargs: what else the constructor takes.

        Raises:
            WeightsError: the file is missing, damaged or foreign.
        """
        stored = read_model(path, options, softmax=False)
        return cls(stored.options, values=stored.arrays, **kwargs)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Check the form of the input."""
        width = self.options.max_characters
        if len(input_shape) == 2:
            if keras.backend.backend() != "tensorflow":
                raise ParameterError(
                    "ElmoEmbedding reads strings only with TensorFlow as Keras' backend: give it "
                    f"character ids of the shape (batch, time, {width})."
                )
            # XLA knows no strings.
            self.supports_jit = False
        elif len(input_shape) != 3 or input_shape[2] not in (None, width):
            raise ParameterError(
                f"ElmoEmbedding reads character ids of the shape (batch, time, {width}) or "
                f"strings of the shape (batch, time), not {tuple(input_shape)}."
            )
        self.built = True

    def call(self, words, training: bool = False):
        """Compute the mix."""
        mask = self.compute_mask(words)
        characters, rows = self._spelt(words)
        layers = self._all_layers(characters, rows, mask)
        if not self.bilm.trainable_variables:
            # TensorFlow would go back through the frozen biLM for nothing.
            layers = [ops.stop_gradient(layer) for layer in layers]
        return self.dropout(self.mix(layers, mask=mask), training=training)

    def _spelt(self, words):
        """Make the table of the words of a batch, and the rows of it that stand in each sentence.

        Returns:
            raw character ids (n_rows, characters), those of `<S>` and `</S>` first; integers
            (batch, time).
        """
        if len(words.shape) == 2:
            return _spelt_strings(words, self.options)
        width = self.options.max_characters
        batch, time = ops.shape(words)[:2]
        ids = ops.reshape(ops.cast(words, "int32"), (-1, width))
        raw = ops.where(ids > 0, ids - PREDICTION_SHIFT, PADDING)
        marks = ops.convert_to_tensor(character_ids(list(SENTENCE_MARKS), width), "int32")
        rows = ops.arange(batch * time, dtype="int32") + len(SENTENCE_MARKS)
        return ops.concatenate([marks, raw]), ops.reshape(rows, (batch, time))

    def _all_layers(self, characters, rows, mask):
        """Compute all layers, each (batch, time, 2 * projection_dim)."""
        reading, places = _reading_orders(rows, mask)
        vectors = self.bilm.char_cnn(characters)
        state = self.bilm.initial_state(ops.shape(rows)[0])
        layers, _ = self.bilm.contextualise(vectors, reading, state)
        return [
            ops.concatenate(
                [ops.take_along_axis(layer[d], places[d][..., None], axis=1) for d in (0, 1)],
                axis=-1,
            )
            for layer in layers
        ]

    def compute_mask(self, words, previous_mask=None):
        """Return True where there is a word: boolean tensor (batch, time)."""
        if len(words.shape) == 2:
            if keras.backend.standardize_dtype(words.dtype) != "string":
                raise ParameterError(
                    "ElmoEmbedding reads words as strings or as character ids, and has been given "
                    f"one number for each word: {words.dtype} of the shape {tuple(words.shape)}."
                )
            return ops.not_equal(words, "")
        return ops.any(ops.greater(words, 0), axis=-1)

    def compute_output_shape(self, input_shape):
        """Return (batch, time, 2 * projection_dim)."""
        return (*input_shape[:2], 2 * self.options.projection_dim)

    def get_config(self) -> dict:
        """Return the arguments that make this layer again, but for its weights."""
        return {
            **super().get_config(),
            "options": self.options.to_json(),
            "frozen": not self.bilm.trainable,
            "dropout": self.dropout.rate,
            "do_layer_norm": self.mix.do_layer_norm,
            "l2": self.mix.l2,
            "seed": self.dropout.seed,
        }

    @classmethod
    def from_config(cls, config: dict) -> ElmoEmbedding:
        """Make the layer from what `get_config` returned."""
        return cls(**{**config, "options": BiLMOptions.from_json(config["options"])})


def _reading_orders(rows, mask):
    """Line up the words of each sentence for both directions, whatever lies between them.

    Args:
        rows: integers (batch, time).
        mask: booleans (batch, time), True where there is a word.

    Returns:
        the rows that the two directions read (2, batch, time + 2), and at which step each of
        them reads a position: a pair of integers (batch, time). What follows the end of a
        sentence has no meaning.
    """
    batch, time = ops.shape(rows)
    present = ops.cast(mask, "int32")
    n_words = ops.sum(present, axis=1, keepdims=True)  # (batch, 1)
    rank = ops.cumsum(present, axis=1) - 1  # (batch, time), of a word among the words
    position = ops.arange(time, dtype="int32")[None]
    words_first = ops.argsort(ops.where(mask, position, position + time), axis=1)
    words = ops.take_along_axis(rows, words_first, axis=1)
    edge = ops.zeros_like(n_words)
    step = ops.arange(time + 2, dtype="int32")[None]
    forward = ops.concatenate([edge + BEGIN_ROW, words, edge + END_ROW], axis=1)
    forward = ops.where(step == n_words + 1, END_ROW, forward)
    # A step beyond the sentence's end must not become a place before its beginning.
    mirrored = ops.maximum(n_words + 1 - step, 0)
    backward = ops.take_along_axis(forward, mirrored, axis=1)
    return ops.stack([forward, backward]), (ops.maximum(rank + 1, 0), n_words - rank)


def _spelt_strings(words, options: BiLMOptions):
    """Spell each distinct string once, as `characters.character_ids` does, within TensorFlow.

    Returns:
        as `ElmoEmbedding._spelt`; columns are cut off where no word needs them.
    """
    import tensorflow as tf

    marks = list(SENTENCE_MARKS)
    distinct, rows = tf.unique(tf.concat([marks, tf.reshape(words, [-1])], axis=0))
    limit = options.max_characters - 2
    lengths = tf.minimum(tf.strings.length(distinct), limit)[:, None]  # bytes
    # One window of padding alone is left for the widest filter.
    width = tf.minimum(tf.reduce_max(lengths) + 2 + options.widest_filter, options.max_characters)
    text = tf.cast(tf.io.decode_raw(distinct, tf.uint8, fixed_length=limit), tf.int32)
    ids = tf.pad(text, [[0, 0], [1, 1]])[:, :width]
    column = tf.range(width)[None]
    ids = tf.where(column == 0, BEGIN_WORD, ids)
    ids = tf.where(column == lengths + 1, END_WORD, ids)
    ids = tf.where(column > lengths + 1, PADDING, ids)
    for word, mark in SENTENCE_MARKS.items():
        is_mark = (distinct == word)[:, None]
        ids = tf.where(is_mark & (column == 1), mark, ids)
        ids = tf.where(is_mark & (column == 2), END_WORD, ids)
        ids = tf.where(is_mark & (column > 2), PADDING, ids)
    return ids, tf.reshape(rows[len(SENTENCE_MARKS) :], tf.shape(words))
