"""Tables that describe the content of a prepared corpus."""

from collections import Counter

import numpy as np
import pandas as pd

from elmolib.corpus.chunks import HELDOUT, TRAIN
from elmolib.corpus.prepared import PreparedCorpus, sentences_of
from elmolib.text.vocabulary import SPECIAL_WORDS


def corpus_table(corpus: PreparedCorpus) -> pd.DataFrame:
    """Count lines, sentences and words of the training text and of the held-out text."""
    counts = corpus.record["counts"]
    rows = {
        "lines read": counts["lines"],
        "lines without a word, skipped": counts["empty_lines"],
        "sentences": counts["sentences"],
        "words": counts["words"],
        "words outside the vocabulary": counts["unknown_words"],
    }
    table = pd.DataFrame.from_dict(rows, orient="index").fillna(0).astype(int)
    return table.rename(columns={TRAIN: "training", HELDOUT: "held out"})


def vocabulary_sentence(corpus: PreparedCorpus) -> str:
    """Describe the number of words, the vocabulary, and held-out sentences in the training text."""
    counts = corpus.record["counts"]
    overlap = counts["heldout_in_training"]
    warning = f" {overlap:,} held-out sentences also occur in the training text!" if overlap else ""
    return (
        f"{counts['distinct_words']:,} different words. The vocabulary of the softmax has "
        f"{counts['vocabulary']:,}, including the three special tokens; the input reads the "
        f"characters of all words.{warning}"
    )


def first_sentences(corpus: PreparedCorpus, n: int = 3) -> str:
    """Return the first training sentences as the model reads them, one per line."""
    first = corpus.train.select(range(min(n, corpus.train.n_sentences)))
    return "\n".join(map(" ".join, sentences_of(first, corpus)))


def left_out_table(corpus: PreparedCorpus, max_characters: int = 50) -> pd.DataFrame:
    """Return a table of the parts of the text from which the model does not learn.

    `max_characters` is the maximum number of bytes of a word, with a mark at each end. The columns
    are the number of parts (`how many`), the total (`of`), the `share` and the reason (`why`).
    """
    n, max_bytes = corpus.record["counts"], max_characters - 2
    kinds = "lines", "empty_lines", "sentence_marks", "sentences"
    n_lines, n_empty, n_marks, n_sentences = (sum(n[kind].values()) for kind in kinds)
    n_words, n_known = n["distinct_words"], n["vocabulary"] - len(SPECIAL_WORDS)
    n_rare, n_long = max(0, n_words - n_known), int((corpus.lexicon.lengths > max_bytes).sum())
    unknown, words = n["unknown_words"], n["words"]
    too_rare = "too rare to learn to predict; their characters are read"
    too_long = f"longer than {max_bytes} bytes; the beginning is read"
    rows = {
        "lines without a word": (n_empty, n_lines, "nothing to read"),
        "marks of a sentence's ends": (n_marks, 2 * n_sentences, "the model adds them"),
        "held-out sentences": (n["sentences"][HELDOUT], n_sentences, "for evaluation only"),
        "distinct words outside the vocabulary": (n_rare, n_words, too_rare),
        "training words that count as <UNK>": (unknown[TRAIN], words[TRAIN], "the same words"),
        "held-out words that count as <UNK>": (unknown[HELDOUT], words[HELDOUT], "the same words"),
        "distinct words that are truncated": (n_long, n_words, too_long),
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["how many", "of", "why"])
    table.insert(2, "share", table["how many"] / table["of"].clip(lower=1))
    return table


def character_counts(corpus: PreparedCorpus) -> pd.Series:
    """Count the characters of the most frequent training words; sort by falling count."""
    ids = np.arange(len(SPECIAL_WORDS), min(2**18, len(corpus.lexicon)))
    found: Counter[str] = Counter()
    for word, count in zip(corpus.lexicon.words(ids), corpus.lexicon.counts[ids], strict=True):
        for character in word:
            found[character] += int(count)
    counts = pd.Series({c: n for c, n in found.most_common() if n}, dtype=np.int64)
    return counts.rename_axis("character")
