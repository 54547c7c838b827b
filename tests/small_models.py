"""Small biLMs with random weights, for tests in which any model will do."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from elmolib.formats.names import hdf5_arrays, weight_shapes
from elmolib.settings.architecture import Architecture
from elmolib.text.characters import BEGIN_SENTENCE, SENTENCE_MARKS

TINY = Architecture(
    char_embedding_dim=3,
    filters=((1, 2), (2, 3)),
    n_highway=1,
    activation="relu",
    max_characters=10,
    lstm_dim=4,
    projection_dim=3,
    n_layers=2,
    cell_clip=3.0,
    proj_clip=3.0,
    use_skip_connections=True,
)


def random_arrays(
    options: Architecture, vocabulary_size: int | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random float32 weights in the shapes that the options require."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.normal(size=shape).astype(np.float32)
        for name, shape in weight_shapes(options, vocabulary_size).items()
    }


def hdf5_form(architecture: Architecture, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with the names and shapes of bilm-tf's HDF5 files."""
    size = len(arrays["softmax/W"]) if "softmax/W" in arrays else None
    stored = hdf5_arrays(architecture, size)
    return {stored[ours].name: a.reshape(stored[ours].shape) for ours, a in arrays.items()}


@st.composite
def bilm_options(draw: st.DrawFn) -> Architecture:
    """Draw any small architecture, such as one without highway layers."""
    max_characters = draw(st.integers(3, 12))
    width_and_count = st.tuples(st.integers(1, max_characters), st.integers(1, 4))
    filters = tuple(draw(st.lists(width_and_count, min_size=1, max_size=3)))
    n_filters = sum(count for _, count in filters)
    projection_dim = draw(st.sampled_from([n_filters, 1, 5]))
    clip = st.none() | st.floats(0, 1e6, exclude_min=True)
    return Architecture(
        char_embedding_dim=draw(st.integers(1, 3)),
        filters=filters,
        n_highway=draw(st.integers(0, 2)),
        activation=draw(st.sampled_from(["relu", "tanh"])),
        max_characters=max_characters,
        lstm_dim=projection_dim + draw(st.integers(0, 3)),
        projection_dim=projection_dim,
        n_layers=draw(st.integers(1, 3)),
        cell_clip=draw(clip),
        proj_clip=draw(clip),
        use_skip_connections=draw(st.booleans()),
    )


def words_of(ids: np.ndarray) -> list[str]:
    """Convert raw character ids back to words. A word cut inside a character ends in U+FFFD."""
    marks = {mark: word for word, mark in SENTENCE_MARKS.items()}
    return [
        marks.get(row[1]) or bytes(row[row < BEGIN_SENTENCE].tolist()).decode(errors="replace")
        for row in np.asarray(ids)
    ]
