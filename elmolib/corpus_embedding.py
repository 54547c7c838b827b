"""A whole text file as vectors: one HDF5 file with one dataset per line.

All sizes are known before the first vector is. So the file is laid out at once, with every dataset
in its place but empty, under the name `<out>.part`, and is a sound HDF5 file from then on: vectors
are written straight into their places, past HDF5, and after each block of lines one number says how
many lines are done. A kill at any moment costs no more than that block.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import h5py
import numpy as np
from tqdm.auto import tqdm

from elmolib.bilm import BiLM
from elmolib.chunks import TRAIN, lines_of, read_chunks
from elmolib.embedding import SentenceEncoder, layer_picker
from elmolib.errors import CorpusError, ElmolibError, ParameterError, TextError, reason
from elmolib.files import refuse_pipe, sync_folder
from elmolib.hdf5 import find_data, require_stored
from elmolib.locks import alone_in
from elmolib.progress import is_live_notebook
from elmolib.text import Tokenizer

FORMAT = 1
FACTS = "elmolib_embedding"
DTYPES = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}

CHUNK_BYTES = 1 << 20
BLOCK_WORDS = 2**15
"""A block of lines ends when it has so many words, or so many lines."""

MOST_BYTES_OF_A_LINE = 2**32
"""The vectors of all layers of a line must fit into memory together."""

_TEXT_LINES = 1024


def embed_corpus(
    encoder: SentenceEncoder,
    tokenizer: Tokenizer,
    path: str | Path,
    out: str | Path,
    layers: str | int = "average",
    dtype: Literal["float32", "float16"] = "float32",
    batch_size: int = 32,
    progress: bool = True,
) -> Path:
    """Embed every line of a text file.

    Called again after a stop of whatever kind, it goes on where it was, with the same result. It
    says beforehand how large the file will be, and does not begin where the disk is too small.

    Args:
        encoder: of the model. Its cache of words is emptied.
        tokenizer: cuts each line into words. A line is one sentence, whatever it holds.
        path: a UTF-8 text file, plain or `.gz`.
        out: the HDF5 file to make. Until it is complete there is only `<out>.part`.
        layers: "all", "average" of all layers, "top", or a layer's number, 0 being the character
            CNN.
        dtype: of the vectors; float16 halves the file.
        batch_size: lines read side by side.
        progress: print the size and, where somebody watches, show a bar.

    Returns:
        `out`, in which

        - `"0"`, `"1"`, ... are the vectors of each line in order,
          `(n_words, 2 * projection_dim)`, with "all"
          `(n_layers + 1, n_words, 2 * projection_dim)`; a blank line keeps its number, with no
          words,
        - `lengths`, int64 `(n_lines,)`, is the number of words of each line,
        - `text`, strings `(n_lines,)`, is the words of each line with one space between them.

    Raises:
        TextError: the text cannot be read, is changed meanwhile, or holds a line too long for
            memory.
        ParameterError: there are no such layers, or no such type.
        CorpusError: `out` or its unfinished part was made from something else, another process is
            making it, the disk is too small, or a vector does not fit into float16.

    Example:
        >>> embed_corpus(encoder, tokenizer, "corpus.txt", "corpus.h5", dtype="float16")
        >>> with h5py.File("corpus.h5") as file:
        ...     file["0"].shape, file["text"].asstr()[0]
        ((6, 128), 'The river bank was steep .')

    References:
        AllenNLP's `elmo` command, which names datasets the same way.
    """
    path, out = Path(path), Path(out)
    pick = layer_picker(layers, encoder.options.n_layers)
    if dtype not in DTYPES:
        raise ParameterError(f"dtype must be 'float32' or 'float16', not {dtype!r}.")
    facts = {
        "format": FORMAT,
        "model": model_fingerprint(encoder.bilm),
        "text": _sha256(path),
        "tokenizer": tokenizer.to_json(),
        "layers": layers if isinstance(layers, str) else int(layers),
        "dtype": dtype,
    }
    if not out.exists():
        with alone_in(out, out.with_name(f".{out.name}.lock"), CorpusError):
            # Another process may have finished it just before the lock was free.
            if not out.exists():
                part = out.with_name(f"{out.name}.part")
                with _reported(part):
                    if part.exists():
                        _refuse_another(part, facts)
                    else:
                        _lay_out(path, part, tokenizer, encoder, facts)
                    _fill(part, encoder, pick, batch_size, progress)
                    os.replace(part, out)
                    sync_folder(out.parent)
    _refuse_another(out, facts)
    return out


class EmbeddedCorpus:
    """The vectors and words of a text, in a file made by `embed_corpus`.

    Only what is asked for is read.

    Args:
        path: the file.

    Attributes:
        facts: what it was made from: `model` (fingerprint), `text` (SHA-256), `tokenizer`,
            `layers`, `dtype`.
        lengths: int64 array `(n_lines,)`, words of each line.

    Raises:
        CorpusError: the file is missing, foreign, damaged or not finished.

    Example:
        >>> with EmbeddedCorpus("corpus.h5") as corpus:
        ...     corpus.words(0)[:3], corpus[0].shape
        (['The', 'river', 'bank'], (6, 128))
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.facts = _read_facts(self.path)
        self._file = h5py.File(self.path, "r")
        self.lengths = self._whole_numbers("lengths", 1)
        if int(self._whole_numbers("lines_done", 0)) != len(self):
            raise CorpusError(
                f"{self.path} is not finished: call embed_corpus again to go on with it."
            )

    def __enter__(self) -> EmbeddedCorpus:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, line: int) -> np.ndarray:
        """The vectors of a line, counted from 0; see `embed_corpus` for their shape."""
        if not 0 <= line < len(self):
            raise IndexError(f"{self.path} has lines 0 to {len(self) - 1}, not {line}.")
        with self._sound():
            return self._stored(str(line))[...]

    def words(self, line: int) -> list[str]:
        """The words of a line, counted from 0."""
        with self._sound():
            return self._stored("text").asstr()[line].split()

    def sentences(self) -> Iterable[list[str]]:
        """The words of every line that has some, to be gone through as often as wanted."""
        return _Sentences(self)

    def lines_by(self, bilm: BiLM, layers: str | int) -> Iterator[tuple[list[str], np.ndarray]]:
        """Go through all lines that have words, with their vectors of one layer.

        Args:
            bilm: the model that has to be the one of this file.
            layers: "average", "top" or a layer's number.

        Yields:
            the words, and float32 `(n_words, 2 * projection_dim)`.

        Raises:
            CorpusError: the file was made with another model, or does not hold these layers.
        """
        if self.facts["model"] != model_fingerprint(bilm):
            raise CorpusError(f"{self.path} was made with another model: embed the text again.")
        stored = self.facts["layers"]
        pick = layer_picker(layers, bilm.options.n_layers)
        if stored != "all":
            if _number(stored, bilm) != _number(layers, bilm):
                raise CorpusError(
                    f"{self.path} holds the layers {stored!r}, not {layers!r}: ask for those, or "
                    "embed the text with layers='all'."
                )
            pick = layer_picker("all", bilm.options.n_layers)
        for line, words in enumerate(self._all_words()):
            if words:
                yield words, pick(self[line].astype(np.float32))

    def beside(self, suffix: str) -> Path:
        """Name a file beside this one for something else that is made from the same words."""
        words = json.dumps([self.facts["text"], self.facts["tokenizer"]], sort_keys=True)
        digest = hashlib.sha256(words.encode()).hexdigest()[:12]
        return self.path.with_name(f"{self.path.name}.{digest}.{suffix}")

    def _all_words(self) -> Iterator[list[str]]:
        for first in range(0, len(self), _TEXT_LINES):
            with self._sound():
                lines = self._stored("text").asstr()[first : first + _TEXT_LINES]
            for line in lines:
                yield line.split()

    def _stored(self, name: str) -> h5py.Dataset:
        """Find a dataset that is stored in this file itself, all of it."""
        dataset = find_data(self._file, name, str(self.path))
        if dataset is None:
            raise _damaged(self.path)
        require_stored(self._file, [(name, dataset)], str(self.path))
        return dataset

    def _whole_numbers(self, name: str, ndim: int) -> np.ndarray:
        with self._sound():
            dataset = self._stored(name)
            if dataset.dtype != np.int64 or dataset.ndim != ndim:
                raise _damaged(self.path)
            return dataset[()]

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Take whatever h5py makes of damaged bytes for what it is."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, LookupError, TypeError, ArithmeticError):
            raise _damaged(self.path) from None


