"""Read the first sense of each lemma in WordNet."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from elmolib.errors import TextError
from elmolib.text.lines import split_lines

FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
"""Endings of WordNet's file names, such as `data.noun`, by part of speech."""

_TYPE_NUMBERS = {"n": 1, "v": 2, "a": 3, "r": 4, "s": 5}
_PARTS_OF_SPEECH = "?nvara"

Lemma = tuple[str, str]
"""A word in its base form, and its part of speech as a letter of `FILES`."""


def lemma_of(sense_key: str) -> Lemma:
    """Return the lemma and part of speech of a sense key such as `bank%1:17:01::`."""
    lemma, _, rest = sense_key.partition("%")
    return lemma, _PARTS_OF_SPEECH[int(rest[0])]


def first_senses(folder: Path) -> dict[Lemma, str]:
    """Read the first sense of every lemma, the most frequent one according to WordNet's authors.

    Args:
        folder: the folder of WordNet 3.0, with `index.noun`, `data.noun` and the same files for the
            other parts of speech. `index.sense` is not needed.

    Returns:
        sense keys by lemma.

    Raises:
        TextError: a file is missing, or is not from WordNet.

    References:
        The manual pages wndb(5WN) and senseidx(5WN).
    """
    senses = {}
    for letter, name in FILES.items():
        synsets = _Synsets(folder / f"data.{name}")
        for line in split_lines(_read(folder / f"index.{name}")):
            if not line.startswith("  "):
                lemma, _, n_synsets, *rest = line.split()
                senses[lemma, letter] = synsets.key(lemma, int(rest[-int(n_synsets)]))
    return senses


class _Word(NamedTuple):
    lemma: str
    number: int


class _Synset(NamedTuple):
    kind: str
    file_number: int
    words: list[_Word]
    similar: int | None


class _Synsets:
    """The synsets of one part of speech. Each synset is read when it is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = _read(path)

    def key(self, lemma: str, offset: int) -> str:
        """Return the sense key of a lemma in the synset at an offset of the file."""
        synset = self._at(offset)
        number = next(word.number for word in synset.words if word.lemma == lemma)
        head = ":"
        if synset.kind == "s":
            # The sense key of a satellite adjective contains its head adjective.
            first = self._at(synset.similar).words[0]
            head = f"{first.lemma}:{first.number:02d}"
        return f"{lemma}%{_TYPE_NUMBERS[synset.kind]}:{synset.file_number:02d}:{number:02d}:{head}"

    def _at(self, offset: int) -> _Synset:
        _, file_number, kind, n_words, *rest = self._text[
            offset : self._text.index("\n", offset)
        ].split()
        end = 2 * int(n_words, 16)
        words = [
            # Some adjectives end with a marker such as (p), which says where they may occur.
            _Word(word.partition("(")[0].lower(), int(number, 16))
            for word, number in zip(rest[:end:2], rest[1:end:2], strict=True)
        ]
        pointers = rest[end + 1 : end + 1 + 4 * int(rest[end])]
        similar = [
            int(target)
            for symbol, target in zip(pointers[::4], pointers[1::4], strict=True)
            if symbol == "&"
        ]
        return _Synset(kind, int(file_number), words, similar[0] if similar else None)


def _read(path: Path) -> str:
    try:
        # Offsets count bytes. They can index this text because WordNet 3.0 is ASCII.
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{path} cannot be read as a file of WordNet 3.0 ({error}).") from None
