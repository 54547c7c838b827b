"""Damaged files: every reader returns a value or raises one of our errors, within limits.

As a program, `python test_fuzz.py READER SEED MUTATIONS FOLDER` reads MUTATIONS damaged files, with
a limit of 2 s of processor time for each and of 1 GB of memory, and prints how many were refused.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
import yaml

from elmolib.errors import ElmolibError
from elmolib.formats.names import weight_shapes
from elmolib.formats.options import options_of, read_options

SECONDS = 2.0
BYTES = 1_000_000_000


class Target(NamedTuple):
    """The files of one reader to damage, and how to read them.

    Attributes:
        files: valid files, each with the offsets to damage. One file is damaged at a time.
        read: function that reads the files and uses their content.
    """

    files: dict[Path, list[int]]
    read: Callable[[], object]


def everywhere(*paths: Path) -> dict[Path, list[int]]:
    return {path: list(range(path.stat().st_size)) for path in paths}


def structure(path: Path) -> list[int]:
    """Return an HDF5 file's offsets, except in float arrays, whose damage cannot be detected."""
    in_arrays: set[int] = set()
    with h5py.File(path) as file:

        def note(_: str, node: h5py.Dataset | h5py.Group) -> None:
            if isinstance(node, h5py.Dataset) and node.dtype.kind == "f" and node.nbytes:
                offset = node.id.get_offset()
                in_arrays.update(range(offset, offset + node.nbytes))

        file.visititems(note)
    content = path.read_bytes()
    return [i for i, byte in enumerate(content) if byte and i not in in_arrays]


def weights(folder: Path) -> Target:
    from small_models import TINY, random_arrays

    from elmolib.formats.readers import read_model
    from elmolib.formats.weights import StoredModel, write_model
    from elmolib.text.tokenizer import Tokenizer
    from elmolib.text.vocabulary import Vocabulary

    path = folder / "elmo.h5"
    vocabulary = Vocabulary(["the", "râu", "河", "🚣"])
    arrays = random_arrays(TINY, len(vocabulary))
    write_model(path, StoredModel(TINY, arrays, vocabulary, Tokenizer(language="ro"), {"steps": 3}))
    return Target({path: structure(path)}, lambda: read_model(path))


def zipped(folder: Path) -> Target:
    from elmolib.formats.readers import read_model
    from elmolib.formats.weights import write_published

    (whole,) = weights(folder).files
    write_published(folder / "published", read_model(whole))
    path = folder / "model.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((folder / "published").iterdir()):
            archive.write(file, f"216/{file.name}")
    with zipfile.ZipFile(path) as archive:
        starts = [info.header_offset for info in archive.infolist()]
        directory = range(archive.start_dir, path.stat().st_size)
    headers = [place for start in starts for place in range(start, start + 60)]
    return Target({path: [*headers, *directory]}, lambda: read_model(path))


def options(folder: Path) -> Target:
    from small_models import TINY

    path = folder / "options.json"
    path.write_text(json.dumps(options_of(TINY)))
    return Target(everywhere(path), lambda: weight_shapes(read_options(path)(), 10))


def checkpoint(folder: Path) -> Target:
    from small_models import TINY, random_arrays

    from elmolib.training.checkpoint import CheckpointMetadata, Checkpoints

    arrays = random_arrays(TINY, 7)
    history = [{"epoch": 1.0, "step": 60.0}]
    metadata = CheckpointMetadata(
        identity={"seed": 1}, step=60, epoch_steps=0, epoch_seconds=0.5, history=history
    )
    checkpoints = Checkpoints(folder, keep=1)
    path = checkpoints.write(arrays, metadata)
    return Target({path: structure(path)}, checkpoints.read_latest)


def corpus(folder: Path) -> Target:
    from small_corpus import small_parameters

    from elmolib.corpus.prepare import prepare_corpus
    from elmolib.corpus.prepared import PreparedCorpus

    path = prepare_corpus(small_parameters(folder)).path

    def read() -> None:
        corpus = PreparedCorpus(path)
        assert corpus.vocabulary.words == corpus.lexicon.words(range(len(corpus.vocabulary)))
        assert corpus.tokenizer.words("a b")
        for split in filter(None, (corpus.train, corpus.heldout)):
            corpus.lexicon.character_ids(np.unique(split.ids))
            assert int(np.diff(split.bounds).sum()) == split.n_words

    return Target(everywhere(*path.iterdir()), read)


def parameters(folder: Path) -> Target:
    from small_corpus import small_parameters

    from elmolib.settings.parameters import Parameters

    path = folder / "params.yaml"
    kept = ("run_dir", "text", "filters", "lstm_dim", "projection_dim", "n_layers", "n_highway")
    values = small_parameters(folder).to_json()
    short = {name: values[name] for name in (*kept, "char_embedding_dim", "learning_rate")}
    path.write_text(yaml.safe_dump(short))
    return Target(everywhere(path), lambda: Parameters.from_yaml(path).architecture)


def vocabulary(folder: Path) -> Target:
    from elmolib.text.vocabulary import Vocabulary, read_words

    words, mapping, packed = folder / "a.txt", folder / "b.csv", folder / "c.txt.gz"
    words.write_text("<S>\n</S>\n<UNK>\nthe\nrâu\n河\n🚣\n", encoding="utf-8")
    mapping.write_text('Word,Index\n<PAD>,0\n<EOS>,1\nthe,2\n",",3\nrâu,5\n', encoding="utf-8")
    packed.write_bytes(gzip.compress(words.read_bytes()))
    table, pairs = folder / "d.tsv", folder / "e.json"
    table.write_text('the\t2\n"\t3\nrâu\t5\n', encoding="utf-8")
    pairs.write_text('{"<PAD>": 0, "the": 2,\n"\\"": 3, "r\\u00e2u": 5}\n')
    files = everywhere(words, mapping, packed, table, pairs)
    return Target(files, lambda: [Vocabulary(read_words(path)) for path in files])


