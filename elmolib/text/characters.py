"""Convert words to the character ids that a biLM reads.

The ids of a word are a mark for its beginning, its UTF-8 bytes (ids 0 to 255), a mark for its end,
and padding. bilm-tf, AllenNLP and `ElmoEmbedding` use `ids + PREDICTION_SHIFT` instead, because
their id 0 means a position without a word.
"""

from collections.abc import Sequence

import numpy as np

from elmolib.errors import OptionsError

BEGIN_SENTENCE, END_SENTENCE, BEGIN_WORD, END_WORD, PADDING = range(256, 261)

PREDICTION_SHIFT = 1
# Words that are encoded as one special character instead of their bytes.
SENTENCE_MARKS = {"<S>": BEGIN_SENTENCE, "</S>": END_SENTENCE}
# The distinct words of a batch, sorted by length, are divided into groups at these fractions.
# Without groups, a few long words would add padding to all other words.
GROUPS = (0.4, 0.8, 0.97, 1.0)


def character_ids(words: Sequence[str], max_characters: int = 50) -> np.ndarray:
    """Convert words to character ids.

    Args:
        words: the words; `"<S>"` and `"</S>"` are the two sentence marks. Unpaired surrogates,
            which UTF-8 cannot encode, are left out.
        max_characters: the width of the result, including a mark at each end of a word; at least 3,
            or else an OptionsError. Longer words are cut, possibly inside a character.

    Returns:
        raw ids from 0 to 260, an int16 array `(n_words, max_characters)`.

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
    """Convert words in one long array of UTF-8 to character ids, as `character_ids` does.

    `text` is uint8 `(n_bytes,)`, possibly memory-mapped. `starts` and `lengths` have the position
    and the number of bytes of each word, int64 `(n_words,)`.
    """
    if max_characters < 3:
        problem = f"max_characters is {max_characters}, but a word needs at least 3"
        raise OptionsError(f"{problem}: a mark at each end and one character.")
    kept = np.minimum(lengths, max_characters - 2)
    rows = np.repeat(np.arange(len(kept)), kept)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(kept) - kept, kept)
    ids = np.full((len(kept), max_characters), PADDING, dtype=np.int16)
    ids[:, 0] = BEGIN_WORD
    ids[rows, columns + 1] = text[np.repeat(starts, kept) + columns]
    ids[np.arange(len(kept)), kept + 1] = END_WORD
    for word, mark in SENTENCE_MARKS.items():
        candidates = np.flatnonzero(lengths == len(word))
        spelled = text[starts[candidates, None] + np.arange(len(word))]
        marked = candidates[(spelled == list(word.encode())).all(axis=1)]
        ids[marked] = PADDING
        ids[marked, :3] = BEGIN_WORD, mark, END_WORD
    return ids


def group_by_length(
    characters: np.ndarray, widest_filter: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Divide words into groups of similar length, each trimmed by `trim_columns`.

    `characters` are raw ids from 0 to 260, integers `(words, max_characters)`. `widest_filter` is
    the number of characters in the widest convolution. Return the groups, and the row of each word
    in the concatenation of the groups, int64 `(words,)`.
    """
    n_words = len(characters)
    # Blank words fill empty groups, because convolutions of no words fail.
    blank = np.full((max(0, len(GROUPS) - n_words), characters.shape[1]), PADDING)
    characters = np.concatenate([characters, blank.astype(characters.dtype)])
    order = np.argsort((characters != PADDING).sum(axis=1), kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    # Leave at least one word for each later group.
    ends = [
        min(round(share * len(order)), len(order) - left)
        for share, left in zip(GROUPS, reversed(range(len(GROUPS))), strict=True)
    ]
    parts = np.split(order, ends[:-1])
    groups = tuple(trim_columns(characters[part], widest_filter) for part in parts)
    return groups, place[:n_words]


def trim_columns(characters: np.ndarray, widest_filter: int) -> np.ndarray:
    """Cut off columns of padding that cannot change any filter's maximum over positions.

    Each filter keeps all windows that contain a character, and one window that contains only
    padding. The arguments are as in `group_by_length`. The result is int32 `(words, columns)`.
    """
    used = np.flatnonzero((characters != PADDING).any(axis=0))
    longest = int(used[-1]) + 1 if len(used) else 0
    return characters[:, : longest + widest_filter].astype(np.int32)
