"""How well a biLM predicts held-out text: full softmax, each direction on its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import ops

from elmolib.batches import BACKWARD, FORWARD, read_and_predict, trim_columns
from elmolib.bilm import BiLM
from elmolib.characters import character_ids
from elmolib.errors import TextError, WeightsError
from elmolib.options import BiLMOptions
from elmolib.processors import work_ahead
from elmolib.vocabulary import EOS, UNK, Vocabulary

if TYPE_CHECKING:
    from elmolib.corpus import Lexicon, PreparedCorpus, Split

WINDOW = 512
"""Words per direction that are scored at once."""

LOGITS = 2**22
"""Numbers in a block of logits, 16 MB: memory stays bounded whatever the vocabulary."""


class Window(NamedTuple):
    """Consecutive words of a text as both directions read them.

    Attributes:
        characters: int32 (words, columns), the distinct words.
        words: int32 (2, 1, time), rows of `characters`.
        targets: int64 (2, time), vocabulary ids.
    """

    characters: np.ndarray
    words: np.ndarray
    targets: np.ndarray


class Scores(NamedTuple):
    """How the model predicted each word of a window, per direction in its reading order.

    Attributes:
        targets: int64 (2, time), vocabulary ids of what was to be predicted.
        losses: float32 (2, time), negative log probability of the target, in nats.
        ranks: int64 (2, time), how many words were more probable than the target.
        best: int64 (2, time), id of the most probable word.
        best_losses: float32 (2, time), negative log probability of that word, in nats.
    """

    targets: np.ndarray
    losses: np.ndarray
    ranks: np.ndarray
    best: np.ndarray
    best_losses: np.ndarray


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a text under both language models.

    Attributes:
        forward: `exp` of the mean loss of the forward direction.
        backward: the same of the backward direction.
        mean: `exp` of the mean of the two directions' mean losses.
        n_targets: predictions per direction: all words, and one end for each sentence.
        vocabulary_size: words of the softmax. Perplexities over different vocabularies cannot
            be compared.
    """

    forward: float
    backward: float
    mean: float
    n_targets: int
    vocabulary_size: int

    def __str__(self) -> str:
        return (
            f"perplexity {self.forward:.2f} forward, {self.backward:.2f} backward, "
            f"{self.mean:.2f} mean, over {self.n_targets:,} targets per direction and "
            f"{self.vocabulary_size:,} words"
        )


def perplexity(
    model: str | Path,
    text: str | Path | Sequence[str | Path],
    options: str | Path | None = None,
) -> Perplexity:
    """Score a text file with a stored model.

    The text is cut into words as the model's own training text was. The state is carried through
    the file in its order, from a zero state at its beginning; the backward direction also reads
    the sentences in file order, and the words of each from last to first. Words that the softmax
    does not know count, as `<UNK>`; the input sees their characters.

    Args:
        model: an `elmo.h5`, or a folder with one `*.hdf5`, `options.json` and `vocab.txt`.
        text: one or many paths or globs, plain or `.gz`.
        options: path of `options.json`, where `model` is an HDF5 file without it.

    Raises:
        WeightsError: the model has no softmax or no vocabulary.
        TextError: the text cannot be read or holds no sentence.

    Example:
        >>> p = perplexity("runs/tiny/elmo.h5", "heldout.txt")
        >>> p.forward, p.backward, p.mean, p.n_targets, p.vocabulary_size
    """
    from elmolib.corpus import read_sentences
    from elmolib.weights import read_model

    stored = read_model(model, options=options)
    if stored.vocabulary is None or "softmax/W" not in stored.arrays:
        raise WeightsError(
            f"{model} has no softmax with its vocabulary, so its words cannot be scored: "
            "use a file that holds the whole language model."
        )
    windows = windows_of_sentences(
        read_sentences(text, stored.tokenizer), stored.vocabulary, stored.options
    )
    result = evaluate(BiLM.from_arrays(stored.options, stored.arrays), windows)
    if result.n_targets == 0:
        raise TextError(f"{text} holds no sentence to score.")
    return result


def evaluate(bilm: BiLM, windows: Iterable[Window]) -> Perplexity:
    """Score consecutive windows of one text; see `perplexity`."""
    losses, n_targets = np.zeros(2), 0
    for targets, loss in _compared(bilm, windows, full_softmax_losses):
        losses += loss.reshape(targets.shape).sum(axis=1, dtype=np.float64)
        n_targets += targets.shape[1]
    means = losses / n_targets if n_targets else np.full(2, math.nan)
    with np.errstate(over="ignore"):
        forward, backward, mean = np.exp([*means, means.mean()]).tolist()
    return Perplexity(
        forward=forward,
        backward=backward,
        mean=mean,
        n_targets=n_targets,
        vocabulary_size=bilm.vocabulary_size,
    )


