"""Compute the perplexity of text under a biLM, with the full softmax, for each direction."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from keras import ops

from elmolib.backend import compile_once
from elmolib.corpus.prepared import PreparedCorpus, Split, sentences_of
from elmolib.corpus.sources import Texts, read_sentences
from elmolib.errors import TextError
from elmolib.formats.names import SOFTMAX
from elmolib.formats.readers import read_model
from elmolib.model.bilm import BiLM
from elmolib.parallel import ONE_BLAS_THREAD, cpu_count, prefetch
from elmolib.scoring.softmax import Softmax, softmax_of
from elmolib.settings.architecture import Architecture
from elmolib.text.characters import trim_columns
from elmolib.text.spelling import BYTES, Spelling
from elmolib.text.vocabulary import Vocabulary

WINDOW = 512  # the number of words per direction that are scored at once


class Window(NamedTuple):
    """Consecutive words of a text as both directions read them."""

    characters: np.ndarray  # int32 (distinct words, columns), character ids
    words: np.ndarray  # int32 (2, time, 1), rows of `characters`
    targets: np.ndarray  # int64 (2, time), vocabulary ids
    rows: np.ndarray | None = None  # int32 (distinct words,), rows of the word table, if any


class Scores(NamedTuple):
    """Scored predictions as arrays (2, time): row 0 forward, row 1 backward in reading order."""

    targets: np.ndarray  # int64, vocabulary ids of the words to predict
    losses: np.ndarray  # float32, negative log probability of the target, in nats
    ranks: np.ndarray  # int64, number of words more probable than the target
    best: np.ndarray  # int64, id of the most probable word
    best_losses: np.ndarray  # float32, negative log probability of that word, in nats


@dataclass(frozen=True)
class Perplexity:
    """The perplexity of a text. It can be compared only between models with equal vocabularies."""

    forward: float  # `exp` of the mean loss
    backward: float
    mean: float  # `exp` of the mean of the two directions' mean losses
    n_targets: int  # predictions per direction: all words, and one end for each sentence
    vocabulary_size: int

    @classmethod
    def of(cls, means: np.ndarray, n_targets: int, vocabulary_size: int) -> Self:
        """Compute the perplexities from the mean loss of each direction, in nats, float64 (2,)."""
        with np.errstate(over="ignore"):
            forward, backward, mean = np.exp([*means, means.mean()]).tolist()
        return cls(forward, backward, mean, n_targets, vocabulary_size)

    def __str__(self) -> str:
        return (
            f"perplexity {self.forward:.2f} forward, {self.backward:.2f} backward, "
            f"{self.mean:.2f} mean, over {self.n_targets:,} targets per direction and "
            f"{self.vocabulary_size:,} words"
        )


def perplexity(model: str | Path, text: Texts, options: str | Path | None = None) -> Perplexity:
    """Score a text file with a stored model.

    The text is split into words in the same way as the model's training text. The LSTM state is
    zero at first and carried from sentence to sentence, in file order even in the backward
    direction. Words outside the vocabulary are read by their characters, but count as `<UNK>`.

    Args:
        model: an `elmo.h5`, or a folder with one `*.hdf5`, `options.json` and `vocab.txt`.
        text: one or several paths or globs of text files, plain or `.gz`.
        options: the path of `options.json`, if `model` is an HDF5 file without options.

    Raises:
        WeightsError: the model has no softmax or no vocabulary.
        TextError: the text cannot be read or contains no sentence.
    """
    scorer, windows = scorer_and_windows(model, text, options)
    return scorer.perplexity(windows)


def scorer_and_windows(
    model: str | Path, text: Texts, options: str | Path | None = None
) -> tuple["Scorer", Iterator[Window]]:
    """Return a scorer and the windows that it scores; the arguments are those of `perplexity`."""
    stored = read_model(model, options=options)
    stored.require_softmax("its words cannot be scored")
    sentences = read_sentences(text, stored.tokenizer)
    parts = stored.vocabulary, stored.architecture, stored.spelling
    windows = windows_of_sentences(sentences, *parts)
    first = next(windows, None)
    if first is None:
        raise TextError(f"{text} holds no sentence to score: give a text with words.")
    # Move the arrays instead of copying them: the softmax of a large vocabulary takes gigabytes.
    softmax = Softmax(stored.vocabulary, *(stored.arrays.pop(name) for name in SOFTMAX))
    bilm = BiLM(stored.architecture, values=stored.arrays, **stored.spelling.sizes)
    return Scorer(bilm, softmax), chain([first], windows)


class Scorer:
    """Score text with a biLM, whose weights may change; `softmax` is used if the biLM has none."""

    def __init__(self, bilm: BiLM, softmax: Softmax | None = None) -> None:
        self.bilm, self._softmax = bilm, softmax
        self.vocabulary_size = bilm.vocabulary_size if softmax is None else len(softmax.b)
        a = bilm.architecture
        states = [(2, a.n_layers, 1, dim) for dim in (a.lstm_dim, a.projection_dim)]
        signature = [("float32", shape) for shape in ((2, WINDOW, a.projection_dim), *states)]
        # An LSTM step for one row is short and consists mostly of overhead, which XLA reduces.
        self._read = compile_once(self._top_layers, signature, xla=True)

    def perplexity(self, windows: Iterable[Window]) -> Perplexity:
        losses, n_targets = np.zeros(2), 0
        for targets, found in self._scored(windows, Softmax.losses):
            losses += found.reshape(targets.shape).sum(axis=1, dtype=np.float64)
            n_targets += targets.shape[1]
        means = losses / n_targets if n_targets else np.full(2, math.nan)
        return Perplexity.of(means, n_targets, self.vocabulary_size)

    def score(self, windows: Iterable[Window]) -> Scores:
        """Score consecutive windows of one text, and return the scores of every prediction."""
        scored = [
            (targets, *(part.reshape(targets.shape) for part in parts))
            for targets, parts in self._scored(windows, Softmax.compare)
        ]
        return Scores(*(np.concatenate(parts, axis=1) for parts in zip(*scored, strict=True)))

    def _scored(self, windows: Iterable[Window], method: Callable) -> Iterator:
        """Yield the targets (2, time) of each window and the result of a method of `Softmax`."""
        softmax = self._softmax or softmax_of(self.bilm)

        def compare(read):
            targets, outputs = read
            return targets, method(softmax, outputs, targets.reshape(-1))

        # The LSTM reads one row of words, so it uses only one processor. Meanwhile, the other
        # processors compute the softmax, in one thread per window.
        with ONE_BLAS_THREAD:
            yield from prefetch(compare, self._outputs(windows), cpu_count())

    def _outputs(self, windows: Iterable[Window]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield targets (2, time) and inputs of the softmax (2 * time, projection_dim)."""
        state = self.bilm.initial_state(1)
        for window in windows:
            time = window.targets.shape[1]
            # All windows get the same shape, so the loop over time is compiled only once.
            words = np.pad(window.words[:, :, 0], [(0, 0), (0, WINDOW - time)])
            spelled = self.bilm.spell(window.characters, rows=window.rows)
            vectors = ops.take(spelled, words, axis=0)
            tops, state = self._read(vectors, *state)  # two of (WINDOW, projection)
            tops = [ops.convert_to_numpy(top)[:time] for top in tops]
            yield window.targets, np.concatenate(tops)

    def _top_layers(self, vectors, c, h):
        words = np.arange(WINDOW, dtype=np.int32)[:, None]
        directions, state = self.bilm.read_words((vectors[0], vectors[1]), (words, words), (c, h))
        return [layers[-1][:, 0] for layers in directions], state


def windows_of_split(
    split: Split, corpus: PreparedCorpus, architecture: Architecture
) -> Iterator[Window]:
    """Cut the sentences of a prepared corpus into windows, in the order of the corpus."""
    blocks = np.array_split(np.arange(split.n_sentences), 1 + split.n_sentences // WINDOW)
    sentences = chain.from_iterable(sentences_of(split.select(block), corpus) for block in blocks)
    return windows_of_sentences(sentences, corpus.vocabulary, architecture)


def windows_of_sentences(
    sentences: Iterable[Sequence[str]],
    vocabulary: Vocabulary,
    architecture: Architecture,
    spelling: Spelling = BYTES,
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
        spelled = list(index), architecture.max_characters
        characters = trim_columns(spelling.character_ids(*spelled), architecture.widest_filter)
        rows = None if spelling.words is None else spelling.rows(*spelled)
        yield Window(characters, np.array(words, np.int32)[:, :, None], np.array(targets), rows)
