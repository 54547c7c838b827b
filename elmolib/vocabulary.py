"""The words that a softmax knows, and the files that list them."""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from elmolib.errors import VocabularyError, reason
from elmolib.files import read_at_most

BOS, EOS, UNK = 0, 1, 2
SPECIAL_WORDS = ("<S>", "</S>", "<UNK>")

MAX_BYTES, MAX_WORDS = 64_000_000, 4_000_000
"""The largest published vocabulary has 800,000 words in 8 MB; more than this is an attack."""

MAPPING_HEADER = ["Word", "Index"]
MAPPING_NAMES = {"<EOS>": "</S>"}
MAPPING_IGNORED = "<PAD>"


class Vocabulary:
    """Words with their ids: `<S>`, `</S>`, `<UNK>`, then all others in the order given.

    Args:
        words: distinct words; the three special ones are moved to the front, or put there.

    Example:
        >>> vocabulary = Vocabulary(["the", "river"])
        >>> vocabulary["river"], vocabulary["bank"], len(vocabulary)
        (4, 2, 5)
    """

    def __init__(self, words: Iterable[str]):
        self.words: list[str] = [
            *SPECIAL_WORDS,
            *(word for word in words if word not in SPECIAL_WORDS),
        ]
        self._ids = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, word: str) -> int:
        """The word's id, which is `UNK` for a word that is not listed."""
        return self._ids.get(word, UNK)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self):,} words"

    @classmethod
    def read(cls, path: str | Path) -> Vocabulary:
        """Read a list or mapping of words; see `read_words` for the files and the errors."""
        return cls(read_words(path))


def read_words(path: str | Path) -> list[str]:
    """Read the words of a list or mapping in the order of their ids.

    A file of one word per line gives them in the order of its lines. A CSV file with the header
    `Word,Index` gives them in the order of its indices, which may leave gaps; there `<EOS>` is
    another name of `</S>`, and `<PAD>` is passed over.

    Args:
        path: a UTF-8 file; `.gz` is decompressed.

    Returns:
        The distinct words, special ones at the place where the file has them, if it has them.

    Raises:
        VocabularyError: the file cannot be read, is far too large, lists no word, lists a word or
            index twice, or holds a line that is not a word (and, in a mapping, an index that is
            not negative).
    """
    text = _read_text(path)
    is_mapping = text.split("\n", 1)[0].strip() == ",".join(MAPPING_HEADER)
    entries = _mapping_entries(text, path) if is_mapping else _list_entries(text, path)
    words = list(_checked(entries, path))
    if is_mapping:
        words = [word for word in words if word != MAPPING_IGNORED]
    if not any(word not in SPECIAL_WORDS for word in words):
        raise VocabularyError(f"{path} lists no words.")
    return words


def _read_text(path: str | Path) -> str:
    try:
        raw = read_at_most(Path(path), MAX_BYTES)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise VocabularyError(f"{path} cannot be read as a vocabulary: {reason(error)}.") from None
    if raw.count(b"\n") > MAX_WORDS:
        raise VocabularyError(f"{path} lists more than {MAX_WORDS:,} words.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise VocabularyError(f"{path}, line {line}: the text is not valid UTF-8.") from None


def _list_entries(text: str, path: str | Path) -> Iterator[tuple[int, str]]:
    """Line numbers and words of a file with one word per line."""
    lines = text.rstrip("\r\n")
    for number, line in enumerate(lines.split("\n") if lines else [], start=1):
        yield number, line.removesuffix("\r")


def _mapping_entries(text: str, path: str | Path) -> Iterator[tuple[int, str]]:
    """Line numbers and words of a CSV file, by rising index."""
    lines_of_indices: dict[int, int] = {}
    entries = []
    for number, row in _csv_rows(text.rstrip("\r\n"), path):
        if len(row) != 2:
            raise VocabularyError(
                f"{path}, line {number}: expected a word and an index, found {len(row)} columns."
            )
        word, index = row[0], _index(row[1], path, number)
        if index in lines_of_indices:
            raise VocabularyError(
                f"{path}, line {number}: the index {index} was already given in line "
                f"{lines_of_indices[index]}."
            )
        lines_of_indices[index] = number
        entries.append((index, number, MAPPING_NAMES.get(word, word)))
    for _, number, word in sorted(entries):
        yield number, word


def _csv_rows(text: str, path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and columns of a CSV file, after its header."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        next(rows, None)
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise VocabularyError(f"{path}, line {rows.line_num}: {error}.") from None


def _index(column: str, path: str | Path, number: int) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,18}\s*", column):
        raise VocabularyError(
            f"{path}, line {number}: the index {column[:40]!r} is not a whole number from 0 up."
        )
    return int(column)


def _checked(entries: Iterable[tuple[int, str]], path: str | Path) -> Iterator[str]:
    """The words, each of them well formed and seen for the first time."""
    lines_of_words: dict[str, int] = {}
    for number, word in entries:
        if not word or re.search(r"[ \t\r\n\v\f\0]", word):
            raise VocabularyError(
                f"{path}, line {number}: {word[:40]!r} is not a word, which is neither empty nor "
                "holds spaces."
            )
        if word in lines_of_words:
            raise VocabularyError(
                f"{path}, line {max(number, lines_of_words[word])}: the word {word[:40]!r} was "
                f"already given in line {min(number, lines_of_words[word])}."
            )
        lines_of_words[word] = number
        yield word
