"""Read the zip files of evaluation datasets."""

from __future__ import annotations

import fnmatch
import zipfile
from collections.abc import Iterator
from pathlib import Path

from elmolib.errors import TextError

_PENN = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


def members(archive: Path, pattern: str, encoding: str = "utf-8") -> Iterator[tuple[str, str]]:
    """Yield the name and text of files in a zip, sorted by name.

    Args:
        archive: the zip file.
        pattern: a glob for the names, such as `*/dev.txt`.
        encoding: the encoding of the texts.

    Raises:
        TextError: the zip is damaged, no file in it matches, or a file has another encoding.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            names = sorted(fnmatch.filter(opened.namelist(), pattern))
            if not names:
                raise TextError(f"{archive} has no file {pattern}: see docs/evaluation.md.")
            for name in names:
                yield name, opened.read(name).decode(encoding)
    except UnicodeDecodeError as error:
        raise TextError(f"{archive}: {name} is not {encoding} at byte {error.start}.") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise TextError(f"{archive} cannot be read: {error}.") from None


def member(archive: Path, pattern: str, encoding: str = "utf-8") -> str:
    """Return the text of the one file in a zip that matches the pattern."""
    (_, text), *_ = members(archive, pattern, encoding)
    return text


def unescape_penn(word: str) -> str:
    """Undo the Penn Treebank's escapes of brackets, quotation marks and slashes."""
    if word in ("``", "''"):
        return '"'
    return _PENN.get(word, word).replace("\\/", "/").replace("\\*", "*")
