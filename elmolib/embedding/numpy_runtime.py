"""A runtime that needs only NumPy. It computes the formulas of the paper in the fastest order."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from elmolib.embedding.runtime import Runtime, State
from elmolib.parallel import ONE_BLAS_THREAD
from elmolib.text.characters import PADDING

# The number of words convolved at once, small enough that their features fit into a CPU cache.
WORDS_CONVOLVED = 64


class NumpyRuntime(Runtime):
    """Compute with NumPy. The arrays are not copied, so they may be memory-mapped.

    References:
        Peters et al. 2018, arXiv:1802.05365, sections 3.1 and 3.4; `elmolib.model` has the same
        layers in Keras.
    """

    name = "numpy"
    watch: Callable[[str, np.ndarray], object] = staticmethod(lambda name, values: None)
    """`spell` calls `watch` with the name and input of each matrix product with an int8 form."""
    # OpenBLAS rearranges the weights for every product, so a large batch saves time.
    batch_size = 128

    def spell(self, characters: Sequence[np.ndarray]) -> np.ndarray:
        a, weights = self.architecture, self._arrays
        with ONE_BLAS_THREAD:
            x = np.concatenate(
                [
                    self._convolve(group[first : first + WORDS_CONVOLVED])
                    for group in characters
                    for first in range(0, len(group), WORDS_CONVOLVED)
                ]
            )  # (words, filters)
            for i in range(a.n_highway):
                self.watch(f"char_cnn/highway_{i}", x)
                carry, transform = (
                    x @ weights[f"char_cnn/highway_{i}/{part}"]
                    + weights[f"char_cnn/highway_{i}/{part}_bias"]
                    for part in ("carry", "transform")
                )
                # x += sigmoid(carry) * (relu(transform) - x); `_step` explains the sigmoid.
                np.maximum(transform, 0, out=transform)
                transform -= x
                carry *= 0.5
                np.tanh(carry, out=carry)
                carry += 1
                transform *= carry
                transform *= 0.5
                x += transform
            if "char_cnn/projection" in weights:
                self.watch("char_cnn/projection", x)
                x = x @ weights["char_cnn/projection"] + weights["char_cnn/projection_bias"]
        return x

    def _convolve(self, characters: np.ndarray) -> np.ndarray:
        """Return the largest value of each filter in each word (words, filters)."""
        a, weights = self.architecture, self._arrays
        n, columns = characters.shape
        x = weights["char_cnn/embedding"][characters].reshape(n, -1)
        padded = (characters[:, -a.widest_filter :] == PADDING).all()
        pooled = []
        for i, (width, count) in enumerate(a.filters):
            # Windows that contain only padding give equal values, so compute only one of them.
            positions = columns - (a.widest_filter if padded else width) + 1
            windows = sliding_window_view(x, width * a.char_embedding_dim, axis=1)
            windows = windows[:, :: a.char_embedding_dim][:, :positions]
            kernel = weights[f"char_cnn/kernel_{i}"].reshape(-1, count)
            found = windows.reshape(n * positions, -1) @ kernel
            pooled.append(found.reshape(n, positions, count).max(axis=1))
            pooled[-1] += weights[f"char_cnn/bias_{i}"]
        x = np.concatenate(pooled, axis=1)
        return np.tanh(x, out=x) if a.activation == "tanh" else np.maximum(x, 0, out=x)

    def read(
        self, vectors: np.ndarray, words: np.ndarray, state: State, lengths: np.ndarray
    ) -> tuple[list[list[np.ndarray]], State]:
        # Sort sentences by falling length, so that each step reads only the first, unfinished ones.
        order = np.argsort(-lengths, kind="stable")
        back = np.argsort(order)
        c, h = (part[:, :, order] for part in state)
        words = words[:, :, order]
        running = [int(np.count_nonzero(lengths > step)) for step in range(words.shape[1])]
        read = partial(self._read, vectors, running)
        with ONE_BLAS_THREAD, ThreadPoolExecutor(2) as threads:
            directions = list(threads.map(read, ("forward", "backward"), words, c, h))
        layers = [[layer[:, back] for layer in layers] for layers in directions]
        return layers, (c[:, :, back], h[:, :, back])

    def _read(
        self,
        vectors: np.ndarray,
        running: list[int],
        direction: str,
        words: np.ndarray,
        c: np.ndarray,
        h: np.ndarray,
    ) -> list[np.ndarray]:
        """Read in one direction and overwrite `c` and `h`. Step s reads `running[s]` sentences."""
        a, weights, (time, batch) = self.architecture, self._arrays, words.shape
        dim = a.projection_dim
        gates, from_input = np.empty((2, batch, 4 * a.lstm_dim), np.float32)
        read = np.empty((batch, 2 * dim), np.float32)  # a layer's input, and its previous output
        used, rows = np.unique(words, return_inverse=True)
        forget = np.repeat(np.float32([0, 0, 1, 0]), a.lstm_dim)
        layers: list[np.ndarray] = []
        for layer in range(a.n_layers):
            kernel = weights[f"{direction}_{layer}/kernel"]  # (2 * projection_dim, 4 * lstm_dim)
            bias = weights[f"{direction}_{layer}/bias"] + forget
            projection = weights.get(f"{direction}_{layer}/projection")
            if layer == 0:  # Compute the input's part of the gates once per distinct word.
                from_words = vectors[used] @ kernel[:dim]
                from_words += bias
            out = np.zeros((time, batch, dim), np.float32)
            for step, n in enumerate(running):
                if layer == 0:
                    np.matmul(h[0, :n], kernel[dim:], out=gates[:n])
                    # With "clip", NumPy writes directly into `out`. No index is out of range.
                    np.take(from_words, rows[step, :n], axis=0, out=from_input[:n], mode="clip")
                    gates[:n] += from_input[:n]
                else:
                    read[:n, :dim] = layers[-1][step, :n]
                    read[:n, dim:] = h[layer, :n]
                    np.matmul(read[:n], kernel, out=gates[:n])
                    gates[:n] += bias
                h[layer, :n] = out[step, :n] = self._step(projection, gates[:n], c[layer, :n])
            if layer > 0 and a.use_skip_connections:
                out += layers[-1]
            layers.append(out)
        return layers

    def _step(self, projection: np.ndarray | None, gates: np.ndarray, c: np.ndarray) -> np.ndarray:
        """Take one step: overwrite the gates and the cell state, and return the output."""
        a = self.architecture  # The gates' order is input, candidate, forget, output.
        i, j, f, o = (gates[:, k : k + a.lstm_dim] for k in range(0, 4 * a.lstm_dim, a.lstm_dim))
        # sigmoid(x) = (tanh(x / 2) + 1) / 2, so one call of tanh computes all gates.
        i *= 0.5
        gates[:, 2 * a.lstm_dim :] *= 0.5
        np.tanh(gates, out=gates)
        # c = clip(sigmoid(f) * c + sigmoid(i) * tanh(j))
        f += 1
        c *= f
        i += 1
        i *= j
        c += i
        c *= 0.5
        if a.cell_clip is not None:
            np.clip(c, -a.cell_clip, a.cell_clip, out=c)
        # sigmoid(o) * tanh(c), projected and clipped
        h = np.tanh(c)
        o += 1
        h *= o
        h *= 0.5
        if projection is None:
            return h
        h = h @ projection
        return h if a.proj_clip is None else np.clip(h, -a.proj_clip, a.proj_clip, out=h)
