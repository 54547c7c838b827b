"""What the readers of evaluation sets have in common."""

from __future__ import annotations

import fnmatch
import zipfile
from collections.abc import Iterator
from pathlib import Path

from elmolib.errors import TextError

_PENN = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


def members(archive: Path, pattern: str, encoding: str = "utf-8") -> Iterator[tuple[str, str]]:
    """Yield name and text of the files of a zip, in the order of their names.

    Args:
        archive: the zip.
        pattern: which names, such as `*/dev.txt`.
        encoding: of the texts.

    Raises:
        TextError: it is no sound zip, holds no such file, or one in another encoding.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            names = sorted(fnmatch.filter(opened.namelist(), pattern))
            if not names:
                raise TextError(f"{archive} holds no {pattern}: see docs/evaluation.md.")
            for name in names:
                yield name, opened.read(name).decode(encoding)
    except UnicodeDecodeError as error:
        raise TextError(f"{archive}: {name} is not {encoding} at byte {error.start}.") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise TextError(f"{archive} cannot be read: {error}.") from None


def member(archive: Path, pattern: str, encoding: str = "utf-8") -> str:
    """Return the text of the one file of a zip with such a name."""
    (_, text), *_ = members(archive, pattern, encoding)
    return text


def as_written(word: str) -> str:
    """Undo how the Penn Treebank writes brackets, quotation marks and slashes."""
    if word in ("``", "''"):
        return '"'
    return _PENN.get(word, word).replace("\\/", "/").replace("\\*", "*")
