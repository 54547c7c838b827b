"""Write a model to one ONNX file, for computing vectors without elmolib and without Python."""

import json
from pathlib import Path

import numpy as np

from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.numpy_runtime import NumpyRuntime
from elmolib.embedding.onnx_graphs import Graph, ModelProto, TensorProto, helper, lstm, spelling
from elmolib.errors import WeightsError
from elmolib.files import atomic_write, write_errors
from elmolib.formats.names import SOFTMAX
from elmolib.formats.options import options_of
from elmolib.formats.weights import StoredModel
from elmolib.text.characters import PADDING, PREDICTION_SHIFT
from elmolib.text.spelling import BYTES

_MOST_BYTES = 2**31 - 2**20  # of the weights: the whole file must be smaller than 2 GiB


def write_onnx(path: str | Path, model: StoredModel) -> None:
    """Write a model's layers to one ONNX file, without its softmax.

    The input `characters` is int64 (batch, time, max_characters). It holds, for each sentence,
    `character_ids(words, max_characters) + PREDICTION_SHIFT`, without `<S>` and `</S>`, and 0 after
    the last word. Trailing columns may be cut off if each word keeps padding as wide as the widest
    filter. The output `layers` is float32 (n_layers + 1, batch, time, 2 * projection_dim), and 0
    where there is no word; `ElmoEmbedder.embed` with `layers="all"` returns the same values. The
    metadata contain `options` and `tokenizer`, as in a weight file. An existing file is replaced.

    Raises:
        WeightsError: the file cannot be written, or would be larger than ONNX allows.

    Example:
        ```python
        write_onnx("elmo.onnx", read_model("elmo.h5"))
        session = onnxruntime.InferenceSession("elmo.onnx")
        (layers,) = session.run(None, {"characters": ids})
        ```
    """
    if model.spelling != BYTES:
        raise WeightsError(
            f"{path} cannot hold {model.source}, because an ONNX file reads the bytes of words: "
            "write an elmo.h5 instead."
        )
    size = sum(values.nbytes for name, values in model.arrays.items() if name not in SOFTMAX)
    if size > _MOST_BYTES:
        raise WeightsError(
            f"{path} would have {size:,} bytes, but an ONNX file has at most {_MOST_BYTES:,}: "
            "convert a smaller model."
        )
    graph = _model(model).SerializeToString()
    unchanged = "the previous file is unchanged"
    with write_errors(path, WeightsError, unchanged), atomic_write(path) as unfinished:
        unfinished.write_bytes(graph)


def _model(model: StoredModel) -> ModelProto:
    a, g, weights = model.architecture, Graph(), model.arrays
    zero, one, two = (g.constant(np.array([n])) for n in range(3))
    used = g("Greater", "characters", zero)
    shift, padding = g.constant(np.array(PREDICTION_SHIFT)), g.constant(np.array(PADDING))
    ids = g("Where", used, g("Sub", "characters", shift), padding)
    flat = g("Concat", g.constant(np.array([-1])), g("Shape", ids, start=2), axis=0)
    vectors = spelling(g, a, weights, g("Reshape", ids, flat))  # (batch * time, projection)
    dim = g.constant(np.array([a.projection_dim]))
    x = g("Reshape", vectors, g("Concat", g("Shape", ids, end=2), dim, axis=0))
    x = g("Transpose", x, perm=(1, 0, 2))  # (time, batch, projection)
    counts = g("Cast", used, to=TensorProto.INT64)
    present = g("ReduceMax", counts, two, keepdims=0)  # (batch, time)
    lengths = g("ReduceSum", present, one, keepdims=0)
    batch = g("Concat", g("Shape", ids, end=1), one, axis=0)

    def reverse(sequence: str) -> str:
        return g("ReverseSequence", sequence, lengths, batch_axis=1, time_axis=0)

    # Every sentence starts from the LSTM state after its first sentence mark.
    first_state = SentenceEncoder(NumpyRuntime(a, weights)).after_first_mark()
    directions = []
    for direction, *state in zip(("forward", "backward"), *first_state, strict=True):
        layers = [x if direction == "forward" else reverse(x)]
        for layer, parts in enumerate(zip(*state, strict=True)):
            c, h = (g("Expand", g.constant(part), batch) for part in parts)
            y, _, _ = lstm(g, a, weights, f"{direction}_{layer}", layers[-1], (c, h))
            skip = layer > 0 and a.use_skip_connections
            layers.append(g("Add", layers[-1], y) if skip else y)
        directions.append(layers if direction == "forward" else [*map(reverse, layers)])
    both = [g("Concat", *pair, axis=2) for pair in zip(*directions, strict=True)]
    stacked = g("Concat", *(g("Unsqueeze", layer, zero) for layer in both), axis=0)
    mask = g("Unsqueeze", g("Cast", present, to=TensorProto.FLOAT), two)
    masked = g("Mul", g("Transpose", stacked, perm=(0, 2, 1, 3)), mask)
    texts = {"options": options_of(a), "tokenizer": model.tokenizer.to_json()}
    graph = g.model(
        {"characters": ("int64", ("batch", "time", "characters"))},
        {"layers": (masked, (a.n_layers + 1, "batch", "time", 2 * a.projection_dim))},
    )
    helper.set_model_props(graph, {k: json.dumps(v, sort_keys=True) for k, v in texts.items()})
    return graph
