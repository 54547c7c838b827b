"""From sentences to contextual vectors, each distinct word being spelt out only once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from threading import Lock
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from elmolib.batches import GROUPS, group_by_length
from elmolib.bilm import BiLM
from elmolib.characters import PADDING, character_ids
from elmolib.errors import ParameterError
from elmolib.processors import work_ahead

BEGIN, END = "<S>", "</S>"

GATES_AT_ONCE = 2**22
"""Numbers that an LSTM's gates take in one call, 16 MB. Longer batches are cut in time, with the
state handed on, so that memory grows neither with the length of a sentence nor much beyond the
weights of a large model."""

MOST_POSITIONS_AT_ONCE = 1024
"""Words that the LSTMs read in one call, however small they are."""

WORDS_AT_ONCE = 512
"""Words that the character CNN reads in one call."""

BATCHES_READ = 3
"""Batches that are read side by side: none of two processors waits for a batch's last direction."""

BATCHES_LOOKED_UP = 8
"""Batches whose words are looked up together at most: many words, sorted by length, are spelt with
less padding than few."""


class _Spelled(NamedTuple):
    """A batch of sentences as the LSTMs read it.

    Attributes:
        lengths: int32 (batch,), words of each sentence, marks included.
        vectors: float32 (words, projection_dim), of the distinct words, other batches' among them.
        words: int32 (2, batch, time), rows of `vectors`, forward and backward.
    """

    lengths: np.ndarray
    vectors: np.ndarray
    words: np.ndarray


