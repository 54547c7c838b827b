"""Embed texts on many machines with Ray Data, into a folder of Parquet files.

The texts are cut into pieces of whole lines. Ray's actors hold the model and embed one piece after
another, and each piece becomes one file. Ray's checkpoint notes the rows whose file is complete.
"""

import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from elmolib import errors
from elmolib.backend import is_watched
from elmolib.corpus.sources import Source, Texts, find_files, read_chunks, read_lines
from elmolib.embedding.embed_corpus import describe, refuse_another
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.layout import DTYPES
from elmolib.embedding.runtimes import make_runtime
from elmolib.embedding.sentences import one_layer
from elmolib.embedding.words import remembered
from elmolib.errors import CorpusError, ParameterError, TextError, needs_extras
from elmolib.files import atomic_write, exclusive_lock, write_errors
from elmolib.formats.published import is_published
from elmolib.formats.readers import read_model
from elmolib.parallel import cpu_count
from elmolib.text.lines import count_marks, warn_of_marks
from elmolib.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import pyarrow as pa

BYTES_OF_VECTORS = 2**25  # in a piece
BYTES_OF_A_WORD = 6  # in a typical text, with its space
LONGEST_LINE = 16  # in pieces; the vectors of a line fill an actor's memory
# Embedding must leave these processors: one for the filter of finished rows, which Ray starts when
# a run resumes, and a quarter for each task that reads or writes.
SPARE, TASK = 1.5, 0.25
_NOTE = "_elmolib.json"  # readers of a folder of Parquet files skip names that begin with _


class EmbedBatches:
    """Embed batches of lines in Ray Data's `map_batches`, or in Spark.

    A pickle holds only the arguments. Each process loads the model once, with its first batch.

    Args:
        model: the name, URL or path of a model, the same on every machine.
        layers: "average", "top", a layer number or, if a task has trained the model, "mix".
        dtype: the dtype of the vectors. Spark cannot read float16 from Parquet files.
        runtime, precision: as in `ElmoEmbedder`. "auto" loads neither TensorFlow nor Keras.
        column: the column with the lines, each of which is one sentence.
        n_threads: the number of batches of sentences that are read at once, each in two threads.
            None means half the number of the machine's processors.

    Raises:
        ParameterError, WeightsError, OptionsError: as in `ElmoEmbedder`, with the first batch.
        CorpusError: a vector does not fit into float16.

    Example:
        ```python
        pool = ray.data.ActorPoolStrategy(size=4)
        lines.map_batches(EmbedBatches, compute=pool, batch_format="pyarrow")
        ```
    """

    def __init__(
        self,
        model: str | Path = "en-tiny",
        layers: str | int = "average",
        dtype: Literal["float32", "float16"] = "float32",
        runtime: str = "auto",
        precision: str = "float32",
        column: str = "text",
        n_threads: int | None = None,
    ) -> None:
        one_layer(layers, "EmbedBatches")
        if not is_published(str(model)):
            model = Path(model).expanduser().absolute()
        self.layers, self.dtype, self.column = layers, dtype, column
        self._loading = str(model), runtime, precision, n_threads

    def __call__(self, batch: "pa.Table") -> "pa.Table":
        """Replace the column of lines by `words` and `vectors`.

        `vectors` is `list<fixed_size_list<float>[2 * projection_dim]>`, or the same of `halffloat`.
        """
        import pyarrow as pa

        words, places, vectors = self._embed(batch[self.column].to_pylist())
        rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        batch = batch.drop_columns(self.column)
        batch = batch.append_column("words", pa.array(words, pa.list_(pa.string())))
        return batch.append_column("vectors", pa.ListArray.from_arrays(pa.array(places), rows))

    def vectors(self, lines: Sequence[str]) -> tuple[list[list[str]], list[np.ndarray]]:
        """Return the words of each line, and an array of their vectors (words, features)."""
        words, places, vectors = self._embed(lines)
        return words, np.split(vectors, places[1:-1])

    def load(self) -> tuple[SentenceEncoder, Tokenizer]:
        """Return the encoder and the tokenizer, which a process loads only once."""
        return _load(*self._loading)

    def _embed(self, lines: Sequence[str]) -> tuple[list[list[str]], np.ndarray, np.ndarray]:
        """Return the words, their places (lines + 1,), and all vectors (words, features)."""
        encoder, tokenizer = self.load()
        pick, dtype = encoder.picker(self.layers), DTYPES[self.dtype]
        words = [tokenizer.words(line) for line in lines]
        places = np.cumsum([0, *map(len, words)], dtype=np.int32)
        vectors = np.empty((places[-1], 2 * encoder.architecture.projection_dim), dtype)
        for line, layers in encoder.encode_each(words):
            own = vectors[places[line] : places[line + 1]]
            with np.errstate(over="ignore"):
                own[:] = pick(layers)
            if not np.isfinite(own).all():
                problem = f"A vector of the line {lines[line]!r:.60} does not fit into {self.dtype}"
                raise CorpusError(f"{problem}: use dtype='float32'.")
        return words, places, vectors


