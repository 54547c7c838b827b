"""The full softmax of a language model in NumPy: log probabilities, losses, ranks, best words."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from elmolib.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from elmolib.model.bilm import BiLM

BLOCK = 2**20  # the number of logits in a block (4 MB); limits memory for any vocabulary


class Softmax(NamedTuple):
    """The output layer that both directions share."""

    vocabulary: Vocabulary | None  # the words of the rows; None if they are not needed
    W: np.ndarray  # float32 (vocabulary_size, projection_dim)
    b: np.ndarray  # float32 (vocabulary_size,)

    def log_probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Compute log probabilities (n, vocabulary_size) from LSTM outputs (n, projection_dim)."""
        return log_normalize(outputs @ self.W.T + self.b)

    def losses(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Compute the negative log probability of each target, in nats.

        `outputs` is float32 (n, projection_dim); `targets` are vocabulary ids, integers (n,).
        """
        sums = [_log_sum_exp(logits) for _, logits in self._blocks(outputs)]
        return np.logaddexp.reduce(sums) - self._target_logits(outputs, targets)

    def compare(self, outputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the arrays losses, ranks, best and best_losses of `perplexity.Scores`, each (n,).

        The arguments are those of `losses`.
        """
        target_logits = self._target_logits(outputs, targets)
        # `logits` also contains the target's logit, maybe rounded up. Do not count it as larger.
        bar = (target_logits + 1e-5 * np.abs(target_logits))[:, None]
        rows = np.arange(len(targets))
        total, best_logits = np.full((2, len(targets)), -np.inf, np.float32)
        ranks, best = np.zeros((2, len(targets)), np.int64)
        for first, logits in self._blocks(outputs):
            ranks += np.count_nonzero(logits > bar, axis=1)
            found = logits.argmax(axis=1)
            found_logits = logits[rows, found]
            best = np.where(found_logits > best_logits, found + first, best)
            best_logits = np.maximum(best_logits, found_logits)
            total = np.logaddexp(total, _log_sum_exp(logits))
        return total - target_logits, ranks, best, total - best_logits

    def _target_logits(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.einsum("nd,nd->n", outputs, self.W[targets]) + self.b[targets]

    def _blocks(self, outputs: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each block's first id and logits (n, block), which the next block overwrites."""
        n, size = len(outputs), max(1, BLOCK // max(len(outputs), 1))
        buffer = np.empty(n * min(size, len(self.b)), np.float32)
        for first in range(0, len(self.b), size):
            W, b = self.W[first : first + size], self.b[first : first + size]
            logits = np.matmul(outputs, W.T, out=buffer[: n * len(b)].reshape(n, len(b)))
            logits += b
            yield first, logits


def softmax_of(bilm: "BiLM", vocabulary: Vocabulary | None = None) -> Softmax:
    """Return a copy of a model's softmax as NumPy arrays."""
    return Softmax(vocabulary, bilm.softmax_W.numpy(), bilm.softmax_b.numpy())


def log_normalize(logits: np.ndarray) -> np.ndarray:
    """Turn logits (n, size) into natural log probabilities, in place."""
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def _log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """Compute the logarithm of each row's summed exponentials, and overwrite the logits."""
    largest = logits.max(axis=1, keepdims=True)
    logits -= largest
    return np.log(np.exp(logits, out=logits).sum(axis=1)) + largest[:, 0]
