"""The text that is trained on and embedded: WikiText-2 if it is there, else a Wikipedia excerpt."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from elmolib import wikipedia
from elmolib.text import Tokenizer

WIKITEXT = "lm/wikitext-2.zip"
WIKITEXT_MEMBER = "wikitext-2/wiki.train.tokens"

SHORTEST, LONGEST = 5, 40
"""Words of the sentences that are embedded: about 21 on average."""


def write_sentences(path: Path, data: Path | None, n_sentences: int | None = None) -> str:
    """Write one sentence per line, its words separated by spaces.

    Args:
        path: the file to write.
        data: folder that may hold `lm/wikitext-2.zip`.
        n_sentences: at most so many, or None for all.

    Returns:
        the name of the text.
    """
    archive = data / WIKITEXT if data else None
    if archive and archive.is_file():
        name, sentences = "WikiText-2", _wikitext(archive)
    else:
        name, sentences = "Wikipedia excerpt", _wikipedia()
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(f"{line}\n" for line in itertools.islice(sentences, n_sentences))
    return name


def sentences_to_embed(path: Path, n: int) -> list[list[str]]:
    """Return the first `n` sentences of ordinary length of a file of `write_sentences`."""
    with path.open(encoding="utf-8") as stream:
        sentences = (line.split() for line in stream)
        ordinary = (words for words in sentences if SHORTEST <= len(words) <= LONGEST)
        return list(itertools.islice(ordinary, n))


def _wikitext(archive: Path) -> Iterator[str]:
    """Sentences of the training part, headings left out."""
    with zipfile.ZipFile(archive) as opened, opened.open(WIKITEXT_MEMBER) as member:
        yield from split_wikitext(io.TextIOWrapper(member, encoding="utf-8"))


def split_wikitext(lines: Iterable[str]) -> Iterator[str]:
    """Cut paragraphs of WikiText after each lone period."""
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