class _Sentences:
    def __init__(self, corpus: EmbeddedCorpus) -> None:
        self._corpus = corpus

    def __iter__(self) -> Iterator[list[str]]:
        return (words for words in self._corpus._all_words() if words)


def _number(layers: str | int, bilm: BiLM) -> str | int:
    """Call the top layer by its number, so that both names of it are the same."""
    return bilm.options.n_layers if layers == "top" else layers


def model_fingerprint(bilm: BiLM) -> str:
    """A number in hexadecimal that two models share only if they give the same vectors."""
    digest = hashlib.sha256(json.dumps(bilm.options.to_json(), sort_keys=True).encode())
    for name, variable in sorted(bilm.named_variables().items()):
        if not name.startswith("softmax/"):
            digest.update(np.ascontiguousarray(variable.value).data)
    return digest.hexdigest()


# --- Laying out


def _lay_out(
    path: Path, part: Path, tokenizer: Tokenizer, encoder: SentenceEncoder, facts: dict[str, Any]
) -> None:
    """Make the file with everything in it but the vectors, if the disk can hold them."""
    options, n_layers = encoder.options, encoder.options.n_layers + 1
    dim = 2 * options.projection_dim
    lengths = array("q")
    with _new(part) as unfinished:
        with _PlainFile(unfinished, "wb+") as plain_file, _new_hdf5(plain_file) as file:
            make = _DatasetMaker(file, DTYPES[facts["dtype"]])
            text = file.create_dataset(
                "text",
                (0,),
                h5py.string_dtype(),
                maxshape=(None,),
                chunks=(_TEXT_LINES,),
                track_times=False,
            )
            for lines in _tokenized(path, tokenizer):
                for words in lines:
                    if len(words) * n_layers * dim * 4 > MOST_BYTES_OF_A_LINE:
                        raise TextError(
                            f"{path}, line {len(lengths) + 1}: {len(words):,} words are too many "
                            "for one sentence; put each sentence on a line of its own."
                        )
                    shape = (len(words), dim)
                    make(
                        str(len(lengths)), (n_layers, *shape) if facts["layers"] == "all" else shape
                    )
                    lengths.append(len(words))
                text.resize((len(lengths),))
                text[len(lengths) - len(lines) :] = [" ".join(words) for words in lines]
                plain_file.raise_failure()
            file.create_dataset("lengths", data=np.array(lengths, "<i8"), track_times=False)
            file.create_dataset("lines_done", data=np.array(0, "<i8"), track_times=False)
            file.attrs[FACTS] = np.bytes_(json.dumps(facts, sort_keys=True))
        plain_file.raise_failure()
        _require_space(unfinished, part)
        if _sha256(path) != facts["text"]:
            raise TextError(
                f"{path} was changed while it was read: embed it once nothing writes to it any "
                "more."
            )


