"""A text made ready for training: a folder of memory-mapped numbers and a record of their making.

The text goes through once, chunk by chunk; every chunk leaves a sorted list of its words. These
lists are merged and numbered by frequency, and the chunks' sentences rewritten in these numbers. So
memory holds a few chunks and some numbers per distinct word, however long the text.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import platform
import shutil
import socket
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np

from elmolib import wikipedia
from elmolib.checkpoint import has_checkpoints
from elmolib.chunks import (
    HELDOUT,
    SIDES,
    TRAIN,
    Chunk,
    ChunkReport,
    Rules,
    Workers,
    lines_of,
    read_chunks,
)
from elmolib.errors import CorpusError, TextError, reason
from elmolib.files import sync_folder
from elmolib.fine_tuning import KEEP_VOCABULARY, pretrained_words
from elmolib.lexicon import Lexicon, SortedWords, reordered_words
from elmolib.locks import alone_in
from elmolib.parameters import Parameters
from elmolib.text import Tokenizer
from elmolib.vocabulary import SPECIAL_WORDS, Vocabulary, read_words

FORMAT = 2
RECORD = "corpus.json"
VOCABULARY = "vocabulary.txt"

CHUNK_BYTES = 8 << 20
MOST_PROCESSES = 8
"""More would only wait for the one that reads, and each takes memory."""

TEXT_PARAMETERS = (
    "text",
    "heldout_text",
    "heldout_fraction",
    "tokenized",
    "language",
    "strip_html",
    "unicode_form",
    "romanian_commas",
    "errors",
    "vocabulary_file",
    "vocabulary_size",
    "min_count",
)


@dataclass(frozen=True)
class Split:
    """Sentences of one side, training or held-out, memory-mapped.

    Args:
        ids: uint32 array of shape `(n_words,)`, the lexicon ids of all words in order, without
            marks between sentences.
        bounds: int64 array of shape `(n_sentences + 1,)`; sentence `k` is
            `ids[bounds[k]:bounds[k + 1]]`.
    """

    ids: np.ndarray
    bounds: np.ndarray

    @property
    def n_sentences(self) -> int:
        return len(self.bounds) - 1

    @property
    def n_words(self) -> int:
        return len(self.ids)

    def select(self, which: Sequence[int] | np.ndarray) -> Split:
        """Copy the sentences with these numbers."""
        parts = [self.ids[self.bounds[k] : self.bounds[k + 1]] for k in which]
        lengths = [0, *(len(part) for part in parts)]
        return Split(np.concatenate(parts), np.cumsum(lengths, dtype=np.int64))


class PreparedCorpus:
    """A prepared corpus on disk, found undamaged by its checksums; what is asked for is read.

    Args:
        path: the folder that `prepare_corpus` made.

    Attributes:
        record: dictionary from `corpus.json`: `made_from` (parameters and files), `made_with`
            (versions), `counts`, `files` (sizes in bytes) and `sha256` (checksums of the files).
        fingerprints: checksums of what training depends on, by what it is called.
        train, heldout: the two `Split`s; `heldout` is None where nothing was held out.
        lexicon: every distinct word of both, numbered `<S>`, `</S>`, `<UNK>`, then what the softmax
            knows, then the rest, each by falling count in the training text and by code point among
            equals. A word's target is its id if that is below `len(vocabulary)`, else `UNK`.

    Raises:
        CorpusError: the folder is missing or no corpus, or one of its files is damaged.

    Example:
        >>> corpus = PreparedCorpus("runs/tiny/corpus")
        >>> corpus.lexicon.words(corpus.train.ids[: corpus.train.bounds[1]])[:2]
        ['Anarchism', 'is']
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.record = _read_record(self.path)
        try:
            counts = self.record["counts"]
            n_words, n_sentences = counts["words"], counts["sentences"]
            self._n_lexicon, self._n_vocabulary = counts["lexicon"], counts["vocabulary"]
            if not len(SPECIAL_WORDS) <= self._n_vocabulary <= self._n_lexicon:
                raise _damaged(self.path / RECORD)
            self._check_files(self.record["files"], self.record["sha256"])
            self.train = self._split(TRAIN, n_words[TRAIN], n_sentences[TRAIN])
            self.heldout = (
                self._split(HELDOUT, n_words[HELDOUT], n_sentences[HELDOUT])
                if n_sentences[HELDOUT]
                else None
            )
            self._tokenizer_settings = self.record["made_from"]["tokenizer"]
            self.fingerprints = {
                "training text": self._fingerprint(f"{TRAIN}_", "lexicon_text", "lexicon_offsets"),
                "held-out text": self._fingerprint(f"{HELDOUT}_"),
                "vocabulary": self._fingerprint(VOCABULARY),
            }
        except (KeyError, TypeError, AttributeError):
            raise _damaged(self.path / RECORD) from None
        offsets = self._array("lexicon_offsets", np.int64, self._n_lexicon + 1)
        self.lexicon = Lexicon(
            self._array("lexicon_text", np.uint8, int(offsets[-1])),
            offsets,
            self._array("lexicon_counts", np.int64, self._n_lexicon),
        )

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words that the softmax knows."""
        return Vocabulary(self.lexicon.words(np.arange(self._n_vocabulary)))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What cut the text into sentences and words."""
        return Tokenizer.from_json(self._tokenizer_settings, str(self.path / RECORD))

    def _fingerprint(self, *beginnings: str) -> str:
        """The checksum of all files whose names begin so, taken together."""
        sums = self.record["sha256"]
        chosen = sorted(name for name in self.record["files"] if name.startswith(beginnings))
        return hashlib.sha256(" ".join(sums[name] for name in chosen).encode()).hexdigest()

    def _check_files(self, sizes: dict[str, int], sums: dict[str, str]) -> None:
        for name, size in sizes.items():
            file = self.path / name
            if not file.is_file() or file.stat().st_size != size or _sha256(file) != sums[name]:
                raise _damaged(file)

    def _split(self, side: str, n_words: int, n_sentences: int) -> Split:
        ids = self._array(f"{side}_ids", np.uint32, n_words)
        bounds = self._array(f"{side}_bounds", np.int64, n_sentences + 1)
        if bounds[0] != 0 or bounds[-1] != n_words:
            raise _damaged(self.path / f"{side}_bounds.npy")
        return Split(ids, bounds)

    def _array(self, name: str, dtype: type, length: int) -> np.ndarray:
        file = self.path / f"{name}.npy"
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except Exception:  # np.load lets many kinds through, depending on where the damage is
            raise _damaged(file) from None
        if array.dtype != dtype or array.shape != (length,):
            raise _damaged(file)
        # A plain view of the mapped memory is much quicker to cut than np.memmap.
        return array.view(np.ndarray)


