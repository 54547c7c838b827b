"""Tasks that run bilm-tf and simple-elmo as their users do; `Program` starts them.

This module does not import elmolib.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.machine import peak_memory
from benchmarks.program import Requests, run

NEEDED = ("bilm", "simple_elmo", "tf_keras")


def missing() -> list[str]:
    """Return the packages of the extra `peers` that are not installed."""
    return [name for name in NEEDED if not find_spec(name)]


def use_tensorflow_1() -> None:
    """Make `import tensorflow` return the API of TensorFlow 1, which bilm-tf was written for."""
    import tensorflow.compat.v1 as tf

    tf.disable_v2_behavior()
    sys.modules["tensorflow"] = tf


def train(settings: dict, requests: Requests) -> None:
    """Run bilm-tf's own training program on as many batches as are requested."""
    use_tensorflow_1()
    from bilm.training import train

    data = _RequestedBatches(_training_data(settings), requests)
    train(settings["options"], data, 1, settings["folder"], settings["folder"])


class _RequestedBatches:
    """Dataset for bilm-tf that answers each request with the time of the requested steps."""

    def __init__(self, data, requests: Requests) -> None:
        self._data = data
        self._requests = requests

    def iter_batches(self, batch_size: int, unroll_steps: int) -> Iterator[dict]:
        batches = self._data.iter_batches(batch_size, unroll_steps)
        while True:
            n_steps = self._requests.next()["steps"]
            # Do not count the first step: its time would include the pause between requests.
            yield next(batches)
            started = time.perf_counter()
            for _ in range(n_steps):
                yield next(batches)
            # bilm-tf asks for the next batch only when the previous step is done.
            seconds = time.perf_counter() - started
            self._requests.answer(seconds=seconds, peak_memory=peak_memory())


def _training_data(settings: dict):
    from bilm.data import BidirectionalLMDataset, UnicodeCharsVocabulary

    max_characters = settings["options"]["char_cnn"]["max_characters_per_token"]
    vocabulary = UnicodeCharsVocabulary(settings["vocabulary"], max_characters)
    return BidirectionalLMDataset(settings["text"], vocabulary, shuffle_on_load=True)


def one_step(settings: dict, requests: Requests) -> None:
    """Take one training step without dropout, and write its inputs and outputs to a file."""
    use_tensorflow_1()
    import tensorflow as tf
    from bilm.training import LanguageModel, average_gradients, clip_grads

    options = {**settings["options"], "dropout": 0.0}
    tf.set_random_seed(1)
    with tf.variable_scope("lm"):
        model = LanguageModel(options, True)
    optimizer = tf.train.AdagradOptimizer(options["learning_rate"], initial_accumulator_value=1.0)
    gradients = optimizer.compute_gradients(model.total_loss * options["unroll_steps"])
    gradients = average_gradients([gradients], options["batch_size"], options)
    gradients, _ = clip_grads(gradients, options, False, None)
    update = optimizer.apply_gradients(gradients)
    samplers = [
        operation.outputs
        for operation in tf.get_default_graph().get_operations()
        if operation.type == "LogUniformCandidateSampler"
    ]
    variables = {_published_name(v.name): v for v in tf.trainable_variables()}

    size = options["batch_size"], options["unroll_steps"]
    batch = next(_training_data(settings).iter_batches(*size))
    feed = {getattr(model, name): array for name, array in batch.items() if _is_fed(model, name)}
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        before = session.run(variables)
        losses, drawn, _ = session.run([model.individual_losses, samplers, update], feed)
        after = session.run(variables)
    requests.next()
    np.savez(
        settings["written"],
        losses=losses,
        **{f"before/{name}": array for name, array in before.items()},
        **{f"after/{name}": array for name, array in after.items()},
        **_by_direction(batch),
        negatives=np.stack([ids for ids, _, _ in drawn]),
        expected_targets=np.stack([counts.reshape(size) for _, counts, _ in drawn]),
        expected_negatives=np.stack([counts for _, _, counts in drawn]),
    )
    requests.answer(written=settings["written"])


def _is_fed(model, name: str) -> bool:
    return hasattr(model, name) and not name.startswith("token_ids")


def _by_direction(batch: dict) -> dict[str, np.ndarray]:
    return {
        new: np.stack([batch[old], batch[f"{old}_reverse"]])
        for new, old in (("characters", "tokens_characters"), ("targets", "next_token_id"))
    }


def _published_name(name: str) -> str:
    """Return the name in weight files, given the name in bilm-tf's training graph."""
    name = name.removeprefix("lm/").removesuffix(":0")
    name = re.sub(
        r"rnn/multi_rnn_cell/cell_(\d+)/lstm_cell", r"RNN/MultiRNNCell/Cell\1/LSTMCell", name
    )
    for old, new in (("projection/kernel", "W_P_0"), ("kernel", "W_0"), ("bias", "B")):
        name = re.sub(rf"(LSTMCell)/{old}$", rf"\1/{new}", name)
    return name


def predict_bilm(settings: dict, requests: Requests) -> None:
    """Embed sentences with bilm-tf."""
    use_tensorflow_1()
    import tensorflow as tf
    from bilm import Batcher, BidirectionalLanguageModel

    folder = Path(settings["folder"])
    batcher = Batcher(str(folder / "vocab.txt"), settings["max_characters"])
    characters = tf.placeholder("int32", (None, None, settings["max_characters"]))
    model = BidirectionalLanguageModel(
        str(folder / "options.json"),
        str(folder / "weights.hdf5"),
        max_batch_size=settings["batch_size"],
    )
    vectors = model(characters)["lm_embeddings"]
    session = tf.Session()
    session.run(tf.global_variables_initializer())

    def embed(sentences: list[list[str]]) -> list[np.ndarray]:
        batches = _batches(sentences, settings["batch_size"])
        return [
            session.run(vectors, {characters: batcher.batch_sentences(batch)}) for batch in batches
        ]

    _embed_on_request(embed, settings, requests)


def predict_simple(settings: dict, requests: Requests) -> None:
    """Embed sentences with simple-elmo."""
    import tensorflow as tf
    from simple_elmo import ElmoModel

    size = settings["batch_size"]
    model = ElmoModel()
    model.load(settings["folder"], max_batch_size=size, limit=None)
    # simple-elmo loads the weights in each call unless the caller gives it a session.
    session = tf.compat.v1.Session()
    arguments = {"warmup": False, "layers": "all"}
    model.get_elmo_vectors([["."]], **arguments)
    with session.as_default():
        session.run(tf.compat.v1.global_variables_initializer())

    def embed(sentences: list[list[str]]) -> list[np.ndarray]:
        vectors = model.get_elmo_vectors(sentences, session=session, **arguments)
        return list(_batches(vectors, size))

    _embed_on_request(embed, settings, requests)


def _batches(items, size: int) -> Iterator:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _embed_on_request(embed, settings: dict, requests: Requests) -> None:
    while True:
        request = requests.next()
        sentences = json.loads(Path(request["sentences"]).read_text())
        if "written" in request:
            # Both programs keep the LSTM state, so only the first batch starts from zeros.
            first = sentences[: settings["batch_size"]]
            (vectors,) = embed(first)
            arrays = [vectors[k, :, : len(words)] for k, words in enumerate(first)]
            np.savez(request["written"], *arrays)
            requests.answer(peak_memory=peak_memory())
        else:
            started = time.perf_counter()
            embed(sentences)
            requests.answer(seconds=time.perf_counter() - started, peak_memory=peak_memory())


if __name__ == "__main__":
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    run(train, one_step, predict_bilm, predict_simple)
