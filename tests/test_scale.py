"""Memory of long runs, large vocabularies and large texts."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_corpus import small_parameters

from benchmarks.preparation import write_large_text

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

LONG_RUN = """
import os, sys
from pathlib import Path

import keras

from benchmarks.machine import memory
from elmolib.corpus.prepare import prepare_corpus
from elmolib.live.reports import DetailedMetrics
from elmolib.settings.parameters import Parameters
from elmolib.training.loop import Training


class Watch(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % 20 == 0:
            found.append([training.step, memory(), len(os.listdir("/proc/self/fd"))])


found = []
parameters = Parameters.from_yaml(sys.argv[1])
corpus = prepare_corpus(parameters)
training = Training(parameters, corpus)
training.run([DetailedMetrics.of(corpus, parameters), Watch()])
print(found)
"""

LARGE_SOFTMAX = """
from types import SimpleNamespace

import numpy as np

from benchmarks.machine import forget_peak_memory, memory, peak_memory
from elmolib.model.bilm import BiLM
from elmolib.settings.architecture import Architecture
from elmolib.training.step import Adagrad
from elmolib.training.batches import Batches
from elmolib.training.step import TrainingStep
from small_corpus import lexicon_of, split_of, training_settings

N_WORDS, DIM, N_STEPS = 800_000, 128, 8
architecture = Architecture(
    char_embedding_dim=4,
    filters=((1, 8), (2, 8)),
    n_highway=1,
    max_characters=12,
    lstm_dim=128,
    projection_dim=DIM,
    n_layers=2,
)
settings = training_settings(batch_size=16, unroll_steps=20, n_negatives=1000, seed=0)
ids = np.random.default_rng(0).integers(3, N_WORDS, (200, 20))
lexicon = lexicon_of([f"w{i}" for i in range(N_WORDS - 3)])
corpus = SimpleNamespace(train=split_of(ids), lexicon=lexicon, vocabulary=range(N_WORDS))
batches = Batches(corpus, architecture, settings)
bilm = BiLM(architecture, N_WORDS)
step = TrainingStep(bilm, Adagrad(bilm.weights_by_name(), 0.2, 1.0), 10.0)
state = bilm.initial_state(16)
forget_peak_memory()
before = memory()
for n in range(N_STEPS):
    result = step(batches[n], state, n)
    state = result.state
    assert np.isfinite(result.losses).all()
print([peak_memory() - before, 4 * N_WORDS * DIM])
"""

LARGE_TEXT = """
import json, sys, threading, time

from benchmarks.machine import family_memory, forget_peak_memory, peak_memory
from elmolib.corpus.prepare import prepare_corpus
from elmolib.settings.parameters import Parameters


def watch():
    while watching:
        found["preparing"] = max(found["preparing"], family_memory())
        time.sleep(0.05)


found, watching = {"preparing": 0}, True
watcher = threading.Thread(target=watch)
watcher.start()
parameters = Parameters.from_yaml(sys.argv[1])
corpus = prepare_corpus(parameters)
watching = False
watcher.join()

from elmolib.training.loop import Training

forget_peak_memory()
training = Training(parameters, corpus)
# Leave evaluation out: it takes minutes, but no more memory than scoring one window.
corpus.heldout = None
training.run()
found["training"] = peak_memory()
found["weights"] = sum(array.nbytes for array in training.bilm.arrays().values())
found["steps"] = training.step
found["lexicon"] = len(corpus.lexicon)
print(json.dumps(found))
"""


def answer_of(program: str, *arguments: Path) -> list | dict:
    """Run a program in a separate process and read the last line that it prints."""
    places = [str(ROOT), str(ROOT / "tests")]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_long_run_needs_no_more_memory_and_open_files_than_a_short_one(tmp_path):
    """The long run has 1,000 steps and 100 evaluations with checkpoints and reports."""
    text = tmp_path / "text.txt"
    text.write_text("the river bank was steep .\na bear robbed the bank !\n" * 20)
    parameters = small_parameters(
        tmp_path,
        epochs=160,
        heldout_fraction=None,
        heldout_text=str(tmp_path / "heldout.txt"),
        batch_size=5,
        unroll_steps=6,
        metrics_every=10,
        pictures_every=20,
        checkpoint_steps=5,
        min_count=1,
        n_negatives=4,
    )
    (tmp_path / "heldout.txt").write_text("the boat was green .\nevery bear passed !\n")
    parameters.to_yaml(tmp_path / "params.yaml")
    found = answer_of(LONG_RUN, tmp_path / "params.yaml")
    steps, memory, files = zip(*found, strict=True)
    warm = 2  # number of first measurements (one every 20 epochs) to leave out
    assert steps[-1] - steps[warm] >= 1000
    assert max(memory[warm:]) < 1.02 * memory[warm]
    assert len(set(files)) == 1


def test_no_gradient_is_as_large_as_a_large_softmax():
    taken, size_of_softmax = answer_of(LARGE_SOFTMAX)
    assert taken < size_of_softmax / 2


@pytest.mark.shared
def test_a_text_of_1_gb_is_prepared_and_trained_on_in_3_gb(tmp_path, shared):
    source, text = tmp_path / "source.txt", tmp_path / "text.txt"
    packed = shared / "data" / "lm" / "wikipedia-en-gensim.txt.gz"
    source.write_bytes(gzip.decompress(packed.read_bytes()))
    write_large_text(source, text, 10**9)
    parameters = small_parameters(
        tmp_path,
        text=str(text),
        heldout_fraction=0.01,
        batch_size=32,
        unroll_steps=20,
        n_negatives=512,
        max_steps=100,
        max_characters=50,
    )
    parameters.to_yaml(tmp_path / "params.yaml")
    found = answer_of(LARGE_TEXT, tmp_path / "params.yaml")
    assert found["steps"] == 100
    assert found["lexicon"] > 1_000_000
    assert found["preparing"] < 3e9
    assert found["training"] < 3e9 + found["weights"]
