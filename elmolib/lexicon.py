"""Every distinct word of a corpus, on disk, and how it is gathered from sorted word lists."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from elmolib.characters import character_ids_of_bytes

BLOCK_BYTES = 1 << 16
WORDS_AT_ONCE = 1 << 18


class Lexicon:
    """The distinct words of a corpus by id, without holding them in memory.

    Args:
        text: uint8 array, the words in UTF-8 one after the other in the order of their ids.
        offsets: int64 array of shape `(n_words + 1,)`, where each word begins in `text`.
        counts: int64 array of shape `(n_words,)`, how often each word stands in the training text.
    """

    def __init__(self, text: np.ndarray, offsets: np.ndarray, counts: np.ndarray):
        self._text = text
        self._offsets = offsets
        self.counts = counts

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each word in UTF-8, as an int64 array of shape `(n_words,)`."""
        return np.diff(self._offsets)

    def words(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The words with these ids, as a list of strings."""
        ids = np.asarray(ids, dtype=np.int64)
        spans = zip(self._offsets[ids].tolist(), self._offsets[ids + 1].tolist(), strict=True)
        return [self._text[start:end].tobytes().decode("utf-8") for start, end in spans]

    def character_ids(
        self, ids: Sequence[int] | np.ndarray, max_characters: int = 50
    ) -> np.ndarray:
        """Spell the words with these ids in characters.

        Args:
            ids: integers of shape `(n_words,)`.
            max_characters: width of the result, the two word marks included.

        Returns:
            int16 array of shape `(n_words, max_characters)`; see `characters.character_ids`.
        """
        ids = np.asarray(ids, dtype=np.int64)
        starts = self._offsets[ids]
        lengths = self._offsets[ids + 1] - starts
        return character_ids_of_bytes(self._text, starts, lengths, max_characters)


class SortedWords:
    """Merges word lists that are each sorted by code point into one.

    Args:
        lists: files of distinct words, one per line; all are read side by side, in blocks.
        merged: file to write, in the same form.

    Attributes:
        places: for each list, where its words stand in the merged one: uint32 files beside the
            lists, with the suffix `.places`.
        lengths: int64 array of shape `(n_distinct_words,)`, bytes of each merged word.
    """

    def __init__(self, lists: Sequence[Path], merged: Path):
        self.places = [path.with_suffix(".places") for path in lists]
        for path in self.places:
            path.write_bytes(b"")
        lengths = []
        n_words = 0
        readers = [_WordReader(path) for path in lists]
        with merged.open("wb") as stream:
            for batches in _batches(readers):
                words = sorted(set().union(*batches.values()))
                encoded = [word.encode() for word in words]
                stream.write(b"".join(b"%b\n" % word for word in encoded))
                lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
                numbers = dict(zip(words, range(n_words, n_words + len(words)), strict=True))
                for which, batch in batches.items():
                    places = np.fromiter(map(numbers.__getitem__, batch), np.uint32, len(batch))
                    with self.places[which].open("ab") as places_stream:
                        places.tofile(places_stream)
                n_words += len(words)
        self.lengths = np.concatenate(lengths)

    def places_of(self, which: int) -> np.ndarray:
        """Where the words of one list stand in the merged one, as a uint32 array."""
        return np.fromfile(self.places[which], dtype=np.uint32)


def _batches(readers: Sequence[_WordReader]) -> Iterator[dict[int, list[str]]]:
    """The words of all lists up to one word, then up to a later one, and so on to the end.

    Taking them in batches leaves nearly all comparing to C; a heap would take one at a time.
    """
    while True:
        for reader in readers:
            reader.fill()
        boundary = min((reader.words[-1] for reader in readers if reader.more), default=None)
        batches = {which: reader.take(boundary) for which, reader in enumerate(readers)}
        batches = {which: batch for which, batch in batches.items() if batch}
        if not batches:
            return
        yield batches


class _WordReader:
    """Reads a word list in blocks, without keeping the file open: there may be thousands."""

    def __init__(self, path: Path):
        self._path = path
        self._position = 0
        self.words: list[str] = []
        self.more = True

    def fill(self) -> None:
        """Read on if no word is left."""
        if self.words or not self.more:
            return
        with self._path.open("rb") as stream:
            stream.seek(self._position)
            block = stream.read(BLOCK_BYTES) + stream.readline()
            self._position = stream.tell()
        self.words = block.decode("utf-8").split("\n")[:-1]
        self.more = bool(self.words)

    def take(self, boundary: str | None) -> list[str]:
        """Give away the words up to the boundary, which may be None for all."""
        cut = len(self.words) if boundary is None else bisect_right(self.words, boundary)
        taken, self.words = self.words[:cut], self.words[cut:]
        return taken


def reordered_words(
    merged: Path, lengths: np.ndarray, order: np.ndarray, line_ends: bool = False
) -> Iterator[np.ndarray]:
    """Read a merged word list in another order.

    Args:
        merged: file with one word per line.
        lengths: int64 array of shape `(n_words,)`, bytes of each word.
        order: int64 array, places in the list.
        line_ends: whether to give them with the words.

    Yields:
        uint8 arrays: the bytes of the words in that order.
    """
    text = np.memmap(merged, dtype=np.uint8, mode="r")
    starts = np.cumsum(lengths + 1) - lengths - 1
    for first in range(0, len(order), WORDS_AT_ONCE):
        chosen = order[first : first + WORDS_AT_ONCE]
        sizes = lengths[chosen] + line_ends
        inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield text[np.repeat(starts[chosen], sizes) + inside]
