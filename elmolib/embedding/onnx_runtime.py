"""A runtime that computes with ONNX Runtime, on the CPU."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from onnx import ModelProto

from elmolib.embedding.onnx_graphs import Graph, is_large, reading_model, spelling_model
from elmolib.embedding.runtime import Runtime, Scales, State
from elmolib.errors import ParameterError
from elmolib.settings.architecture import Architecture
from elmolib.text.spelling import BYTES, Spelling


class OnnxRuntime(Runtime):
    """Compute with ONNX Runtime. With `scales`, products are computed in 8 bits."""

    name = "onnx"

    def __init__(
        self,
        architecture: Architecture,
        arrays: Mapping[str, np.ndarray],
        spelling: Spelling = BYTES,
        scales: Scales | None = None,
    ) -> None:
        super().__init__(architecture, arrays, spelling)
        self.scales, steps = scales, scales and scales.steps
        self.precision = "float32" if scales is None else "int8"
        self._spelling = _session(*spelling_model(architecture, arrays, steps))
        self._reading = [
            _session(*reading_model(architecture, arrays, direction, steps))
            for direction in ("forward", "backward")
        ]

    def spell(self, characters: Sequence[np.ndarray]) -> np.ndarray:
        run = self._spelling.run
        return np.concatenate([run(None, {"characters": group})[0] for group in characters])

    def read(
        self, vectors: np.ndarray, words: np.ndarray, state: State, lengths: np.ndarray
    ) -> tuple[list[list[np.ndarray]], State]:
        def read(direction: int) -> list[np.ndarray]:
            used, rows = np.unique(words[direction], return_inverse=True)
            inputs = {
                "vectors": vectors[used],
                "words": rows.astype(np.int32),
                "c": state[0][direction],
                "h": state[1][direction],
                "lengths": lengths,
            }
            return self._reading[direction].run(None, inputs)

        with ThreadPoolExecutor(2) as threads:
            *layers, c, h = zip(*threads.map(read, (0, 1)), strict=True)
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
