"""From a prepared corpus to the batches of training, each found by its number alone.

The sentences of an epoch, shuffled unless told not to, form one long stream per direction. The
stream is cut into `batch_size` rows of equal length; step `s` reads the `s`-th window of every row.
So the LSTM's state can be carried from one step to the next, every word is predicted exactly once
per epoch and direction, and any step can be made without the ones before it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from elmolib.characters import PADDING
from elmolib.errors import TrainingError
from elmolib.negatives import log_expected_count, sample_negatives
from elmolib.options import BiLMOptions
from elmolib.processors import work_ahead
from elmolib.vocabulary import BOS, EOS, UNK

if TYPE_CHECKING:
    from elmolib.corpus import Lexicon, PreparedCorpus, Split
    from elmolib.parameters import Parameters

FORWARD, BACKWARD = 0, 1

WHOLE_SHUFFLE = 2**18
"""Up to so many sentences, an epoch is one shuffle of all of them."""

GROUPS = (0.4, 0.8, 0.97, 1.0)
"""Where the distinct words of a batch, sorted by length, are divided: most words are short, and the
few long ones shall not make all others wide."""

FEWEST_WORDS = 4
"""So many words are needed for each group to get one; blank ones are added if there are fewer."""

BLOCK = 2048
"""Above that, blocks of so many neighbouring sentences are shuffled, and the sentences in each: the
first step of a row then costs one block, however large the corpus."""


class Batch(NamedTuple):
    """What one training step needs. Direction 0 is forward, 1 backward.

    Attributes:
        characters: the distinct words of the batch, ids 0 to 260, from short words to long, in
            groups of int32 (words, columns) with only as many columns as each group needs.
        words: int32 (2, batch, time), what is read: rows of all groups, counted on.
        rows: int64 (rows,), ids of the distinct softmax rows that this step touches.
        targets: int32 (2, batch, time), what is predicted: positions in `rows`.
        weights: float32 (batch, time), 1 where a prediction counts, 0 past the end of the row.
        negatives: int32 (2, samples), positions in `rows`; empty for the full softmax.
        log_expected_targets: float32 (2, batch, time).
        log_expected_negatives: float32 (2, samples).
    """

    characters: tuple[np.ndarray, ...]
    words: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    negatives: np.ndarray
    log_expected_targets: np.ndarray
    log_expected_negatives: np.ndarray


def read_and_predict(
    ids: np.ndarray, lengths: np.ndarray, direction: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lay sentences end to end as one direction reads them, with the word that follows each.

    Forward, a sentence `w1 .. wn` is read as `<S> w1 .. wn` and predicts `w1 .. wn </S>`;
    backward it is read as `</S> wn .. w1` and predicts `wn .. w1 <S>`.

    Args:
        ids: integers (tokens,), the words of all sentences in order.
        lengths: integers (sentences,), words in each.
        direction: `FORWARD` or `BACKWARD`.

    Returns:
        two arrays (tokens + sentences,): what is read and what is predicted.
    """
    starts = np.cumsum(lengths + 1) - (lengths + 1)
    first, last = (BOS, EOS) if direction == FORWARD else (EOS, BOS)
    is_first = np.zeros(len(ids) + len(lengths), bool)
    is_first[starts] = True
    read = np.empty(len(is_first), np.int64)
    read[is_first] = first
    if direction == BACKWARD:
        ends = np.cumsum(lengths)
        within = np.arange(len(ids)) - np.repeat(ends - lengths, lengths)
        ids = ids[np.repeat(ends - 1, lengths) - within]
    read[~is_first] = ids
    predicted = np.empty_like(read)
    predicted[:-1] = read[1:]
    predicted[starts[1:] - 1] = last
    predicted[-1] = last
    return read, predicted


