"""The parts of a biLM as ONNX graphs: from words to vectors, and from sentences to layers."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from elmolib.errors import needs_extras
from elmolib.settings.architecture import Architecture

with needs_extras():
    import onnx
    from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 18, 9
_OWN_DOMAIN = "com.microsoft"  # the domain of operations that only ONNX Runtime has
_dtype = helper.np_dtype_to_tensor_dtype

# np.uint8 would give the same results on every processor, but ONNX Runtime uses the fast 8-bit
# instructions of the processor only with np.int8.
WEIGHTS_DTYPE: type[np.integer] = np.int8

Weights = Mapping[str, np.ndarray]
Shape = Sequence[int | str]
"""The shape of an input or output; a string names a dimension of any size."""


class Graph:
    """An ONNX graph. Calling it adds an operation and returns the name of the operation's result.

    Args:
        outer: for the body of a loop, the graph that contains the loop; it holds all constants.
        steps: `Scales.steps`, for products in 8 bits.
    """

    def __init__(self, outer: "Graph | None" = None, steps: Weights | None = None) -> None:
        self.steps: Weights = outer.steps if outer else steps or {}
        self._nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {} if outer is None else outer.constants
        self._numbers: Iterator[int] = count() if outer is None else outer._numbers

    def __call__(self, op: str, *inputs: str, n: int = 1, **attributes: Any) -> Any:
        """Add an operation as `onnx.helper.make_node` does; return the name(s) of its n results."""
        outputs = [f"v{next(self._numbers)}" for _ in range(n)]
        self._nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return outputs[0] if n == 1 else outputs

    def constant(self, values: Any) -> str:
        """Add a constant array and return its name."""
        name = f"v{next(self._numbers)}"
        self.constants[name] = np.asarray(values)
        return name

    def product(
        self,
        x: str,
        values: np.ndarray,
        bias: np.ndarray | None = None,
        step: np.ndarray | None = None,
        zero: int = 128,
    ) -> str:
        """Add operations that compute `x @ values + bias`; return the name of the result.

        Args:
            step: for a product in 8 bits, the size of a step, for each or for all columns of `x`.
            zero: the 8-bit number, from 0 to 255, that represents 0 in `x`.
        """
        biases = [] if bias is None else [self.constant(bias)]
        if step is None:
            product = self("MatMul", x, self.constant(values))
            return self("Add", product, *biases) if biases else product
        if np.ndim(step):
            x, values = self("Mul", x, self.constant(1 / step)), values * step[:, None]
            step = np.float32(1)
        columns, multiples = in_steps(values, 0)
        scales = [self.constant(step), self.constant(columns)]
        x_zero = self.constant(np.uint8(zero))
        x = self("QuantizeLinear", x, scales[0], x_zero)
        whole, whole_zero = self.whole_weights(multiples)
        inputs = x, whole, *scales, x_zero, whole_zero, *biases
        return self("MatMulIntegerToFloat", *inputs, domain=_OWN_DOMAIN)

    def whole_weights(self, values: np.ndarray) -> tuple[str, str]:
        """Add whole numbers from -127 to 127 as `WEIGHTS_DTYPE`, and the number that means 0."""
        zero = np.iinfo(WEIGHTS_DTYPE).max - 127
        whole = self.constant((values + zero).astype(WEIGHTS_DTYPE))
        return whole, self.constant(WEIGHTS_DTYPE(zero))

    def body(
        self, inputs: Mapping[str, tuple[str, Shape]], outputs: Mapping[str, tuple[str, Shape]]
    ) -> onnx.GraphProto:
        """Return the graph without its constants.

        Args:
            inputs: the dtype and the shape of each input, by its name.
            outputs: the array (float32) and the shape of each output, by its name.
        """
        nodes = [helper.make_node("Identity", [x], [name]) for name, (x, _) in outputs.items()]
        return helper.make_graph(
            self._nodes + nodes,
            "elmolib",
            [_value(name, *typed) for name, typed in inputs.items()],
            [_value(name, "float32", shape) for name, (_, shape) in outputs.items()],
        )

    def model(
        self,
        inputs: Mapping[str, tuple[str, Shape]],
        outputs: Mapping[str, tuple[str, Shape]],
        apart: bool = False,
    ) -> ModelProto:
        """Return a complete model; with `apart`, its large constants must be passed separately.

        Weights that were stored in float16 take half the space: the model converts them.
        """
        graph = self.body(inputs, outputs)
        constants = graph.initializer
        for name, values in self.constants.items():
            if apart and is_large(values):
                tensor = constants.add(name=name, dims=values.shape, data_type=_dtype(values.dtype))
                tensor.data_location = TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value=name)
            elif is_large(values) and _fits_float16(values):
                constants.append(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
                cast = helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT)
                graph.node.insert(0, cast)
            else:
                constants.append(numpy_helper.from_array(values, name))
        opsets = [helper.make_opsetid("", OPSET)]
        opsets += [helper.make_opsetid(_OWN_DOMAIN, 1)] if apart else []
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="elmolib"
        )


def is_large(values: np.ndarray) -> bool:
    """Whether a constant is so large that it may be stored outside the bytes of a model."""
    return values.nbytes > 2**10


def _fits_float16(values: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return values.dtype == np.float32 and np.array_equal(values.astype(np.float16), values)


def _value(name: str, dtype: str, shape: Shape) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _dtype(np.dtype(dtype)), shape)


def spelling(graph: Graph, a: Architecture, weights: Weights, characters: str) -> str:
    """Add the character CNN to a graph, and return the name of its vectors (words, projection_dim).

    `characters` names the raw ids (words, columns), which are complete or cut by `trim_columns`.
    """
    g = graph
    x = g("Concat", *(_maxima_8_bit if g.steps else _maxima)(g, a, weights, characters), axis=1)
    x = g("Relu" if a.activation == "relu" else "Tanh", x)
    for i in range(a.n_highway):
        carry, transform = (
            _dense(g, a, x, weights, f"char_cnn/highway_{i}/{part}")
            for part in ("carry", "transform")
        )
        change = g("Sub", g("Relu", transform), x)
        x = g("Add", x, g("Mul", g("Sigmoid", carry), change))
    if "char_cnn/projection" in weights:
        x = _dense(g, a, x, weights, "char_cnn/projection")
    return x


def _maxima(g: Graph, a: Architecture, weights: Weights, characters: str) -> Iterator[str]:
    """Add the convolutions; yield the name of the maxima (words, filters) of each."""
    x = g("Gather", g.constant(weights["char_cnn/embedding"]), characters)
    x = g("Transpose", x, perm=(0, 2, 1))  # (words, embedding, columns)
    for i in range(len(a.filters)):
        kernel = g.constant(weights[f"char_cnn/kernel_{i}"].transpose(2, 1, 0))
        found = g("Conv", x, kernel, g.constant(weights[f"char_cnn/bias_{i}"]))
        yield g("ReduceMax", found, g.constant(np.array([2])), keepdims=0)


def _maxima_8_bit(g: Graph, a: Architecture, weights: Weights, characters: str) -> Iterator[str]:
    """Do the same as `_maxima` in 8 bits. Only the maxima, not the sums, become float32."""
    step, embedding = in_steps(weights["char_cnn/embedding"])
    x = g("Gather", g.constant((embedding + 128).astype(np.uint8)), characters)
    axis, zero = g.constant(np.array([1])), g.constant(np.uint8(0))
    n_columns = g("Gather", g("Shape", x), axis)
    for i, (width, n_filters) in enumerate(a.filters):
        ends = [g("Sub", n_columns, g.constant(np.array([width - 1 - k]))) for k in range(width)]
        parts = [g("Slice", x, g.constant(np.array([k])), e, axis) for k, e in enumerate(ends)]
        windows = g("Concat", *parts, axis=2)  # (words, columns - width + 1, width * embedding)
        steps, kernel = in_steps(weights[f"char_cnn/kernel_{i}"].reshape(-1, n_filters), 0)
        whole, whole_zero = g.whole_weights(kernel)
        sums = g("MatMulInteger", windows, whole, zero, whole_zero)
        largest = g("Cast", g("ReduceMax", sums, axis, keepdims=0), to=TensorProto.FLOAT)
        # `embedding + 128` adds the same number to all sums of a filter.
        bias = weights[f"char_cnn/bias_{i}"] - 128 * kernel.sum(axis=0) * steps * step
        yield g("Add", g("Mul", largest, g.constant(steps * step)), g.constant(bias))


def in_steps(values: np.ndarray, axis: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the step, for all values or for each column, and the values as multiples of it."""
    step = np.maximum(np.abs(values).max(axis=axis), np.float32(1e-30)) / 127
    return step, np.rint(values / step)


