"""The words of a softmax, and the files that list them."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from elmolib.errors import VocabularyError
from elmolib.files import read_limited

BOS, EOS, UNK = 0, 1, 2
SPECIAL_WORDS = ("<S>", "</S>", "<UNK>")

# Limits that save memory. The largest published vocabulary has 800,000 words in 8 MB.
MAX_BYTES, MAX_WORDS = 64_000_000, 4_000_000
# Other names of special words, and a word that is left out. They apply only to mappings.
_ALIASES, _IGNORED = {"<EOS>": "</S>"}, "<PAD>"

_JSON = re.compile(r'\s*\{\s*"')
_JSON_PAIR = re.compile(r'\s*("(?:[^"\\]|\\.)*+")\s*:\s*([^\s,{}\[\]]*+)\s*(?:,|\}\Z)')


# Other Unicode spaces are not listed, because words of published lists may contain them.
_SEPARATOR = re.compile(r"[\t\r\n\v\f\0]")


class Vocabulary:
    """Distinct words with their ids: `<S>`, `</S>`, `<UNK>`, then the others in the given order."""

    def __init__(self, words: Iterable[str]):
        others = (word for word in words if word not in SPECIAL_WORDS)
        self.words: list[str] = [*SPECIAL_WORDS, *others]
        self._ids = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, word: str) -> int:
        return self._ids.get(word, UNK)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.words == other.words

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self):,} words"

    @classmethod
    def parse(cls, text: bytes, source: str) -> "Vocabulary":
        """Parse the word list of a softmax: line k has the word of row k.

        The list is in UTF-8 and begins with `<S>`, `</S>` and `<UNK>`. Otherwise, raise a
        VocabularyError that names `source`.
        """
        words = _parse_list(_decode(text, source), source, spaces=True)
        if tuple(words[: len(SPECIAL_WORDS)]) != SPECIAL_WORDS:
            raise VocabularyError(f"{source} must begin with the lines {', '.join(SPECIAL_WORDS)}.")
        return cls(words)

    def to_bytes(self, source: str) -> bytes:
        """Return a text that `parse` can read. `source` and the errors are those of `parse`."""
        text = "".join(f"{word}\n" for word in self.words)
        lines = text.count("\n")
        if "" in self or lines > len(self) or _SEPARATOR.search(text.replace("\n", "")):
            _distinct_words(enumerate(self.words, start=1), source, spaces=True)
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise VocabularyError(f"{source} is not valid Unicode: {error}.") from None


def read_words(path: str | Path, spaces: bool = False) -> list[str]:
    """Read the words of a list or mapping in the order of their ids.

    A list has one word per line. A mapping from words to indices is a JSON object or a table; some
    indices may be missing. The columns of a table are separated by commas, tabs or semicolons. Its
    header is `Word,Index`, in any case and order; a table whose first column has the words needs no
    header. In a mapping, `<EOS>` is read as `</S>`, and `<PAD>` is ignored.

    The file is in UTF-8; `.gz` is decompressed. Special words that it lists keep their place.
    `spaces` says whether a word may hold spaces.

    Raises:
        VocabularyError: the file cannot be read, is far too large, lists no word, lists a word or
            index twice, or has an invalid word or index.
    """
    return parse_words(read_limited(path, MAX_BYTES, VocabularyError), str(path), spaces)


def parse_words(text: bytes, source: str, spaces: bool = False) -> list[str]:
    """Parse the content of a file as `read_words` does. Error messages begin with `source`."""
    decoded = _decode(text, source)
    if _JSON.match(decoded):
        words = _words_by_index(_json_pairs(decoded, source), source, spaces)
    elif layout := _table_layout(decoded):
        words = _words_by_index(_table_pairs(decoded, source, *layout), source, spaces)
    else:
        words = _parse_list(decoded, source, spaces)
    if all(word in SPECIAL_WORDS for word in words):
        raise VocabularyError(f"{source} lists no words: write one word per line.")
    return words


def _parse_list(text: str, source: str, spaces: bool) -> list[str]:
    lines = text.split("\n") if text else []
    entries = ((number, line.removesuffix("\r")) for number, line in enumerate(lines, start=1))
    return _distinct_words(entries, source, spaces)


def _decode(text: bytes, source: str) -> str:
    """Decode UTF-8, without a leading byte order mark and without blank lines at the end."""
    if max(text.count(b"\n"), text.count(b'":')) > MAX_WORDS:
        raise VocabularyError(f"{source} lists more than {MAX_WORDS:,} words: shorten it.")
    try:
        return text.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise _mistake(source, line, "the text is not valid UTF-8: convert it") from None


def _mistake(source: str, line: int, problem: str) -> VocabularyError:
    return VocabularyError(f"{source}, line {line}: {problem}.")


def _distinct_words(entries: Iterable[tuple[int, str]], source: str, spaces: bool) -> list[str]:
    """Return the words of (line number, word) pairs; refuse malformed and repeated words."""
    lines: dict[str, int] = {}
    for line, word in entries:
        if not word.strip(" ") or (" " in word and not spaces) or _SEPARATOR.search(word):
            problem = f"{word[:40]!r} is not a word: it is empty or holds a space"
            raise _mistake(source, line, problem)
        if (other := lines.setdefault(word, line)) != line:
            first, again = sorted((line, other))
            problem = f"the word {word[:40]!r} was already given in line {first}: remove it"
            raise _mistake(source, again, problem)
    return list(lines)


def _json_pairs(text: str, source: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line number, the word and the index of each pair of a JSON object.

    Python's `json` would also build nested values, which can take far more memory than the file.
    """
    line, end = 1, text.index("{") + 1
    while end < len(text):
        pair = _JSON_PAIR.match(text, end)
        try:
            line += text.count("\n", end, pair.start(1))
            yield line, json.loads(pair[1]), pair[2]
        except (AttributeError, ValueError):
            problem = f'expected "word": index, not {text[end : end + 40]!r}'
            raise _mistake(source, line, problem) from None
        line, end = line + text.count("\n", pair.start(1), pair.end()), pair.end()