def prepare_corpus(
    parameters: Parameters, processes: int | None = None, chunk_bytes: int = CHUNK_BYTES
) -> PreparedCorpus:
    """Prepare the text that the parameters name, or find it prepared.

    The folder `parameters.corpus_path` is reused if its parameters and the content of its files
    are unchanged, and replaced otherwise. It is written beside its place and moved there at the
    end, so that it is never half a corpus.

    Args:
        parameters: those from `text` to `min_count` matter, and `seed` for `heldout_fraction`:
            sentences are then held out by their words, all equal ones together.
        processes: how many work at a time; None for as many as there are cores, if the text is
            worth it. The result is the same.
        chunk_bytes: about how much text each works on at a time. The result is the same.

    Returns:
        The corpus.

    Raises:
        TextError: a text file is missing, empty, unreadable, binary or not UTF-8, or is changed
            meanwhile, or there is no sentence for training or none to hold out.
        VocabularyError: the vocabulary file is broken.
        WeightsError: the pretrained model whose vocabulary is to be kept has none.
        CorpusError: the corpus that is there is damaged, its folder holds something else or cannot
            be written, another process prepares it, or a run that was trained on it has other
            parameters.

    Warns:
        UserWarning: sentences of `heldout_text` also stand in `text`.

    Example:
        >>> corpus = prepare_corpus(Parameters.from_yaml("params/tiny.yaml"))
        >>> corpus.train.n_sentences, len(corpus.vocabulary)
        (16479, 12426)
    """
    # Where the folder is a link, what it leads to is replaced and not the link.
    folder = Path(os.path.realpath(parameters.corpus_path))
    tokenizer = _tokenizer(parameters)
    sources = _sources(parameters)
    kept_words = (
        pretrained_words(parameters) if parameters.vocabulary_file == KEEP_VOCABULARY else None
    )
    settings = _settings(parameters, kept_words)
    if _is_occupied(folder):
        corpus = PreparedCorpus(folder)
        changes = _changes(corpus.record, settings, sources)
        if not changes:
            return corpus
        _refuse_to_change_a_run(parameters, changes)
        _refuse_foreign_files(corpus)
    if os.path.ismount(folder):
        raise CorpusError(
            f"{folder} is the top of a disk and cannot be replaced by a corpus: name a folder in "
            "it."
        )
    before = [source.stamp() for source in sources]
    vocabulary_words = kept_words or _vocabulary_words(parameters, tokenizer)
    lock = folder.parent / f".{folder.name}.lock"
    with (
        alone_in(folder, lock, CorpusError),
        _reported(folder),
        _replacing_folder(folder) as unfinished,
    ):
        work = unfinished / "work"
        work.mkdir()
        rules = _rules(parameters, tokenizer)
        chunks = _chunks(sources, chunk_bytes, work)
        pieces = _Pieces()
        with Workers(processes or _worthwhile_processes(sources, chunk_bytes), rules) as workers:
            for chunk, target, report in workers.prepare(chunks, work):
                pieces.add(chunk, target, report)
        pieces.refuse_too_little(parameters)
        numbering = _Numbering.of(pieces, vocabulary_words, parameters, work)
        _write_arrays(unfinished, pieces, numbering)
        counts = {**pieces.counts(), **numbering.counts(), "heldout_in_training": 0}
        if rules.hash_sentences:
            counts["heldout_in_training"] = _warn_of_overlap(pieces)
        shutil.rmtree(work)
        made_from = {
            "parameters": settings,
            "tokenizer": tokenizer.to_json(),
            "files": [asdict(source.fingerprint()) for source in sources],
        }
        for source, stamp in zip(sources, before, strict=True):
            if source.stamp() != stamp:
                raise TextError(
                    f"{source.path} was changed while it was read: prepare again once nothing "
                    "writes to it any more."
                )
        _write_record(unfinished, made_from, counts)
    return PreparedCorpus(folder)