def _dense(g: Graph, a: Architecture, x: str, weights: Weights, name: str) -> str:
    step = g.steps.get(name.removesuffix("/carry").removesuffix("/transform"))
    zero = 0 if a.activation == "relu" else 128  # After a ReLU, no input is negative.
    return g.product(x, weights[name], weights[f"{name}_bias"], step, zero)


def lstm(
    graph: Graph,
    a: Architecture,
    weights: Weights,
    name: str,
    x: str,
    state: tuple[str, str],
    words: str | None = None,
    lengths: str | None = None,
) -> tuple[str, str, str]:
    """Add a layer in one direction to a graph, as a loop over time. Arrays are given by name.

    Args:
        name: the name of the layer, such as "forward_0".
        x: the input (time, batch, projection_dim); with `words`, vectors (words, projection_dim).
        state: the initial c (batch, lstm_dim) and h (batch, projection_dim).
        words: row numbers of `x` (time, batch). If given, each row is multiplied only once.
        lengths: the number of steps of each sentence, int32 (batch, 1). Later steps do nothing.

    Returns:
        the names of the outputs (time, batch, projection_dim), the final c and the final h.
    """
    g, dim = graph, a.projection_dim
    kernel = weights[f"{name}/kernel"]
    forget = np.repeat(np.float32([0, 0, 1, 0]), a.lstm_dim)
    bias, step = weights[f"{name}/bias"] + forget, g.steps.get(name)
    x_step, h_step = (None, None) if step is None else np.split(step, 2)
    body = Graph(g)
    read: tuple = "float32", ("batch", dim)
    if words is None:
        both = body("Concat", "read", "h", axis=1)
        gates = body.product(both, kernel, bias, step)
    else:
        read = "int32", ("batch",)
        from_words = g.product(x, kernel[:dim], bias, x_step)
        from_output = body.product("h", kernel[dim:], None, h_step)
        gates = body("Add", body("Gather", from_words, "read"), from_output)
    i, j, f, o = body("Split", gates, n=4, axis=-1, num_outputs=4)
    i, f, o = (body("Sigmoid", gate) for gate in (i, f, o))
    c = body("Add", body("Mul", f, "c"), body("Mul", i, body("Tanh", j)))
    c = _clip(body, c, a.cell_clip)
    h = body("Mul", o, body("Tanh", c))
    if f"{name}/projection" in weights:
        # The product of a sigmoid and a tanh is between -1 and 1.
        h_step = None if step is None else np.float32(1 / 127)
        h = body.product(h, weights[f"{name}/projection"], None, h_step)
        h = _clip(body, h, a.proj_clip)
    y = h
    time = g("Gather", g("Shape", x if words is None else words), g.constant(np.array(0)))
    steps = g("Range", g.constant(np.array(0)), time, g.constant(np.array(1)))
    if lengths is not None:
        running = body("Less", body("Cast", "step", to=TensorProto.INT32), lengths)
        c, h = body("Where", running, c, "c"), body("Where", running, h, "h")
    c_shape, h_shape = ("batch", a.lstm_dim), ("batch", dim)
    typed = {"c": ("float32", c_shape), "h": ("float32", h_shape), "step": ("int64", ())}
    one_step = body.body(
        {**typed, "read": read}, {"new_c": (c, c_shape), "new_h": (h, h_shape), "y": (y, h_shape)}
    )
    c, h, y = g("Scan", *state, steps, words or x, n=3, num_scan_inputs=2, body=one_step)
    return y, c, h


