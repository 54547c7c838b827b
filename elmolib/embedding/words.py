"""Context-free vectors of words, with a cache."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np

from elmolib.embedding.companions import read_companion, write_companion
from elmolib.embedding.numpy_runtime import NumpyRuntime
from elmolib.embedding.runtime import Runtime
from elmolib.formats.weights import StoredModel
from elmolib.text.characters import PADDING, group_by_length

WORDS_AT_ONCE = 512
"""The maximum number of words per call of the character CNN."""
SUFFIX = "words"


class Remembered(NamedTuple):
    """Words with their context-free vectors (words, projection_dim), stored beside a model."""

    words: list[str]
    vectors: np.ndarray
    sha256: str


def remember(model: StoredModel, words: Iterable[str]) -> Remembered:
    """Store the vectors of words beside a model; they replace the vectors stored before."""
    words = list(dict.fromkeys(words))
    runtime = NumpyRuntime(model.architecture, model.arrays, model.spelling)
    vectors = WordVectors(runtime, 0).of(words)
    numbers = vectors.astype("<f4").tobytes()
    write_companion(model, SUFFIX, json.dumps(words).encode() + b"\n" + numbers)
    return remembered(model)


def remembered(model: StoredModel) -> Remembered | None:
    """Return the words and vectors that are stored for this model, or None."""
    content = read_companion(model, SUFFIX)
    if content is None:
        return None
    words, _, numbers = content.partition(b"\n")
    vectors = np.frombuffer(numbers, "<f4").reshape(-1, model.architecture.projection_dim)
    return Remembered(json.loads(words), vectors, hashlib.sha256(content).hexdigest())


class WordVectors:
    """Compute context-free vectors of words and cache them. Several threads may share an instance.

    The cache keeps the `capacity` most recently used words. At first, it has the `remembered`
    words. Apart from rounding, the vector of a word does not depend on the other words of the call.
    """

    def __init__(
        self, runtime: Runtime, capacity: int, remembered: Remembered | None = None
    ) -> None:
        self._remembered = remembered
        self._runtime = runtime
        self._capacity = capacity
        # The operating system provides the memory of a row only when this row is first written.
        self._table = np.empty((capacity, runtime.architecture.projection_dim), np.float32)
        self._rows: OrderedDict[str, int] = OrderedDict()
        self._lock = Lock()
        self.clear()

    def clear(self) -> None:
        """Empty the cache."""
        with self._lock:
            self._rows.clear()
            if self._remembered is not None:
                words = self._remembered.words[: self._capacity]
                self._rows.update(zip(words, range(len(words)), strict=True))
                self._table[: len(words)] = self._remembered.vectors[: len(words)]

    def of(self, words: Sequence[str]) -> np.ndarray:
        """Return the vectors (words, projection_dim) of distinct words."""
        vectors = np.empty((len(words), self._table.shape[1]), np.float32)
        with self._lock:
            rows = np.array([self._rows.get(word, -1) for word in words], np.intp)
            known, missing = (np.flatnonzero(chosen).tolist() for chosen in (rows >= 0, rows < 0))
            vectors[known] = self._table[rows[known]]
            for place in known:
                self._rows.move_to_end(words[place])
            if missing:
                vectors[missing] = self._compute([words[place] for place in missing])
                for place in missing[max(0, len(missing) - self._capacity) :]:
                    full = len(self._rows) == self._capacity
                    row = self._rows.popitem(last=False)[1] if full else len(self._rows)
                    self._rows[words[place]] = row
                    self._table[row] = vectors[place]
        return vectors

    def _compute(self, words: list[str]) -> np.ndarray:
        architecture, spelling = self._runtime.architecture, self._runtime.spelling
        ids = spelling.character_ids(words, architecture.max_characters)
        # Blocks of words with similar lengths need less padding.
        order = np.argsort((ids != PADDING).sum(axis=1), kind="stable")
        vectors = np.empty((len(words), self._table.shape[1]), np.float32)
        for first in range(0, len(order), WORDS_AT_ONCE):
            block = order[first : first + WORDS_AT_ONCE]
            groups, places = group_by_length(ids[block], architecture.widest_filter)
            vectors[block] = self._runtime.spell(groups)[places]
        if spelling.words is not None:
            rows = spelling.rows(words, architecture.max_characters)
            vectors += self._runtime.look_up(rows)
        return vectors