class Stream:
    """One direction's endless reading of the training text, epoch after epoch.

    Args:
        split: the sentences.
        direction: `FORWARD` or `BACKWARD`.
        seed: decides the order of the sentences, which differs by epoch and direction.
        n_rows: how many places are read from in turn; decides how many blocks are kept.
        shuffle: read the sentences in random order, not in that of the text.
    """

    def __init__(
        self, split: Split, direction: int, seed: int, n_rows: int, shuffle: bool = True
    ) -> None:
        self.split = split
        self.shuffle = shuffle
        self.direction = direction
        self.seed = seed
        self.n_rows = n_rows
        n = split.n_sentences
        self.block_size = n if n <= WHOLE_SHUFFLE else BLOCK
        self.firsts = np.append(np.arange(0, n, self.block_size), n)
        self.block_lengths = np.diff(np.asarray(split.bounds[self.firsts])) + np.diff(self.firsts)
        self.length = split.n_words + n
        self._epoch = -1
        self._order = self._ends = np.empty(0, np.int64)
        self._cache: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def read(self, epoch: int, position: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what is read and predicted from `position` on, round the end of the epoch.

        Returns:
            two int64 arrays (length,).
        """
        self._begin(epoch)
        parts = []
        while length > 0:
            position %= self.length
            place = int(np.searchsorted(self._ends, position, side="right"))
            read, predicted = self._block(int(self._order[place]))
            offset = position - (int(self._ends[place]) - len(read))
            part = slice(offset, min(offset + length, len(read)))
            parts.append((read[part], predicted[part]))
            length -= part.stop - part.start
            position += part.stop - part.start
        return (
            np.concatenate([part[0] for part in parts]),
            np.concatenate([part[1] for part in parts]),
        )

    def _order_of(self, n: int, *names: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(n)
        return np.random.default_rng([self.seed, self.direction, *names]).permutation(n)

    def _begin(self, epoch: int) -> None:
        """Put the blocks into the order of an epoch."""
        if epoch != self._epoch:
            self._cache.clear()
            self._epoch = epoch
            self._order = self._order_of(len(self.block_lengths), epoch)
            self._ends = np.cumsum(self.block_lengths[self._order])

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Return one block's sentences, shuffled and laid end to end."""
        if block in self._cache:
            self._cache.move_to_end(block)
            return self._cache[block]
        bounds = np.asarray(self.split.bounds[self.firsts[block] : self.firsts[block + 1] + 1])
        ids = np.asarray(self.split.ids[bounds[0] : bounds[-1]])
        bounds = bounds - bounds[0]
        order = self._order_of(len(bounds) - 1, self._epoch, block)
        lengths = np.diff(bounds)[order]
        starts = np.repeat(bounds[:-1][order], lengths)
        within = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        read, predicted = read_and_predict(ids[starts + within], lengths, self.direction)
        self._cache[block] = read.astype(np.int32), predicted.astype(np.int32)
        if len(self._cache) > 2 * self.n_rows:
            self._cache.popitem(last=False)
        return self._cache[block]


class Batches:
    """All batches of a training run, by step number.

    Args:
        split: the training sentences.
        lexicon: every word of the text.
        vocabulary_size: words that the softmax knows.
        options: of the model, for the characters' columns.
        batch_size: rows.
        unroll_steps: words of each row in one step.
        n_negatives: words sampled per direction and step, or None for the full softmax.
        seed: decides shuffling and sampling.
        shuffle: read the sentences of each epoch in random order, not in that of the text.

    Raises:
        TrainingError: if the text is shorter than one batch, or fewer words are known than
            are to be sampled.

    Example:
        >>> batches = Batches.of(corpus, parameters)
        >>> batches[1234].words.shape
        (2, 64, 20)
    """

    def __init__(
        self,
        split: Split,
        lexicon: Lexicon,
        vocabulary_size: int,
        options: BiLMOptions,
        batch_size: int,
        unroll_steps: int,
        n_negatives: int | None,
        seed: int,
        shuffle: bool = True,
    ) -> None:
        self.lexicon = lexicon
        self.vocabulary_size = vocabulary_size
        self.max_characters = options.max_characters
        self.widest_filter = options.widest_filter
        self.batch_size = batch_size
        self.unroll_steps = unroll_steps
        self.n_negatives = n_negatives
        self.seed = seed
        self.streams = [
            Stream(split, direction, seed, batch_size, shuffle) for direction in (FORWARD, BACKWARD)
        ]
        self.n_targets = self.streams[FORWARD].length
        if self.n_targets < batch_size * unroll_steps:
            raise TrainingError(
                f"The training text has {self.n_targets} words and sentence ends, fewer than one "
                f"batch of batch_size {batch_size} times unroll_steps {unroll_steps}: give more "
                "text or lower one of the two."
            )
        if n_negatives is not None and n_negatives >= vocabulary_size:
            raise TrainingError(
                f"n_negatives is {n_negatives}, but the vocabulary has only {vocabulary_size} "
                "words: lower n_negatives, or set it to null for the full softmax."
            )
        self.row_starts = np.arange(batch_size + 1, dtype=np.int64) * self.n_targets // batch_size
        longest_row = int(np.diff(self.row_starts).max())
        self.steps_per_epoch = -(-longest_row // unroll_steps)

    @classmethod
    def of(cls, corpus: PreparedCorpus, parameters: Parameters) -> Batches:
        """Make the batches of a prepared corpus as the parameters say."""
        return cls(
            corpus.train,
            corpus.lexicon,
            len(corpus.vocabulary),
            parameters.options,
            parameters.batch_size,
            parameters.unroll_steps,
            parameters.n_negatives,
            parameters.seed,
            parameters.shuffle,
        )

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step, counted from the beginning of training."""
        epoch, window = divmod(step, self.steps_per_epoch)
        starts = self.row_starts[:-1] + window * self.unroll_steps
        read, predicted = (
            np.stack(part)
            for part in zip(
                *(self._read(epoch, starts, stream) for stream in self.streams), strict=True
            )
        )  # (2, batch, time)
        positions = starts[:, None] + np.arange(self.unroll_steps)
        weights = (positions < self.row_starts[1:, None]).astype(np.float32)
        distinct, words = np.unique(read, return_inverse=True)
        groups, place = group_by_length(
            self.lexicon.character_ids(distinct, self.max_characters), self.widest_filter
        )
        target_ids = np.where(predicted < self.vocabulary_size, predicted, UNK)
        return Batch(
            characters=groups,
            words=place[words].reshape(read.shape).astype(np.int32),
            weights=weights,
            **self._softmax_rows(step, target_ids),
        )

    def _read(
        self, epoch: int, starts: np.ndarray, stream: Stream
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = [stream.read(epoch, int(start), self.unroll_steps) for start in starts]
        return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])

    def _softmax_rows(self, step: int, target_ids: np.ndarray) -> dict[str, np.ndarray]:
        if self.n_negatives is None:
            return {
                "rows": np.empty(0, np.int64),
                "targets": target_ids.astype(np.int32),
                "negatives": np.empty((2, 0), np.int32),
                "log_expected_targets": np.zeros(target_ids.shape, np.float32),
                "log_expected_negatives": np.empty((2, 0), np.float32),
            }
        samples = [
            sample_negatives(
                self.n_negatives,
                self.vocabulary_size,
                np.random.default_rng([self.seed, 2 + direction, step]),
            )
            for direction in (FORWARD, BACKWARD)
        ]
        negative_ids = np.stack([sample.ids for sample in samples])
        rows, places = np.unique(
            np.concatenate([target_ids.ravel(), negative_ids.ravel()]), return_inverse=True
        )
        places = places.astype(np.int32)
        log_expected = [
            [
                log_expected_count(ids[d], self.vocabulary_size, samples[d].n_draws)
                for d in (FORWARD, BACKWARD)
            ]
            for ids in (target_ids, negative_ids)
        ]
        return {
            "rows": rows.astype(np.int64),
            "targets": places[: target_ids.size].reshape(target_ids.shape),
            "negatives": places[target_ids.size :].reshape(negative_ids.shape),
            "log_expected_targets": np.stack(log_expected[0]),
            "log_expected_negatives": np.stack(log_expected[1]),
        }

    def read_ahead(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the batches of steps `first` to `last - 1`, each made while the one before it is
        used."""
        return work_ahead(self.__getitem__, range(first, last), 1)


def group_by_length(
    characters: np.ndarray, widest_filter: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Sort words by length and trim the short, the middling and the long ones on their own.

    Args:
        characters: integers (words, max_characters), ids 0 to 260.
        widest_filter: characters in the widest convolution.

    Returns:
        the groups, each as of `trim_columns`, and for each word its place in all of them (words,).
    """
    n_words = len(characters)
    # A group must not be empty: convolutions of no words fail.
    blank = np.full((max(0, FEWEST_WORDS - n_words), characters.shape[1]), PADDING)
    characters = np.concatenate([characters, blank.astype(characters.dtype)])
    lengths = (characters != PADDING).sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    # At least one word is left for each of the groups that follow.
    ends = [
        min(round(share * len(order)), len(order) - left)
        for share, left in zip(GROUPS, reversed(range(len(GROUPS))), strict=True)
    ]
    groups = tuple(
        trim_columns(characters[order[first:end]], widest_filter)
        for first, end in zip([0, *ends], ends, strict=False)
    )
    return groups, place[:n_words]


def trim_columns(characters: np.ndarray, widest_filter: int) -> np.ndarray:
    """Cut off columns of padding that cannot change a maximum over positions.

    Every filter that saw a window of padding alone still sees one, and every other window stays.

    Args:
        characters: integers (words, max_characters), ids 0 to 260.
        widest_filter: characters in the widest convolution.

    Returns:
        int32 (words, columns).
    """
    used = np.flatnonzero((characters != PADDING).any(axis=0))
    longest = int(used[-1]) + 1 if len(used) else 0
    return characters[:, : longest + widest_filter].astype(np.int32)
