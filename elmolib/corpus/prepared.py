"""A prepared corpus on disk, and functions that choose sentences from it."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from elmolib.corpus.chunks import HELDOUT, TRAIN
from elmolib.errors import CorpusError
from elmolib.files import sha256_of
from elmolib.settings.run_folder import CORPUS_RECORD as RECORD
from elmolib.text.characters import character_ids_of_bytes
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import Vocabulary

FORMAT = 4
VOCABULARY = "vocabulary.txt"


@dataclass(frozen=True)
class Split:
    """The training sentences or the held-out sentences of a corpus, memory-mapped."""

    ids: np.ndarray  # lexicon ids of all words, without `<S>` and `</S>`, uint32 (n_words,)
    bounds: np.ndarray  # sentence k is `ids[bounds[k]:bounds[k + 1]]`, int64 (n_sentences + 1,)

    @property
    def n_sentences(self) -> int:
        return len(self.bounds) - 1

    @property
    def n_words(self) -> int:
        return len(self.ids)

    def select(self, which: Sequence[int] | np.ndarray) -> "Split":
        """Copy the sentences with these indices."""
        which = np.asarray(which)
        starts, lengths = self.bounds[which], self.bounds[which + 1] - self.bounds[which]
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(starts - bounds[:-1], lengths) + np.arange(bounds[-1])
        return Split(self.ids[places], bounds)


@dataclass(frozen=True)
class Lexicon:
    """The distinct words of a corpus by id, memory-mapped."""

    text: np.ndarray  # the bytes of all words in UTF-8, in the order of their ids, uint8
    offsets: np.ndarray  # where in `text` each word begins, int64 (n_words + 1,)
    counts: np.ndarray  # how often each word occurs in the training text, int64 (n_words,)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def lengths(self) -> np.ndarray:
        """The number of bytes of each word in UTF-8, int64 (n_words,)."""
        return np.diff(self.offsets)

    def words(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        ids = np.asarray(ids, dtype=np.int64)
        spans = zip(self.offsets[ids].tolist(), self.offsets[ids + 1].tolist(), strict=True)
        return [self.text[start:end].tobytes().decode("utf-8") for start, end in spans]

    def character_ids(self, ids: np.ndarray, max_characters: int = 50) -> np.ndarray:
        """Return the character ids of words, given the word ids; int16 (n_ids, max_characters)."""
        starts = self.offsets[ids]
        lengths = self.offsets[ids + 1] - starts
        return character_ids_of_bytes(self.text, starts, lengths, max_characters)


class PreparedCorpus:
    """A prepared corpus in the folder that `prepare_corpus` made; opening it checks its files.

    Attributes:
        record: the content of `corpus.json`: `made_from` (parameters and files), `made_with`
            (versions), `counts` and `sha256` (checksums of the files).
        tokenizer: the tokenizer that split the text.
        fingerprints: checksums of "training text", "held-out text" and "vocabulary".
        train, heldout: the two `Split`s; `heldout` is None if nothing was held out.
        lexicon: every distinct word of both splits: `<S>`, `</S>` and `<UNK>`; then the other words
            of the vocabulary, which the softmax predicts; then the remaining words. The last two
            groups are sorted by falling count, words with equal counts by code point.

    Raises:
        CorpusError: the folder is missing or not a corpus, or one of its files is damaged.

    Example:
        >>> corpus = PreparedCorpus("runs/tiny/corpus")
        >>> corpus.lexicon.words(corpus.train.ids[: corpus.train.bounds[1]])[:2]
        ['Anarchism', 'is']
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.record = record = _read_record(self.path)
        for name, digest in record["sha256"].items():
            file = self.path / name
            if not file.is_file() or sha256_of(file) != digest:
                raise _damaged(file)
        # All checksums match, so the files are as `prepare_corpus` wrote them.
        self._n_vocabulary: int = record["counts"]["vocabulary"]
        self.train = self._split(TRAIN)
        self.heldout = self._split(HELDOUT) if record["counts"]["sentences"][HELDOUT] else None
        tokenizer = record["made_from"]["tokenizer"]
        self.tokenizer = Tokenizer.from_json(tokenizer, str(self.path / RECORD))
        self.fingerprints = {
            "training text": self._fingerprint(f"{TRAIN}_", "lexicon_text", "lexicon_offsets"),
            "held-out text": self._fingerprint(f"{HELDOUT}_"),
            "vocabulary": self._fingerprint(VOCABULARY),
        }
        names = ("lexicon_text", "lexicon_offsets", "lexicon_counts")
        self.lexicon = Lexicon(*map(self._array, names))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words of the softmax."""
        return Vocabulary(self.lexicon.words(np.arange(self._n_vocabulary)))

    def __len__(self) -> int:
        return self.train.n_sentences

    def __repr__(self) -> str:
        sizes = f"{len(self):,} training sentences of {self.train.n_words:,} words"
        words = f"vocabulary of {self._n_vocabulary:,} words"
        return f"PreparedCorpus({str(self.path)!r}, {sizes}, {words})"

    def _fingerprint(self, *prefixes: str) -> str:
        """Return one checksum of all files whose names begin with one of the prefixes."""
        files = sorted(self.record["sha256"].items())
        sums = (digest for name, digest in files if name.startswith(prefixes))
        return hashlib.sha256(" ".join(sums).encode()).hexdigest()

    def _split(self, side: str) -> Split:
        return Split(self._array(f"{side}_ids"), self._array(f"{side}_bounds"))

    def _array(self, name: str) -> np.ndarray:
        # Slicing a plain view is much faster than slicing np.memmap.
        return np.load(self.path / f"{name}.npy", mmap_mode="r").view(np.ndarray)


def checksum(record: dict) -> str:
    """Return the checksum of a record without its key `checksum`."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_record(folder: Path) -> dict:
    file = folder / RECORD
    if not file.is_file():
        problem = f"{folder} is not a prepared corpus ({RECORD} is missing)"
        raise CorpusError(f"{problem}: choose another folder.")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            advice = f"delete {folder} to prepare the corpus again"
            raise CorpusError(f"{file} was written by another version of elmolib: {advice}.")
        if record["checksum"] != checksum(record):
            raise _damaged(file)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise error if isinstance(error, CorpusError) else _damaged(file) from None
    return record


