"""Compute the contextual vectors of sentences; the character CNN reads each distinct word once."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np

from elmolib.embedding.runtime import Runtime, State
from elmolib.embedding.sentences import require_count
from elmolib.embedding.words import Remembered, WordVectors
from elmolib.errors import ParameterError
from elmolib.parallel import prefetch
from elmolib.settings.architecture import Architecture

# The maximum number of gate values (16 MB) of 32 sentences in one call of an LSTM. Longer sentences
# need several calls; each continues from the state of the previous call. This limits the memory.
GATES_AT_ONCE = 2**22
MOST_POSITIONS_AT_ONCE = 1024
# The words of this many batches are looked up together, so that more of them have equal lengths.
BATCHES_LOOKED_UP = 8


class _Batch(NamedTuple):
    places: list[int]  # indices of these sentences among all sentences to encode
    lengths: np.ndarray  # int32 (batch,), `<S>` and `</S>` included
    vectors: np.ndarray  # float32 (words, projection_dim), for the words of several batches
    words: np.ndarray  # int32 (2, time, batch), rows of `vectors`, forward and backward


class SentenceEncoder:
    """Compute all layers of a biLM for any number of sentences.

    Every sentence is read between `<S>` and `</S>`. Except with `carry_state`, it starts from the
    zero state, so its vectors do not depend on its batch.

    Args:
        runtime: the runtime of the model. After the model's weights change, call `forget_words`.
        cache_words: the number of words whose context-free vectors are cached.
        remembered: words that are in the cache from the beginning.
        n_threads: the number of threads that run the LSTMs; one more thread looks words up. None
            means `runtime.n_threads`, and 0 means that the caller's thread does everything.

    References:
        Peters et al. 2018, arXiv:1802.05365, section 3.2.
    """

    def __init__(
        self,
        runtime: Runtime,
        cache_words: int = 30_000,
        remembered: Remembered | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.runtime = runtime
        self.architecture: Architecture = runtime.architecture
        self.remembered = remembered
        self._n_threads = runtime.n_threads if n_threads is None else n_threads
        self._words = WordVectors(runtime, cache_words, remembered)
        self._after_mark: State | None = None
        self.reset_state()

    def encode(
        self,
        sentences: Sequence[Sequence[str]],
        batch_size: int | None = None,
        boundaries: bool = False,
        carry_state: bool = False,
    ) -> list[np.ndarray]:
        """Compute the vectors of sentences.

        Args:
            sentences: the words of each sentence, which may be empty.
            batch_size: None means the runtime's `batch_size`, or 32 if the state is carried.
            boundaries: whether to also return the vectors of `<S>` and `</S>`.
            carry_state: batch the sentences in the given order. Row k of a batch starts from the
                final state of row k in the last batch that had a row k, even in an earlier call.
                The final state of the backward direction is its state after it has read `<S>`.

        Returns:
            for each sentence a float32 array `(n_layers + 1, n_words, 2 * projection_dim)`, with
            `n_words + 2` words if `boundaries` is set. The first half of a vector is from the
            forward direction. Both halves of layer 0 are the word's vector without context.

        Raises:
            ParameterError: `batch_size` is not a positive whole number.
        """
        encoded = dict(self.encode_each(sentences, batch_size, boundaries, carry_state))
        return [encoded[place] for place in range(len(sentences))]

    def encode_each(
        self,
        sentences: Sequence[Sequence[str]],
        batch_size: int | None = None,
        boundaries: bool = False,
        carry_state: bool = False,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each sentence's index and vectors. Without `carry_state`, long ones come first."""
        if batch_size is None:
            batch_size = 32 if carry_state else self.runtime.batch_size
        require_count(batch_size, "batch_size")
        order = list(range(len(sentences)))
        if not carry_state:
            order.sort(key=lambda place: len(sentences[place]), reverse=True)
        batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
        look_up = partial(self._look_up, sentences)
        read = partial(self._read, boundaries=boundaries, carry_state=carry_state)
        if batches and not (boundaries or carry_state):
            self.after_first_mark()
        in_turn = carry_state or len(batches) < 2 or self._n_threads == 0
        # Only one thread looks words up. The rounding of a vector depends on the words that are
        # computed with it, and several threads would group words at random.
        looked_up = prefetch(look_up, _growing_groups(batches), 0 if in_turn else 1)
        done = prefetch(read, chain.from_iterable(looked_up), 0 if in_turn else self._n_threads)
        yield from chain.from_iterable(done)

    def picker(self, layers: str | int) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that selects `layers` from an array `(n_layers + 1, ...)`.

        `layers` is "all" (the whole array), "average", "top", a layer number or, if a task has
        trained the model, "mix". All but the first give an array `(...)`. Layer 0 is the character
        CNN. Any other value raises a ParameterError.
        """
        n_layers, mix = self.architecture.n_layers, self.runtime.mix
        if layers == "all":
            return lambda vectors: vectors
        if layers == "average":
            return lambda vectors: vectors.mean(axis=0)
        if layers == "mix" and mix is not None:
            return lambda vectors: np.tensordot(np.asarray(mix, np.float32), vectors, axes=1)
        if layers == "top" or (layers in range(n_layers + 1) and not isinstance(layers, bool)):
            number = n_layers if layers == "top" else int(layers)
            # Copy the layer, because a view would keep the array of all layers in memory.
            return lambda vectors: vectors[number].copy()
        known = "'all', 'average', 'top'" + (", 'mix'" if mix is not None else "")
        raise ParameterError(
            f"layers must be {known} or a number from 0 to {n_layers}, not {layers!r}."
        )

    def reset_state(self) -> None:
        """Reset the carried state to zero."""
        self.state: State = self._zero_state(0)

    def forget_words(self) -> None:
        """Empty the cache of words, which is necessary if the model's weights have changed."""
        self._words.clear()
        self._after_mark = None

    def after_first_mark(self) -> State:
        """Return each direction's state after its first sentence mark, in a batch of 1."""
        if self._after_mark is None:
            vectors = self._words.of(self.runtime.spelling.marks)
            words = np.array([[[0]], [[1]]], np.int32)  # (2, time, batch)
            length = np.array([1], np.int32)
            _, self._after_mark = self.runtime.read(vectors, words, self._zero_state(1), length)
        return self._after_mark

    def _look_up(
        self, sentences: Sequence[Sequence[str]], batches: list[list[int]]
    ) -> list[_Batch]:
        """Give each distinct word of some batches a row number, and look up the word vectors."""
        begin, end = self.runtime.spelling.marks
        index: dict[str, int] = {}
        numbered = []
        for places in batches:
            lengths = np.array([len(sentences[place]) + 2 for place in places], np.int32)
            words = np.zeros((2, int(lengths.max()), len(places)), np.int32)
            for k, place in enumerate(places):
                marked = begin, *sentences[place], end
                ids = [index.setdefault(word, len(index)) for word in marked]
                words[0, : len(ids), k] = ids
                words[1, : len(ids), k] = ids[::-1]
            numbered.append((places, lengths, words))
        vectors = self._words.of(list(index))
        return [_Batch(places, lengths, vectors, words) for places, lengths, words in numbered]

    def _read(
        self, batch: _Batch, boundaries: bool, carry_state: bool
    ) -> list[tuple[int, np.ndarray]]:
        places, lengths, vectors, words = batch
        a, n_rows = self.architecture, len(places)
        dim, margin = a.projection_dim, 0 if boundaries else 1
        encoded = []
        for k, length in enumerate(lengths):
            ids = words[0, margin : length - margin, k]
            encoded.append(np.empty((a.n_layers + 1, len(ids), 2 * dim), np.float32))
            encoded[k][0, :, :dim] = encoded[k][0, :, dim:] = vectors[ids]
        if carry_state:
            state = self._carried_state(n_rows)
        elif boundaries:
            state = self._zero_state(n_rows)
        else:
            c, h = self.after_first_mark()
            state = c.repeat(n_rows, axis=2), h.repeat(n_rows, axis=2)
            # Skip the last sentence mark, because it does not affect the words read before it.
            words, lengths, margin = words[:, 1:-1], lengths - 2, 0
        positions = min(MOST_POSITIONS_AT_ONCE, GATES_AT_ONCE // (4 * a.lstm_dim))
        window = max(8, positions * self.runtime.batch_size // (32 * n_rows))
        for start in range(0, words.shape[1], window):
            directions, state = self.runtime.read(
                vectors, words[:, start : start + window], state, lengths - start
            )
            for k, out in enumerate(encoded):
                first = max(start, margin)
                last = min(start + window, int(lengths[k]) - margin)
                if first < last:
                    read = slice(first - start, last - start)
                    written = slice(first - margin, last - margin)
                    for layer, forward, backward in zip(out[1:], *directions, strict=True):
                        layer[written, :dim] = forward[read, k]
                        layer[::-1, dim:][written] = backward[read, k]
        if carry_state:
            for kept, new in zip(self.state, state, strict=True):
                kept[:, :, :n_rows] = new
        return list(zip(places, encoded, strict=True))

    def _zero_state(self, n_rows: int) -> State:
        a = self.architecture
        shape = 2, a.n_layers, n_rows
        c, h = (np.zeros((*shape, dim), np.float32) for dim in (a.lstm_dim, a.projection_dim))
        return c, h

    def _carried_state(self, n_rows: int) -> State:
        """Return the carried state of the first `n_rows` rows; in new rows, it is zero."""
        added = self._zero_state(max(0, n_rows - self.state[0].shape[2]))
        c, h = map(partial(np.concatenate, axis=2), zip(self.state, added, strict=True))
        self.state = c, h
        return c[:, :, :n_rows], h[:, :, :n_rows]


def _growing_groups(batches: list[list[int]]) -> Iterator[list[list[int]]]:
    """Divide the batches into groups. The first groups are small, so that reading starts soon."""
    first, n = 0, 1
    while first < len(batches):
        yield batches[first : first + n]
        first, n = first + n, min(2 * n, BATCHES_LOOKED_UP)