def score(bilm: BiLM, windows: Iterable[Window]) -> Iterator[Scores]:
    """Score consecutive windows of one text in detail, the state carried from each to the next."""
    for targets, scores in _compared(bilm, windows, full_softmax):
        yield Scores(targets, *(part.reshape(targets.shape) for part in scores))


def _compared(
    bilm: BiLM, windows: Iterable[Window], softmax: Callable
) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield the targets (2, time) of each window and what one of the softmaxes says of them."""

    def compare(read: tuple[Window, Any]) -> tuple[np.ndarray, Any]:
        window, outputs = read
        targets = window.targets
        return targets, softmax(outputs, targets.reshape(-1), bilm.softmax_W, bilm.softmax_b)

    # One row of words keeps one processor busy, which need not wait for the softmax.
    return work_ahead(compare, _outputs(bilm, windows), 2)


def _outputs(bilm: BiLM, windows: Iterable[Window]) -> Iterator[tuple[Window, Any]]:
    """Yield each window with what goes into the softmax: (2 * time, projection_dim)."""
    run = top_layer(bilm)
    state = bilm.initial_state(1)
    for window in windows:
        time = window.targets.shape[1]
        vectors = ops.take(bilm.char_cnn(window.characters), window.words, axis=0)
        # One shape for all windows: the compiled loop over time is made only once.
        vectors = ops.pad(vectors, [[0, 0], [0, 0], [0, WINDOW - time], [0, 0]])
        top, state = run(vectors, state)  # (2, 1, WINDOW, projection)
        yield window, ops.reshape(top[:, :, :time], (2 * time, -1))


def top_layer(bilm: BiLM) -> Callable:
    """Return a function of word vectors (2, 1, WINDOW, projection_dim) and state.

    It returns the top layer in the shape of the vectors, and the state after the window. With one
    row, a step is too small for anything but its overhead to matter, so the loop is compiled.
    """
    words = np.arange(2 * WINDOW, dtype=np.int32).reshape(2, 1, WINDOW)

    def run(vectors, state):
        vectors = ops.reshape(vectors, (2 * WINDOW, -1))
        layers, state = bilm.contextualise(vectors, words, state)
        return layers[-1], state

    if keras.backend.backend() != "tensorflow":
        return run
    if not hasattr(bilm, "_top_layer"):
        import tensorflow as tf

        bilm._top_layer = tf.function(run, jit_compile=True)
    return bilm._top_layer


def full_softmax_losses(outputs, targets: np.ndarray, W, b) -> np.ndarray:
    """Negative log probability of each target among all words, a block of words at a time.

    Args:
        outputs: float tensor (tokens, projection_dim).
        targets: int64 (tokens,).
        W: float tensor (vocabulary, projection_dim).
        b: float tensor (vocabulary,).

    Returns:
        float32 (tokens,), in nats.
    """
    total = ops.full((len(targets),), -math.inf)
    for _, logits in _logit_blocks(outputs, W, b):
        total = ops.logaddexp(total, ops.logsumexp(logits, axis=1))
    return ops.convert_to_numpy(total - _target_logits(outputs, targets, W, b))


def full_softmax(outputs, targets: np.ndarray, W, b) -> tuple[np.ndarray, ...]:
    """Compare each target with every word of the vocabulary, a block of words at a time.

    Args:
        outputs, targets, W, b: as of `full_softmax_losses`.

    Returns:
        losses float32, ranks int64, best int64 and best_losses float32, each (tokens,); see
        `Scores`.
    """
    n = len(targets)
    target_logits = _target_logits(outputs, targets, W, b)
    total = ops.full((n,), -math.inf)
    best_logits = ops.full((n,), -math.inf)
    ranks, best = ops.zeros((n,), "int64"), ops.zeros((n,), "int64")
    for first, logits in _logit_blocks(outputs, W, b):
        total = ops.logaddexp(total, ops.logsumexp(logits, axis=1))
        # The target's own logit, computed apart, may differ from its twin here in the last bit.
        above = logits > (target_logits + 1e-5 * ops.abs(target_logits))[:, None]
        ranks += ops.sum(ops.cast(above, "int64"), axis=1)
        block_best = ops.max(logits, axis=1)
        best = ops.where(
            block_best > best_logits, ops.cast(ops.argmax(logits, axis=1), "int64") + first, best
        )
        best_logits = ops.maximum(best_logits, block_best)
    parts = total - target_logits, ranks, best, total - best_logits
    return tuple(ops.convert_to_numpy(part) for part in parts)


def _target_logits(outputs, targets: np.ndarray, W, b):
    return ops.sum(outputs * ops.take(W, targets, axis=0), axis=1) + ops.take(b, targets, axis=0)


def _logit_blocks(outputs, W, b) -> Iterator[tuple[int, Any]]:
    """Yield the first word of each block of the vocabulary, and logits (tokens, block)."""
    size = max(1, LOGITS // max(outputs.shape[0], 1))
    for first in range(0, W.shape[0], size):
        block = slice(first, first + size)
        yield first, ops.matmul(outputs, ops.transpose(W[block])) + b[block]


def windows_of_split(
    split: Split, lexicon: Lexicon, vocabulary_size: int, options: BiLMOptions
) -> Iterator[Window]:
    """Cut the sentences of a prepared corpus into windows, in their order."""

    def sentences() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, split.n_sentences, WINDOW):
            bounds = np.asarray(split.bounds[first : first + WINDOW + 1])
            yield np.asarray(split.ids[bounds[0] : bounds[-1]]), np.diff(bounds)

    for read, predicted in _cut(sentences()):
        distinct, words = np.unique(read, return_inverse=True)
        yield Window(
            trim_columns(
                lexicon.character_ids(distinct, options.max_characters), options.widest_filter
            ),
            words.reshape(2, 1, -1).astype(np.int32),
            np.where(predicted < vocabulary_size, predicted, UNK),
        )


def windows_of_sentences(
    sentences: Iterable[Sequence[str]], vocabulary: Vocabulary, options: BiLMOptions
) -> Iterator[Window]:
    """Cut any sentences of words into windows, in their order."""
    known = {word: i for i, word in enumerate(vocabulary.words)}
    n_known = len(known)
    words_of: list[str] = []

    def numbered() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for sentence in sentences:
            ids = []
            for word in sentence:
                if word not in known:
                    known[word] = n_known + len(words_of)
                    words_of.append(word)
                ids.append(known[word])
            yield np.array(ids, np.int64), np.array([len(ids)])

    for read, predicted in _cut(numbered()):
        distinct, words = np.unique(read, return_inverse=True)
        spelled = [vocabulary.words[i] if i < n_known else words_of[i - n_known] for i in distinct]
        yield Window(
            trim_columns(character_ids(spelled, options.max_characters), options.widest_filter),
            words.reshape(2, 1, -1).astype(np.int32),
            np.where(predicted < n_known, predicted, UNK),
        )


def unigram_perplexity(corpus: PreparedCorpus) -> float:
    """Perplexity of the held-out text under the training text's word counts, one added to each.

    The yardstick that a language model has to beat: it knows how frequent each word of the same
    vocabulary is, sentence ends included, and nothing of the words around it.
    """
    size = len(corpus.vocabulary)
    heldout_ids = np.bincount(np.asarray(corpus.heldout.ids), minlength=size)
    heldout = _target_counts(heldout_ids, size, corpus.heldout.n_sentences)
    return math.exp(-(heldout * unigram_log_probabilities(corpus)).sum() / heldout.sum())


def unigram_log_probabilities(corpus: PreparedCorpus) -> np.ndarray:
    """Return the logarithm of each vocabulary id's probability as a target, float64."""
    size = len(corpus.vocabulary)
    counts = _target_counts(np.asarray(corpus.lexicon.counts), size, corpus.train.n_sentences)
    return np.log(counts + 1.0) - np.log(counts.sum() + size)


def _target_counts(word_counts: np.ndarray, size: int, n_sentences: int) -> np.ndarray:
    """Count how often each vocabulary id is predicted, from counts of all words."""
    counts = word_counts[:size].astype(np.int64)
    counts[UNK] += word_counts[size:].sum()
    counts[EOS] += n_sentences
    return counts


def _cut(
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Lay (ids, sentence lengths) end to end in both directions; cut into (2, WINDOW) arrays."""
    read, predicted = np.empty((2, 0), np.int64), np.empty((2, 0), np.int64)
    for ids, lengths in parts:
        directions = [read_and_predict(ids, lengths, d) for d in (FORWARD, BACKWARD)]
        read = np.concatenate([read, np.stack([d[0] for d in directions])], axis=1)
        predicted = np.concatenate([predicted, np.stack([d[1] for d in directions])], axis=1)
        while read.shape[1] >= WINDOW:
            yield read[:, :WINDOW], predicted[:, :WINDOW]
            read, predicted = read[:, WINDOW:], predicted[:, WINDOW:]
    if read.shape[1]:
        yield read, predicted
