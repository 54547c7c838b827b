"""Words as the character ids that a biLM reads.

A word is its UTF-8 bytes (ids 0 to 255) between a mark for its beginning and one for its end,
filled up with padding. The ids here are the raw ones; a biLM is fed `ids + PREDICTION_SHIFT`, so
that 0 is left for the padding of whole words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elmolib.errors import OptionsError

BEGIN_SENTENCE = 256
END_SENTENCE = 257
BEGIN_WORD = 258
END_WORD = 259
PADDING = 260

PREDICTION_SHIFT = 1
"""What to add to raw ids before they enter a biLM; 0 then stands for a position without a word."""

SENTENCE_MARKS = {"<S>": BEGIN_SENTENCE, "</S>": END_SENTENCE}
"""Words that stand for one character of their own rather than for their bytes."""


def character_ids(words: Sequence[str], max_characters: int = 50) -> np.ndarray:
    """Spell words in character ids.

    Args:
        words: the words; `"<S>"` and `"</S>"` are the marks of a sentence's two ends. Half of a
            surrogate pair, which UTF-8 cannot write, is left out.
        max_characters: width of the result, the two word marks included; longer words are cut, if
            need be inside a character of several bytes.

    Returns:
        int16 array of shape `(n_words, max_characters)` with raw ids from 0 to 260.

    Raises:
        OptionsError: `max_characters` leaves no room for a character between the marks.

    Example:
        >>> character_ids(["at", "<S>"], max_characters=5).tolist()
        [[258, 97, 116, 259, 260], [258, 256, 259, 260, 260]]

    References:
        `UnicodeCharsVocabulary` of bilm-tf and `ELMoCharacterMapper` of AllenNLP.
    """
    encoded = [word.encode("utf-8", "ignore") for word in words]
    lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
    starts = np.cumsum(lengths) - lengths
    text = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    return character_ids_of_bytes(text, starts, lengths, max_characters)


def character_ids_of_bytes(
    text: np.ndarray, starts: np.ndarray, lengths: np.ndarray, max_characters: int = 50
) -> np.ndarray:
    """Spell words that lie as UTF-8 in one long array, at the speed of NumPy.

    Args:
        text: uint8 array of shape `(n_bytes,)`, possibly memory-mapped.
        starts: int64 array of shape `(n_words,)`, where each word begins in `text`.
        lengths: int64 array of shape `(n_words,)`, bytes of each word.
        max_characters: as in `character_ids`.

    Returns:
        As `character_ids`.

    Raises:
        OptionsError: `max_characters` leaves no room for a character between the marks.
    """
    if max_characters < 3:
        raise OptionsError(
            f"max_characters is {max_characters}, but a word needs at least 3: its two marks and "
            "one character."
        )
    kept = np.minimum(lengths, max_characters - 2)
    rows = np.repeat(np.arange(len(kept)), kept)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(kept) - kept, kept)
    ids = np.full((len(kept), max_characters), PADDING, dtype=np.int16)
    ids[:, 0] = BEGIN_WORD
    ids[rows, columns + 1] = text[np.repeat(starts, kept) + columns]
    ids[np.arange(len(kept)), kept + 1] = END_WORD
    for word, mark in SENTENCE_MARKS.items():
        ids[_equal_to(word, text, starts, lengths), :] = _mark_row(mark, max_characters)
    return ids


def words_of(ids: np.ndarray) -> list[str]:
    """Read words back from their raw character ids.

    Args:
        ids: integer array of shape `(n_words, max_characters)`, as `character_ids` gives it.

    Returns:
        One string per row. A word that was cut inside a character ends in U+FFFD.

    Example:
        >>> words_of(character_ids(["râu", "</S>"]))
        ['râu', '</S>']
    """
    names = {mark: word for word, mark in SENTENCE_MARKS.items()}
    return [
        names[row[1]] if row[1] in names else _bytes_between_marks(row).decode("utf-8", "replace")
        for row in np.asarray(ids)
    ]


def _bytes_between_marks(row: np.ndarray) -> bytes:
    return row[row < BEGIN_SENTENCE].astype(np.uint8).tobytes()


def _equal_to(word: str, text: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Positions of the words that are exactly `word`."""
    wanted = np.frombuffer(word.encode(), dtype=np.uint8)
    candidates = np.flatnonzero(lengths == len(wanted))
    spelling = text[starts[candidates, np.newaxis] + np.arange(len(wanted))]
    return candidates[(spelling == wanted).all(axis=1)]


def _mark_row(mark: int, max_characters: int) -> list[int]:
    return [BEGIN_WORD, mark, END_WORD] + [PADDING] * (max_characters - 3)
