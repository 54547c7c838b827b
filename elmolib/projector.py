"""Vectors as tables for the Embedding Projector, https://projector.tensorflow.org."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from elmolib.files import replacing

VECTORS, METADATA = "vectors.tsv", "metadata.tsv"


def write_projector(
    folder: str | Path, lines: Iterable[tuple[Sequence[str], np.ndarray]]
) -> tuple[Path, Path]:
    """Write one row for each word of some sentences.

    Args:
        folder: where the two files go; made if need be.
        lines: words and vectors `(n_words, dim)` of each sentence.

    Returns:
        `vectors.tsv`, whose columns are the features, and `metadata.tsv`, whose columns word,
        position (from 0) and sentence are named in its first row: the Projector wants that where
        there is more than one.

    References:
        "Load your own data" in the Projector.
    """
    vectors_path, metadata_path = Path(folder) / VECTORS, Path(folder) / METADATA
    with ExitStack() as files:
        vectors_file, metadata_file = (
            files.enter_context(
                # Half of a surrogate pair has no place in a file.
                files.enter_context(replacing(path)).open(
                    "w", encoding="utf-8", errors="replace", newline="\n"
                )
            )
            for path in (vectors_path, metadata_path)
        )
        metadata_file.write("word\tposition\tsentence\n")
        for words, vectors in lines:
            # A tab or a line end within a word would move everything after it.
            cells = [" ".join(word.split()) for word in words]
            for position, (word, vector) in enumerate(zip(cells, vectors, strict=True)):
                vectors_file.write("\t".join(f"{value:.6g}" for value in vector) + "\n")
                metadata_file.write(f"{word}\t{position}\t{' '.join(cells)}\n")
    return vectors_path, metadata_path