def read_sentences(
    text: str | Path | Sequence[str | Path], tokenizer: Tokenizer
) -> Iterator[list[str]]:
    """Read the sentences of text files one by one, in order, without preparing a corpus.

    Args:
        text: one or many paths or globs, plain or `.gz`.
        tokenizer: what cuts the text.

    Yields:
        list[str]: the words of each sentence.

    Raises:
        TextError: a file is missing, empty, unreadable, binary or not UTF-8.
    """
    for name in [text] if isinstance(text, str | Path) else text:
        for path in _files(Path(name).expanduser()):
            for chunk in read_chunks(path, HELDOUT, CHUNK_BYTES):
                for line in lines_of(chunk):
                    yield from tokenizer.each_sentence(line)


def _tokenizer(parameters: Parameters) -> Tokenizer:
    return Tokenizer(
        tokenized=parameters.tokenized,
        language=parameters.language,
        strip_html=parameters.strip_html,
        unicode_form=parameters.unicode_form,
        romanian_commas=parameters.romanian_commas,
    )


def _rules(parameters: Parameters, tokenizer: Tokenizer) -> Rules:
    return Rules(
        tokenizer=tokenizer.to_json(),
        errors=parameters.errors,
        heldout_fraction=parameters.heldout_fraction or 0.0,
        seed=parameters.seed,
        hash_sentences=parameters.heldout_text is not None,
    )