def tar(folder: Path) -> Target:
    import tarfile

    from elmolib.formats.readers import read_model
    from elmolib.formats.weights import write_published

    (whole,) = weights(folder).files
    write_published(folder / "published", read_model(whole))
    path = folder / "model.tar.gz"
    # Without compression, the damage is in the tar file, not only in its checksum.
    with (
        gzip.open(path, "wb", compresslevel=0) as packed,
        tarfile.open(None, "w", packed) as archive,
    ):
        archive.add(folder / "published", "216")
    return Target({path: list(range(2000))}, lambda: read_model(path))


def many_langs(folder: Path) -> Target:
    from foreign_models import write_many_langs

    from elmolib.formats.readers import read_model

    model = folder / "model"
    write_many_langs(model)
    pickles = [model / "encoder.pkl", model / "token_embedder.pkl"]
    files = {path: list(range(path.read_bytes().index(b"]("))) for path in pickles}
    files |= everywhere(model / "char.dic", model / "cnn.json")
    return Target(files, lambda: read_model(model))


def allennlp(folder: Path) -> Target:
    from foreign_models import write_allennlp, write_torch_zip

    from elmolib.formats.readers import read_model

    model = folder / "model"
    write_allennlp(model, write_torch_zip)
    path = model / "weights.th"
    with zipfile.ZipFile(path) as archive:
        pickle, directory = archive.getinfo("archive/data.pkl").file_size, archive.start_dir
    places = [*range(100 + pickle), *range(directory, path.stat().st_size)]
    return Target({path: places}, lambda: read_model(path))


def variables(folder: Path) -> Target:
    from foreign_models import write_checkpoint
    from small_models import TINY, random_arrays

    from elmolib.formats.readers import read_model

    model = folder / "model"
    write_checkpoint(model, TINY, random_arrays(TINY))
    files = everywhere(model / "model.ckpt-40.index", model / "checkpoint")
    files |= {model / "model.ckpt-40.data-00000-of-00001": [0, 3, 100, 2000]}
    return Target(files, lambda: read_model(model, slots=True))


def hub(folder: Path) -> Target:
    from foreign_models import graph_of, write_hub_module

    from elmolib.formats.readers import read_model

    model = folder / "model"
    write_hub_module(model, graph_of(3.0, 3.0, "Relu", True, 50), ("weights", "scaling"))
    files = everywhere(model / "saved_model.pb", model / "variables" / "variables.index")
    return Target(files, lambda: read_model(model))


OWN = (weights, zipped, options, checkpoint, corpus, parameters, vocabulary)
FOREIGN = (tar, many_langs, allennlp, variables, hub)
READERS = {reader.__name__: reader for reader in OWN + FOREIGN}


def damaged(whole: bytes, places: list[int], rng: random.Random) -> bytes:
    """Change, drop or repeat a few bytes at the given places, or cut off the end."""
    content = bytearray(whole)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = min(rng.choice(places), max(0, len(content) - 1))
        kind = rng.randrange(7)
        if kind < 2:
            content[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 2:
            content[at : at + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, b"\0" * 7 + b"\x40"])
        elif kind == 3:
            content[at : at + rng.randrange(1, 40)] = b""
        elif kind == 4:
            source = rng.choice(places)
            content[at : at + 16] = whole[source : source + 16]
        elif kind == 5:
            content[at:at] = rng.choice([b"[" * 5000, b"9" * 5000, b"{", b'"', b"\n", b"- ", b"&a"])
        else:
            content = content[: at + 1]
    return bytes(content)


def fuzz(reader: str, seed: int, n_mutations: int, folder: Path) -> int:
    """Read damaged files, one after the other.

    Returns:
        the number of refused files.
    """
    target = READERS[reader](folder)
    target.read()
    seconds = SECONDS * _slowness()
    _bound_memory()
    rng = random.Random(seed)
    whole = {path: path.read_bytes() for path in target.files}
    n_refused = 0
    for _ in range(n_mutations):
        path = rng.choice(list(target.files))
        path.write_bytes(damaged(whole[path], target.files[path], rng))
        # If a read takes more than `seconds`, a signal kills the process, even in a C library.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            target.read()
        except ElmolibError as error:
            n_refused += 1
            assert "\n" not in str(error), error
            assert str(folder) in str(error), error
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.write_bytes(whole[path])
    return n_refused


def _slowness() -> float:
    """Return this machine's time to count to a million, divided by the time of a usual machine."""
    begun = time.process_time()
    for _ in range(1_000_000):
        pass
    return max(1.0, (time.process_time() - begun) / 0.03)


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def check(reader: str, seed: int, n_mutations: int, folder: Path) -> None:
    """Fuzz in a subprocess, because a damaged file may crash the process."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}{os.pathsep}{here}"}
    done = subprocess.run(
        [sys.executable, __file__, reader, str(seed), str(n_mutations), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert int(done.stdout) > n_mutations // 4


def each(readers: Iterable[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("reader", list(readers))


@each(READERS)
def test_damaged_files_raise_nothing_but_our_errors(tmp_path, reader):
    check(reader, 0, 200, tmp_path)


@pytest.mark.slow
@each(READERS)
def test_10_000_damaged_files_raise_nothing_but_our_errors(tmp_path, reader):
    check(reader, 1, 10_000, tmp_path)


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    print(fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
