"""Assign ids to the words of a text, and write the text as ids."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from elmolib.corpus.chunks import HELDOUT, SIDES, TRAIN, Counts
from elmolib.corpus.prepared import VOCABULARY
from elmolib.text.vocabulary import SPECIAL_WORDS

BLOCK_BYTES = 1 << 16
WORDS_PER_BLOCK = 1 << 18


def write_arrays(
    folder: Path,
    targets: Sequence[Path],  # of each call of `prepare_chunk`, in the order of the text
    totals: Counts,  # the sums of what these calls returned
    vocabulary: Sequence[str] | None,
    min_count: int,
    vocabulary_size: int | None,
) -> dict:
    """Write a corpus to a folder, and return the counts of words for its record.

    If `vocabulary` is None, choose the most frequent words: at most `vocabulary_size`, each with a
    count of at least `min_count`. Temporary files are written next to the targets.
    """
    work = targets[0].parent
    given = sorted({*SPECIAL_WORDS, *(vocabulary or ())})
    (work / "given.words").write_bytes("".join(f"{word}\n" for word in given).encode())
    # List 0 holds the special words and `vocabulary`, and list k the words of chunk k - 1.
    lists = [work / "given.words", *(target.with_suffix(".words") for target in targets)]
    merged = _MergedWords(lists, work / "merged.txt")
    counts = {side: np.zeros(len(merged), np.int64) for side in SIDES}
    for which, arrays in _chunk_arrays(targets):
        places = merged.places_of(which)
        for side in SIDES:
            counts[side][places] += arrays[f"{side}_counts"]
    is_known = counts[TRAIN] >= min_count if vocabulary is None else np.zeros(len(merged), bool)
    is_known[merged.places_of(0)] = True
    special = merged.places_of(0)[[given.index(word) for word in SPECIAL_WORDS]]
    # The special words come first, then the rest of the vocabulary, then all other words. The
    # last two groups are sorted by falling frequency, and words of equal frequency by code point.
    rank = np.where(is_known, len(special), len(special) + 1)
    rank[special] = range(len(special))
    order = np.lexsort((-counts[TRAIN], rank))  # places in the merged list
    n_vocabulary = min(int(is_known.sum()), vocabulary_size or len(order))

    _write_sentences(folder, targets, totals, merged, order)
    lengths = merged.lengths[order]
    with _array_file(folder / "lexicon_text.npy", np.uint8, int(lengths.sum())) as append:
        for block in merged.lines(order):
            append(block[block != ord("\n")])
    np.save(folder / "lexicon_offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
    np.save(folder / "lexicon_counts.npy", counts[TRAIN][order])
    with (folder / VOCABULARY).open("wb") as file:
        file.writelines(block.data for block in merged.lines(order[:n_vocabulary]))
    known, unknown = np.split(order, [n_vocabulary])
    return {
        "lexicon": len(order),
        "distinct_words": int(np.count_nonzero(counts[TRAIN] + counts[HELDOUT])),
        "distinct_known_words": int(np.count_nonzero((counts[TRAIN] + counts[HELDOUT])[known])),
        "vocabulary": n_vocabulary,
        "unknown_words": {side: int(counts[side][unknown].sum()) for side in SIDES},
    }


def _write_sentences(
    folder: Path, targets: Sequence[Path], totals: Counts, merged: "_MergedWords", order: np.ndarray
) -> None:
    ids = np.empty(len(order), np.uint32)
    ids[order] = np.arange(len(order), dtype=np.uint32)
    for side in SIDES:
        n_words, n_sentences, end = totals["words"][side], totals["sentences"][side], 0
        if not n_sentences:
            continue
        with (
            _array_file(folder / f"{side}_ids.npy", np.uint32, n_words) as append_ids,
            _array_file(folder / f"{side}_bounds.npy", np.int64, n_sentences + 1) as append_bounds,
        ):
            append_bounds(np.zeros(1))
            for which, arrays in _chunk_arrays(targets):
                append_ids(ids[merged.places_of(which)][arrays[f"{side}_ids"]])
                bounds = end + np.cumsum(arrays[f"{side}_lengths"], dtype=np.int64)
                append_bounds(bounds)
                end = int(bounds[-1]) if len(bounds) else end


def count_overlap(targets: Sequence[Path]) -> int:
    """Count the held-out sentences that also occur in the training text."""
    heldout = np.concatenate([arrays[f"{HELDOUT}_hashes"] for _, arrays in _chunk_arrays(targets)])
    found = np.zeros(len(heldout), bool)
    for _, arrays in _chunk_arrays(targets):
        found |= np.isin(heldout, arrays[f"{TRAIN}_hashes"])
    return int(found.sum())


def _chunk_arrays(targets: Sequence[Path]) -> Iterator[tuple[int, np.lib.npyio.NpzFile]]:
    """For each chunk, yield the number of its word list (counted from 1) and its arrays."""
    for which, target in enumerate(targets, start=1):
        with np.load(target.with_suffix(".npz"), allow_pickle=False) as arrays:
            yield which, arrays


@contextmanager
def _array_file(path: Path, dtype: type, length: int) -> Iterator[Callable[[np.ndarray], object]]:
    """Yield a function that appends blocks to an `.npy` file, which may be larger than memory."""
    with path.open("wb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda block: file.write(np.ascontiguousarray(block, dtype).data)


class _MergedWords:
    """Merge word lists, each sorted by code point, into one sorted list in the file `path`.

    The lists are files of distinct words, one per line. The attribute `lengths` has the number of
    bytes of each merged word, int64 (n_words,).
    """

    def __init__(self, lists: Sequence[Path], path: Path) -> None:
        self.path = path
        self._places = [words.with_suffix(".places") for words in lists]
        lengths, n_words = [], 0
        with path.open("wb") as file:
            for batches in _batches(lists):
                words = sorted(set().union(*batches.values()))
                encoded = [word.encode() for word in words]
                file.write(b"".join(b"%b\n" % word for word in encoded))
                lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
                numbers = dict(zip(words, range(n_words, n_words + len(words)), strict=True))
                for which, batch in batches.items():
                    places = np.fromiter(map(numbers.__getitem__, batch), np.uint32, len(batch))
                    with self._places[which].open("ab") as places_file:
                        places_file.write(places.data)
                n_words += len(words)
        self.lengths = np.concatenate(lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def places_of(self, which: int) -> np.ndarray:
        """For each word of one list, return its index in the merged list, as a uint32 array."""
        path = self._places[which]
        return np.fromfile(path, np.uint32) if path.exists() else np.empty(0, np.uint32)

    def lines(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the merged words in this order, one per line, as uint8 arrays of many words."""
        text = np.memmap(self.path, dtype=np.uint8, mode="r")
        sizes = self.lengths + 1
        starts = np.cumsum(sizes) - sizes
        for first in range(0, len(order), WORDS_PER_BLOCK):
            chosen = order[first : first + WORDS_PER_BLOCK]
            size = sizes[chosen]
            inside = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
            yield text[np.repeat(starts[chosen], size) + inside]


def _batches(lists: Sequence[Path]) -> Iterator[dict[int, list[str]]]:
    """Yield batches in code-point order. A batch has, from every list, the words of one range.

    The caller sorts each batch. A heap would be slower, because it runs Python code for each word.
    """
    blocks = [_blocks(path) for path in lists]
    waiting = [next(block, []) for block in blocks]
    while any(waiting):
        boundary = min(words[-1] for words in waiting if words)
        batches = {}
        for which, words in enumerate(waiting):
            if cut := bisect_right(words, boundary):
                batches[which] = words[:cut]
                waiting[which] = words[cut:] or next(blocks[which], [])
        yield batches


def _blocks(path: Path) -> Iterator[list[str]]:
    """Yield blocks of a word list. Close the file after each: there may be thousands of files."""
    position = 0
    while True:
        with path.open("rb") as file:
            file.seek(position)
            block = file.read(BLOCK_BYTES) + file.readline()
            position = file.tell()
        if not block:
            return
        yield block.decode("utf-8").split("\n")[:-1]
