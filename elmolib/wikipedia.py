"""A text that is there without a download: English Wikipedia articles inside the gensim wheel.

gensim ships a cut of the dump of May 2016 among its test data. What comes out of it here is prose:
paragraphs of whole sentences without headings, lists, tables and markup. Wikipedia's text is under
CC BY-SA 3.0 and the GFDL.
"""

from __future__ import annotations

import bz2
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from elmolib.errors import TextError

DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"

NOT_PROSE = ("==", "*", "#", ":", ";", "|", "!", "{", "}", "=", "<")
"""How the lines begin that are headings, lists, tables and the like."""

LEFT_OVER_MARKUP = re.compile(r"[{}|\[\]<>]|\bthumb\b|File:|Category:")
END_OF_SENTENCE = re.compile(r"""[.!?]["')]*$""")


def dump_path() -> Path:
    """Find the dump among gensim's test data, without importing gensim.

    Raises:
        TextError: gensim is not installed, or without its test data.
    """
    gensim = find_spec("gensim")
    if gensim is not None and gensim.origin is not None:
        path = Path(gensim.origin).parent / "test" / "test_data" / DUMP
        if path.is_file():
            return path
    raise TextError(
        "The text wikipedia comes with the package gensim, which is not installed here with its "
        "test data; install gensim, or name another text."
    )


def articles() -> Iterator[tuple[str, list[str]]]:
    """Read the articles of the excerpt.

    Yields:
        Title and paragraphs, untokenised, of the 101 articles that have any prose.

    Example:
        >>> title, paragraphs = next(articles())
        >>> title, paragraphs[0][:36]
        ('Anarchism', 'Anarchism is a political philosophy ')
    """
    with _quiet_gensim():
        # Imported here because it takes a second, and only this text needs it.
        from gensim.corpora.wikicorpus import extract_pages, filter_wiki

        with bz2.open(dump_path()) as dump:
            for title, markup, _ in extract_pages(dump, filter_namespaces=("0",)):
                if markup.lstrip().upper().startswith("#REDIRECT"):
                    continue
                paragraphs = [*_paragraphs(filter_wiki(markup))]
                if paragraphs:
                    yield title, paragraphs


def write_text(path: Path) -> None:
    """Write the excerpt as UTF-8, one paragraph per line and a blank line between articles."""
    texts = ("\n".join(paragraphs) for _, paragraphs in articles())
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8", newline="\n")


def _paragraphs(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.strip().startswith(NOT_PROSE):
            paragraph = _tidy(line)
            if _is_prose(paragraph):
                yield paragraph


def _tidy(line: str) -> str:
    """Take out marks of bold and italics, addresses, and the brackets that templates leave."""
    line = re.sub(r"'{2,}", "", line)
    line = re.sub(r"https?://\S+", "", line)
    line = re.sub(r"\(\s*[,;]?\s*\)", "", line)
    line = re.sub(r"\(\s*[,;]\s*", "(", line)
    line = re.sub(r"\s+", " ", line)
    return re.sub(r" ([,.;:])", r"\1", line).strip()


def _is_prose(paragraph: str) -> bool:
    letters = sum(character.isalpha() or character == " " for character in paragraph)
    return (
        len(paragraph.split()) >= 10
        and END_OF_SENTENCE.search(paragraph) is not None
        and LEFT_OVER_MARKUP.search(paragraph) is None
        and letters >= 0.8 * len(paragraph)
    )


@contextmanager
def _quiet_gensim() -> Iterator[None]:
    """Keep gensim's remarks on its own progress out of the user's log."""
    logger = logging.getLogger("gensim")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