@lru_cache(maxsize=1)
def _load(
    model: str, runtime: str, precision: str, n_threads: int | None
) -> tuple[SentenceEncoder, Tokenizer]:
    stored = read_model(model, softmax=False)
    known, made = remembered(stored), make_runtime(stored, runtime, precision)
    return SentenceEncoder(made, remembered=known, n_threads=n_threads), stored.tokenizer


@needs_extras()
def embed_dataset(
    paths: Texts,
    out_dir: str | Path,
    model: str | Path = "en-tiny",
    layers: str | int = "average",
    dtype: Literal["float32", "float16"] = "float32",
    runtime: str = "auto",
    precision: str = "float32",
    address: str | None = None,
    actors: int | None = None,
    cpus_per_actor: float | None = None,
) -> Path:
    """Embed every line of some texts with Ray. After an interruption, repeat the call to resume.

    Args:
        paths: paths or globs of text files, plain or compressed; each line is one sentence. Every
            machine must see the texts and `out_dir` under the same absolute path.
        out_dir: the folder of Parquet files to write. Until it is complete, it is in
            `<out_dir>.part`.
        model, layers, dtype, runtime, precision: as in `EmbedBatches`.
        address: the address of a Ray cluster, or "auto". None means the cluster to which this
            process belongs, or else this machine, on which Ray is started and stopped.
        actors: the number of processes that embed. None means as many as there is room for.
        cpus_per_actor: the processors of each of them, which may be a fraction. None means 2, or
            less if there are not as many.

    Returns:
        `out_dir`. Its rows are the lines in order, with the columns `row` (the number of the line
        in all texts, from 0), `file`, `line` (its number in the file, from 0), `words` and
        `vectors`. The names of its files are in order too.

    Raises:
        ParameterError: the actors would leave no processors for reading and writing.
        TextError: a text is unreadable or changes meanwhile, or a line is too long for memory.
        CorpusError: `out_dir` was made from another text or model, another process is writing it,
            or a vector does not fit into float16.
        MissingPackageError: the extra `ray` is not installed.
    """
    import ray.data  # noqa: F401  names the extra before the texts are read

    embed = (model, layers, dtype, runtime, precision, "text")
    encoder, tokenizer = EmbedBatches(*embed).load()
    encoder.picker(layers)
    files, out = find_files(paths), Path(out_dir).expanduser().absolute()
    texts = [Source("text", path.absolute()).fingerprint() for path in files]
    note = describe(encoder, tokenizer, layers, dtype)
    note["text"] = [[str(path), text["sha256"]] for path, text in zip(files, texts, strict=True)]
    part, lock = out.with_name(f"{out.name}.part"), out.with_name(f".{out.name}.lock")
    rows, advice = part / "rows", "call embed_dataset again to resume"
    if not out.exists():
        with exclusive_lock(out, lock, CorpusError), write_errors(part, CorpusError, advice):
            if (rows / _NOTE).exists():
                refuse_another(part, _read_note(rows), note)
            else:
                shutil.rmtree(part, ignore_errors=True)  # a checkpoint without its rows
                with atomic_write(rows / _NOTE) as unfinished:
                    unfinished.write_text(json.dumps(note), encoding="utf-8")
            size = DTYPES[dtype].itemsize * 2 * encoder.architecture.projection_dim
            pieces = list(_cut(files, BYTES_OF_A_WORD * max(1, BYTES_OF_VECTORS // size)))
            with _ray_at(address, actors, cpus_per_actor) as (actors, cpus):
                _run(pieces, part, embed, actors, cpus)
            if not all(Source("text", Path(text["name"])).is_unchanged(text) for text in texts):
                raise TextError(f"A text changed while it was read: remove {part} and begin again.")
            _sort_files(rows, pieces[-1].row + pieces[-1].n_lines)
            os.replace(rows, out)
            shutil.rmtree(part, ignore_errors=True)
    refuse_another(out, _read_note(out), note)
    return out


def share(nodes: Sequence[float], actors: int | None, cpus: float | None) -> tuple[int, float]:
    """Return the number of actors for which there is room, and the processors of each.

    Args:
        nodes: the number of processors of each machine.
        actors, cpus: the numbers that are asked for, or None.

    Raises:
        ParameterError: there is no room; Ray would wait forever for processors to read with.
    """
    left = sum(nodes) - SPARE
    cpus = cpus or min(2, left, max(nodes, default=0))
    room = int(min(left // cpus, sum(n // cpus for n in nodes))) if cpus > 0 else 0
    if room < (actors or 1):
        raise ParameterError(
            f"Ray has {sum(nodes):g} processors, of which reading and writing need {SPARE:g}, so "
            f"there is no room for {actors or 1} actors with {max(cpus, 0):g} each: ask for fewer "
            "actors, or for a smaller cpus_per_actor."
        )
    return actors or room, cpus


class _Piece(NamedTuple):
    """Whole lines of a text, and the numbers of the first one."""

    path: str
    file: str  # the path as it was given
    row: int
    line: int
    n_lines: int
    first_byte: int
    n_bytes: int


def _cut(files: Sequence[Path], n_bytes: int) -> Iterator[_Piece]:
    row = 0
    for path in files:
        line = n_marks = 0
        name = str(path).encode(errors="replace").decode()
        for chunk in read_chunks(path, n_bytes):
            lines, size = chunk.lines(), len(chunk.data)
            if size > LONGEST_LINE * n_bytes:
                longest = max(range(len(lines)), key=lambda number: len(lines[number]))
                problem = f"{path}, line {line + longest + 1} is too long for one sentence"
                raise TextError(f"{problem}: put each sentence on a line of its own.")
            n_marks += count_marks(lines)
            place = str(path.absolute()), name, row, line, len(lines)
            yield _Piece(*place, chunk.first_byte, size)
            line, row = line + len(lines), row + len(lines)
        warn_of_marks(n_marks, path)


def _read(piece: _Piece) -> "list[pa.Table]":
    import pyarrow as pa

    lines = read_lines(Path(piece.path), piece.first_byte, piece.n_bytes)
    numbers = np.arange(len(lines))
    columns = {"row": piece.row + numbers, "file": [piece.file] * len(lines)}
    return [pa.table(columns | {"line": piece.line + numbers, "text": lines})]


@contextmanager
def _ray_at(
    address: str | None, actors: int | None, cpus: float | None
) -> Iterator[tuple[int, float]]:
    """Connect to Ray, or start it; yield what `share` returns."""
    import ray

    is_ours = not ray.is_initialized()
    if is_ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        address, local = address or os.environ.get("RAY_ADDRESS", "local"), {}
        if address == "local":
            # Ray counts processors, but does not bind to them: reading and writing share them.
            wanted = (actors or max(1, cpu_count() // 2)) * (cpus or 2)
            local = {"num_cpus": math.ceil(wanted + SPARE), "include_dashboard": False}
        ray.init(address, logging_level="ERROR", log_to_driver=False, **local)
    try:
        yield share([node["Resources"].get("CPU", 0) for node in ray.nodes()], actors, cpus)
    finally:
        if is_ours:
            ray.shutdown()


def _run(
    pieces: list[_Piece], part: Path, embed: tuple[Any, ...], actors: int, cpus: float
) -> None:
    from ray.data import ActorPoolStrategy, Datasource, ReadTask, read_datasource
    from ray.data.block import BlockMetadata
    from ray.data.checkpoint import CheckpointConfig

    class Pieces(Datasource):
        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
            return tasks

    tasks = [
        ReadTask(partial(_read, piece), BlockMetadata(piece.n_lines, piece.n_bytes, None))
        for piece in pieces
    ]
    # Without a limit, Ray starts a process for every quarter of a processor.
    blocks = {"override_num_blocks": len(tasks), "concurrency": actors}
    lines = read_datasource(Pieces(), num_cpus=TASK, **blocks)
    context = lines.context
    context.target_max_block_size = None  # a piece stays one block, which becomes one file
    context.print_on_execution_start, context.enable_progress_bars = False, is_watched()
    context.checkpoint_config = CheckpointConfig(
        "row", str(part / "checkpoint"), delete_checkpoint_on_success=False
    )
    vectors = lines.map_batches(
        EmbedBatches,
        fn_constructor_args=(*embed, max(1, int(cpus) // 2)),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=actors),
        num_cpus=cpus,
    )
    options = {"ray_remote_args": {"num_cpus": TASK}, "concurrency": actors}
    options["use_dictionary"] = ["file", "words.list.element"]
    try:
        vectors.write_parquet(str(part / "rows"), **options)
    except Exception as error:
        # Ray returns only the text of an error in an actor.
        found = re.search(r"^elmolib\.errors\.(\w+): (.+)$", str(error), re.MULTILINE)
        raise (getattr(errors, found[1])(found[2]) if found else error) from None


def _sort_files(folder: Path, n_rows: int) -> None:
    """Name the files by the order of their rows, if they have every row once."""
    from pyarrow.parquet import read_metadata

    found = {path: read_metadata(path) for path in folder.glob("*.parquet")}
    first = {path: found[path].row_group(0).column(0).statistics.min for path in found}
    order, done = sorted(found, key=first.__getitem__), 0
    for path in order:
        done += found[path].num_rows if first[path] == done else math.inf
    if done != n_rows:
        raise CorpusError(f"{folder} has not every line once: remove it and begin again.")
    for number, path in enumerate(order):
        path.rename(path.with_name(f"part-{number:06}.parquet"))


def _read_note(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CorpusError(
            f"{folder} was not made by embed_dataset: remove it or choose another name."
        ) from None
