"""Split text into lines, always by the same rule, and find sentence marks such as `<s>`."""

import re
import warnings
from collections.abc import Iterable

# A mark is a separate word, or at the start or end of a line. `_LIKE_A_MARK` is a fast first test.
_MARK = re.compile(r"\A<s>|</s>\Z|(?<!\S)<(?:/?s|[be]os)>(?!\S)", re.IGNORECASE)
_LIKE_A_MARK = re.compile(r"<(?:/?[sS]|[bBeE][oO][sS])>")
MAY_HAVE_MARKS = re.compile(_LIKE_A_MARK.pattern.encode())


def split_lines(text: str) -> list[str]:
    r"""Return the lines of a text, without their ends.

    A line ends only at `\n`, `\r\n` or a lone `\r`, as in Python's text files. `str.splitlines`
    also splits at form feeds, U+0085 and U+2028; here, these are white space within a line. A byte
    order mark at the start of a line is dropped, because joined files have one at each join.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    if "\ufeff" in text:
        lines = [line.removeprefix("\ufeff") for line in lines]
    return lines if lines[-1] else lines[:-1]


def between_marks(line: str) -> list[str]:
    """Split a line at sentence marks, such as `<s>` and `</S>`."""
    return _MARK.split(line.strip()) if _LIKE_A_MARK.search(line) else [line]


def count_marks(lines: Iterable[str]) -> int:
    """Count the sentence marks at which `between_marks` splits lines."""
    return sum(len(between_marks(line)) - 1 for line in lines if "<" in line)


def warn_of_marks(n: int, source: object) -> None:
    """If `n` is above 0, warn that elmolib dropped `n` sentence marks."""
    if n:
        why = "because the model adds its own to every sentence"
        warnings.warn(f"{source}: dropped {n:,} sentence marks such as <s>, {why}.", stacklevel=3)
