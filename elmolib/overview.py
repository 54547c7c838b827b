"""What a prepared corpus holds, as tables for people."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pandas as pd

from elmolib.characters import PADDING, character_ids, words_of
from elmolib.chunks import HELDOUT, TRAIN
from elmolib.corpus import PreparedCorpus
from elmolib.vocabulary import SPECIAL_WORDS, UNK

SHOWN_CHARACTERS = 8
"""Character ids of a word that a table has room for."""

COUNTED_WORDS = 2**18
"""The most frequent words, whose characters are counted: nearly all of any text."""


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


def first_sentences(corpus: PreparedCorpus, n: int = 3) -> str:
    """Give the first training sentences as the model reads them, one per line."""
    bounds = itertools.pairwise(corpus.train.bounds[: n + 1].tolist())
    sentences = (corpus.lexicon.words(corpus.train.ids[start:end]) for start, end in bounds)
    return "\n".join(map(" ".join, sentences))


def left_out_table(corpus: PreparedCorpus, max_characters: int = 50) -> pd.DataFrame:
    """Say what of the text is not learnt from, or not as a whole, and why.

    Args:
        corpus: the prepared text.
        max_characters: bytes of a word that the model reads, its two marks included.

    Returns:
        DataFrame: a row per reason; columns how many, of, share and why.
    """
    counts = corpus.record["counts"]
    words, unknown = counts["words"], counts["unknown_words"]
    # The marks of sentences and of unknown words stand in the lexicon, not in the text.
    n_words = counts["distinct_words"]
    n_too_long = int((corpus.lexicon.lengths > max_characters - 2).sum())
    n_known = counts["vocabulary"] - len(SPECIAL_WORDS)
    rows = {
        "lines without a word": (
            sum(counts["empty_lines"].values()),
            sum(counts["lines"].values()),
            "nothing to read",
        ),
        "held-out sentences": (
            counts["sentences"][HELDOUT],
            sum(counts["sentences"].values()),
            "kept for measuring, never trained on",
        ),
        "distinct words without a place in the softmax": (
            max(0, n_words - n_known),
            n_words,
            "too rare to learn to predict; their characters are read",
        ),
        "training words that count as <UNK>": (unknown[TRAIN], words[TRAIN], "the same words"),
        "held-out words that count as <UNK>": (unknown[HELDOUT], words[HELDOUT], "the same words"),
        "distinct words that are cut": (
            n_too_long,
            n_words,
            f"longer than {max_characters - 2} bytes; the beginning is read",
        ),
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["how many", "of", "why"])
    table.insert(2, "share", table["how many"] / table["of"].clip(lower=1))
    return table


def character_counts(corpus: PreparedCorpus) -> pd.Series:
    """Count the characters of the training text, spaces apart.

    Args:
        corpus: the prepared text; of its words the `COUNTED_WORDS` most frequent are counted.

    Returns:
        Series: how often each character stands there, by falling count.
    """
    n = min(COUNTED_WORDS, len(corpus.lexicon))
    ids = np.arange(len(SPECIAL_WORDS), n)
    found: Counter[str] = Counter()
    for word, count in zip(corpus.lexicon.words(ids), corpus.lexicon.counts[ids], strict=True):
        for character in word:
            found[character] += int(count)
    counts = pd.Series({c: n for c, n in found.most_common() if n}, dtype=np.int64)
    return counts.rename_axis("character")


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
