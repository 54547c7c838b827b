"""Cut text into windows of words to score."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from typing import NamedTuple

import numpy as np

from elmolib.corpus.prepared import PreparedCorpus, Split, sentences_of
from elmolib.settings.architecture import Architecture
from elmolib.text.characters import character_ids, trim_columns
from elmolib.text.vocabulary import Vocabulary

WINDOW = 512  # the number of words per direction that are scored at once


class Window(NamedTuple):
    """Consecutive words of a text as both directions read them."""

    characters: np.ndarray  # int32 (distinct words, columns), character ids
    words: np.ndarray  # int32 (2, time, 1), rows of `characters`
    targets: np.ndarray  # int64 (2, time), vocabulary ids


def windows_of_split(
    split: Split, corpus: PreparedCorpus, architecture: Architecture
) -> Iterator[Window]:
    """Cut the sentences of a prepared corpus into windows, in the order of the corpus."""
    blocks = np.array_split(np.arange(split.n_sentences), 1 + split.n_sentences // WINDOW)
    sentences = chain.from_iterable(sentences_of(split.select(block), corpus) for block in blocks)
    return windows_of_sentences(sentences, corpus.vocabulary, architecture)


def windows_of_sentences(
    sentences: Iterable[Sequence[str]], vocabulary: Vocabulary, architecture: Architecture
) -> Iterator[Window]:
    """Cut sentences, each a list of words, into windows, in the given order."""
    # Each item of `pairs` has one pair (word to read, word to predict) per direction.
    marked = (["<S>", *sentence, "</S>"] for sentence in sentences)
    both = (zip(pairwise(words), pairwise(reversed(words)), strict=True) for words in marked)
    pairs = chain.from_iterable(both)
    while window := list(islice(pairs, WINDOW)):
        directions = list(zip(*window, strict=True))
        index: dict[str, int] = {}
        words = [[index.setdefault(word, len(index)) for word, _ in d] for d in directions]
        targets = [[vocabulary[word] for _, word in d] for d in directions]
        characters = character_ids(list(index), architecture.max_characters)
        yield Window(
            trim_columns(characters, architecture.widest_filter),
            np.array(words, np.int32)[:, :, None],
            np.array(targets),
        )
