"""Find text files, read them in chunks, and detect changes in them."""

import bz2
import glob
import gzip
import io
import lzma
import os
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elmolib.corpus import wikipedia
from elmolib.errors import TextError, reason
from elmolib.files import sha256_of
from elmolib.settings.run_folder import is_ours
from elmolib.text.lines import count_marks, split_lines, warn_of_marks
from elmolib.text.tokenizer import Tokenizer

Texts = str | Path | Sequence[str | Path]  # one or several paths or globs

CHUNK_BYTES = 8 << 20
MAX_LINE_BYTES = 2**28  # preparing a line takes up to twenty times its size in memory
COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
FIRST_BYTES = {
    rb"\x1f\x8b": ".gz",
    rb"BZh[1-9]1A": ".bz2",
    rb"\xfd7zXZ\0": ".xz",
    rb"\x28\xb5\x2f\xfd": "a Zstandard file",
    rb"\x04\x22\x4d\x18": "an LZ4 file",
    rb"PK\x03\x04": "a zip archive",
    rb"7z\xbc\xaf\x27\x1c": "a 7z archive",
    rb"Rar!\x1a": "a RAR archive",
    rb"\x1f\x9d": "a file of the program compress",
}
"""For patterns of a file's first bytes, the suffix of a readable format, or a name for errors."""


def find_files(text: Texts, root: Path = Path(), run_path: Path | None = None) -> list[Path]:
    """Find text files by paths or globs relative to `root`; "wikipedia" means gensim's excerpt.

    A glob skips files that elmolib wrote (in `run_path`, other runs and prepared corpora), further
    links to the same file, and `a.txt.gz` if `a.txt` exists. A warning says so. If a file is
    missing or a directory, raise a TextError.
    """
    files = []
    for name in [text] if isinstance(text, str | Path) else text:
        if str(name) == wikipedia.NAME:
            files.append(wikipedia.dump_path())
        else:
            files += _matches(Path(name).expanduser(), root, run_path)
    return files


def _matches(typed: Path, root: Path, run_path: Path | None) -> list[Path]:
    path = root / typed
    # Path.is_file and Path.is_dir would raise an error if the name is too long.
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        raise TextError(f"{path} is a directory: name its files, for example {path / '*.txt'}.")
    # Existing folders are not patterns, even if their names contain brackets.
    base = next(folder for folder in path.parents if os.path.isdir(folder))
    pattern = str(Path(glob.escape(str(base))) / path.relative_to(base))
    found = [*filter(Path.is_file, map(Path, sorted(glob.glob(pattern, recursive=True))))]
    files: dict[tuple[int, int], Path] = {}
    for file in found:
        folders = [parent for parent in file.parents if base in parent.parents]
        is_written = any(folder == run_path or is_ours(folder) for folder in folders)
        is_packed = file.suffix.lower() in COMPRESSED and file.with_suffix("") in found
        if not (is_written or is_packed):
            files.setdefault(identity_of(file), file)
    if not files:
        advice = "give sentences as ELMo(sentences=...)" if " " in typed.name else "check the name"
        raise TextError(f"There is no file {path}: {advice}.")
    if left_out := [file for file in found if file not in files.values()]:
        why = "because elmolib wrote them or they are other copies of a file"
        others = f"{len(left_out)} files that are left out, {why}; the first is {left_out[0]}"
        warnings.warn(f"{path} also matches {others}.", stacklevel=2)
    return list(files.values())


def identity_of(path: Path) -> tuple[int, int]:
    """Return two numbers that are equal for all links to a file."""
    status = path.stat()
    return status.st_dev, status.st_ino


def read_sentences(text: Texts, tokenizer: Tokenizer) -> Iterator[list[str]]:
    """Yield the words of each sentence of a text, with errors as in `find_files`, `read_chunks`."""
    n_marks = 0
    for path in find_files(text):
        for chunk in read_chunks(path):
            lines = chunk.lines()
            n_marks += count_marks(lines)
            for line in lines:
                yield from tokenizer.each_sentence(line)
    warn_of_marks(n_marks, text)


class Chunk(NamedTuple):
    """Whole lines of a text file."""

    path: str  # the file's name in errors
    first_line: int  # number of the first line in the file, from 1
    first_byte: int  # position of the first byte in the decompressed file, from 0
    data: bytes

    def lines(self, errors: str = "strict") -> list[str]:
        """Return the lines without their line ends; raise a TextError if they are not UTF-8."""
        try:
            return split_lines(self.data.decode("utf-8", errors))
        except UnicodeDecodeError as error:
            line = self.first_line + self.data.count(b"\n", 0, error.start)
            place = f"{self.path}, line {line}: byte {self.first_byte + error.start} of the text"
            advice = "convert the file, or set the parameter `errors` to 'replace'"
            raise TextError(f"{place} is not valid UTF-8: {advice}.") from None