def _clip(g: Graph, x: str, bound: float | None) -> str:
    if bound is None:
        return x
    return g("Clip", x, g.constant(np.float32(-bound)), g.constant(np.float32(bound)))


def spelling_model(
    a: Architecture, weights: Weights, steps: Weights | None = None
) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """Return an ONNX model that computes vectors from characters; and its constants."""
    g = Graph(steps=steps)
    vectors = spelling(g, a, weights, "characters")
    model = g.model(
        {"characters": ("int32", ("words", "columns"))},
        {"vectors": (vectors, ("words", a.projection_dim))},
        apart=True,
    )
    return model, g.constants


def reading_model(
    a: Architecture, weights: Weights, direction: str, steps: Weights | None = None
) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """Return an ONNX model that computes `Runtime.read` in one direction; and its constants."""
    g = Graph(steps=steps)
    lengths = g("Unsqueeze", "lengths", g.constant(np.array([1])))
    c_shape, h_shape = ((a.n_layers, "batch", n) for n in (a.lstm_dim, a.projection_dim))
    outputs: dict[str, tuple] = {}
    states: list[tuple[str, str]] = []
    x = "vectors"
    for layer in range(a.n_layers):
        number = g.constant(np.array(layer))
        state = g("Gather", "c", number), g("Gather", "h", number)
        words = "words" if layer == 0 else None
        y, c, h = lstm(g, a, weights, f"{direction}_{layer}", x, state, words, lengths)
        x = g("Add", x, y) if layer > 0 and a.use_skip_connections else y
        outputs[f"layer_{layer + 1}"] = (x, ("time", "batch", a.projection_dim))
        first = g.constant(np.array([0]))
        states.append((g("Unsqueeze", c, first), g("Unsqueeze", h, first)))
    c_parts, h_parts = zip(*states, strict=True)
    outputs["final_c"] = (g("Concat", *c_parts, axis=0), c_shape)
    outputs["final_h"] = (g("Concat", *h_parts, axis=0), h_shape)
    inputs = {
        "vectors": ("float32", ("distinct", a.projection_dim)),
        "words": ("int32", ("time", "batch")),
        "c": ("float32", c_shape),
        "h": ("float32", h_shape),
        "lengths": ("int32", ("batch",)),
    }
    return g.model(inputs, outputs, apart=True), g.constants
