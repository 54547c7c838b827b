"""How a model spells words: by their bytes, by characters of a list, or by a table of words."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from elmolib.settings.architecture import N_BYTE_CHARACTERS, Dim, as_tuples
from elmolib.settings.base import Settings, key
from elmolib.text.characters import BEGIN_SENTENCE, BEGIN_WORD, END_SENTENCE, END_WORD, PADDING
from elmolib.text.characters import character_ids as byte_ids

_Words = Annotated[tuple[str, ...], BeforeValidator(as_tuples)]
_Marks = Annotated[tuple[str, str], BeforeValidator(as_tuples)]
_N_BYTES = 256


class Spelling(Settings):
    """How a model turns a word into numbers.

    In every model, the ids 256 to 260 are the marks and the padding of `elmolib.text.characters`.
    The other ids are bytes, or characters of a list: the first 256 have the ids 0 to 255, the
    others follow from 261 on. Every character that is not listed has the id 0.

    Args:
        characters: the characters of the list by number, or None if the model reads UTF-8 bytes.
        words: the words of a table by row, or None. The vector of a word is then the sum of its row
            and of the vector that the character CNN computes.
        word_dim: the number of features in a row. None means that rows need no projection.
        unknown: the word whose row stands for all words that the table lacks.
        marks: the words for the beginning and end of a sentence.
        cut: whether a word is cut to `max_characters` before it is looked up in the table.
    """

    characters: _Words | None = key("characters by number", None, expected="a list of words")
    words: _Words | None = key("words by row", None, expected="a list of words")
    word_dim: Dim | None = key("features of a row", None)
    unknown: str = key("word for unknown words", "<UNK>")
    marks: _Marks = key("marks of a sentence", ("<S>", "</S>"), expected="two words")
    cut: bool = key("look up words that are cut", False)

    def contradictions(self) -> Iterator[str]:
        if self.words is not None and self.unknown not in self._rows:
            yield "{words} must contain the word {unknown}."
        if self.words is None and self.word_dim is not None:
            yield "{word_dim} needs {words}."

    @property
    def n_characters(self) -> int:
        """The number of character ids."""
        return N_BYTE_CHARACTERS + max(0, len(self.characters or ()) - _N_BYTES)

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments of `BiLM` for this spelling."""
        table = None if self.words is None else (len(self.words), self.word_dim)
        return {"n_characters": self.n_characters, "table": table}

    def character_ids(self, words: Sequence[str], max_characters: int) -> np.ndarray:
        """Return ids as `elmolib.text.characters.character_ids` does, but by this spelling."""
        if self.characters is None:
            return byte_ids(words, max_characters)
        ids = np.full((len(words), max_characters), PADDING, np.int32)
        marks = dict(zip(self.marks, (BEGIN_SENTENCE, END_SENTENCE), strict=True))
        for row, word in zip(ids, words, strict=True):
            inner = [self._ids.get(character, 0) for character in word[: max_characters - 2]]
            inner = [marks[word]] if word in marks else inner
            row[: len(inner) + 2] = BEGIN_WORD, *inner, END_WORD
        return ids

    def rows(self, words: Sequence[str], max_characters: int) -> np.ndarray:
        """Return the row of each word in the table, int32 (words,)."""
        unknown, end = self._rows[self.unknown], max_characters - 2 if self.cut else None
        return np.array([self._rows.get(word[:end], unknown) for word in words], np.int32)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {character: id_of(k) for k, character in enumerate(self.characters or ())}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words or ())}


def id_of(place: int) -> int:
    """Return the id of a character from its place in `Spelling.characters`."""
    return place if place < _N_BYTES else place + N_BYTE_CHARACTERS - _N_BYTES


BYTES = Spelling()
"""The spelling of bilm-tf, AllenNLP and models that elmolib trains."""
