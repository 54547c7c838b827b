"""On a full disk, the error is one sentence, and earlier files are unchanged."""

from __future__ import annotations

import errno
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import keras
import pytest
from small_corpus import made_up_sentences, small_parameters
from small_disk import limited_files
from small_models import TINY, random_arrays

from elmolib.corpus.prepare import prepare_corpus
from elmolib.elmo import ElmoEmbedder
from elmolib.errors import ElmolibError
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model
from elmolib.text.tokenizer import Tokenizer
from elmolib.training.checkpoint import read_checkpoint
from elmolib.training.loop import Training

SIZE = 4_000_000

Full = Callable[[int], AbstractContextManager]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Full]]:
    """A folder, and a context manager that leaves only a given number of bytes free in the folder.

    If the tests run as root, the folder is a file system in memory. A user without permission to
    mount gets a limit on the size of files, which makes writes fail in the same way, and a warning.
    """
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "elmolib-test", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        warnings.warn("No disk can be mounted: limited files simulate a full one.", stacklevel=1)
        yield folder, limited_files
        return
    try:
        yield folder, lambda n_bytes: filled(folder, n_bytes)
    finally:
        # Use --lazy, because a file may still be memory-mapped.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path, n_bytes: int) -> Iterator[None]:
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 65536)
    except OSError as error:
        assert error.errno == errno.ENOSPC
    os.truncate(ballast, ballast.stat().st_size - n_bytes)
    yield
    ballast.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "ballast"
    }


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(ElmolibError, match=r"No space left on device|File too large") as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    return message


class FillAt(keras.callbacks.Callback):
    """Callback that fills the disk after a step."""

    def __init__(self, step: int, full: AbstractContextManager) -> None:
        super().__init__()
        self.step, self.full = step, full

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if batch == self.step:
            self.full.__enter__()


@pytest.mark.parametrize("n_bytes", [0, 12_288])
def test_training_loses_nothing_on_a_full_disk(tmp_path, disk, n_bytes):
    folder, full = disk
    changes = {"max_steps": 14, "checkpoint_steps": 5, "heldout_fraction": None}
    corpus_dir = str(tmp_path / "corpus")

    def make(place: Path) -> Training:
        parameters = small_parameters(
            tmp_path, run_dir=str(place), corpus_dir=corpus_dir, **changes
        )
        return Training(parameters, prepare_corpus(parameters))

    whole = read_model(make(tmp_path / "whole").run()).arrays
    training, no_room = make(folder / "run"), full(n_bytes)
    message = refused(lambda: training.run([FillAt(7, no_room)]))
    latest = training.checkpoints.latest()
    no_room.__exit__(None, None, None)
    assert "training stopped at step 10, so fix this and rerun" in message
    assert f"the last good checkpoint is {latest}." in message
    assert latest.name == "step-000000005.h5"
    assert read_checkpoint(latest).metadata.step == 5
    assert not list(folder.rglob("*.part"))
    again = read_model(make(folder / "run").run()).arrays
    assert {name: a.tobytes() for name, a in again.items()} == {
        name: a.tobytes() for name, a in whole.items()
    }


def test_preparation_leaves_the_former_corpus_on_a_full_disk(tmp_path, disk):
    folder, full = disk
    (tmp_path / "text.txt").write_text("\n".join(made_up_sentences(500)), encoding="utf-8")
    parameters = small_parameters(tmp_path, run_dir=str(folder / "run"))
    prepare_corpus(parameters)
    before = contents(folder)
    other = small_parameters(tmp_path, run_dir=str(folder / "run"), min_count=1)
    for n_bytes in (0, 4096):
        for processes in (1, 2):
            with full(n_bytes):
                refused(lambda n=processes: prepare_corpus(other, n, chunk_bytes=2000))
            assert contents(folder) == before
    assert prepare_corpus(other).record["made_from"]["parameters"]["min_count"] == 1


def test_embedding_resumes_when_a_full_disk_has_room_again(tmp_path, disk):
    folder, full = disk
    weights, text = tmp_path / "elmo.h5", tmp_path / "text.txt"
    write_model(weights, StoredModel(TINY, random_arrays(TINY), None, Tokenizer(tokenized=True)))
    text.write_text("\n".join(made_up_sentences(2000)) + "\n", encoding="utf-8")
    embedder = ElmoEmbedder(weights)
    for n_bytes in (0, 4096, 200_000):
        with full(n_bytes), pytest.raises(ElmolibError) as caught:
            embedder.embed_corpus(text, folder / "out.h5", progress=False)
        assert "\n" not in str(caught.value)
        assert contents(folder) == {}
    embedder.embed_corpus(text, folder / "out.h5", progress=False)
    embedder.embed_corpus(text, tmp_path / "whole.h5", progress=False)
    assert (folder / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