def _settings(parameters: Parameters, kept_words: list[str] | None) -> dict:
    """The parameters that decide what a corpus holds, as JSON gives them back."""
    settings = {name: getattr(parameters, name) for name in TEXT_PARAMETERS}
    settings["seed"] = parameters.seed if parameters.heldout_fraction else None
    if kept_words is not None:
        settings["kept_words"] = hashlib.sha256("\n".join(kept_words).encode()).hexdigest()
    return json.loads(json.dumps(settings))


def _vocabulary_words(parameters: Parameters, tokenizer: Tokenizer) -> list[str] | None:
    """The words of the vocabulary file, spelt as the text will be."""
    if parameters.vocabulary_file is None:
        return None
    spelling = replace(tokenizer, strip_html=False)
    words = read_words(parameters.path(parameters.vocabulary_file))
    return sorted({spelling.clean(word) for word in words})


# ---------------------------------------------------------------------------------------- sources


@dataclass(frozen=True)
class Fingerprint:
    """A file as it was: reading it again is needless while size and time are the same."""

    role: str
    name: str
    size: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """A file that goes into a corpus.

    Args:
        role: the side it goes to, or `"vocabulary"`.
        name: what the user calls it.
        path: where it is.
    """

    role: str
    name: str
    path: Path

    def is_still(self, was: dict) -> bool:
        """Whether it holds what it held when the fingerprint was taken."""
        now = self.path.stat()
        if was["role"] != self.role or was["size"] != now.st_size:
            return False
        return was["modified_ns"] == now.st_mtime_ns or was["sha256"] == _sha256(self.path)

    def stamp(self) -> tuple[int, int]:
        """Size, and time of the last change, as far as the file system tells it."""
        now = self.path.stat()
        return now.st_size, now.st_mtime_ns

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(self.role, self.name, *self.stamp(), _sha256(self.path))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sources(parameters: Parameters) -> list[Source]:
    sources = [*_named_sources(TRAIN, parameters.text, parameters)]
    if parameters.heldout_text is not None:
        sources += _named_sources(HELDOUT, parameters.heldout_text, parameters)
    paths = [source.path for source in sources]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise TextError(f"{path} is named twice by text and heldout_text; name it once.")
    if parameters.vocabulary_file not in (None, KEEP_VOCABULARY):
        path = parameters.path(parameters.vocabulary_file)
        if path.is_file():
            sources.append(Source("vocabulary", parameters.vocabulary_file, path))
    return sources


def _named_sources(
    side: str, names: str | Sequence[str], parameters: Parameters
) -> Iterator[Source]:
    for name in [names] if isinstance(names, str) else names:
        if name == "wikipedia":
            yield Source(side, name, wikipedia.dump_path())
        else:
            for path in _files(parameters.path(name)):
                yield Source(side, str(path), path)


def _files(path: Path) -> list[Path]:
    # Unlike Path.is_file, which fails where a name is too long.
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        raise TextError(f"{path} is a directory; name its files, for example {path / '*.txt'}.")
    found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    files = [file for file in found if file.is_file()]
    if not files:
        raise TextError(f"There is no file {path}.")
    return files


def _chunks(sources: Iterable[Source], chunk_bytes: int, work: Path) -> Iterator[Chunk]:
    for source in sources:
        path = source.path
        if source.role not in SIDES:
            continue
        if source.name == "wikipedia":
            path = work / "wikipedia.txt"
            wikipedia.write_text(path)
        yield from read_chunks(path, source.role, chunk_bytes)


