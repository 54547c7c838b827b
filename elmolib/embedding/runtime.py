"""The interface between an encoder and the engine that computes a model."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from elmolib.embedding.companions import fingerprint
from elmolib.parallel import cpu_count
from elmolib.settings.architecture import Architecture
from elmolib.text.spelling import BYTES, Spelling

State = tuple[np.ndarray, np.ndarray]
"""The LSTM state of both directions, float32: the cell state c (2, n_layers, batch, lstm_dim) and
the output h (2, n_layers, batch, projection_dim)."""


class Scales(NamedTuple):
    """The scales of 8-bit products, from `elmolib.embedding.int8`.

    Attributes:
        steps: the size of an 8-bit step in each input feature of a product, float32, by the name of
            the product: `char_cnn/highway_0`, `char_cnn/projection`, `forward_0`, `backward_1`. The
            inputs of the last two are the layer's input and its previous output.
        clipped: the share of the input values that are outside the 8-bit range, by the same names,
            in sentences of the same text that were not used for the steps.
    """

    steps: dict[str, np.ndarray]
    clipped: dict[str, float]

    @property
    def sha256(self) -> str:
        content = b"".join(self.steps[name].tobytes() for name in sorted(self.steps))
        return hashlib.sha256(content).hexdigest()


class Runtime:
    """A stored biLM and an engine that computes its vectors: the base class of all engines.

    Attributes:
        name: the name of the engine, as in the argument `runtime` of `ElmoEmbedder`.
        precision: the dtype of the matrix products, such as "float32".
        architecture: the dimensions of the model.
        batch_size: the number of sentences per batch at which the engine is fastest.
        n_threads: the number of simultaneous calls of `read` at which the engine is fastest.
        scales: the fixed scales of 8-bit inputs, or None if the products are in float32.
        spelling: how the model spells words.
        mix: the weight of each layer in the mix that a task has learned, or None.
    """

    name: str
    precision = "float32"
    batch_size = 32
    # With one thread per direction, each call of `read` occupies two processors.
    n_threads = max(1, cpu_count() // 2)
    scales: Scales | None = None
    mix: Sequence[float] | None = None

    def __init__(
        self,
        architecture: Architecture,
        arrays: Mapping[str, np.ndarray],
        spelling: Spelling = BYTES,
    ) -> None:
        self.architecture, self.spelling = architecture, spelling
        self._arrays = dict(arrays)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the float32 weights by name, without the softmax."""
        return dict(self._arrays)

    def fingerprint(self) -> str:
        """Hash the model: models with the same hash give the same vectors."""
        return fingerprint(self.architecture, self.arrays(), self.spelling, self.mix)

    def look_up(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of rows of the word table, float32 (rows, projection_dim)."""
        vectors, projection = self._arrays["words/embedding"][rows], "words/projection"
        return vectors @ self._arrays[projection] if projection in self._arrays else vectors

    def spell(self, characters: Sequence[np.ndarray]) -> np.ndarray:
        """Compute the context-free vectors of words from their characters.

        Args:
            characters: raw character ids, int32 arrays (words, columns) from `group_by_length`.

        Returns:
            the vectors of the words in all arrays, float32 (words, projection_dim).
        """
        raise NotImplementedError

    def read(
        self, vectors: np.ndarray, words: np.ndarray, state: State, lengths: np.ndarray
    ) -> tuple[list[list[np.ndarray]], State]:
        """Run the LSTMs over a batch of sentences.

        Args:
            vectors: the context-free vectors, float32 (words, projection_dim).
            words: row numbers of `vectors` in each direction's reading order, int32
                (2, time, batch).
            state: the initial state.
            lengths: the number of steps of each sentence, int32 (batch,). Later steps do not change
                its state.

        Returns:
            for each direction, a list of the layers above 0, each (time, batch, projection_dim);
            and the final state.
        """
        raise NotImplementedError