class SentenceEncoder:
    """Compute all layers of a biLM for any number of sentences.

    Every sentence is read between `<S>` and `</S>`. Unless asked otherwise it starts from zero
    state, so its vectors depend neither on its neighbours in a batch nor on earlier calls.

    Args:
        bilm: the model. Where its weights change, as in training, call `forget_words`.
        cache_words: words whose context-free vectors are kept, the latest used ones; 0 for none.

    Example:
        >>> encoder = SentenceEncoder(bilm)
        >>> layers, = encoder.encode([["The", "river", "bank"]])
        >>> layers.shape  # (n_layers + 1, n_words, 2 * projection_dim)
        (3, 3, 128)

    References:
        Peters et al. 2018, arXiv:1802.05365, section 3.2.
    """

    def __init__(self, bilm: BiLM, cache_words: int = 30_000) -> None:
        self.bilm = bilm
        self.options = bilm.options
        self._words = _WordVectors(bilm, cache_words)
        self._read = _compiled_reading(bilm)
        self._after_mark: tuple[np.ndarray, np.ndarray] | None = None
        self.reset_state()

    def encode(
        self,
        sentences: Sequence[Sequence[str]],
        batch_size: int = 32,
        boundaries: bool = False,
        carry_state: bool = False,
    ) -> list[np.ndarray]:
        """Compute the vectors of sentences.

        Args:
            sentences: the words of each; a sentence may have none.
            batch_size: sentences read side by side.
            boundaries: give the positions of `<S>` and `</S>` too.
            carry_state: take batches in the order given, and start row k of each from the state
                in which the last batch that had a row k left it, in this call or an earlier one
                with `carry_state`. The backward direction's state is that after `<S>`.

        Returns:
            per sentence, in the order given, a float32 array
            `(n_layers + 1, n_words, 2 * projection_dim)`, with boundaries `n_words + 2`: the
            forward half first. Layer 0 is the word without context, written twice side by side.

        Raises:
            ParameterError: if `batch_size` is no positive whole number.
        """
        encoded: list[np.ndarray] = [np.empty(0, np.float32)] * len(sentences)
        for place, layers in self.encode_each(sentences, batch_size, boundaries, carry_state):
            encoded[place] = layers
        return encoded

    def encode_each(
        self,
        sentences: Sequence[Sequence[str]],
        batch_size: int = 32,
        boundaries: bool = False,
        carry_state: bool = False,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each sentence's place in `sentences` and its vectors, as soon as they are known.

        Sentences come sorted by length unless state is carried; otherwise as `encode`.
        """
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ParameterError(
                f"batch_size must be a whole number of at least 1, not {batch_size!r}."
            )
        order = list(range(len(sentences)))
        if not carry_state:
            order.sort(key=lambda place: len(sentences[place]), reverse=True)
        batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]

        def look_up(some: list[list[int]]) -> list[tuple[list[int], _Spelled]]:
            marked = [[(BEGIN, *sentences[place], END) for place in places] for places in some]
            return list(zip(some, self._look_up(marked), strict=True))

        def read(batch: tuple[list[int], _Spelled]) -> list[tuple[int, np.ndarray]]:
            places, spelled = batch
            layers = self._read_batch(spelled, boundaries, carry_state)
            return list(zip(places, layers, strict=True))

        if batches and not (boundaries or carry_state):
            self._read_first_mark()
        in_turn = carry_state or len(batches) < 2
        # Words are looked up in order, by one thread: which words are spelt together, and with that
        # a vector's last bits, must not depend on which of several threads came first.
        looked_up = work_ahead(look_up, _more_and_more(batches), 0 if in_turn else 1)
        done = work_ahead(read, chain.from_iterable(looked_up), 0 if in_turn else BATCHES_READ)
        yield from chain.from_iterable(done)

    def reset_state(self) -> None:
        """Start again from zero state where state is carried."""
        shape = (2, self.options.n_layers, 0)
        self.state = (
            np.zeros((*shape, self.options.lstm_dim), np.float32),
            np.zeros((*shape, self.options.projection_dim), np.float32),
        )

    def forget_words(self) -> None:
        """Forget all words, which is needed once the model's weights changed."""
        self._words.clear()
        self._after_mark = None

    def _read_first_mark(self) -> None:
        """Find the state after the first mark that a direction reads, the same in all sentences."""
        if self._after_mark is None:
            vectors = self._words.of([BEGIN, END])
            words = np.array([[[0]], [[1]]], np.int32)
            length = np.array([1], np.int32)
            _, self._after_mark = self._read(vectors, words, self._zero_state(1), length)

    def _read_batch(
        self, spelled: _Spelled, boundaries: bool, carry_state: bool
    ) -> list[np.ndarray]:
        lengths, vectors, words = spelled
        n_rows = len(lengths)
        margin = 0 if boundaries else 1
        encoded = [self._with_layer_0(vectors, ids, margin) for ids in _rows(words[0], lengths)]
        if carry_state:
            state = self._state_of_rows(n_rows)
        elif boundaries or self._after_mark is None:
            state = self._zero_state(n_rows)
        else:
            c, h = (part.repeat(n_rows, axis=2) for part in self._after_mark)
            state = c, h
            # The last mark that a direction reads tells nothing about the words before it.
            words, lengths, margin = words[:, :, 1:-1], lengths - 2, 0
        positions = min(MOST_POSITIONS_AT_ONCE, GATES_AT_ONCE // (4 * self.options.lstm_dim))
        window = max(8, positions // n_rows)
        for start in range(0, words.shape[2], window):
            directions, state = self._read(
                vectors, words[:, :, start : start + window], state, lengths - start
            )
            for k, out in enumerate(encoded):
                first = max(start, margin)
                last = min(start + window, int(lengths[k]) - margin)
                if first < last:
                    read = slice(first - start, last - start)
                    _write(out, directions, k, read, first - margin)
        if carry_state:
            self._keep_state(state)
        return encoded

    def _look_up(self, batches: Sequence[Sequence[tuple[str, ...]]]) -> list[_Spelled]:
        """Find the vectors of all words of some batches, and what is to be read of them in each."""
        index: dict[str, int] = {}
        numbered = []
        for batch in batches:
            lengths = np.array([len(sentence) for sentence in batch], np.int32)
            words = np.zeros((2, len(batch), int(lengths.max())), np.int32)
            for k, sentence in enumerate(batch):
                ids = [index.setdefault(word, len(index)) for word in sentence]
                words[0, k, : len(ids)] = ids
                words[1, k, : len(ids)] = ids[::-1]
            numbered.append((lengths, words))
        vectors = self._words.of(list(index))
        return [_Spelled(lengths, vectors, words) for lengths, words in numbered]

    def _with_layer_0(self, vectors: np.ndarray, ids: np.ndarray, margin: int) -> np.ndarray:
        dim = self.options.projection_dim
        kept = ids[margin : len(ids) - margin]
        out = np.empty((self.options.n_layers + 1, len(kept), 2 * dim), np.float32)
        out[0, :, :dim] = out[0, :, dim:] = vectors[kept]
        return out

    def _zero_state(self, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        c, h = (
            np.zeros((*part.shape[:2], n_rows, part.shape[3]), np.float32) for part in self.state
        )
        return c, h

    def _state_of_rows(self, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the state of the first rows, with zeros for rows that are new."""
        state = self._zero_state(n_rows)
        for part, kept in zip(state, self.state, strict=True):
            known = kept[:, :, :n_rows]
            part[:, :, : known.shape[2]] = known
        return state

    def _keep_state(self, state: tuple[np.ndarray, np.ndarray]) -> None:
        """Remember the state of these rows beside that of higher ones."""
        n_rows = state[0].shape[2]
        c, h = (
            np.concatenate([part, kept[:, :, n_rows:]], axis=2)
            for part, kept in zip(state, self.state, strict=True)
        )
        self.state = c, h


def _more_and_more(batches: list) -> Iterator[list]:
    """Cut batches into groups: the first can be read soon, later ones are worth their while."""
    first, n = 0, 1
    while first < len(batches):
        yield batches[first : first + n]
        first, n = first + n, min(2 * n, BATCHES_LOOKED_UP)


def layer_picker(layers: str | int, n_layers: int) -> Callable[[np.ndarray], np.ndarray]:
    """Make the function that takes what is wanted from an array of all layers.

    Args:
        layers: "all", "average", "top", or a layer's number, 0 being the character CNN.
        n_layers: LSTM layers of the model.

    Returns:
        function of an array `(n_layers + 1, ...)`, which gives "all" of it or an array `(...)`.

    Raises:
        ParameterError: there are no such layers.
    """
    if layers == "all":
        return lambda vectors: vectors
    if layers == "average":
        return lambda vectors: vectors.mean(axis=0)
    if layers == "top" or (layers in range(n_layers + 1) and not isinstance(layers, bool)):
        number = n_layers if layers == "top" else int(layers)
        # A view would keep all layers in memory.
        return lambda vectors: vectors[number].copy()
    raise ParameterError(
        f"layers must be 'all', 'average', 'top' or a number from 0 to {n_layers}, not {layers!r}."
    )


def _rows(ids: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    for row, length in zip(ids, lengths, strict=True):
        yield row[:length]


def _write(
    out: np.ndarray, directions: Sequence[list[np.ndarray]], row: int, read: slice, position: int
) -> None:
    """Copy what one sentence got in a window, of which the backward half runs backwards."""
    dim = out.shape[2] // 2
    written = slice(position, position + read.stop - read.start)
    for layer, forward, backward in zip(out[1:], *directions, strict=True):
        layer[written, :dim] = forward[read, row]
        layer[::-1, dim:][written] = backward[read, row]


class _WordVectors:
    """The context-free vectors of words, the latest used of which are kept.

    A word's vector does not depend on the words beside it, so one taken from here is as good as
    one computed again. Threads may share it.
    """

    def __init__(self, bilm: BiLM, capacity: int) -> None:
        self._max_characters = bilm.options.max_characters
        self._widest_filter = bilm.options.widest_filter
        self._spell = _compiled_spelling(bilm)
        self._capacity = capacity
        # The pages of memory that this asks for are only taken as words come in.
        self._table = np.empty((capacity, bilm.options.projection_dim), np.float32)
        self._rows: OrderedDict[str, int] = OrderedDict()
        self._lock = Lock()

    def clear(self) -> None:
        with self._lock:
            self._rows.clear()

    def of(self, words: Sequence[str]) -> np.ndarray:
        """Return the vectors (words, projection_dim) of distinct words."""
        vectors = np.empty((len(words), self._table.shape[1]), np.float32)
        with self._lock:
            places, rows, missing = [], [], []
            for place, word in enumerate(words):
                row = self._rows.get(word)
                if row is None:
                    missing.append(place)
                else:
                    self._rows.move_to_end(word)
                    places.append(place)
                    rows.append(row)
            vectors[places] = self._table[rows]
            if missing:
                vectors[missing] = self._compute([words[place] for place in missing])
                self._keep(
                    [(words[place], vectors[place]) for place in missing[-self._capacity :]]
                    if self._capacity
                    else []
                )
        return vectors

    def _compute(self, words: list[str]) -> np.ndarray:
        ids = character_ids(words, self._max_characters)
        # Words of about one length are spelt together.
        order = np.argsort((ids != PADDING).sum(axis=1), kind="stable")
        vectors = np.empty((len(words), self._table.shape[1]), np.float32)
        for first in range(0, len(order), WORDS_AT_ONCE):
            block = order[first : first + WORDS_AT_ONCE]
            groups, places = group_by_length(ids[block], self._widest_filter)
            vectors[block] = self._spell(groups)[places]
        return vectors

    def _keep(self, new: list[tuple[str, np.ndarray]]) -> None:
        for word, vector in new:
            full = len(self._rows) == self._capacity
            row = self._rows.popitem(last=False)[1] if full else len(self._rows)
            self._rows[word] = row
            self._table[row] = vector


def _compiled_spelling(bilm: BiLM) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Make the function from words (words, columns), in groups, to vectors (words, projection)."""
    signature = [("int32", (None, None))] * len(GROUPS)
    whole, cut = (
        _compiled(partial(bilm.char_cnn.call, padded=padded), signature) for padded in (False, True)
    )
    widest = bilm.options.widest_filter

    def spell(groups: Sequence[np.ndarray]) -> np.ndarray:
        padded = all((group[:, -widest:] == PADDING).all() for group in groups)
        return ops.convert_to_numpy((cut if padded else whole)(*groups))

    return spell


def _compiled_reading(bilm: BiLM) -> Callable:
    """Make the function from word vectors to the layers above them and the state thereafter."""
    options = bilm.options

    def read(forward, backward, words, c, h, lengths):
        directions, state = bilm.each_direction((forward, backward), words, (c, h), lengths)
        return [layers[1:] for layers in directions], state

    compiled = _compiled(
        read,
        [
            ("float32", (None, options.projection_dim)),
            ("float32", (None, options.projection_dim)),
            ("int32", (2, None, None)),
            ("float32", (2, options.n_layers, None, options.lstm_dim)),
            ("float32", (2, options.n_layers, None, options.projection_dim)),
            ("int32", (None,)),
        ],
    )

    def read_arrays(vectors, words, state, lengths):
        own, rows = zip(*(np.unique(each, return_inverse=True) for each in words), strict=True)
        rows = np.reshape(rows, words.shape).astype(np.int32)
        directions, state = compiled(*(vectors[each] for each in own), rows, *state, lengths)
        # NumPy in between also cuts the history that some backends would keep for gradients.
        arrays = [[ops.convert_to_numpy(layer) for layer in layers] for layers in directions]
        return arrays, tuple(ops.convert_to_numpy(part) for part in state)

    return read_arrays


def _compiled(function: Callable, signature: list[tuple[str, tuple]]) -> Callable:
    """Trace a function once for all shapes where TensorFlow is the backend."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        specs = [tf.TensorSpec(shape, dtype) for dtype, shape in signature]
        return tf.function(function, input_signature=specs, autograph=False)
    return lambda *arrays: function(*map(ops.convert_to_tensor, arrays))
