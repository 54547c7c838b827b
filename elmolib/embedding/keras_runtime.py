"""A runtime that computes with Keras."""

import os
from collections.abc import Sequence
from functools import partial

import numpy as np
from keras import backend, ops

from elmolib.backend import compile_once
from elmolib.embedding.runtime import Runtime, State
from elmolib.errors import ElmolibError
from elmolib.model.bilm import BiLM
from elmolib.text.characters import GROUPS, PADDING
from elmolib.text.spelling import BYTES, Spelling


class KerasRuntime(Runtime):
    """Compute with a Keras model, on any backend of Keras.

    After the model's weights change (in training), call the encoder's method `forget_words`.
    """

    # With three threads, a core that has finished one direction of a batch takes another batch.
    n_threads = 3

    def __init__(self, bilm: BiLM, spelling: Spelling = BYTES) -> None:
        super().__init__(bilm.architecture, {}, spelling)
        self.bilm, a = bilm, bilm.architecture
        self.name = backend.backend()
        self._process = os.getpid()
        self._char_cnn, self._char_cnn_padded = (
            compile_once(
                partial(bilm.char_cnn.call, padded=padded), [("int32", (None, None))] * len(GROUPS)
            )
            for padded in (False, True)
        )
        self._lstms = compile_once(
            self._read,
            [
                *[("float32", (None, a.projection_dim))] * 2,
                ("int32", (2, None, None)),
                ("float32", (2, a.n_layers, None, a.lstm_dim)),
                ("float32", (2, a.n_layers, None, a.projection_dim)),
                ("int32", (None,)),
            ],
        )

    def spell(self, characters: Sequence[np.ndarray]) -> np.ndarray:
        self._require_own_process()
        widest = self.architecture.widest_filter
        padded = all((group[:, -widest:] == PADDING).all() for group in characters)
        char_cnn = self._char_cnn_padded if padded else self._char_cnn
        return ops.convert_to_numpy(char_cnn(*characters))

    def look_up(self, rows: np.ndarray) -> np.ndarray:
        return ops.convert_to_numpy(self.bilm.look_up(rows))

    def read(
        self, vectors: np.ndarray, words: np.ndarray, state: State, lengths: np.ndarray
    ) -> tuple[list[list[np.ndarray]], State]:
        self._require_own_process()
        used, rows = zip(*(np.unique(each, return_inverse=True) for each in words), strict=True)
        rows = np.array(rows, np.int32)
        directions, (c, h) = self._lstms(*(vectors[each] for each in used), rows, *state, lengths)
        # Some backends keep the history of an array for gradients; conversion to NumPy drops it.
        arrays = [[ops.convert_to_numpy(layer) for layer in layers] for layers in directions]
        return arrays, (ops.convert_to_numpy(c), ops.convert_to_numpy(h))

    def arrays(self) -> dict[str, np.ndarray]:
        return self.bilm.arrays(softmax=False)

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise ElmolibError(
                f"After a fork, {self.name} would hang: use runtime='numpy', or start processes "
                "with multiprocessing's 'spawn' and load the model in each process."
            )

    def _read(self, forward, backward, words, c, h, lengths):
        directions, state = self.bilm.read_words((forward, backward), words, (c, h), lengths)
        return [layers[1:] for layers in directions], state
