"""Sentences with a tag for each word: what a tagger on top of a biLM learns and is judged by."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import conllu
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from conllu.exceptions import ParseException

from elmolib.errors import TextError

Tags = Sequence[str]


class TaggedSentence(NamedTuple):
    """The words of a sentence and the tag of each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


def read_conllu(path: str | Path) -> list[TaggedSentence]:
    """Read words and their universal parts of speech.

    Args:
        path: a CoNLL-U file in UTF-8, plain or `.gz`. Of a contraction that it also writes as one
            token, the single words are taken; words that are only understood are left out.

    Returns:
        The sentences in the order of the file.

    Raises:
        TextError: the file cannot be read, is no CoNLL-U, or a word in it has no tag.

    Example:
        ```python
        sentences = read_conllu("en_ewt-ud-dev.conllu")
        sentences[0].tags  # ('ADP', 'DET', 'PROPN', 'VERB', 'DET', 'NOUN', 'PUNCT')
        ```

    References:
        The format: https://universaldependencies.org/format.html.
    """
    path = Path(path)
    opened = gzip.open if path.suffix == ".gz" else open
    sentences: list[TaggedSentence] = []
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for tokens in conllu.parse_incr(file):
                # Of contractions and of words left out, the id is no plain number.
                words = [token for token in tokens if isinstance(token["id"], int)]
                if not all(word.get("form") and _has_tag(word) for word in words):
                    raise TextError(
                        f"{path}: a word of sentence {len(sentences) + 1} has no UPOS tag."
                    )
                if words:
                    forms_and_tags = [(word["form"], word["upos"]) for word in words]
                    sentences.append(TaggedSentence(*zip(*forms_and_tags, strict=True)))
    except (ParseException, KeyError):
        raise TextError(
            f"{path} is no CoNLL-U file: see what follows its sentence {len(sentences)}."
        ) from None
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8: see byte {error.start} of its text.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise TextError(f"{path} cannot be read: {error}.") from None
    if not sentences:
        raise TextError(f"{path} holds no sentences.")
    return sentences


def _has_tag(word: conllu.Token) -> bool:
    return word.get("upos") not in (None, "", "_")


def tag_names(sentences: Sequence[TaggedSentence]) -> list[str]:
    """List the tags that occur, sorted; a tag's place is its number."""
    return sorted({tag for sentence in sentences for tag in sentence.tags})


class TaggedBatches(keras.utils.PyDataset):
    """What a tagger's `fit` reads: sentences of about one length side by side.

    Args:
        sentences: what to learn from.
        names: the tags, each at the place of its number.
        batch_size: sentences of a batch.

    Returns:
        for each batch its words, a string tensor (batch, time) with "" after the end of a
        sentence, and their tags, an int32 array (batch, time).
    """

    def __init__(
        self, sentences: Sequence[TaggedSentence], names: Tags, batch_size: int = 32
    ) -> None:
        super().__init__()
        self._number = {name: k for k, name in enumerate(names)}
        by_length = sorted(sentences, key=lambda sentence: len(sentence.words))
        batches = _cut(by_length, batch_size)
        # Of a length that its first two batches share, Keras takes all others to be.
        self._batches = [*batches[-1:], *batches[:-1]]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[tf.Tensor, np.ndarray]:
        batch = self._batches[index]
        tags = [[self._number[tag] for tag in sentence.tags] for sentence in batch]
        words = _filled([sentence.words for sentence in batch], "")
        return tf.constant(words), np.array(_filled(tags, 0), np.int32)


def predict_tags(
    tagger: keras.Model, sentences: Sequence[Sequence[str]], names: Tags, batch_size: int = 32
) -> list[Tags]:
    """Tag sentences.

    Args:
        tagger: a model from strings (batch, time) to scores (batch, time, tags).
        sentences: the words of each, at least one.
        names: the tags, each at the place of its number.
        batch_size: sentences read side by side.

    Returns:
        the likeliest tag of each word, per sentence in the order given.
    """
    predicted: list[Tags] = []
    for batch in _cut(sentences, batch_size):
        best = tagger.predict_on_batch(tf.constant(_filled(batch, ""))).argmax(axis=-1)
        for row, words in zip(best, batch, strict=True):
            predicted.append([names[k] for k in row[: len(words)]])
    return predicted


def commonest_tags(
    training: Sequence[TaggedSentence], sentences: Sequence[Sequence[str]]
) -> list[Tags]:
    """Tag each word as it was most often tagged in training, the baseline of any tagger.

    Args:
        training: what is learnt from. Words that are not in it get its most frequent tag.
        sentences: the words of each sentence to tag.

    Returns:
        a tag for each word, per sentence in the order given.
    """
    counts = _tag_counts(training)
    of_all = sum(counts.values(), Counter()).most_common(1)[0][0]
    commonest = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    return [[commonest.get(word, of_all) for word in words] for words in sentences]


def accuracy_table(
    training: Sequence[TaggedSentence],
    heldout: Sequence[TaggedSentence],
    predictions: Mapping[str, Sequence[Tags]],
) -> pd.DataFrame:
    """Count how often taggers are right, and on what words.

    Args:
        training: what they learnt from.
        heldout: sentences with their true tags.
        predictions: by the name of a tagger, the tags that it gave to `heldout`.

    Returns:
        shares from 0 to 1, a row per tagger and first one with the share of all words; columns
        `all words`, `always one tag` and `several tags` by what training gave to the word, and
        `never seen`.
    """
    counts = _tag_counts(training)
    n_tags = np.array([len(counts.get(word, ())) for words, _ in heldout for word in words])
    kinds = {
        "all words": n_tags >= 0,
        "always one tag": n_tags == 1,
        "several tags": n_tags > 1,
        "never seen": n_tags == 0,
    }
    truth = np.array([tag for _, tags in heldout for tag in tags])
    rows = {"share of the words": {kind: which.mean() for kind, which in kinds.items()}}
    for tagger, given in predictions.items():
        right = np.array([tag for tags in given for tag in tags]) == truth
        rows[tagger] = {
            kind: right[which].mean() if which.any() else np.nan for kind, which in kinds.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _tag_counts(sentences: Sequence[TaggedSentence]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            counts[word][tag] += 1
    return dict(counts)


def _cut(things: Sequence, size: int) -> list[Sequence]:
    return [things[first : first + size] for first in range(0, len(things), size)]


def _filled(rows: Sequence[Sequence], filling: str | int) -> list[list]:
    longest = max(map(len, rows))
    return [[*row, *[filling] * (longest - len(row))] for row in rows]
