"""List the words of each chunk of text, and replace words by their numbers, in parallel.

Helper processes, started as `python -m elmolib.corpus.chunks`, read a line of JSON and the bytes of
a chunk, and answer with a line of JSON. They do not import TensorFlow or the user's script, so the
script needs no `if __name__ == "__main__"`. They also end if the main process is killed.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import warnings
from array import array
from collections import defaultdict
from collections.abc import Generator, Iterable
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elmolib.corpus.sources import Chunk
from elmolib.errors import TextError
from elmolib.parallel import prefetch
from elmolib.text.lines import MAY_HAVE_MARKS, count_marks
from elmolib.text.tokenizer import Tokenizer

TRAIN, HELDOUT = SIDES = ("train", "heldout")

Counts = dict[str, dict[str, int]]
"""For each side, the numbers of `lines`, `empty_lines`, `sentence_marks`, `sentences`, `words`."""


class Rules(NamedTuple):
    """How every chunk of a text is prepared."""

    tokenizer: dict  # `Tokenizer.to_json()`
    errors: str  # "strict" or "replace", for bytes that are not UTF-8
    heldout_fraction: float  # fraction of the training sentences to hold out
    seed: int  # the seed that chooses the held-out sentences
    hash_sentences: bool  # whether to store hashes of the sentences, to find duplicates


def prepare_chunk(chunk: Chunk, side: str, rules: Rules, target: Path) -> Counts:
    """Write the distinct words of a chunk, and its sentences as indices into these words.

    Some sentences of the side `TRAIN` may still be held out; see `rules`. `target` is the path of
    the two files, without suffixes. `.words` has the distinct words in code-point order, one per
    line. `.npz` has, for each side, `<side>_counts` (distinct words,), `<side>_ids` (words,),
    `<side>_lengths` (sentences,) and, if `rules` asks for them, `<side>_hashes` (sentences,).
    If the bytes are not UTF-8, raise a TextError.
    """
    tokenizer = Tokenizer(**rules.tokenizer)
    keyed_hash = hashlib.blake2b(digest_size=8, key=(rules.seed % 2**64).to_bytes(8, "little"))
    needs_hashes = rules.hash_sentences or rules.heldout_fraction > 0
    heldout_below = rules.heldout_fraction * 2**64
    numbers: defaultdict[str, int] = defaultdict(count().__next__)
    ids, lengths, hashes = ({s: array(code) for s in SIDES} for code in "IIQ")
    lines = chunk.lines(rules.errors)
    n_lines, n_empty = len(lines), 0
    n_marks = count_marks(lines) if MAY_HAVE_MARKS.search(chunk.data) else 0
    for line in lines:
        is_empty = True
        for words in tokenizer.each_sentence(line, n_marks > 0):
            is_empty = False
            number = _hash(words, keyed_hash) if needs_hashes else 0
            chosen = HELDOUT if number < heldout_below else side
            ids[chosen].extend(map(numbers.__getitem__, words))
            lengths[chosen].append(len(words))
            hashes[chosen].append(number)
        n_empty += is_empty
    del lines  # free their memory before the arrays take memory

    words = sorted(numbers)
    places = np.empty(len(words), np.uint32)
    places[np.fromiter(map(numbers.__getitem__, words), np.int64)] = np.arange(len(words))
    arrays = {f"{s}_ids": places[np.asarray(ids[s])] for s in SIDES}
    arrays |= {f"{s}_counts": np.bincount(arrays[f"{s}_ids"], minlength=len(words)) for s in SIDES}
    arrays |= {f"{s}_lengths": np.asarray(lengths[s]) for s in SIDES}
    if rules.hash_sentences:
        arrays |= {f"{s}_hashes": np.asarray(hashes[s]) for s in SIDES}
    np.savez(target.with_suffix(".npz"), **arrays)
    target.with_suffix(".words").write_bytes("".join(f"{word}\n" for word in words).encode())
    found = {"lines": n_lines, "empty_lines": n_empty, "sentence_marks": n_marks}
    counts = {what: dict.fromkeys(SIDES, 0) | {side: n} for what, n in found.items()}
    by_side = {"sentences": lengths, "words": ids}
    return counts | {what: {s: len(by_side[what][s]) for s in SIDES} for what in by_side}


def _hash(words: list[str], keyed_hash: hashlib.blake2b) -> int:
    """Return a number below 2 ** 64 that depends only on the sentence's words and the key."""
    sentence_hash = keyed_hash.copy()
    sentence_hash.update(" ".join(words).encode())
    return int.from_bytes(sentence_hash.digest(), "little")


def prepare_chunks(
    chunks: Iterable[tuple[str, Chunk]], rules: Rules, folder: Path, processes: int
) -> Generator[tuple[Path, Counts], None, None]:
    """Prepare (side, chunk) pairs, in helper processes if `processes` is above 1.

    Yield each chunk's `target` in `folder` and the result of `prepare_chunk`, in order. A new pair
    is read only when a process is free, so few chunks are in memory.
    """
    # Helpers find modules in the same folders as this process, so elmolib need not be installed.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command, pipe = [sys.executable, "-m", __name__], subprocess.PIPE
    helpers = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        for _ in range(processes if processes > 1 else 0)
    ]
    idle = [*helpers]

    def prepare(task: tuple[int, tuple[str, Chunk]]) -> tuple[Path, Counts]:
        number, (side, chunk) = task
        target = folder / f"chunk-{number:06d}"
        if not helpers:
            return target, prepare_chunk(chunk, side, rules, target)
        helper = idle.pop()
        try:
            return target, _ask(helper, chunk, side, rules, target)
        finally:
            idle.append(helper)

    try:
        yield from prefetch(prepare, enumerate(chunks), len(helpers))
    finally:
        for helper in helpers:
            helper.kill()
            helper.communicate()


def _ask(helper: subprocess.Popen, chunk: Chunk, side: str, rules: Rules, target: Path) -> Counts:
    task = [[*chunk[:-1], len(chunk.data)], side, rules, str(target)]
    try:
        helper.stdin.write(json.dumps(task).encode() + b"\n" + chunk.data)
        helper.stdin.flush()
        counts, text_error, os_error = json.loads(helper.stdout.readline())
    except (OSError, ValueError):
        place = f"{chunk.path}, line {chunk.first_line} or later"
        advice = "make sure that there is enough memory and disk space"
        raise TextError(f"A helper process died while reading {place}: {advice}.") from None
    if text_error:
        raise TextError(text_error)
    if os_error:
        raise OSError(*os_error)
    return counts


def _serve() -> None:
    """Answer the tasks on standard input until the input ends."""
    warnings.simplefilter("ignore")  # the main process warns once
    # Ctrl-C reaches all processes of the group, but only the main process handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while task := sys.stdin.buffer.readline():
        (path, line, byte, size), side, rules, target = json.loads(task)
        chunk = Chunk(path, line, byte, sys.stdin.buffer.read(size))
        try:
            answer: list = [prepare_chunk(chunk, side, Rules(*rules), Path(target)), None, None]
        except TextError as error:
            answer = [None, str(error), None]
        except OSError as error:
            answer = [None, None, [error.errno, error.strerror]]
        try:
            print(json.dumps(answer), flush=True)
        except BrokenPipeError:  # the main process was killed
            os._exit(1)


if __name__ == "__main__":
    _serve()
