"""Write the vectors of a text file to a vector file; an interruption loses only unfinished blocks.

elmolib first counts the words and creates `<out>.part`, a valid HDF5 file with room for all
vectors. It then writes the vectors into this file, one block of lines after another, and updates
`lines_done` after each block. The vectors are therefore never on the disk twice.
"""

import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Literal

import numpy as np
from tqdm.auto import tqdm

from elmolib.backend import is_watched
from elmolib.corpus.sources import read_chunks
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.layout import DTYPES, FORMAT, Layout, lay_out, read_metadata
from elmolib.embedding.vector_file import TEXT_LINES
from elmolib.errors import CorpusError, ParameterError, TextError, reason
from elmolib.files import exclusive_lock, fsync, require_regular_file, sha256_of, write_errors
from elmolib.formats.hdf5 import DeferredErrors
from elmolib.parallel import cpu_count, prefetch
from elmolib.text.lines import count_marks, warn_of_marks
from elmolib.text.tokenizer import Tokenizer

BLOCK_WORDS = 2**15  # the approximate number of words in a block, and its maximum number of lines
MOST_BYTES_OF_A_LINE = 2**32  # limit on the vectors of one line (all layers), which fill memory


def embed_corpus(
    encoder: SentenceEncoder,
    tokenizer: Tokenizer,
    path: Path,
    out: Path,
    layers: str | int,
    dtype: Literal["float32", "float16"],
    batch_size: int | None,
    progress: bool,
) -> Path:
    """Embed every line of a text file; see `ElmoEmbedder.embed_corpus`.

    The processors embed blocks of lines in parallel. Neither the blocks nor the file depend on the
    number of processors.
    """
    pick = encoder.picker(layers)
    metadata = describe(encoder, tokenizer, layers, dtype)
    metadata |= {"format": FORMAT, "text": _checksum(path)}
    part = out.with_name(f"{out.name}.part")
    if not out.exists():
        lock, advice = out.with_name(f".{out.name}.lock"), "call embed_corpus again to resume"
        with exclusive_lock(out, lock, CorpusError), write_errors(part, CorpusError, advice):
            if part.exists():
                refuse_another(part, read_metadata(part), metadata)
            else:
                _lay_out(path, part, tokenizer, encoder, metadata)
            _fill(part, encoder, pick, DTYPES[dtype], batch_size, progress)
            os.replace(part, out)
            fsync(out.parent)
    refuse_another(out, read_metadata(out), metadata)
    return out


def describe(
    encoder: SentenceEncoder, tokenizer: Tokenizer, layers: str | int, dtype: str
) -> dict[str, Any]:
    """Return everything but the text on which vectors depend; refuse an unknown dtype."""
    if dtype not in DTYPES:
        raise ParameterError(f"dtype must be 'float32' or 'float16', not {dtype!r}.")
    return {
        "model": encoder.runtime.fingerprint(),
        "runtime": encoder.runtime.name,
        "precision": encoder.runtime.precision,
        "words": encoder.remembered and encoder.remembered.sha256,
        "scales": encoder.runtime.scales and encoder.runtime.scales.sha256,
        "tokenizer": tokenizer.to_json(),
        "layers": layers if isinstance(layers, str) else int(layers),
        "dtype": dtype,
    }


