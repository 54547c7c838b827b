"""Sentences to vectors, against a biLM written out in NumPy and against other programs."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_models import TINY, random_arrays

from elmolib import embedding
from elmolib.bilm import BiLM
from elmolib.embedding import SentenceEncoder
from elmolib.errors import ParameterError
from elmolib.options import BiLMOptions
from elmolib.weights import read_model

TOLERANCE = 1e-5

VARIANTS = {
    "skip": TINY,
    "no skip": replace(TINY, use_skip_connections=False, n_layers=3, cell_clip=0.5, proj_clip=0.3),
    "one layer": replace(TINY, n_layers=1, activation="tanh", n_highway=0, cell_clip=None),
    "no projections": replace(TINY, projection_dim=5, lstm_dim=5, proj_clip=None, n_highway=2),
    "wide filter": replace(TINY, filters=((10, 4), (1, 2))),
}

SENTENCES = [
    ["The", "river", "bank"],
    [],
    ["."],
    ["Donaudampfschifffahrt", "fährt", "河岸", "", "The", "\x00", "👩‍👧", "<S>", "</S>"],
    ["The", "The", "The", "bank", "bank"],
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r"],
    ["bank", "river", "The"],
]


def make(options: BiLMOptions = TINY, **kwargs) -> tuple[SentenceEncoder, NumPyBiLM]:
    """The encoder under test and the truth, with the same weights."""
    arrays = {name: 0.5 * values for name, values in random_arrays(options).items()}
    bilm = BiLM.from_arrays(options, arrays)
    return SentenceEncoder(bilm, **kwargs), NumPyBiLM(options, arrays)


class NumPyBiLM:
    """A biLM in float64, one word and one step at a time."""

    def __init__(self, options: BiLMOptions, arrays: dict[str, np.ndarray]) -> None:
        self.options = options
        self.arrays = {name: values.astype(np.float64) for name, values in arrays.items()}

    def encode(self, sentence, boundaries=False, state=None):
        """All layers, and the state thereafter as a list [direction][layer] of (c, h)."""
        words = np.stack([self.word(word) for word in ["<S>", *sentence, "</S>"]])
        state = state or self.zero_state()
        directions, after = [], []
        for d, x in enumerate((words, words[::-1])):
            layers, final = [x], []
            for layer in range(self.options.n_layers):
                y, last = self.lstm(d, layer, x, state[d][layer])
                x = x + y if layer > 0 and self.options.use_skip_connections else y
                layers.append(x)
                final.append(last)
            directions.append([layer[::-1] if d == 1 else layer for layer in layers])
            after.append(final)
        both = np.concatenate([np.stack(layers) for layers in directions], axis=-1)
        return (both if boundaries else both[:, 1:-1]), after

    def zero_state(self):
        o = self.options
        return [
            [(np.zeros(o.lstm_dim), np.zeros(o.projection_dim)) for _ in range(o.n_layers)]
            for _ in range(2)
        ]

    def word(self, word: str) -> np.ndarray:
        size = self.options.max_characters
        inner = {"<S>": [256], "</S>": [257]}.get(word, list(word.encode())[: size - 2])
        ids = [258, *inner, 259]
        x = self.arrays["char_embed"][ids + [260] * (size - len(ids))]
        activation = {"relu": lambda v: np.maximum(v, 0), "tanh": np.tanh}[self.options.activation]
        pooled = []
        for i, (width, _) in enumerate(self.options.filters):
            kernel = self.arrays[f"CNN/W_cnn_{i}"][0]
            windows = [
                np.einsum("we,wef->f", x[first : first + width], kernel)
                for first in range(size - width + 1)
            ]
            pooled.append(activation(np.max(windows, axis=0) + self.arrays[f"CNN/b_cnn_{i}"]))
        v = np.concatenate(pooled)
        for i in range(self.options.n_highway):
            part = {
                name: v @ self.arrays[f"CNN_high_{i}/W_{name}"]
                + self.arrays[f"CNN_high_{i}/b_{name}"]
                for name in ("carry", "transform")
            }
            gate = sigmoid(part["carry"])
            v = gate * np.maximum(part["transform"], 0) + (1 - gate) * v
        if "CNN_proj/W_proj" in self.arrays:
            v = v @ self.arrays["CNN_proj/W_proj"] + self.arrays["CNN_proj/b_proj"]
        return v

    def lstm(self, direction, layer, x, state):
        cell = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
        kernel, bias = self.arrays[f"{cell}/W_0"], self.arrays[f"{cell}/B"]
        (c, h), outputs = state, []
        for step in x:
            i, j, f, o = np.split(np.concatenate([step, h]) @ kernel + bias, 4)
            c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
            if self.options.cell_clip is not None:
                c = np.clip(c, -self.options.cell_clip, self.options.cell_clip)
            h = sigmoid(o) * np.tanh(c)
            if f"{cell}/W_P_0" in self.arrays:
                h = h @ self.arrays[f"{cell}/W_P_0"]
                if self.options.proj_clip is not None:
                    h = np.clip(h, -self.options.proj_clip, self.options.proj_clip)
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


@pytest.mark.parametrize("boundaries", [False, True])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_layer_is_that_of_the_plain_formulas(options, boundaries):
    encoder, truth = make(options)
    expected = [truth.encode(sentence, boundaries)[0] for sentence in SENTENCES]
    assert_close(encoder.encode(SENTENCES, batch_size=3, boundaries=boundaries), expected)


def test_layer_0_is_the_word_alone_written_twice():
    encoder, truth = make()
    (layers,) = encoder.encode([["river", "bank"]])
    expected = [np.tile(truth.word(word), 2) for word in ("river", "bank")]
    np.testing.assert_allclose(layers[0], expected, atol=TOLERANCE)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_neither_neighbours_nor_order_change_a_sentence(batch_size):
    encoder, _ = make()
    alone = [encoder.encode([sentence])[0] for sentence in SENTENCES]
    assert_close(encoder.encode(SENTENCES, batch_size), alone)
    assert_close(encoder.encode(SENTENCES[::-1], batch_size), alone[::-1])


@pytest.mark.parametrize("cache_words", [0, 1, 7, 1000])
def test_the_cache_changes_nothing_however_small(cache_words):
    encoder, truth = make(cache_words=cache_words)
    expected = [truth.encode(sentence)[0] for sentence in SENTENCES]
    for _ in range(2):
        assert_close(encoder.encode(SENTENCES, batch_size=2), expected)


def test_a_word_is_spelt_once_while_it_stays_in_the_cache(monkeypatch):
    encoder, _ = make(cache_words=5)
    spelt: list[str] = []
    original = embedding.character_ids
    monkeypatch.setattr(
        embedding,
        "character_ids",
        lambda words, *args: spelt.extend(words) or original(words, *args),
    )
    encoder.encode([["a", "b", "a"], ["b", "c"]], batch_size=1)
    assert sorted(spelt) == ["</S>", "<S>", "a", "b", "c"]
    encoder.encode([["a"], ["d"]], batch_size=1)  # the longest unused word is dropped: b or c
    encoder.encode([["a"], ["d"]], batch_size=1)
    assert sorted(spelt) == ["</S>", "<S>", "a", "b", "c", "d"]


def test_changed_weights_are_used_once_the_words_are_forgotten():
    encoder, truth = make()
    encoder.encode(SENTENCES)
    changed = {name: 0.9 * values for name, values in truth.arrays.items()}
    for name, variable in encoder.bilm.named_variables().items():
        variable.assign(changed[name])
    encoder.forget_words()
    expected = [NumPyBiLM(TINY, changed).encode(sentence)[0] for sentence in SENTENCES]
    assert_close(encoder.encode(SENTENCES), expected)


@pytest.mark.parametrize("carry_state", [False, True])
def test_long_sentences_are_read_in_pieces_without_a_seam(monkeypatch, carry_state):
    monkeypatch.setattr(embedding, "GATES_AT_ONCE", 1)
    encoder, truth = make()
    sentences = [[f"w{i % 7}" for i in range(n)] for n in (50, 3, 31, 6, 7, 14)]
    expected = [truth.encode(sentence)[0] for sentence in sentences]
    assert_close(encoder.encode(sentences, carry_state=carry_state), expected)


def test_state_is_carried_row_by_row_in_the_order_given():
    encoder, truth = make()
    batches = [[0, 3, 1], [4, 2], [5, 6, 0, 3], [1, 2, 4]]
    states = dict.fromkeys(range(4))
    for batch in batches:
        sentences = [SENTENCES[i] for i in batch]
        expected = []
        for row, sentence in enumerate(sentences):
            layers, states[row] = truth.encode(sentence, state=states[row])
            expected.append(layers)
        assert_close(encoder.encode(sentences, carry_state=True), expected)
        # What does not carry state neither sees nor changes the state that is carried.
        assert_close(encoder.encode([SENTENCES[0]]), [truth.encode(SENTENCES[0])[0]])
    for part in range(2):
        carried = [
            [[states[row][d][layer][part] for row in range(4)] for layer in range(TINY.n_layers)]
            for d in range(2)
        ]
        np.testing.assert_allclose(encoder.state[part], carried, atol=TOLERANCE)


def test_state_is_carried_between_the_batches_of_one_call_too():
    encoder, truth = make()
    states: dict = {0: None, 1: None}
    expected = []
    for place, sentence in enumerate(SENTENCES):
        layers, states[place % 2] = truth.encode(sentence, state=states[place % 2])
        expected.append(layers)
    assert_close(encoder.encode(SENTENCES, batch_size=2, carry_state=True), expected)
    encoder.reset_state()
    assert_close(encoder.encode(SENTENCES, batch_size=2, carry_state=True), expected)


def test_threads_may_share_an_encoder():
    encoder, truth = make(cache_words=6)
    expected = [truth.encode(sentence)[0] for sentence in SENTENCES]
    with ThreadPoolExecutor(8) as threads:
        for encoded in threads.map(lambda _: encoder.encode(SENTENCES, 2), range(40)):
            assert_close(encoded, expected)


def test_nothing_to_encode_gives_nothing():
    encoder, _ = make()
    assert encoder.encode([]) == []


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, "32", True, None])
def test_a_bad_batch_size_is_named(batch_size):
    encoder, _ = make()
    with pytest.raises(ParameterError, match="batch_size must be a whole number"):
        encoder.encode(SENTENCES, batch_size)


@pytest.mark.shared
@pytest.mark.parametrize("variant", ["skip", "noskip", "plain"])
class TestAgainstOtherPrograms:
    """Values of AllenNLP and bilm-tf."""

    @pytest.fixture
    def reference(self, shared: Path, variant: str):
        folder = shared / "reference" / variant
        stored = read_model(folder)
        encoder = SentenceEncoder(BiLM.from_arrays(stored.options, stored.arrays))
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
    """However many threads are at work: a word's last bits may differ with those beside it."""
    computed = []
    of, compute = embedding._WordVectors.of, embedding._WordVectors._compute

    def hesitating(self, words):
        if "first" in words:
            time.sleep(0.2)
        return of(self, words)

    def noted(self, words):
        computed.append(words)
        return compute(self, words)

    encoder, _ = make()
    monkeypatch.setattr(embedding._WordVectors, "of", hesitating)
    monkeypatch.setattr(embedding._WordVectors, "_compute", noted)
    sentences = [[word, "shared"] for word in ("first", "second", "third", "fourth")]
    encoder.encode(sentences, batch_size=1)
    assert computed == [["<S>", "</S>"], ["first", "shared"], ["second", "third"], ["fourth"]]