@contextmanager
def _new(part: Path) -> Iterator[Path]:
    """Hand out a file that becomes `part` once the block is done.

    Its name is always the same, so that what a kill leaves is overwritten the next time.
    """
    unfinished = part.with_name(f"{part.name}.new")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, part)
    finally:
        unfinished.unlink(missing_ok=True)


class _PlainFile(io.FileIO):
    """A file for HDF5 to write to, which crashes where the disk is full and it is told so.

    So writing to it never fails; whether it did is asked afterwards.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of the data, or remember why not."""
        left = memoryview(data).cast("B")
        try:
            while self.failure is None and len(left):
                left = left[super().write(left) :]
        except OSError as error:
            self.failure = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or remember why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = error
            return self.tell()

    def raise_failure(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.failure is not None:
            raise self.failure


def _new_hdf5(plain_file: _PlainFile) -> h5py.File:
    """Begin an HDF5 file that lists its datasets in order and holds no time of day."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, plain_file)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_link_creation_order(h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED)
    creation.set_obj_track_times(False)
    name = os.fsencode(plain_file.name)
    return h5py.File(h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, fcpl=creation, fapl=access))


class _DatasetMaker:
    """Makes datasets whose place in the file is fixed before anything is in them."""

    def __init__(self, file: h5py.File, dtype: np.dtype) -> None:
        self._file_id = file.id
        self._type = h5py.h5t.py_create(dtype)
        self._properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        self._properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        self._properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        self._properties.set_obj_track_times(False)

    def __call__(self, name: str, shape: tuple[int, ...]) -> None:
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(self._file_id, name.encode(), self._type, space, dcpl=self._properties)


def _tokenized(path: Path, tokenizer: Tokenizer) -> Iterator[list[list[str]]]:
    """The words of all lines, some lines at a time."""
    for chunk in read_chunks(path, TRAIN, CHUNK_BYTES):
        lines = lines_of(chunk)
        for first in range(0, len(lines), _TEXT_LINES):
            yield [tokenizer.words(line) for line in lines[first : first + _TEXT_LINES]]


def _require_space(unfinished: Path, part: Path) -> None:
    size, taken = unfinished.stat().st_size, unfinished.stat().st_blocks * 512
    free = shutil.disk_usage(part.parent).free
    if size - taken > free:
        raise CorpusError(
            f"{part} would have {_readable(size)}, but its disk has only {_readable(free)} left: "
            "free some, or ask for fewer layers or dtype='float16'."
        )


def _sha256(path: Path) -> str:
    try:
        refuse_pipe(path)
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise TextError(f"{path} cannot be read: {reason(error)}.") from None


# --- Filling


def _fill(
    part: Path,
    encoder: SentenceEncoder,
    pick: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
    progress: bool,
) -> None:
    """Put in the vectors that are still to come."""
    with h5py.File(part, "r") as file, part.open("rb+") as plain_file:
        unfinished = _Unfinished(part, file, plain_file, progress)
        for block in unfinished.blocks():
            # A block's numbers then depend on nothing that went before it, to the last bit.
            encoder.forget_words()
            lines = unfinished.lines(block)
            for place, all_layers in encoder.encode_each(lines, batch_size):
                unfinished.write(block[place], pick(all_layers))
            unfinished.finish(block)


class _Unfinished:
    """A file that is laid out, and how far it is filled."""

    def __init__(self, part: Path, file: h5py.File, plain_file: BinaryIO, progress: bool) -> None:
        self._part, self._file, self._plain_file = part, file, plain_file
        self._lengths = file["lengths"][...]
        self._done = int(file["lines_done"][()])
        self._place_of_done = file["lines_done"].id.get_offset()
        n_words, words_done = int(self._lengths.sum()), int(self._lengths[: self._done].sum())
        if progress:
            at = f", of which {self._done:,} lines are done" if self._done else ""
            print(
                f"{part.stem}: {_readable(part.stat().st_size)} for {len(self._lengths):,} lines "
                f"of {n_words:,} words{at}",
                flush=True,
            )
        watched = progress and (sys.stderr.isatty() or is_live_notebook())
        self._bar = tqdm(
            total=n_words, initial=words_done, unit="word", unit_scale=True, disable=not watched
        )

    def blocks(self) -> Iterator[range]:
        """Numbers of lines that are still to be done."""
        n_lines = len(self._lengths)
        ends = np.cumsum(self._lengths)
        with self._bar:
            while self._done < n_lines:
                before = ends[self._done] - self._lengths[self._done]
                full = int(np.searchsorted(ends, before + BLOCK_WORDS)) + 1
                yield range(self._done, min(n_lines, full, self._done + BLOCK_WORDS))

    def lines(self, block: range) -> list[list[str]]:
        """The words of some lines."""
        text = self._file["text"].asstr()[block.start : block.stop]
        return [line.split() for line in text]

    def write(self, line: int, vectors: np.ndarray) -> None:
        """Put the vectors of a line into their place."""
        dataset = self._file[str(line)]
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(vectors, dataset.dtype)
        if not np.isfinite(values).all():
            raise CorpusError(
                f"{self._part}: a vector of line {line + 1} does not fit into {dataset.dtype}: "
                "remove this file and use dtype='float32'."
            )
        if values.size:
            self._plain_file.seek(dataset.id.get_offset())
            self._plain_file.write(values.data)
        self._bar.update(int(self._lengths[line]))

    def finish(self, block: range) -> None:
        """Note that the lines up to the end of a block are done, once they really are."""
        self._sync()
        self._done = block.stop
        self._plain_file.seek(self._place_of_done)
        self._plain_file.write(np.array(self._done, "<i8").tobytes())
        self._sync()

    def _sync(self) -> None:
        self._plain_file.flush()
        os.fsync(self._plain_file.fileno())


@contextmanager
def _reported(part: Path) -> Iterator[None]:
    try:
        yield
    except ElmolibError:
        raise
    except OSError as error:
        raise CorpusError(
            f"{part} cannot be written ({error.strerror or error}): call embed_corpus again once "
            "it can, and nothing that is done is lost."
        ) from None


# --- Knowing files again


def _refuse_another(path: Path, wanted: dict[str, Any]) -> None:
    found = _read_facts(path)
    changed = [name for name in wanted if found.get(name) != wanted[name]]
    if changed:
        raise CorpusError(
            f"{path} is there already and was made with another {' and another '.join(changed)}: "
            "remove it, or choose another name for the new file."
        )


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        refuse_pipe(path)
        with h5py.File(path, "r") as file:
            stored = file.attrs.get_id(FACTS)
            if stored.shape != () or stored.dtype.kind != "S":
                raise _damaged(path)
            facts = json.loads(bytes(file.attrs[FACTS]))
    except FileNotFoundError:
        raise CorpusError(f"There is no file {path}.") from None
    except (OSError, LookupError, ValueError, RuntimeError, RecursionError):
        raise _damaged(path) from None
    if not isinstance(facts, dict):
        raise _damaged(path)
    return facts


def _damaged(path: Path) -> CorpusError:
    return CorpusError(f"{path} is damaged or was not made by embed_corpus: remove or rename it.")


def _readable(n_bytes: int) -> str:
    power = min(4, max(0, (len(str(n_bytes)) - 1) // 3))
    unit = ("bytes", "kB", "MB", "GB", "TB")[power]
    return f"{n_bytes / 1000**power:,.{min(power, 1)}f} {unit}"
