"""Read training text in one direction, epoch after epoch."""

from functools import lru_cache

import numpy as np

from elmolib.corpus.prepared import Split
from elmolib.text.vocabulary import BOS, EOS

FORWARD, BACKWARD = 0, 1

# A corpus of at most WHOLE_SHUFFLE sentences is shuffled as a whole. In a larger corpus, the blocks
# are shuffled, and so are the sentences within each block. A row of a batch then reads the corpus
# block by block, so the start or resumption of an epoch reads only one block per row.
WHOLE_SHUFFLE = 2**18
BLOCK = 2048


def read_and_predict(
    ids: np.ndarray, lengths: np.ndarray, direction: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the words to read and the words to predict, two int64 arrays (tokens + sentences,).

    The forward direction reads a sentence `w1 .. wn` as `<S> w1 .. wn` and predicts `w1 .. wn
    </S>`. The backward direction reads `</S> wn .. w1` and predicts `wn .. w1 <S>`.

    Args:
        ids: the ids of the words of all sentences in order, integers (tokens,).
        lengths: the number of words in each sentence, integers (sentences,).
    """
    ids, ends = ids.astype(np.int64), np.cumsum(lengths)
    starts = ends - lengths
    first, last = BOS, EOS
    if direction == BACKWARD:
        first, last = EOS, BOS
        ids = ids[np.repeat(starts + ends - 1, lengths) - np.arange(len(ids))]
    return np.insert(ids, starts, first), np.insert(ids, ends, last)


class Stream:
    """The endless stream of training text that one direction, `FORWARD` or `BACKWARD`, reads.

    With `shuffle`, each epoch and direction has its own order of the sentences, given by `seed`.
    Each of the `n_rows` rows of a batch reads at its own position; two blocks per row are cached.
    """

    def __init__(self, split: Split, direction: int, seed: int, n_rows: int, shuffle: bool = True):
        self.split, self.direction, self.seed, self.shuffle = split, direction, seed, shuffle
        n = split.n_sentences
        self.block_size = n if n <= WHOLE_SHUFFLE else BLOCK
        self.firsts = np.append(np.arange(0, n, self.block_size), n)
        self.block_lengths = np.diff(np.asarray(split.bounds[self.firsts])) + np.diff(self.firsts)
        self.length = split.n_words + n
        self._epoch = -1
        self._order = self._ends = np.empty(0, np.int64)
        self._cached_block = lru_cache(2 * n_rows)(self._block)

    def read(self, epoch: int, position: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the words to read and to predict from a position on, two int32 arrays (length,).

        After the end of the epoch, reading continues at the beginning of the same epoch.
        """
        if epoch != self._epoch:
            self._cached_block.cache_clear()
            self._epoch = epoch
            self._order = self._permutation(len(self.block_lengths), epoch)
            self._ends = np.cumsum(self.block_lengths[self._order])
        parts = []
        while length > 0:
            position %= self.length
            place = int(np.searchsorted(self._ends, position, side="right"))
            read, predicted = self._cached_block(int(self._order[place]))
            offset = position - (int(self._ends[place]) - len(read))
            part = slice(offset, min(offset + length, len(read)))
            parts.append((read[part], predicted[part]))
            length -= part.stop - part.start
            position += part.stop - part.start
        read, predicted = zip(*parts, strict=True)
        return np.concatenate(read), np.concatenate(predicted)

    def _permutation(self, n: int, *names: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(n)
        return np.random.default_rng([self.seed, self.direction, *names]).permutation(n)

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        first, end = self.firsts[block : block + 2]
        chosen = self.split.select(first + self._permutation(end - first, self._epoch, block))
        read, predicted = read_and_predict(chosen.ids, np.diff(chosen.bounds), self.direction)
        return read.astype(np.int32), predicted.astype(np.int32)
