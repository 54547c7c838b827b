"""A large text piece by piece: each piece becomes a sorted list of its words and their numbers.

Pieces are worked on by helper processes, started as `python -m elmolib.chunks`, which read one line
of JSON and the bytes of a piece, and answer with one line of JSON. They import neither TensorFlow
nor the user's script, so that a script needs no guard around its main part.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import zlib
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from elmolib.errors import TextError, reason
from elmolib.text import Tokenizer

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

TRAIN, HELDOUT = "train", "heldout"
SIDES = (TRAIN, HELDOUT)

MOST_BYTES_OF_A_LINE = 2**28
"""A line is in memory whole, with all its words: up to twenty times its size."""


@dataclass(frozen=True)
class Rules:
    """What to do with every piece of a text.

    Args:
        tokenizer: `Tokenizer.to_json()`.
        errors: `"strict"` or `"replace"`, for bytes that are not UTF-8.
        heldout_fraction: share of sentences to hold out, by their words.
        seed: decides which sentences those are.
        hash_sentences: also store a number for each sentence by which to find it again.
    """

    tokenizer: dict
    errors: str
    heldout_fraction: float
    seed: int
    hash_sentences: bool

    @property
    def needs_hashes(self) -> bool:
        return self.hash_sentences or self.heldout_fraction > 0


@dataclass(frozen=True)
class Chunk:
    """Whole lines of a text file.

    Args:
        source: the file, as errors name it.
        side: `TRAIN` or `HELDOUT`; sentences of the former may be held out by `Rules`.
        first_line: number of its first line in the file, from 1.
        first_byte: place of its first byte in the file (in the decompressed text of a `.gz`).
        data: the bytes.
    """

    source: str
    side: str
    first_line: int
    first_byte: int
    data: bytes


@dataclass(frozen=True)
class ChunkReport:
    """How a chunk went: its lines, those without any word, and sentences and words per side."""

    lines: int
    empty_lines: int
    sentences: dict[str, int]
    words: dict[str, int]


def read_chunks(path: Path, side: str, chunk_bytes: int) -> Iterator[Chunk]:
    """Cut a text file into chunks that end at the end of a line, in order.

    Args:
        path: the file, plain or `.gz`.
        side: of the chunks.
        chunk_bytes: their least size, the last one apart; longer where lines are.

    Raises:
        TextError: the file cannot be read, is empty, or holds a NUL byte or a line without end.
    """
    line, byte = 1, 0
    for data in _whole_lines(_blocks(path, min(chunk_bytes, 1 << 20)), chunk_bytes):
        yield Chunk(str(path), side, line, byte, data)
        line += data.count(b"\n")
        byte += len(data)
    if byte == 0:
        raise TextError(f"{path} is empty.")


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    """The text of a file, refused at what is no text before more of it is gathered."""
    line, length = 1, 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            while block := stream.read(size):
                if (nul := block.find(b"\0")) >= 0:
                    line += block.count(b"\n", 0, nul)
                    raise TextError(
                        f"{path}, line {line}: a NUL byte, so the file is binary or not in UTF-8."
                    )
                line += block.count(b"\n")
                length = (0 if b"\n" in block else length) + len(block) - block.rfind(b"\n") - 1
                if length > MOST_BYTES_OF_A_LINE:
                    raise TextError(
                        f"{path}, line {line}: the line has more than {MOST_BYTES_OF_A_LINE:,} "
                        "bytes; put each paragraph on a line of its own."
                    )
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise TextError(f"{path} cannot be read: {reason(error)}.") from None


def _whole_lines(blocks: Iterator[bytes], least: int) -> Iterator[bytes]:
    pending: list[bytes] = []
    size = 0
    for block in blocks:
        pending.append(block)
        size += len(block)
        if size >= least and (cut := block.rfind(b"\n") + 1):
            pending[-1] = block[:cut]
            yield b"".join(pending)
            pending, size = [block[cut:]], len(block) - cut
    if size:
        yield b"".join(pending)


def prepare_chunk(chunk: Chunk, rules: Rules, target: Path) -> ChunkReport:
    """Write the words of a chunk and its sentences as numbers of these words.

    Args:
        chunk: the text.
        rules: what to do with it.
        target: path without suffix: `.words` will hold the distinct words in code-point order,
            one per line, `.npz` for each side `<side>_counts` (of the words), `<side>_ids`
            (places in the word list), `<side>_lengths` (of sentences) and `<side>_hashes`.

    Raises:
        TextError: the bytes are not UTF-8.
    """
    tokenizer = Tokenizer.from_json(rules.tokenizer)
    numbers = _Numbers()
    sides = {side: _Sentences() for side in SIDES}
    empty_lines = 0
    lines = lines_of(chunk, rules.errors)
    for line in lines:
        is_empty = True
        for words in tokenizer.each_sentence(line):
            is_empty = False
            number = sentence_hash(words, rules.seed) if rules.needs_hashes else 0
            held_out = number < rules.heldout_fraction * 2**64
            sentences_of_side = sides[HELDOUT if held_out else chunk.side]
            sentences_of_side.add(map(numbers.__getitem__, words), len(words), number)
        empty_lines += is_empty
    _write_words(target, numbers, sides, rules.hash_sentences)
    return ChunkReport(
        lines=len(lines),
        empty_lines=empty_lines,
        sentences={side: len(sides[side].lengths) for side in SIDES},
        words={side: len(sides[side].ids) for side in SIDES},
    )


def sentence_hash(words: list[str], seed: int) -> int:
    """A number below 2 ** 64 that depends on nothing but the words of a sentence and the seed."""
    key = (seed % 2**64).to_bytes(8, "little")
    digest = hashlib.blake2b(" ".join(words).encode(), digest_size=8, key=key)
    return int.from_bytes(digest.digest(), "little")


class _Numbers(dict):
    """Gives each new word the next number."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