def _worthwhile_processes(sources: Iterable[Source], chunk_bytes: int) -> int:
    # Text packs to about a third.
    size = sum(s.path.stat().st_size * (3 if s.path.suffix == ".gz" else 1) for s in sources)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(size // chunk_bytes, cores or 1, MOST_PROCESSES))


# ------------------------------------------------------------------------------ chunks and numbers


@dataclass
class _Pieces:
    """What the chunks left in the working folder, in the order of the text."""

    targets: list[Path] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    empty_lines: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    sentences: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    words: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))

    def add(self, chunk: Chunk, target: Path, report: ChunkReport) -> None:
        self.targets.append(target)
        self.lines[chunk.side] += report.lines
        self.empty_lines[chunk.side] += report.empty_lines
        for side in SIDES:
            self.sentences[side] += report.sentences[side]
            self.words[side] += report.words[side]

    def refuse_too_little(self, parameters: Parameters) -> None:
        if not self.sentences[TRAIN]:
            raise TextError(f"There is no sentence to train on in text: {parameters.text}.")
        if parameters.heldout_text is not None and not self.sentences[HELDOUT]:
            raise TextError(f"There is no sentence in heldout_text: {parameters.heldout_text}.")
        if parameters.heldout_fraction and not self.sentences[HELDOUT]:
            raise TextError(
                f"heldout_fraction {parameters.heldout_fraction} of {self.sentences[TRAIN]} "
                "sentences holds out none; raise it or give more text."
            )

    def arrays(self, name: str) -> Iterator[np.ndarray]:
        """One array of every chunk; see `chunks.prepare_chunk` for their names."""
        for target in self.targets:
            with np.load(target.with_suffix(".npz"), allow_pickle=False) as arrays:
                yield arrays[name]

    def counts(self) -> dict:
        return {
            "lines": self.lines,
            "empty_lines": self.empty_lines,
            "sentences": self.sentences,
            "words": self.words,
        }


@dataclass(frozen=True)
class _Numbering:
    """The ids of all words.

    Args:
        merged: every distinct word in code-point order; the first list is that of the words which
            are there whatever the text says.
        order: int64 array, places in `merged` by id.
        train_counts, heldout_counts: int64 arrays by place in `merged`.
        n_vocabulary: how many of the first ids the softmax knows.
    """

    words_file: Path
    merged: SortedWords
    order: np.ndarray
    train_counts: np.ndarray
    heldout_counts: np.ndarray
    n_vocabulary: int

    @classmethod
    def of(
        cls,
        pieces: _Pieces,
        vocabulary_words: list[str] | None,
        parameters: Parameters,
        work: Path,
    ) -> _Numbering:
        given_words = sorted({*SPECIAL_WORDS, *(vocabulary_words or ())})
        given_file = work / "given.words"
        given_file.write_text(
            "".join(f"{word}\n" for word in given_words), encoding="utf-8", newline="\n"
        )
        words_file = work / "merged.txt"
        lists = [given_file, *(target.with_suffix(".words") for target in pieces.targets)]
        merged = SortedWords(lists, words_file)
        train_counts, heldout_counts = (_summed(pieces, merged, side) for side in SIDES)

        given_places = merged.places_of(0)
        special_places = given_places[[given_words.index(word) for word in SPECIAL_WORDS]]
        if vocabulary_words is None:
            is_known = train_counts >= max(parameters.min_count, 1)
        else:
            is_known = np.zeros(len(train_counts), dtype=bool)
            is_known[given_places] = True
        rank = np.where(is_known, 1, 2)
        rank[special_places] = 0
        # A stable sort leaves equals in code-point order.
        order = np.lexsort((-train_counts, rank))
        order[: len(SPECIAL_WORDS)] = special_places
        n_vocabulary = int((rank < 2).sum())
        if parameters.vocabulary_size is not None:
            n_vocabulary = min(n_vocabulary, parameters.vocabulary_size)
        return cls(words_file, merged, order, train_counts, heldout_counts, n_vocabulary)

    def ids(self, pieces: _Pieces, side: str) -> Iterator[np.ndarray]:
        """The ids of the words of one side, chunk by chunk."""
        ids = np.empty(len(self.order), dtype=np.uint32)
        ids[self.order] = np.arange(len(self.order), dtype=np.uint32)
        for which, local in enumerate(pieces.arrays(f"{side}_ids"), start=1):
            yield ids[self.merged.places_of(which)][local]

    def counts(self) -> dict:
        unknown = self.order[self.n_vocabulary :]
        return {
            "lexicon": len(self.order),
            "distinct_words": int(((self.train_counts > 0) | (self.heldout_counts > 0)).sum()),
            "vocabulary": self.n_vocabulary,
            "unknown_words": {
                TRAIN: int(self.train_counts[unknown].sum()),
                HELDOUT: int(self.heldout_counts[unknown].sum()),
            },
        }


