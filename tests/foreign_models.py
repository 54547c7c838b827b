"""Tiny models in the layouts of other programs, written without these programs."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from small_models import TINY, random_arrays

from elmolib.formats.names import hdf5_arrays
from elmolib.formats.options import options_of
from elmolib.settings.architecture import Architecture

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03."
SYSTEM = b"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."
CHARACTERS = ["<bos>", "<eos>", "<oov>", "<pad>", "<bow>", "<eow>", *"abcdehinrtuvă水"]
WORDS = ["<oov>", "<bos>", "<eos>", "<pad>", "the", "river", "bună ziua"]

Arrays = Mapping[str, np.ndarray]


# --- PyTorch


def text(words: str) -> bytes:
    return b"X" + struct.pack("<I", len(words.encode())) + words.encode()


def number(n: int) -> bytes:
    return b"J" + struct.pack("<i", n)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(key: str, values: np.ndarray) -> bytes:
    strides = tuple(step // 4 for step in np.zeros(values.shape, np.float32).strides)
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cuda:3")
    shape = (
        number(0) + numbers(values.shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)R"
    )
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + (storage + number(values.size) + b"NtQ")
        + (shape + b"tR")
    )


def state_dict(arrays: Arrays) -> bytes:
    items = (text(name) + tensor(str(k), a) for k, (name, a) in enumerate(arrays.items()))
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + b"".join(items) + b"u."


def write_torch(path: Path, arrays: Arrays) -> None:
    """Write a state dictionary in the form that PyTorch had before version 1.6."""
    keys = b"\x80\x02](" + b"".join(text(str(k)) for k in range(len(arrays))) + b"e."
    values = (struct.pack("<q", a.size) + a.astype("<f4").tobytes() for a in arrays.values())
    path.write_bytes(MAGIC + SYSTEM + state_dict(arrays) + keys + b"".join(values))


def write_torch_zip(path: Path, arrays: Arrays) -> None:
    """Write a state dictionary in the form that PyTorch has had since version 1.6."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", state_dict(arrays))
        archive.writestr("archive/byteorder", "little")
        for k, values in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{k}", values.astype("<f4").tobytes())


def gates(values: np.ndarray) -> np.ndarray:
    """Put gates from elmolib's order (input, candidate, forget, output) into that of PyTorch."""
    i, j, f, o = np.split(values, 4)
    return np.concatenate([i, f, j, o])