def refuse_another(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise a CorpusError if `path` was made with anything else than is wanted now."""
    changed = [name for name in wanted if found.get(name) != wanted[name]]
    if changed:
        raise CorpusError(
            f"{path} was made with another {' and another '.join(changed)}: remove it, or choose "
            "another name for the new file."
        )


def _lay_out(
    path: Path, part: Path, tokenizer: Tokenizer, encoder: SentenceEncoder, metadata: dict[str, Any]
) -> None:
    """Create the file without the vectors, if the disk has room for them."""
    # The name is fixed, so that the next call overwrites the unfinished file of a killed process.
    unfinished = part.with_name(f"{part.name}.new")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        n_layers, dim = encoder.architecture.n_layers + 1, 2 * encoder.architecture.projection_dim
        shape = (n_layers, dim) if metadata["layers"] == "all" else (dim,)
        blocks = _tokenized(path, tokenizer, MOST_BYTES_OF_A_LINE // (n_layers * dim * 4))
        with DeferredErrors(unfinished, "wb+") as file:
            lay_out(file, blocks, shape, metadata)
        fsync(unfinished)
        status, free = unfinished.stat(), shutil.disk_usage(part.parent).free
        # Windows has no `st_blocks`, but it reserves the space for the whole file at once.
        if status.st_size - getattr(status, "st_blocks", math.inf) * 512 > free:
            size, left = (tqdm.format_sizeof(n, "B") for n in (status.st_size, free))
            raise CorpusError(
                f"{part} needs {size}, but its disk has only {left} left: free some space, or ask "
                "for fewer layers or dtype='float16'."
            )
        if _checksum(path) != metadata["text"]:
            raise TextError(
                f"{path} changed while it was read: embed it again when nothing writes to it."
            )
        os.replace(unfinished, part)
    except OverflowError as problem:
        raise TextError(f"{path}: {problem}: split it into several files.") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _tokenized(path: Path, tokenizer: Tokenizer, limit: int) -> Iterator[list[list[str]]]:
    """Yield the words of all lines, some lines at a time."""
    n_lines = n_marks = 0
    for chunk in read_chunks(path):
        lines = chunk.lines()
        n_marks += count_marks(lines)
        for first in range(0, len(lines), TEXT_LINES):
            block = [tokenizer.words(line) for line in lines[first : first + TEXT_LINES]]
            for number, words in enumerate(block, start=n_lines + 1):
                if len(words) > limit:
                    raise TextError(
                        f"{path}, line {number}: {len(words):,} words are too many for one "
                        "sentence: put each sentence on a line of its own."
                    )
            n_lines += len(block)
            yield block
    warn_of_marks(n_marks, path)


def _fill(
    part: Path,
    encoder: SentenceEncoder,
    pick: Callable[[np.ndarray], np.ndarray],
    dtype: np.dtype[Any],
    batch_size: int | None,
    progress: bool,
) -> None:
    """Compute the vectors that are missing."""
    layout = Layout(part)
    lengths, done, lock = layout.lengths, layout.lines_done, Lock()
    n_words, words_done = int(lengths.sum()), int(lengths[:done].sum())
    if progress:
        size = tqdm.format_sizeof(part.stat().st_size, "B")
        resumed = f", {done:,} of them done" if done else ""
        summary = f"{size} for {n_words:,} words in {len(lengths):,} lines{resumed}"
        print(f"{part.stem}: {summary}", flush=True)
    hidden = not (progress and is_watched())
    blocks = list(_blocks(lengths, done))
    # Each block occupies two processors, one per direction.
    n_threads = min(cpu_count() // 2, len(blocks))
    inner = 0 if n_threads > 1 else None

    def embed(block: range) -> int:
        # Each block has its own word cache, because rounding depends on the words in the cache.
        own = SentenceEncoder(encoder.runtime, remembered=encoder.remembered, n_threads=inner)
        lines = layout.lines(block.start, block.stop)
        for place, all_layers in own.encode_each(lines, batch_size):
            line = block[place]
            with np.errstate(over="ignore"):
                vectors = np.ascontiguousarray(pick(all_layers), dtype)
            if not np.isfinite(vectors).all():
                raise CorpusError(
                    f"{part}: a vector of line {line + 1} does not fit into {dtype}: "
                    "remove this file and use dtype='float32'."
                )
            with lock:
                plain.seek(int(layout.places[line]))
                plain.write(vectors.data)
                bar.update(len(lines[place]))
        return block.stop

    look: dict[str, Any] = {"unit": "word", "unit_scale": True, "disable": hidden}
    with part.open("rb+") as plain, tqdm(total=n_words, initial=words_done, **look) as bar:
        for stop in prefetch(embed, blocks, n_threads if n_threads > 1 else 0):
            with lock:
                _fsync(plain)
                plain.seek(0)
                plain.write(stop.to_bytes(8, "little"))
                _fsync(plain)


def _blocks(lengths: np.ndarray, done: int) -> Iterator[range]:
    """Yield the line numbers of the blocks that are not done."""
    ends = np.cumsum(lengths)
    while done < len(lengths):
        full = int(np.searchsorted(ends, ends[done] - lengths[done] + BLOCK_WORDS)) + 1
        block = range(done, min(len(lengths), full, done + BLOCK_WORDS))
        yield block
        done = block.stop


def _fsync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _checksum(path: Path) -> str:
    try:
        require_regular_file(path)
        return sha256_of(path)
    except (OSError, ValueError) as error:
        raise TextError(f"{path} cannot be read: {reason(error)}.") from None
