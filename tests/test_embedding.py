"""Vectors of sentences, compared with a plain biLM in NumPy and with other programs."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_models import TINY, random_arrays

from elmolib.embedding import encoder as encoding
from elmolib.embedding import words as word_vectors
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.runtimes import make_runtime
from elmolib.errors import ParameterError
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel
from elmolib.settings.architecture import Architecture
from elmolib.text.spelling import Spelling

TOLERANCE = 1e-5

SENTENCES = [
    ["The", "river", "bank"],
    [],
    ["."],
    ["Donaudampfschifffahrt", "fährt", "河岸", "", "The", "\x00", "👩‍👧", "<S>", "</S>"],
    ["The", "The", "The", "bank", "bank"],
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r"],
    ["bank", "river", "The"],
]


def variant(**changes) -> Architecture:
    return Architecture(**{**TINY.to_json(), **changes})


VARIANTS = {
    "skip": TINY,
    "no skip": variant(use_skip_connections=False, n_layers=3, cell_clip=0.5, proj_clip=0.3),
    "one layer": variant(n_layers=1, activation="tanh", n_highway=0, cell_clip=None),
    "no projections": variant(projection_dim=5, lstm_dim=5, proj_clip=None, n_highway=2),
    "wide filter": variant(filters=((10, 4), (1, 2))),
}


RUNTIMES = ["numpy", "onnx", "tensorflow"]


def make(
    options: Architecture = TINY, runtime: str = "tensorflow", **kwargs
) -> tuple[SentenceEncoder, NumPyBiLM]:
    """The encoder under test and a plain biLM, with the same weights."""
    arrays = {name: 0.5 * values for name, values in random_arrays(options).items()}
    made = make_runtime(StoredModel(options, dict(arrays)), runtime)
    return SentenceEncoder(made, **kwargs), NumPyBiLM(options, arrays)


class NumPyBiLM:
    """A biLM in float64 that computes one word and one time step at a time."""

    def __init__(self, options: Architecture, arrays: dict[str, np.ndarray]) -> None:
        self.architecture = options
        self.arrays = {name: values.astype(np.float64) for name, values in arrays.items()}

    def encode(self, sentence, boundaries=False, state=None):
        """All layers of a sentence, and the final state as a list [direction][layer] of (c, h)."""
        words = np.stack([self.word(word) for word in ["<S>", *sentence, "</S>"]])
        state = state or self.zero_state()
        directions, after = [], []
        for d, x in enumerate((words, words[::-1])):
            layers, final = [x], []
            for layer in range(self.architecture.n_layers):
                y, last = self.lstm(d, layer, x, state[d][layer])
                x = x + y if layer > 0 and self.architecture.use_skip_connections else y
                layers.append(x)
                final.append(last)
            directions.append([layer[::-1] if d == 1 else layer for layer in layers])
            after.append(final)
        both = np.concatenate([np.stack(layers) for layers in directions], axis=-1)
        return (both if boundaries else both[:, 1:-1]), after

    def zero_state(self):
        o = self.architecture
        return [
            [(np.zeros(o.lstm_dim), np.zeros(o.projection_dim)) for _ in range(o.n_layers)]
            for _ in range(2)
        ]

    def word(self, word: str) -> np.ndarray:
        size = self.architecture.max_characters
        inner = {"<S>": [256], "</S>": [257]}.get(word, list(word.encode())[: size - 2])
        ids = [258, *inner, 259]
        x = self.arrays["char_cnn/embedding"][ids + [260] * (size - len(ids))]
        activation = {"relu": lambda v: np.maximum(v, 0), "tanh": np.tanh}[
            self.architecture.activation
        ]
        pooled = []
        for i, (width, _) in enumerate(self.architecture.filters):
            kernel = self.arrays[f"char_cnn/kernel_{i}"]
            windows = [
                np.einsum("we,wef->f", x[first : first + width], kernel)
                for first in range(size - width + 1)
            ]
            pooled.append(activation(np.max(windows, axis=0) + self.arrays[f"char_cnn/bias_{i}"]))
        v = np.concatenate(pooled)
        for i in range(self.architecture.n_highway):
            part = {
                name: v @ self.arrays[f"char_cnn/highway_{i}/{name}"]
                + self.arrays[f"char_cnn/highway_{i}/{name}_bias"]
                for name in ("carry", "transform")
            }
            gate = sigmoid(part["carry"])
            v = gate * np.maximum(part["transform"], 0) + (1 - gate) * v
        if "char_cnn/projection" in self.arrays:
            v = v @ self.arrays["char_cnn/projection"] + self.arrays["char_cnn/projection_bias"]
        return v

    def lstm(self, direction, layer, x, state):
        cell = f"{('forward', 'backward')[direction]}_{layer}"
        kernel, bias = self.arrays[f"{cell}/kernel"], self.arrays[f"{cell}/bias"]
        (c, h), outputs = state, []
        for step in x:
            i, j, f, o = np.split(np.concatenate([step, h]) @ kernel + bias, 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
            if self.architecture.cell_clip is not None:
                c = np.clip(c, -self.architecture.cell_clip, self.architecture.cell_clip)
            h = sigmoid(o) * np.tanh(c)
            if f"{cell}/projection" in self.arrays:
                h = h @ self.arrays[f"{cell}/projection"]
                if self.architecture.proj_clip is not None:
                    h = np.clip(h, -self.architecture.proj_clip, self.architecture.proj_clip)
            outputs.append(h)
        return np.stack(outputs), (c, h)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def assert_close(encoded, expected):
    assert len(encoded) == len(expected)
    for got, want in zip(encoded, expected, strict=True):
        assert got.dtype == np.float32
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("boundaries", [False, True])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_layer_matches_the_plain_formulas(options, boundaries, runtime):
    encoder, truth = make(options, runtime)
    expected = [truth.encode(sentence, boundaries)[0] for sentence in SENTENCES]
    assert_close(encoder.encode(SENTENCES, batch_size=3, boundaries=boundaries), expected)


def test_layer_0_is_the_word_alone_in_both_halves():
    encoder, truth = make()
    (layers,) = encoder.encode([["river", "bank"]])
    expected = [np.tile(truth.word(word), 2) for word in ("river", "bank")]
    np.testing.assert_allclose(layers[0], expected, atol=TOLERANCE)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_vectors_depend_on_neither_the_batch_nor_the_order(batch_size):
    encoder, _ = make()
    alone = [encoder.encode([sentence])[0] for sentence in SENTENCES]
    assert_close(encoder.encode(SENTENCES, batch_size), alone)
    assert_close(encoder.encode(SENTENCES[::-1], batch_size), alone[::-1])


@pytest.mark.parametrize("cache_words", [0, 1, 7, 1000])
def test_the_size_of_the_cache_changes_no_vector(cache_words):
    encoder, truth = make(cache_words=cache_words)
    expected = [truth.encode(sentence)[0] for sentence in SENTENCES]
    for _ in range(2):
        assert_close(encoder.encode(SENTENCES, batch_size=2), expected)


def test_a_word_is_computed_once_while_it_is_in_the_cache(monkeypatch):
    encoder, _ = make(cache_words=5)
    computed: list[str] = []
    original = Spelling.character_ids
    monkeypatch.setattr(
        Spelling,
        "character_ids",
        lambda self, words, *args: computed.extend(words) or original(self, words, *args),
    )
    encoder.encode([["a", "b", "a"], ["b", "c"]], batch_size=1)
    assert sorted(computed) == ["</S>", "<S>", "a", "b", "c"]
    # "d" replaces the least recently used word in the cache, which is "b" or "c".
    encoder.encode([["a"], ["d"]], batch_size=1)
    encoder.encode([["a"], ["d"]], batch_size=1)
    assert sorted(computed) == ["</S>", "<S>", "a", "b", "c", "d"]


def test_changed_weights_are_used_after_forget_words():
    encoder, truth = make()
    encoder.encode(SENTENCES)
    changed = {name: 0.9 * values for name, values in truth.arrays.items()}
    for name, variable in encoder.runtime.bilm.weights_by_name().items():
        variable.assign(changed[name])
    encoder.forget_words()
    expected = [NumPyBiLM(TINY, changed).encode(sentence)[0] for sentence in SENTENCES]
    assert_close(encoder.encode(SENTENCES), expected)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("carry_state", [False, True])
def test_cutting_long_sentences_in_time_changes_nothing(monkeypatch, carry_state, runtime):
    monkeypatch.setattr(encoding, "GATES_AT_ONCE", 1)
    encoder, truth = make(runtime=runtime)
    sentences = [[f"w{i % 7}" for i in range(n)] for n in (50, 3, 31, 6, 7, 14)]
    expected = [truth.encode(sentence)[0] for sentence in sentences]
    assert_close(encoder.encode(sentences, carry_state=carry_state), expected)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_state_is_carried_per_row_in_the_given_order(runtime):
    encoder, truth = make(runtime=runtime)
    batches = [[0, 3, 1], [4, 2], [5, 6, 0, 3], [1, 2, 4]]
    states = dict.fromkeys(range(4))
    for batch in batches:
        sentences = [SENTENCES[i] for i in batch]
        expected = []
        for row, sentence in enumerate(sentences):
            layers, states[row] = truth.encode(sentence, state=states[row])
            expected.append(layers)
        assert_close(encoder.encode(sentences, carry_state=True), expected)
        # Calls without carry_state neither use nor change the carried state.
        assert_close(encoder.encode([SENTENCES[0]]), [truth.encode(SENTENCES[0])[0]])
    for part in range(2):
        carried = [
            [[states[row][d][layer][part] for row in range(4)] for layer in range(TINY.n_layers)]
            for d in range(2)
        ]
        np.testing.assert_allclose(encoder.state[part], carried, atol=TOLERANCE)


def test_state_is_carried_between_batches_of_one_call():
    encoder, truth = make()
    states: dict = {0: None, 1: None}
    expected = []
    for place, sentence in enumerate(SENTENCES):
        layers, states[place % 2] = truth.encode(sentence, state=states[place % 2])
        expected.append(layers)
    assert_close(encoder.encode(SENTENCES, batch_size=2, carry_state=True), expected)
    encoder.reset_state()
    assert_close(encoder.encode(SENTENCES, batch_size=2, carry_state=True), expected)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_may_share_an_encoder(runtime):
    encoder, truth = make(runtime=runtime, cache_words=6)
    expected = [truth.encode(sentence)[0] for sentence in SENTENCES]
    with ThreadPoolExecutor(8) as threads:
        for encoded in threads.map(lambda _: encoder.encode(SENTENCES, 2), range(40)):
            assert_close(encoded, expected)


def test_no_sentences_give_no_vectors():
    encoder, _ = make()
    assert encoder.encode([]) == []


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, "32", True])
def test_a_bad_batch_size_is_refused(batch_size):
    encoder, _ = make()
    with pytest.raises(ParameterError, match="batch_size must be a whole number"):
        encoder.encode(SENTENCES, batch_size)


@pytest.mark.shared
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("variant", ["skip", "noskip", "plain"])
class TestAgainstOtherPrograms:
    """Vectors equal those that AllenNLP and bilm-tf computed."""

    @pytest.fixture
    def reference(self, shared: Path, variant: str, runtime: str):
        folder = shared / "reference" / variant
        encoder = SentenceEncoder(make_runtime(read_model(folder, softmax=False), runtime))
        sentences = json.loads((folder / "sentences.json").read_text())["sentences"]
        with np.load(folder / "expected.npz", allow_pickle=False) as expected:
            yield encoder, sentences, expected

    def test_sentences_alone(self, reference):
        encoder, sentences, expected = reference
        for i, sentence in enumerate(sentences):
            encoded = encoder.encode([sentence], boundaries=True)
            assert_close(encoded, [expected[f"sent{i}_layers"]])

    def test_batches(self, reference):
        encoder, sentences, expected = reference
        batches = [key.removesuffix("_layers") for key in expected if key.startswith("batch")]
        for batch in {key.split("_")[0] for key in batches}:
            self.check(encoder, sentences, expected, batch, carry_state=False)

    def test_carried_state(self, reference):
        encoder, sentences, expected = reference
        for k in range(sum(key.endswith("_index") and "stateful" in key for key in expected)):
            self.check(encoder, sentences, expected, f"stateful{k}", carry_state=True)
        for part, name in zip(encoder.state, "ch", strict=True):
            np.testing.assert_allclose(part, expected[f"stateful_final_{name}"], atol=TOLERANCE)

    def check(self, encoder, sentences, expected, name, carry_state):
        batch = [sentences[i] for i in expected[f"{name}_index"]]
        masks, layers = expected[f"{name}_mask"], expected[f"{name}_layers"]
        truth = [row[:, mask] for row, mask in zip(layers, masks, strict=True)]
        assert_close(encoder.encode(batch, carry_state=carry_state), truth)


def test_words_are_computed_in_the_order_of_the_batches(monkeypatch):
    """Rounding may depend on the other words of a batch, so threads must not change the batches."""
    computed = []
    of, compute = word_vectors.WordVectors.of, word_vectors.WordVectors._compute

    def hesitating(self, words):
        if "first" in words:
            time.sleep(0.2)
        return of(self, words)

    def noted(self, words):
        computed.append(words)
        return compute(self, words)

    encoder, _ = make()
    monkeypatch.setattr(word_vectors.WordVectors, "of", hesitating)
    monkeypatch.setattr(word_vectors.WordVectors, "_compute", noted)
    sentences = [[word, "shared"] for word in ("first", "second", "third", "fourth")]
    encoder.encode(sentences, batch_size=1)
    assert computed == [["<S>", "</S>"], ["first", "shared"], ["second", "third"], ["fourth"]]
