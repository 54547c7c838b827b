"""Tables of vectors for the Embedding Projector, https://projector.tensorflow.org."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from elmolib.errors import ElmolibError
from elmolib.files import atomic_write, write_errors


def write_projector(
    folder: str | Path, lines: Iterable[tuple[Sequence[str], np.ndarray]]
) -> tuple[Path, Path]:
    """Write the words of sentences and their vectors `(n_words, dim)`, with one row per word.

    Return the paths of `vectors.tsv`, which has a column per feature and no header, and of
    `metadata.tsv`, which has the columns word, position (from 0) and sentence. If the files cannot
    be written, raise an ElmolibError.
    """
    vectors_path, metadata_path = Path(folder) / "vectors.tsv", Path(folder) / "metadata.tsv"
    with (
        write_errors(folder, ElmolibError, "choose another folder"),
        atomic_write(vectors_path) as vectors_part,
        atomic_write(metadata_path) as metadata_part,
        vectors_part.open("w", encoding="utf-8", newline="\n") as vectors_file,
        # UTF-8 cannot encode half of a surrogate pair, which a word may contain.
        metadata_part.open("w", encoding="utf-8", errors="replace", newline="\n") as metadata_file,
    ):
        metadata_file.write("word\tposition\tsentence\n")
        for words, vectors in lines:
            # A tab or a line end in a word would shift all columns after it.
            cells = [" ".join(word.split()) for word in words]
            np.savetxt(vectors_file, vectors, "%.6g", "\t")
            for position, word in enumerate(cells):
                metadata_file.write(f"{word}\t{position}\t{' '.join(cells)}\n")
    return vectors_path, metadata_path
