"""What a prepared corpus holds, as tables for people."""

from __future__ import annotations

import numpy as np
import pandas as pd

from elmolib.characters import PADDING, character_ids, words_of
from elmolib.corpus import PreparedCorpus
from elmolib.vocabulary import UNK

SHOWN_CHARACTERS = 8
"""Character ids of a word that a table has room for."""


def corpus_table(corpus: PreparedCorpus) -> pd.DataFrame:
    """Count what was read, what was passed over and what the softmax knows.

    Args:
        corpus: the prepared text.

    Returns:
        DataFrame: a row per count, columns training and held-out.
    """
    counts = corpus.record["counts"]
    rows = {
        "lines read": counts["lines"],
        "lines without a word, dropped": counts["empty_lines"],
        "sentences": counts["sentences"],
        "words": counts["words"],
        "words that the softmax does not know": counts["unknown_words"],
    }
    table = pd.DataFrame.from_dict(rows, orient="index").fillna(0).astype(int)
    return table.rename(columns={"train": "training", "heldout": "held out"})


def vocabulary_sentence(corpus: PreparedCorpus) -> str:
    """Say how many words the text and the softmax have, and whether held-out text repeats."""
    counts = corpus.record["counts"]
    overlap = counts["heldout_in_training"]
    warning = f" {overlap:,} held-out sentences also stand in the training text!" if overlap else ""
    return (
        f"{counts['distinct_words']:,} different words, of which the softmax knows "
        f"{counts['vocabulary']:,} with the three special ones; the input sees the characters of "
        f"all.{warning}"
    )


def round_trip(
    corpus: PreparedCorpus, n_sentences: int = 3, max_characters: int = 50, seed: int = 0
) -> pd.DataFrame:
    """Follow random training sentences from ids to words, to characters, and back.

    Args:
        corpus: the prepared text.
        n_sentences: how many.
        max_characters: bytes of a word that the model reads, its two marks included.
        seed: decides which sentences.

    Returns:
        DataFrame: a row per word, with its sentence, id, spelling, what the softmax is asked for,
            character ids, the word read back from them (shorter if it was cut), and `comes_back`:
            whether spelling, ids and characters all agree.
    """
    n = min(n_sentences, corpus.train.n_sentences)
    which = np.sort(np.random.default_rng(seed).choice(corpus.train.n_sentences, n, replace=False))
    split = corpus.train.select(which)
    ids = split.ids.astype(np.int64)
    words = corpus.lexicon.words(ids)
    characters = corpus.lexicon.character_ids(ids, max_characters)
    again = words_of(characters)
    targets = [corpus.vocabulary[word] for word in words]
    kept = [word.encode()[: max_characters - 2].decode(errors="replace") for word in words]
    same_targets = np.where(ids < len(corpus.vocabulary), ids, UNK) == targets
    same_spelling = (characters == character_ids(words, max_characters)).all(axis=1)
    return pd.DataFrame(
        {
            "sentence": np.repeat(which, np.diff(split.bounds)),
            "id": ids,
            "word": words,
            "asked of the softmax": [corpus.vocabulary.words[target] for target in targets],
            "characters": [_shown(row) for row in characters],
            "read back": again,
            "comes_back": same_targets & same_spelling & (np.array(kept) == np.array(again)),
        }
    )


def _shown(characters: np.ndarray) -> str:
    used = characters[characters != PADDING].tolist()
    text = " ".join(map(str, used[:SHOWN_CHARACTERS]))
    return text + " …" if len(used) > SHOWN_CHARACTERS else text
