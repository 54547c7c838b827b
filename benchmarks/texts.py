"""The text to train on and embed: WikiText-2 if its file exists, else a Wikipedia excerpt."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from elmolib.corpus import wikipedia
from elmolib.text.tokenizer import Tokenizer

WIKITEXT = "lm/wikitext-2.zip"
WIKITEXT_MEMBER = "wikitext-2/wiki.train.tokens"

MIN_WORDS, MAX_WORDS = 5, 40
"""Bounds on the number of words of the sentences to embed; their mean is about 21 words."""


def write_sentences(path: Path, data: Path | None, max_sentences: int | None = None) -> str:
    """Write one sentence per line, its words separated by spaces.

    Args:
        path: the file to write.
        data: the folder that may contain `lm/wikitext-2.zip`.
        max_sentences: the number of sentences to write, or None for all.

    Returns:
        the name of the text.
    """
    archive = data / WIKITEXT if data else None
    if archive and archive.is_file():
        name, sentences = "WikiText-2", _wikitext(archive)
    else:
        name, sentences = "Wikipedia excerpt", _wikipedia()
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in itertools.islice(sentences, max_sentences))
    return name


def sentences_to_embed(path: Path, n: int) -> list[list[str]]:
    """Return the first `n` sentences of `MIN_WORDS` to `MAX_WORDS` words in the file."""
    with path.open(encoding="utf-8") as file:
        sentences = (line.split() for line in file)
        ordinary = (words for words in sentences if MIN_WORDS <= len(words) <= MAX_WORDS)
        return list(itertools.islice(ordinary, n))


def _wikitext(archive: Path) -> Iterator[str]:
    """Yield the sentences of WikiText-2's training part, without headings."""
    with zipfile.ZipFile(archive) as opened, opened.open(WIKITEXT_MEMBER) as member:
        yield from split_wikitext(io.TextIOWrapper(member, encoding="utf-8"))


def split_wikitext(lines: Iterable[str]) -> Iterator[str]:
    """Split paragraphs of WikiText after each period that is a word of its own."""
    for line in lines:
        line = line.strip().replace("<unk>", "<UNK>")
        if line and not (line.startswith("= ") and line.endswith(" =")):
            *complete, last = line.split(" . ")
            yield from (f"{sentence} ." for sentence in complete)
            yield last


def _wikipedia() -> Iterator[str]:
    tokenizer = Tokenizer()
    for _, paragraphs in wikipedia.articles():
        for paragraph in paragraphs:
            yield from map(" ".join, tokenizer.sentences(paragraph))
