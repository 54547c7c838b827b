"""A text that needs no download: English Wikipedia articles from the package gensim.

gensim's test data include an excerpt of the dump of May 2016. Headings, lists, tables, markup and
incomplete sentences are removed. Wikipedia's text is under CC BY-SA 3.0 and the GFDL.
"""

import bz2
import logging
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from elmolib.errors import TextError
from elmolib.text.lines import split_lines

NAME = "wikipedia"
DUMP = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"

# A line that begins with one of these is a heading, or part of a list, a table or the like.
_NOT_PROSE = ("==", "*", "#", ":", ";", "|", "!", "{", "}", "=", "<")
_REMAINING_MARKUP = re.compile(r"[{}|\[\]<>]|\bthumb\b|File:|Category:")
_END_OF_SENTENCE = re.compile(r"""[.!?]["')]*$""")
# Marks of bold and italics, URLs, brackets left over from removed templates, and extra spaces.
_REPLACEMENTS = (
    (re.compile(r"'{2,}"), ""),
    (re.compile(r"https?://\S+"), ""),
    (re.compile(r"\(\s*[,;]?\s*\)"), ""),
    (re.compile(r"\(\s*[,;]\s*"), "("),
    (re.compile(r"\s+"), " "),
    (re.compile(r" ([,.;:])"), r"\1"),
)


def dump_path() -> Path:
    """Find the dump in gensim's test data. Raise a TextError if gensim is not installed."""
    gensim = find_spec("gensim")
    if gensim is not None and gensim.origin is not None:
        path = Path(gensim.origin).parent / "test" / "test_data" / DUMP
        if path.is_file():
            return path
    problem = "The text wikipedia is part of the package gensim, which is not installed"
    raise TextError(f"{problem}: pip install 'elmolib[notebooks]', or choose another text.")


def articles() -> Iterator[tuple[str, list[str]]]:
    """Yield the title and the untokenized paragraphs of each of the 101 articles in the excerpt."""
    # This import takes a second, and only the Wikipedia text needs gensim.
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki

    logger = logging.getLogger("gensim")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with bz2.open(dump_path()) as dump:
            for title, markup, _ in extract_pages(dump, filter_namespaces=("0",)):
                is_redirect = markup.lstrip().upper().startswith("#REDIRECT")
                if not is_redirect and (paragraphs := [*_paragraphs(filter_wiki(markup))]):
                    yield title, paragraphs
    finally:
        logger.setLevel(level)


def excerpt() -> str:
    """Return the excerpt, one paragraph per line and a blank line between articles."""
    return "\n\n".join("\n".join(paragraphs) for _, paragraphs in articles()) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    for line in split_lines(text):
        if line.strip().startswith(_NOT_PROSE):
            continue
        for pattern, replacement in _REPLACEMENTS:
            line = pattern.sub(replacement, line)
        if _is_prose(paragraph := line.strip()):
            yield paragraph


def _is_prose(paragraph: str) -> bool:
    letters = sum(character.isalpha() or character == " " for character in paragraph)
    return (
        len(paragraph.split()) >= 10
        and _END_OF_SENTENCE.search(paragraph) is not None
        and _REMAINING_MARKUP.search(paragraph) is None
        and letters >= 0.8 * len(paragraph)
    )