def _damaged(file: Path) -> CorpusError:
    advice = f"delete {file.parent} to prepare the corpus again"
    return CorpusError(f"{file} is missing or damaged: {advice}.")


def require_heldout(corpus: PreparedCorpus) -> Split:
    """Return the held-out sentences, or raise a CorpusError if there are none."""
    if corpus.heldout is None:
        advice = "set heldout_text or heldout_fraction"
        raise CorpusError(f"{corpus.path} has no held-out text: {advice}.")
    return corpus.heldout


def spread_sentences(split: Split, n_targets: int) -> Split:
    """Choose evenly spread sentences (at least one) with about `n_targets` words to predict."""
    available = split.n_words + split.n_sentences
    n = max(1, min(split.n_sentences, split.n_sentences * n_targets // available))
    return split.select(np.arange(n) * split.n_sentences // n)


def sentences_of(split: Split, corpus: PreparedCorpus) -> list[list[str]]:
    words = corpus.lexicon.words(split.ids)
    return [words[start:end] for start, end in itertools.pairwise(split.bounds.tolist())]


def example_sentences(corpus: PreparedCorpus, n: int = 3) -> list[list[str]]:
    """Return the `n` held-out sentences of about 8 words, whose predictions fit on a screen."""
    heldout = require_heldout(corpus)
    chosen = np.argsort(np.abs(np.diff(heldout.bounds) - 8), kind="stable")[:n]
    return sentences_of(heldout.select(chosen), corpus)
