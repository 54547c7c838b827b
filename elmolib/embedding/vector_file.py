"""Read the HDF5 file in which `embed_corpus` stores the vectors of a text, one dataset per line."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.layout import Layout
from elmolib.errors import CorpusError

TEXT_LINES = 1024


class EmbeddedCorpus(Layout, AbstractContextManager):
    """The vectors and words of a text, read on demand from a file that `embed_corpus` wrote.

    Attributes:
        metadata: how the file was made: `model` (a fingerprint), `runtime`, `precision`,
            `tokenizer`, `layers`, `dtype`, and the SHA-256 of `scales`, `words` (the remembered
            words) and `text`.
        lengths: the number of words of each line, int64 (n_lines,).

    Raises:
        CorpusError: the file is missing, damaged, unfinished or not a vector file.

    Example:
        >>> with EmbeddedCorpus("corpus.h5") as corpus:
        ...     corpus.words(0)[:3], corpus[0].shape
        (['The', 'river', 'bank'], (6, 128))
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(Path(path))
        if self.lines_done != len(self):
            raise CorpusError(f"{self.path} is not finished: call embed_corpus again to resume.")

    def close(self) -> None:
        """Close the file. The end of a `with` block does the same."""
        for name in ("_data", "_text"):
            vars(self).pop(name, None)

    def __exit__(self, *failure: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, line: int) -> np.ndarray:
        """Return the vectors of a line (counted from 0), in the shape that `embed` returns."""
        if not 0 <= line < len(self):
            raise IndexError(f"{self.path} has lines 0 to {len(self) - 1}, not {line}.")
        return self.vectors(line)

    def words(self, line: int) -> list[str]:
        """Return the words of a line; lines are counted from 0."""
        return self.lines(line, line + 1)[0]

    def sentences(self) -> Iterable[list[str]]:
        """Return the words of every non-empty line. They can be iterated over repeatedly."""
        return _Sentences(self)

    def lines_by(
        self, encoder: SentenceEncoder, layers: str | int
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        """Iterate over the words of every non-empty line, and their vectors in one layer.

        Args:
            encoder: an encoder with the model that made this file.
            layers: "average", "top" or a layer number. The vectors are float32 `(n_words, dim)`.

        Raises:
            CorpusError: the file was made with another model, or lacks these layers.
        """
        if self.metadata["model"] != encoder.runtime.fingerprint():
            raise CorpusError(f"{self.path} was made with another model: embed the text again.")
        n_layers, stored = encoder.architecture.n_layers, self.metadata["layers"]
        numbers = {n_layers if each == "top" else each for each in (stored, layers)}
        if stored != "all" and len(numbers) > 1:
            raise CorpusError(
                f"{self.path} holds the layers {stored!r}, not {layers!r}: ask for the stored "
                "layers, or embed the text with layers='all'."
            )
        pick = encoder.picker(layers if stored == "all" else "all")
        return (
            (words, pick(self[line].astype(np.float32)))
            for line, words in enumerate(self._all_lines())
            if words
        )

    def cache_path(self, suffix: str) -> Path:
        """Return a path next to this file for a result that depends only on the words."""
        words = json.dumps([self.metadata["text"], self.metadata["tokenizer"]], sort_keys=True)
        digest = hashlib.sha256(words.encode()).hexdigest()[:12]
        return self.path.with_name(f"{self.path.name}.{digest}.{suffix}")

    def _all_lines(self) -> Iterator[list[str]]:
        for first in range(0, len(self), TEXT_LINES):
            yield from self.lines(first, min(first + TEXT_LINES, len(self)))


class _Sentences:
    def __init__(self, corpus: EmbeddedCorpus) -> None:
        self._corpus = corpus

    def __iter__(self) -> Iterator[list[str]]:
        return filter(None, self._corpus._all_lines())
