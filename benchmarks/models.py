"""The measured models: the published dimensions and a tiny one, with random weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from elmolib.formats.names import weight_shapes
from elmolib.formats.weights import StoredModel, write_published
from elmolib.settings.architecture import Architecture
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import Vocabulary

PUBLISHED_FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))


def _architecture(filters, n_highway: int, lstm_dim: int, projection_dim: int) -> Architecture:
    return Architecture(
        char_embedding_dim=16,
        filters=filters,
        n_highway=n_highway,
        lstm_dim=lstm_dim,
        projection_dim=projection_dim,
        n_layers=2,
    )


MODELS = {
    "tiny": _architecture(((1, 16), (2, 16), (3, 32), (4, 64), (5, 64)), 1, 128, 64),
    "small": _architecture(PUBLISHED_FILTERS, 1, 1024, 128),
    "medium": _architecture(PUBLISHED_FILTERS, 1, 2048, 256),
    "original": _architecture(PUBLISHED_FILTERS, 2, 4096, 512),
}
"""The published three are also known as 2x1024_128_2048cnn_1xhighway, 2x2048_256_2048cnn_1xhighway
and 2x4096_512_2048cnn_2xhighway."""


def random_weights(architecture: Architecture, seed: int = 1) -> dict[str, np.ndarray]:
    """Return random weights by name, scaled so that activations are as large as after training."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.standard_normal(shape, np.float32) * np.float32(_scale(name, shape))
        for name, shape in weight_shapes(architecture).items()
    }


def _scale(name: str, shape: tuple[int, ...]) -> float:
    if name == "char_cnn/embedding":
        return 0.5
    return 0.1 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[:-1]))


def write_random_model(folder: Path, architecture: Architecture, vocabulary: Vocabulary) -> None:
    """Write a model with random weights in bilm-tf's format, which all programs read."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = random_weights(architecture)
    model = StoredModel(architecture, arrays, vocabulary, Tokenizer(tokenized=True))
    write_published(folder, model)