def read_chunks(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Split a text file (plain or compressed) at line ends into chunks of at least `chunk_bytes`.

    Raises:
        TextError: the file cannot be read, is empty, or has a NUL byte or a line that is too long.
    """
    line, byte = 1, 0
    for data in _whole_lines(_blocks(path, min(chunk_bytes, 1 << 20)), chunk_bytes):
        yield Chunk(str(path), line, byte, data)
        line += data.count(b"\n")
        byte += len(data)
    if byte == 0:
        raise TextError(f"{path} is empty: give a file with text.")


def read_lines(path: Path, first_byte: int, n_bytes: int) -> list[str]:
    """Return the lines of one chunk of `read_chunks`, without reading the chunks before it again.

    A compressed file is decompressed from its beginning.
    """
    try:
        with _open(path) as stream:
            stream.seek(first_byte)
            return split_lines(stream.read(n_bytes).decode())
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, lzma.LZMAError) as error:
        raise TextError(f"{path} cannot be read again: {reason(error)}.") from None


def _open(path: Path) -> io.BufferedIOBase:
    if path.name == wikipedia.DUMP:
        return io.BytesIO(wikipedia.excerpt().encode())
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        begin = file.read(6)
    kind = next((kind for first, kind in FIRST_BYTES.items() if re.match(first, begin)), suffix)
    if kind in FIRST_BYTES.values() and kind not in COMPRESSED:
        raise TextError(f"{path} is {kind}, which elmolib cannot read: unpack it first.")
    opener = COMPRESSED.get(suffix if suffix in COMPRESSED else kind)
    return opener(path) if opener else path.open("rb")


_LONE_RETURN = re.compile(rb"\r(?!\n)")


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks. Replace each lone `\\r` by `\\n`; refuse binary data."""
    line, length = 1, 0
    try:
        with _open(path) as stream:
            while block := stream.read(size):
                if block.endswith(b"\r"):
                    block += stream.read(1)
                if b"\r" in block and block.count(b"\r") > block.count(b"\r\n"):
                    block = _LONE_RETURN.sub(b"\n", block)
                if (nul := block.find(b"\0")) >= 0:
                    line += block.count(b"\n", 0, nul)
                    fault = "has a NUL byte, so the file is binary or not in UTF-8"
                    raise TextError(f"{path}, line {line} {fault}: convert it to UTF-8.")
                line += block.count(b"\n")
                length = (0 if b"\n" in block else length) + len(block) - block.rfind(b"\n") - 1
                if length > MAX_LINE_BYTES:
                    fault = f"the line has more than {MAX_LINE_BYTES:,} bytes"
                    advice = "put each paragraph on a line of its own"
                    raise TextError(f"{path}, line {line}: {fault}: {advice}.")
                yield block
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise TextError(f"{path} cannot be read: {reason(error)}.") from None


def _whole_lines(blocks: Iterator[bytes], min_size: int) -> Iterator[bytes]:
    pending, size = list[bytes](), 0
    for block in blocks:
        pending.append(block)
        size += len(block)
        if size >= min_size and (cut := block.rfind(b"\n") + 1):
            pending[-1] = block[:cut]
            yield b"".join(pending)
            pending, size = [block[cut:]], len(block) - cut
    if size:
        yield b"".join(pending)


class Source(NamedTuple):
    """A text file and the side of the corpus that it belongs to, `TRAIN` or `HELDOUT`."""

    side: str
    path: Path

    def estimated_bytes(self) -> int:
        """Estimate the bytes of text: about three times the size of a compressed file."""
        return self.path.stat().st_size * (3 if self.path.suffix.lower() in COMPRESSED else 1)

    def fingerprint(self) -> dict[str, Any]:
        """Return properties of the file; `is_unchanged` compares them later to detect a change."""
        try:
            now, digest = self.path.stat(), sha256_of(self.path)
        except OSError as error:
            raise TextError(f"{self.path} cannot be read: {reason(error)}.") from None
        times = {"size": now.st_size, "modified_ns": now.st_mtime_ns}
        return {"side": self.side, "name": str(self.path), **times, "sha256": digest}

    def is_unchanged(self, since: dict[str, Any]) -> bool:
        """Whether the file has this fingerprint. Read it only if its path or mtime differs."""
        now = self.path.stat()
        if (self.side, now.st_size) != (since["side"], since["size"]):
            return False
        is_same = (str(self.path), now.st_mtime_ns) == (since["name"], since["modified_ns"])
        return is_same or sha256_of(self.path) == since["sha256"]