def torch_form(arrays: Arrays, names: dict[str, str]) -> dict[str, np.ndarray]:
    """Return a model's arrays as AllenNLP and ELMoForManyLangs store them."""
    found: dict[str, np.ndarray] = {}
    for name, values in arrays.items():
        layer = re.fullmatch(r"(forward|backward)_(\d)/(\w+)", name)
        part = re.fullmatch(r"char_cnn/(kernel|bias)_(\d)", name)
        if layer and layer[3] == "kernel":
            theirs, half = f"{layer[1]}_layer_{layer[2]}.", len(values) // 2
            found[f"{theirs}input_linearity.weight"] = gates(values[:half].T)
            found[f"{theirs}state_linearity.weight"] = gates(values[half:].T)
        elif layer and layer[3] == "bias":
            forget = np.repeat(np.float32([0, 0, 1, 0]), len(values) // 4)
            found[f"{layer[1]}_layer_{layer[2]}.state_linearity.bias"] = gates(values + forget)
        elif layer:
            found[f"{layer[1]}_layer_{layer[2]}.state_projection.weight"] = values.T
        elif part and part[1] == "kernel":
            found[f"{names['convolutions']}{part[2]}.weight"] = values.transpose(2, 1, 0)
        elif part:
            found[f"{names['convolutions']}{part[2]}.bias"] = values
        elif name.endswith("carry"):
            k = re.search(r"_(\d)/", name)[1]
            transform = name.replace("carry", "transform")
            stacked = np.concatenate([arrays[transform].T, -values.T])
            found[f"{names['highways']}_layers.{k}.weight"] = stacked
            biases = arrays[f"{transform}_bias"], -arrays[f"{name}_bias"]
            found[f"{names['highways']}_layers.{k}.bias"] = np.concatenate(biases)
    found[f"{names['projection']}weight"] = arrays["char_cnn/projection"].T
    found[f"{names['projection']}bias"] = arrays["char_cnn/projection_bias"]
    return found


def write_allennlp(folder: Path, write=write_torch, prefix: str = "elmo.", **extra) -> dict:
    """Write the folder of an archive of AllenNLP around `random_arrays(TINY)`."""
    folder.mkdir(exist_ok=True)
    names = {"convolutions": "char_conv_", "highways": "_highways.", "projection": "_projection."}
    arrays = random_arrays(TINY)
    found = torch_form(arrays, names)
    padded = np.vstack([np.zeros((1, 3), np.float32), arrays["char_cnn/embedding"]])
    found["_char_embedding_weights"] = padded
    where = {True: "_elmo_lstm._elmo_lstm.", False: "_elmo_lstm._token_embedder."}
    tensors = {f"{prefix}{where['_layer_' in n]}{n}": a for n, a in found.items()}
    for k, scalar in enumerate((0.5, -1.0, 0.25)):
        tensors[f"{prefix}scalar_mix_0.scalar_parameters.{k}"] = np.float32([scalar])
    tensors[f"{prefix}scalar_mix_0.gamma"] = np.float32([1.5])
    tensors["tagger.weight"] = np.zeros((2, 3), np.float32)
    write(folder / "weights.th", tensors | extra)
    return tensors


# --- ELMoForManyLangs


def write_many_langs(
    folder: Path,
    characters: bool = True,
    words: bool = True,
    config: bool = True,
    architecture: Architecture = TINY,
) -> dict[str, np.ndarray]:
    """Write a model whose CNN is that of `random_arrays(TINY)`; return what it consists of."""
    folder.mkdir(exist_ok=True)
    names = {"convolutions": "convolutions.", "highways": "highways.", "projection": "projection."}
    arrays, generator = random_arrays(architecture), np.random.default_rng(1)
    found = torch_form(arrays, names)
    encoder = {name: a for name, a in found.items() if "_layer_" in name}
    embedder = {name: a for name, a in found.items() if name not in encoder}
    table = generator.normal(size=(len(WORDS), 2)).astype(np.float32)
    rows = generator.normal(size=(len(CHARACTERS), 3)).astype(np.float32)
    inner = generator.normal(size=(2, architecture.projection_dim)).astype(np.float32)
    if words:
        embedder["word_emb_layer.embedding.weight"] = table
        embedder["projection.weight"] = np.hstack([inner.T, embedder["projection.weight"]])
    if characters:
        embedder["char_emb_layer.embedding.weight"] = rows
        (folder / "char.dic").write_text(dictionary(CHARACTERS), encoding="utf-8")
    else:
        kept = ("word_emb", "projection")
        embedder = {name: a for name, a in embedder.items() if name.startswith(kept)}
        embedder["projection.weight"] = inner.T
    (folder / "word.dic").write_text(dictionary(WORDS), encoding="utf-8")
    write_torch(folder / "token_embedder.pkl", embedder)
    write_torch(folder / "encoder.pkl", encoder)
    if config:
        settings = {"config_path": "C:\\models\\cnn.json", "seed": 1}
        (folder / "config.json").write_text(json.dumps(settings))
        options = options_of(architecture)
        char_cnn = options["char_cnn"] | {"name": "cnn", "word_dim": 2 * words}
        char_cnn["char_dim"] = 3 * characters
        del char_cnn["embedding"], char_cnn["n_characters"]
        parts = {"token_embedder": char_cnn, "encoder": options["lstm"] | {"name": "elmo"}}
        (folder / "cnn.json").write_text(json.dumps(parts))
    return arrays | {"table": table, "characters": rows, "inner": inner}


def dictionary(keys: list[str]) -> str:
    """Return a list of keys and rows, in another order than that of the rows."""
    return "".join(f"{key}\t{row}\n" for row, key in reversed(list(enumerate(keys))))


# --- TensorFlow


def write_variables(prefix: Path, variables: Arrays, in_slices: str = "") -> None:
    """Write a checkpoint with TensorFlow; one variable may be stored in two slices."""
    import tensorflow as tf

    prefix.parent.mkdir(parents=True, exist_ok=True)
    parts = [(name, "", values) for name, values in variables.items() if name != in_slices]
    if in_slices:
        values = variables[in_slices]
        rows, columns = values.shape
        for first, last in ((0, 5), (5, rows)):
            place = f"{rows} {columns} {first},{last - first}:0,{columns}"
            parts.append((in_slices, place, values[first:last]))
    names, places, arrays = zip(*parts, strict=True)
    tensors = list(map(tf.constant, arrays))
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(names),
        shape_and_slices=list(places),
        tensors=tensors,
    )