class _Sentences:
    """The sentences of one side, packed."""

    def __init__(self) -> None:
        self.ids = array("I")
        self.lengths = array("I")
        self.hashes = array("Q")

    def add(self, ids: Iterable[int], length: int, number: int) -> None:
        self.ids.extend(ids)
        self.lengths.append(length)
        self.hashes.append(number)


def lines_of(chunk: Chunk, errors: str = "strict") -> list[str]:
    """The lines of a chunk, without their ends.

    Raises:
        TextError: the bytes are not UTF-8, and `errors` is `"strict"`.
    """
    lines = _decoded(chunk, errors).split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _decoded(chunk: Chunk, errors: str) -> str:
    first_byte, data = chunk.first_byte, chunk.data
    if first_byte == 0 and data.startswith(BYTE_ORDER_MARK):
        first_byte, data = len(BYTE_ORDER_MARK), data[len(BYTE_ORDER_MARK) :]
    try:
        return data.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        line = chunk.first_line + data.count(b"\n", 0, error.start)
        raise TextError(
            f"{chunk.source}, line {line}: byte {first_byte + error.start} of the text is not "
            "valid UTF-8; convert the file, or prepare it with errors: replace."
        ) from None


def _write_words(
    target: Path, numbers: _Numbers, sides: dict[str, _Sentences], with_hashes: bool
) -> None:
    words = list(numbers)
    order = np.array(sorted(range(len(words)), key=words.__getitem__), dtype=np.int64)
    places = np.empty(len(words), dtype=np.uint32)
    places[order] = np.arange(len(words), dtype=np.uint32)
    arrays = {}
    for side, sentences in sides.items():
        ids = places[np.asarray(sentences.ids, dtype=np.uint32)]
        arrays[f"{side}_ids"] = ids
        arrays[f"{side}_counts"] = np.bincount(ids, minlength=len(words))
        arrays[f"{side}_lengths"] = np.asarray(sentences.lengths, dtype=np.uint32)
        if with_hashes:
            arrays[f"{side}_hashes"] = np.asarray(sentences.hashes, dtype=np.uint64)
    np.savez(target.with_suffix(".npz"), **arrays)
    text = "".join(f"{words[number]}\n" for number in order)
    target.with_suffix(".words").write_text(text, encoding="utf-8", newline="\n")