def _table_layout(text: str) -> tuple[str, int, int] | None:
    """Return the delimiter of a table, the column of the words and the number of header lines."""
    start = text[:100_000]
    *lines, last = start.split("\n")  # of a longer text, the last line may be incomplete
    if len(start) == len(text) or not lines:
        lines.append(last)
    for delimiter in ",\t;":
        names = [name.strip('" \r').lower() for name in lines[0].split(delimiter)]
        if {"word", "index"} <= set(names):
            return delimiter, int(names.index("word") > names.index("index")), 1
        row = re.compile(rf".+{delimiter}\s*[0-9]+\s*")
        # Read a table with a wrong header or line as a table too, so that the error names the line.
        if 2 * sum(row.fullmatch(line) is not None for line in lines) > len(lines):
            return delimiter, 0, 0
    return None


def _table_pairs(
    text: str, source: str, delimiter: str, word_column: int, n_header: int
) -> Iterator[tuple[int, str, str]]:
    """Yield the line number, the word and the index of each row of a table."""
    is_raw = delimiter == "\t" and re.search(r'(^|\t)"(\t|\r?$)', text, re.MULTILINE)
    quoting = csv.QUOTE_NONE if is_raw else csv.QUOTE_MINIMAL
    lines = io.StringIO(text, newline="")
    rows = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    try:
        table = [(rows.line_num, row) for row in rows][n_header:]
    except csv.Error as error:
        raise _mistake(source, rows.line_num, str(error)) from None
    for line, row in table:
        if len(row) != 2:
            raise _mistake(source, line, f"expected a word and an index, found {len(row)} columns")
        yield line, row[word_column], row[1 - word_column]


def _words_by_index(pairs: Iterable[tuple[int, str, str]], source: str, spaces: bool) -> list[str]:
    """Return the words of (line number, word, index) triples, sorted by index."""
    lines, entries = dict[int, int](), []
    for line, word, number in pairs:
        if not re.fullmatch(r"\s*[0-9]{1,18}\s*", number):
            problem = f"the index {number[:40]!r} is not a whole number from 0 up"
            raise _mistake(source, line, problem)
        index = int(number)
        if (other := lines.setdefault(index, line)) != line:
            problem = f"the index {index} was already given in line {other}: change it"
            raise _mistake(source, line, problem)
        entries.append((index, line, _ALIASES.get(word, word)))
    in_order = ((line, word) for _, line, word in sorted(entries))
    return [word for word in _distinct_words(in_order, source, spaces) if word != _IGNORED]
