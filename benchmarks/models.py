"""The models that are measured: the published dimensions and a tiny one, with random weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from elmolib.options import BiLMOptions
from elmolib.text import Tokenizer
from elmolib.vocabulary import Vocabulary
from elmolib.weights import StoredModel, write_published

WIDTHS_AND_COUNTS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))


def _options(filters, n_highway: int, lstm_dim: int, projection_dim: int) -> BiLMOptions:
    return BiLMOptions(
        char_embedding_dim=16,
        filters=filters,
        n_highway=n_highway,
        activation="relu",
        max_characters=50,
        lstm_dim=lstm_dim,
        projection_dim=projection_dim,
        n_layers=2,
        cell_clip=3.0,
        proj_clip=3.0,
        use_skip_connections=True,
    )


MODELS = {
    "tiny": _options(((1, 16), (2, 16), (3, 32), (4, 64), (5, 64)), 1, 128, 64),
    "small": _options(WIDTHS_AND_COUNTS, 1, 1024, 128),
    "medium": _options(WIDTHS_AND_COUNTS, 1, 2048, 256),
    "original": _options(WIDTHS_AND_COUNTS, 2, 4096, 512),
}
"""Peers name the published three 2x1024_128_2048cnn_1xhighway, 2x2048_256_2048cnn_1xhighway and
2x4096_512_2048cnn_2xhighway."""


def random_weights(options: BiLMOptions, seed: int = 1) -> dict[str, np.ndarray]:
    """Weights that keep activations in the range that training would."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.standard_normal(shape, np.float32) * np.float32(_scale(name, shape))
        for name, shape in options.weight_shapes().items()
    }


def _scale(name: str, shape: tuple[int, ...]) -> float:
    if name == "char_embed":
        return 0.5
    return 0.1 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[:-1]))


def write_random_model(folder: Path, options: BiLMOptions, vocabulary: Vocabulary) -> int:
    """Write a model as all programs can read it. Returns the bytes of its weights."""
    arrays = random_weights(options)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(tokenized=True, language="en")
    write_published(folder, StoredModel(options, arrays, vocabulary, tokenizer, "random"))
    return sum(array.nbytes for array in arrays.values())
