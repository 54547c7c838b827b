"""The code needs nothing that macOS or Windows lacks, as far as tests on Linux can show."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from elmolib import ElmoEmbedder

# Make this process refuse what Windows refuses: `fcntl`, syncing a folder or a file opened only for
# reading, and renaming or deleting a file that is open or mapped into memory.
AS_ON_WINDOWS = r"""
import os, sys, types, warnings
from pathlib import Path

sys.modules["fcntl"] = None
warnings.filterwarnings("ignore", "only soft file lock")
# Files must not depend on the encoding of the system.
warnings.filterwarnings("error", category=EncodingWarning, module="elmolib")


def busy():
    for link in Path("/proc/self/fd").iterdir():
        try:
            yield os.readlink(link)
        except OSError:
            pass
    for line in Path("/proc/self/maps").read_text("utf-8").splitlines():
        yield line.partition("/")[1] + line.partition("/")[2]


def refusing(function):
    def call(source, *rest, **options):
        for path in [source, *rest[:1]]:
            path = os.path.abspath(os.fspath(path)) if not options.get("dir_fd") else "?"
            for file in busy():
                # Lock files are not refused: for them, filelock runs other code on Windows.
                if file == path and ".lock" not in path or file.startswith(path + os.sep):
                    raise PermissionError(13, f"{file} is in use", path)
        return function(source, *rest, **options)
    return call


def open_file(path, flags, *rest, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return plain.open(path, flags, *rest, **options)


def fsync(handle):
    flags = Path(f"/proc/self/fdinfo/{handle}").read_text("utf-8").split("flags:")[1].split()[0]
    if int(flags, 8) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor")
    return plain.fsync(handle)


plain = types.SimpleNamespace(open=os.open, fsync=os.fsync)
del os.sched_getaffinity, os.fork
os.fsync = fsync
from elmolib import files

files.os = types.SimpleNamespace(**vars(os) | {"open": open_file})
files._IS_WINDOWS = True
for name in ("rename", "replace", "unlink", "remove"):
    setattr(os, name, refusing(getattr(os, name)))
    setattr(files.os, name, getattr(os, name))
"""

RUN = (
    AS_ON_WINDOWS
    + r"""
import hashlib, json
import keras
from small_corpus import small_parameters
from elmolib import ElmoEmbedder, Training, prepare_corpus


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch == 4


folder = Path(sys.argv[1])
# The second preparation replaces the first, whose files are mapped into memory.
prepare_corpus(small_parameters(folder, min_count=1))
parameters = small_parameters(folder, max_steps=9)
training = Training(parameters, prepare_corpus(parameters))
training.run([Stop()])
stopped = training.step
del training
resumed = Training(parameters, prepare_corpus(parameters))
weights = resumed.run()
embedder = ElmoEmbedder(weights)
out = embedder.embed_corpus(folder / "text.txt", folder / "vectors.h5", progress=False)
nearest = embedder.nearest("bank", "the bank was steep .", out, layers="average")
left = [path.name for path in folder.rglob("*") if path.suffix in (".part", ".old")]
print(json.dumps([stopped, resumed.step, weights.read_bytes().hex(), str(nearest), left]))
"""
)

RUN_UNDISTURBED = """
import sys
from pathlib import Path
from small_corpus import small_parameters
from elmolib import Training, prepare_corpus

parameters = small_parameters(Path(sys.argv[1]), max_steps=9)
print(Training(parameters, prepare_corpus(parameters)).run().read_bytes().hex())
"""

HOLD = (
    AS_ON_WINDOWS
    + r"""
from elmolib.errors import TrainingError

folder = Path(sys.argv[1])
try:
    with files.exclusive_lock(folder, folder / ".lock", TrainingError):
        print("held", flush=True)
        sys.stdin.read()
except TrainingError as error:
    print(error, flush=True)
"""
)


def start(program: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-X", "warn_default_encoding", "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


@pytest.mark.slow
def test_a_text_is_prepared_trained_on_and_resumed_as_on_windows(tmp_path: Path) -> None:
    for name in ("windows", "linux"):
        (tmp_path / name).mkdir()
    process = start(RUN, tmp_path / "windows")
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    stopped, step, weights, nearest, left = json.loads(printed.splitlines()[-1])
    assert (stopped, step, left) == (5, 9, [])
    assert "bank in context:" in nearest
    # This second run is not stopped, and does not imitate Windows. It has a process of its own,
    # too, because TensorFlow rounds differently with another number of threads.
    printed, errors = start(RUN_UNDISTURBED, tmp_path / "linux").communicate()
    assert weights == printed.splitlines()[-1], errors


def test_without_fcntl_a_lock_holds_and_ends_with_its_process(tmp_path: Path) -> None:
    first = start(HOLD, tmp_path)
    assert first.stdout.readline() == "held\n", first.stderr.read()
    second, errors = start(HOLD, tmp_path).communicate("")
    assert f"{tmp_path} is in use by " in second, errors
    first.send_signal(signal.SIGKILL)
    first.communicate()
    third, errors = start(HOLD, tmp_path).communicate("")
    assert third == "held\n", third + errors


def test_a_spawned_process_embeds_too() -> None:
    embedder = ElmoEmbedder("en-tiny", runtime="numpy")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (found,) = pool.map(embedder.embed, ["A cat sat ."])
    np.testing.assert_array_equal(found, embedder.embed("A cat sat ."))


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_the_package_uses_no_name_that_another_system_lacks(
    root: Path, platform: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "mypy", "--platform", platform, "--cache-dir", tmp_path]
    done = subprocess.run([*command, "elmolib"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
