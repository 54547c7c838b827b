"""A runtime that computes with ONNX Runtime, on the CPU."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from onnx import ModelProto

from elmolib.embedding.onnx_graphs import Graph, is_large, reading_model, spelling_model
from elmolib.embedding.runtime import Scales, State, table_rows
from elmolib.errors import ParameterError
from elmolib.parallel import cpu_count
from elmolib.settings.architecture import Architecture
from elmolib.text.spelling import BYTES, Spelling


class OnnxRuntime:
    """Compute with ONNX Runtime, in one thread per direction; see `Runtime`.

    `arrays` are the float32 weights by name. With `scales`, products are computed in 8 bits.
    """

    name = "onnx"
    mix: Sequence[float] | None = None
    batch_size = 32
    n_threads = max(1, cpu_count() // 2)

    def __init__(
        self,
        architecture: Architecture,
        arrays: Mapping[str, np.ndarray],
        scales: Scales | None = None,
        spelling: Spelling = BYTES,
    ) -> None:
        self.architecture = a = architecture
        self.spelling = spelling
        self.scales, steps = scales, scales and scales.steps
        self.precision = "float32" if scales is None else "int8"
        self._arrays = dict(arrays)
        self._spelling = _session(*spelling_model(a, arrays, steps))
        self._reading = [
            _session(*reading_model(a, arrays, direction, steps))
            for direction in ("forward", "backward")
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """See `Runtime.arrays`."""
        return dict(self._arrays)

    def look_up(self, rows: np.ndarray) -> np.ndarray:
        """See `Runtime.look_up`."""
        return table_rows(self._arrays, rows)

    def spell(self, characters: Sequence[np.ndarray]) -> np.ndarray:
        """See `Runtime.spell`."""
        run = self._spelling.run
        return np.concatenate([run(None, {"characters": group})[0] for group in characters])

    def read(
        self, vectors: np.ndarray, words: np.ndarray, state: State, lengths: np.ndarray
    ) -> tuple[list[list[np.ndarray]], State]:
        """See `Runtime.read`."""

        def read(direction: int) -> list[np.ndarray]:
            used, rows = np.unique(words[direction], return_inverse=True)
            inputs = {
                "vectors": vectors[used],
                "words": rows.reshape(words[direction].shape).astype(np.int32),
                "c": state[0][direction],
                "h": state[1][direction],
                "lengths": lengths,
            }
            return self._reading[direction].run(None, inputs)

        with ThreadPoolExecutor(1) as thread:
            backward = thread.submit(read, 1)
            *layers, c, h = zip(read(0), backward.result(), strict=True)
        directions = [list(direction) for direction in zip(*layers, strict=True)]
        return directions, (np.stack(c), np.stack(h))


def require_int8() -> None:
    """Raise a ParameterError if the processor lacks instructions for sums of 8-bit products.

    Without them, ONNX Runtime adds pairs of products in 16 bits, and large sums are clipped.
    """
    graph, x, values = Graph(), np.full((8, 64), 255, np.uint8), np.full((64, 8), 127, np.int8)
    sums = graph("Cast", graph("MatMulInteger", graph.constant(x), graph.constant(values)), to=1)
    (found,) = _session(graph.model({}, {"sums": (sums, (8, 8))}), {}).run(None, {})
    if (found != 255 * 127 * 64).any():
        raise ParameterError(
            "precision='int8' needs a processor with VNNI or ARM's dot product instructions: use "
            "precision='float32' on this one."
        )


def _session(model: ModelProto, constants: dict[str, np.ndarray]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # A session without threads of its own also works after a fork.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Pass large constants separately, so that they are not copied into the model's bytes.
    large = {name: values for name, values in constants.items() if is_large(values)}
    values = [
        onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(v)) for v in large.values()
    ]
    options.add_external_initializers(list(large), values)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
