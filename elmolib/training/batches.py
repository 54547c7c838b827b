"""Training batches of a prepared corpus, each computed from its step number alone.

The sentences of an epoch, usually shuffled, form one long stream per direction. The stream is cut
into `batch_size` rows of equal length. Step `s` reads the `s`-th window of every row. Therefore,
the LSTM state can be carried from one step to the next. Every word is predicted exactly once per
epoch and direction. Any batch can be computed without the earlier batches.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from elmolib.corpus.prepared import PreparedCorpus
from elmolib.corpus.stream import BACKWARD, FORWARD, Stream
from elmolib.errors import TrainingError
from elmolib.parallel import prefetch
from elmolib.settings.architecture import Architecture
from elmolib.settings.parameters import TrainingSettings
from elmolib.text.characters import group_by_length
from elmolib.text.vocabulary import UNK

_LOGGER = logging.getLogger(__name__)


class Batch(NamedTuple):
    """The arrays of one training step. Direction 0 is forward, 1 backward.

    With the full softmax, `targets` are vocabulary ids, and `rows` and all later fields are empty.
    """

    # The distinct words, sorted by length, in groups. Each group is as wide as its longest word.
    characters: tuple[np.ndarray, ...]  # int32 (words, columns), ids 0 to 260
    words: np.ndarray  # int32 (2, time, batch), words read: indices into the joined groups
    targets: np.ndarray  # int32 (2, time, batch), words to predict: indices into `rows`
    weights: np.ndarray  # float32 (time, batch), 1 where a prediction counts, 0 past a row's end
    n_weighted: np.ndarray  # float32 (), the sum of the weights of the rows of all workers
    rows: np.ndarray = np.empty(0, np.int64)  # (rows,), vocabulary ids of the softmax rows in use
    negatives: np.ndarray = np.empty((2, 0), np.int32)  # (2, samples), indices into `rows`
    log_expected_targets: np.ndarray = np.empty((2, 0, 0), np.float32)  # (2, time, batch)
    log_expected_negatives: np.ndarray = np.empty((2, 0), np.float32)  # (2, samples)

    @property
    def is_sampled(self) -> bool:
        """Whether the softmax is computed over sampled words only."""
        return self.negatives.shape[1] > 0


class Batches:
    """All batches of a run, by step number. If the text is too short, raise a TrainingError.

    With `own`, a batch has only these rows, but the softmax rows and negatives of the whole batch.
    """

    def __init__(
        self,
        corpus: PreparedCorpus,
        architecture: Architecture,
        settings: TrainingSettings,
        own: slice = slice(None),
    ) -> None:
        self.lexicon, self.architecture, self.settings = corpus.lexicon, architecture, settings
        self.vocabulary_size = size = len(corpus.vocabulary)
        self.n_negatives, self.own = settings.n_negatives, own
        rows, time = settings.batch_size, settings.unroll_steps
        self.streams = [
            Stream(corpus.train, direction, settings.seed, rows, settings.shuffle)
            for direction in (FORWARD, BACKWARD)
        ]
        self.n_targets = self.streams[FORWARD].length
        if self.n_targets < rows * time:
            found = f"The training text has {self.n_targets} words and sentence ends"
            needed = f"batch needs, batch_size {rows} times unroll_steps {time}"
            advice = "add text, or lower batch_size or unroll_steps"
            raise TrainingError(f"{found}, fewer than one {needed}: {advice}.")
        if (self.n_negatives or 0) >= size:
            message = "The vocabulary has only %s words, so all are used instead of %s n_negatives."
            _LOGGER.warning(message, f"{size:,}", f"{self.n_negatives:,}")
            self.n_negatives = None
        self.row_starts = np.arange(rows + 1, dtype=np.int64) * self.n_targets // rows
        self.steps_per_epoch = -(-int(np.diff(self.row_starts).max()) // time)

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0 at the beginning of training."""
        epoch, window = divmod(step, self.steps_per_epoch)
        time = self.settings.unroll_steps
        starts = self.row_starts[:-1] + window * time
        parts = [[s.read(epoch, start, time) for start in starts.tolist()] for s in self.streams]
        read, predicted = np.array(parts).transpose(2, 0, 3, 1)  # each (2, time, batch)
        read = read[..., self.own]
        distinct, words = np.unique(read, return_inverse=True)
        characters = self.lexicon.character_ids(distinct, self.architecture.max_characters)
        groups, row_of = group_by_length(characters, self.architecture.widest_filter)
        positions = starts + np.arange(time)[:, None]  # (time, batch)
        weights = (positions < self.row_starts[1:]).astype(np.float32)
        batch = Batch(
            characters=groups,
            words=row_of[words].reshape(read.shape).astype(np.int32),
            targets=np.where(predicted < self.vocabulary_size, predicted, UNK).astype(np.int32),
            weights=weights[:, self.own],
            n_weighted=weights.sum(),
        )
        if self.n_negatives is not None:
            batch = self._sampled(batch, self.n_negatives, step)
        targets, expected = batch.targets[..., self.own], batch.log_expected_targets[..., self.own]
        return batch._replace(targets=targets, log_expected_targets=expected)

    def read_ahead(self, first: int, last: int) -> Iterator[Batch]:
        """Yield the batches of steps `first` to `last - 1`. Each is prepared one step ahead."""
        return prefetch(self.__getitem__, range(first, last), 1)

    def _sampled(self, batch: Batch, n_negatives: int, step: int) -> Batch:
        """Add negatives for each direction, and replace vocabulary ids by indices into `rows`."""
        size, seed = self.vocabulary_size, self.settings.seed
        generators = [np.random.default_rng([seed, 2 + d, step]) for d in (FORWARD, BACKWARD)]
        samples = [sample_negatives(n_negatives, size, generator) for generator in generators]
        negative_ids = np.stack([ids for ids, _ in samples])
        used = np.concatenate([batch.targets.ravel(), negative_ids.ravel()])
        rows, indices = np.unique(used, return_inverse=True)
        targets, negatives = np.split(indices.astype(np.int32), [batch.targets.size])
        log_expected_targets, log_expected_negatives = (
            np.stack([log_expected_count(ids[d], size, samples[d][1]) for d in (FORWARD, BACKWARD)])
            for ids in (batch.targets, negative_ids)
        )
        return batch._replace(
            targets=targets.reshape(batch.targets.shape),
            rows=rows,
            negatives=negatives.reshape(negative_ids.shape),
            log_expected_targets=log_expected_targets,
            log_expected_negatives=log_expected_negatives,
        )