class Workers:
    """Helper processes that prepare chunks beside each other.

    Args:
        processes: how many; 1 works in this process instead.
        rules: for all chunks.

    Example:
        >>> with Workers(2, rules) as workers:
        ...     reports = [*workers.prepare(chunks, folder)]
    """

    def __init__(self, processes: int, rules: Rules):
        self._processes = processes
        self._rules = rules
        self._idle: list[subprocess.Popen] = []
        self._started: list[subprocess.Popen] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *failure: object) -> None:
        for process in self._started:
            process.kill()
        for process in self._started:
            process.communicate()

    def prepare(
        self, chunks: Iterable[Chunk], folder: Path
    ) -> Iterator[tuple[Chunk, Path, ChunkReport]]:
        """Prepare chunks, reading no more of them ahead than there are processes to feed.

        Yields:
            For each chunk in order: the chunk without its data, what `prepare_chunk` was given as
            `target`, and its report.
        """
        waiting: deque[tuple[Chunk, Path, Future[ChunkReport]]] = deque()
        with ThreadPoolExecutor(self._processes) as threads:
            try:
                for number, chunk in enumerate(chunks):
                    target = folder / f"chunk-{number:06d}"
                    future = threads.submit(self._prepare_one, chunk, target)
                    waiting.append((replace(chunk, data=b""), target, future))
                    if len(waiting) > self._processes:
                        yield self._first(waiting)
                while waiting:
                    yield self._first(waiting)
            finally:
                for *_, future in waiting:
                    future.cancel()

    @staticmethod
    def _first(
        waiting: deque[tuple[Chunk, Path, Future[ChunkReport]]],
    ) -> tuple[Chunk, Path, ChunkReport]:
        chunk, target, future = waiting.popleft()
        return chunk, target, future.result()

    def _prepare_one(self, chunk: Chunk, target: Path) -> ChunkReport:
        if self._processes == 1:
            return prepare_chunk(chunk, self._rules, target)
        try:
            process = self._idle.pop()
        except IndexError:
            process = self._start()
        answer = _ask(process, chunk, self._rules, target)
        self._idle.append(process)
        if "error" in answer:
            raise TextError(answer["error"])
        if "failure" in answer:
            raise OSError(*answer["failure"])
        return ChunkReport(**answer)

    def _start(self) -> subprocess.Popen:
        # What this process can import, the helper must be able to import, installed or not.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._started.append(process)
        return process


def _ask(process: subprocess.Popen, chunk: Chunk, rules: Rules, target: Path) -> dict:
    task = {
        "chunk": {**vars(chunk), "data": len(chunk.data)},
        "rules": vars(rules),
        "target": str(target),
    }
    try:
        process.stdin.write(json.dumps(task).encode() + b"\n" + chunk.data)
        process.stdin.flush()
        return json.loads(process.stdout.readline())
    except (OSError, ValueError):
        raise TextError(
            f"A helper process ended while it worked on {chunk.source} from line "
            f"{chunk.first_line} on; memory or disk space may have run out."
        ) from None


def _serve() -> None:
    """Answer tasks until there are no more."""
    # An interrupt from the keyboard reaches the whole group, and the main process deals with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while line := sys.stdin.buffer.readline():
        task = json.loads(line)
        data = sys.stdin.buffer.read(task["chunk"]["data"])
        chunk = Chunk(**{**task["chunk"], "data": data})
        try:
            answer = asdict(prepare_chunk(chunk, Rules(**task["rules"]), Path(task["target"])))
        except TextError as error:
            answer = {"error": str(error)}
        except OSError as error:
            answer = {"failure": [error.errno, error.strerror]}
        try:
            print(json.dumps(answer), flush=True)
        except BrokenPipeError:  # the main process was killed, and nobody waits any more
            os._exit(1)


if __name__ == "__main__":
    _serve()