def _summed(pieces: _Pieces, merged: SortedWords, side: str) -> np.ndarray:
    """How often each merged word stands on one side."""
    counts = np.zeros(len(merged.lengths), dtype=np.int64)
    for which, local in enumerate(pieces.arrays(f"{side}_counts"), start=1):
        counts[merged.places_of(which)] += local
    return counts


def _warn_of_overlap(pieces: _Pieces) -> int:
    """Count the held-out sentences that are also trained on."""
    held_out = np.concatenate([*pieces.arrays(f"{HELDOUT}_hashes")])
    found = np.zeros(len(held_out), dtype=bool)
    for trained_on in pieces.arrays(f"{TRAIN}_hashes"):
        found |= np.isin(held_out, trained_on)
    n_found = int(found.sum())
    if n_found:
        warnings.warn(
            f"{n_found:,} of {len(held_out):,} sentences of heldout_text also stand in text, so "
            "held-out results will look better than they are.",
            stacklevel=3,
        )
    return n_found


# ----------------------------------------------------------------------------------------- writing


def _write_arrays(folder: Path, pieces: _Pieces, numbering: _Numbering) -> None:
    for side in SIDES:
        if pieces.sentences[side]:
            ids = folder / f"{side}_ids.npy"
            _write_array(ids, np.uint32, pieces.words[side], numbering.ids(pieces, side))
            bounds = folder / f"{side}_bounds.npy"
            lengths = pieces.arrays(f"{side}_lengths")
            _write_array(bounds, np.int64, pieces.sentences[side] + 1, _running_sums(lengths))
    lengths = numbering.merged.lengths[numbering.order]
    text = reordered_words(numbering.words_file, numbering.merged.lengths, numbering.order)
    _write_array(folder / "lexicon_text.npy", np.uint8, int(lengths.sum()), text)
    offsets = _running_sums([lengths])
    _write_array(folder / "lexicon_offsets.npy", np.int64, len(lengths) + 1, offsets)
    counts = numbering.train_counts[numbering.order]
    _write_array(folder / "lexicon_counts.npy", np.int64, len(counts), [counts])
    _write_vocabulary(folder, numbering)


def _write_vocabulary(folder: Path, numbering: _Numbering) -> None:
    known = numbering.order[: numbering.n_vocabulary]
    lengths = numbering.merged.lengths
    with (folder / VOCABULARY).open("wb") as stream:
        for block in reordered_words(numbering.words_file, lengths, known, line_ends=True):
            stream.write(block.tobytes())


def _running_sums(lengths: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """0, then the sum of the lengths up to each."""
    total = np.zeros(1, dtype=np.int64)
    yield total
    for block in lengths:
        if len(block):
            sums = total[-1] + np.cumsum(block, dtype=np.int64)
            yield sums
            total = sums


def _write_array(path: Path, dtype: type, length: int, blocks: Iterable[np.ndarray]) -> None:
    """Write an `.npy` file that need not fit into memory."""
    header = io.BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(
        header, {"descr": description, "fortran_order": False, "shape": (length,)}
    )
    with path.open("wb") as stream:
        stream.write(header.getvalue())
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype=dtype).data)