def sample_negatives(n: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Draw ids below `size` from the log-uniform distribution until `n` are distinct.

    The probability of an id is `log((id + 2) / (id + 1)) / log(size + 1)`. By Zipf's law, this is
    close to the frequency of the word, because ids are sorted by falling frequency. TensorFlow's
    `log_uniform_candidate_sampler` does the same with `unique=True`. Return the ids, int64 (n,), in
    the order in which they were first drawn, and the number of draws.
    """
    draws = np.empty(0, np.int64)
    while True:
        drawn = np.exp(rng.random(2 * n) * np.log1p(size)).astype(np.int64) - 1
        # Rounding in exp can give `size`, which is not an id.
        draws = np.concatenate([draws, np.minimum(drawn, size - 1)])
        ids, first = np.unique(draws, return_index=True)
        if len(ids) >= n:
            order = np.argsort(first)[:n]
            return ids[order], int(first[order[-1]]) + 1


def log_expected_count(ids: np.ndarray, size: int, n_draws: int) -> np.ndarray:
    """Return, for each id, the log probability that `sample_negatives` draws it, float32."""
    p = np.log1p(1.0 / (ids + 1.0)) / np.log1p(size)
    return np.log(-np.expm1(n_draws * np.log1p(-p))).astype(np.float32)