def bilm_tf_form(architecture: Architecture, arrays: Arrays) -> dict[str, np.ndarray]:
    """Return the variables of a checkpoint of bilm-tf."""
    size = len(arrays["softmax/W"]) if "softmax/W" in arrays else None
    stored = hdf5_arrays(architecture, size)
    found = {}
    for ours, values in arrays.items():
        name = stored[ours].name.replace("/RNN/MultiRNNCell/Cell", "/rnn/multi_rnn_cell/cell_")
        if architecture.n_layers == 1:
            name = name.replace("multi_rnn_cell/cell_0/", "")
        name = name.replace("LSTMCell/W_0", "lstm_cell/kernel").replace(
            "LSTMCell/B", "lstm_cell/bias"
        )
        name = name.replace("LSTMCell/W_P_0", "lstm_cell/projection/kernel")
        found[f"lm/{name}"] = values.reshape(stored[ours].shape)
    return found


def write_checkpoint(
    folder: Path, architecture: Architecture, arrays: Arrays, step: int = 40
) -> dict[str, np.ndarray]:
    """Write a checkpoint of bilm-tf with Adagrad's accumulators, which are the squares."""
    variables = bilm_tf_form(architecture, arrays)
    slots = {f"{name}/Adagrad": values**2 for name, values in variables.items()}
    others = {"global_step": np.float32(step), "train_perplexity": np.float32(9)}
    write_variables(folder / f"model.ckpt-{step}", variables | slots | others)
    place = f'model_checkpoint_path: "/home/someone/model.ckpt-{step}"\n'
    (folder / "checkpoint").write_text(place)
    (folder / "options.json").write_text(json.dumps(options_of(architecture)))
    return variables


def write_hub_module(folder: Path, graph: bytes, mix: tuple[str, str]) -> None:
    """Write the folder of a module of TensorFlow Hub around `random_arrays(TINY)`."""
    found = bilm_tf_form(TINY, random_arrays(TINY))
    pairs = ("lm/", "bilm/"), ("/rnn/multi_rnn_cell/cell_", "/RNN/MultiRNNCell/Cell")
    for old, new in (*pairs, ("/lstm_cell", "/rnn/lstm_cell")):
        found = {name.replace(old, new): values for name, values in found.items()}
    embedding = found["bilm/char_embed"]
    found["bilm/char_embed"] = np.vstack([np.zeros((1, 3), np.float32), embedding])
    found["bilm/Variable"] = np.zeros((4, 3), np.float32)
    found[f"aggregation/{mix[0]}"] = np.float32([0.5, -1.0, 0.25])
    found[f"aggregation/{mix[1]}"] = np.float32(1.5)
    write_variables(folder / "variables" / "variables", found)
    (folder / "saved_model.pb").write_bytes(graph)


def message(*parts: tuple[int, int | bytes]) -> bytes:
    """Return a message of Protocol Buffers."""
    result = b""
    for key, value in parts:
        if isinstance(value, int):
            result += varint(key << 3) + varint(value)
        else:
            result += varint(key << 3 | 2) + varint(len(value)) + value
    return result


def varint(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def graph_of(
    cell_clip: float | None, proj_clip: float | None, activation: str, skip: bool, most: int
) -> bytes:
    """Return a SavedModel whose graph has the nodes that tell about a biLM."""
    cells = [f"bilm/RNN_0/RNN/MultiRNNCell/Cell{k}/rnn/while/" for k in (0, 1)]
    clips = {"": cell_clip, "_1": proj_clip}
    nodes = [(f"bilm/CNN/{activation}", activation, None)]
    nodes += [("bilm/CNN_high_0/Tanh", "Tanh", None), ("max_word_length", "Const", most)]
    for k, cell in enumerate(cells):
        nodes += [(f"{cell}add{i}", "Add", None) for i in range(4 + k * skip)]
        nodes += [(f"{cell}lstm_cell/MatMul", "MatMul", None)]
        for end, clip in clips.items():
            name = f"{cell}lstm_cell/clip_by_value{end}/Minimum/y"
            nodes += [(name, "Const", clip)] if clip is not None else []
    encoded = b"".join(message((1, node(*each))) for each in nodes)
    return message((1, 1), (2, message((2, encoded))))


def node(name: str, operation: str, value: float | int | None) -> bytes:
    parts: list[tuple[int, int | bytes]] = [(1, name.encode()), (2, operation.encode())]
    if value is not None:
        is_int = isinstance(value, int)
        content = (7, varint(value)) if is_int else (5, struct.pack("<f", value))
        tensor = message((1, 3 if is_int else 1), (2, b""), content)
        parts.append((5, message((1, b"value"), (2, message((8, tensor))))))
    return message(*parts)