def _write_record(folder: Path, made_from: dict, counts: dict) -> None:
    record = {
        "format": FORMAT,
        "made_from": made_from,
        "made_with": {
            "python": platform.python_version(),
            "icu4py": version("icu4py"),
            "sentencex": version("sentencex"),
        },
        "counts": counts,
        "files": {file.name: file.stat().st_size for file in sorted(folder.iterdir())},
        "sha256": {file.name: _sha256(file) for file in sorted(folder.iterdir())},
    }
    record["checksum"] = _checksum(record)
    # In ASCII, for names of files need not be valid Unicode.
    text = json.dumps(record, indent=2)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def _checksum(record: dict) -> str:
    """Of everything in a record but the checksum itself."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"{folder} could not be written ({reason(error)}): see to it and prepare again; what "
            "was there before is unchanged."
        ) from None


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Hand out a folder beside `folder` that takes its place once the block is done."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}.{socket.gethostname()}."
    _remove_leftovers(folder.parent, prefix)
    unfinished = folder.parent / f"{prefix}{os.getpid()}.part"
    replaced = unfinished.with_suffix(".old")
    unfinished.mkdir()
    try:
        yield unfinished
        for file in unfinished.iterdir():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        sync_folder(unfinished)
        if folder.exists():
            folder.rename(replaced)
        unfinished.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove what processes of this machine left behind when they were killed."""
    for leftover in parent.glob(f"{glob.escape(prefix)}*"):
        process = leftover.stem.removeprefix(prefix)
        if process.isdecimal() and not _is_running(int(process)):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# ----------------------------------------------------------------------------------------- reading


def _is_occupied(folder: Path) -> bool:
    # A name that is too long fails Path.is_dir, and is told of where the folder is to be made.
    return any(folder.iterdir()) if os.path.isdir(folder) else os.path.exists(folder)


def _read_record(folder: Path) -> dict:
    file = folder / RECORD
    if not file.is_file():
        raise CorpusError(
            f"{folder} is no prepared corpus, for it has no {RECORD}; name another folder."
        )
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise CorpusError(
                f"{file} was made by another version of elmolib; delete {folder} to prepare the "
                "corpus again."
            )
        if record["checksum"] != _checksum(record):
            raise _damaged(file)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise error if isinstance(error, CorpusError) else _damaged(file) from None
    return record


def _changes(record: dict, settings: dict, sources: Sequence[Source]) -> list[str]:
    """What differs from when the corpus was made: parameters and files by name."""
    try:
        settings_before = record["made_from"]["parameters"]
        files_before = record["made_from"]["files"]
        changed = [
            name
            for name in sorted({*settings, *settings_before})
            if settings.get(name) != settings_before.get(name)
        ]
        if len(files_before) != len(sources):
            return [*changed, "number of files"]
        pairs = zip(sources, files_before, strict=True)
        return changed + [source.name for source, was in pairs if not source.is_still(was)]
    except (KeyError, TypeError):
        return ["everything"]


def _refuse_to_change_a_run(parameters: Parameters, changes: list[str]) -> None:
    """Make sure that a run can still be gone on with once its parameters are back in place."""
    if has_checkpoints(parameters.run_path):
        raise CorpusError(
            f"{parameters.run_path} holds a run whose text was prepared with another "
            f"{' and another '.join(changes)}: choose another run_dir, or remove the folder to "
            "train anew."
        )


def _refuse_foreign_files(corpus: PreparedCorpus) -> None:
    """Make sure that replacing a corpus deletes nothing else."""
    own = {*corpus.record["files"], RECORD}
    for file in sorted(corpus.path.iterdir()):
        if file.name not in own:
            raise CorpusError(
                f"{file} is no part of the corpus in its folder, which is about to be replaced; "
                "move it elsewhere."
            )


def _damaged(file: Path) -> CorpusError:
    return CorpusError(
        f"{file} is missing or damaged; delete {file.parent} to prepare the corpus again."
    )
