"""Other programs read the files that we write and compute the same vectors from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import TINY, random_arrays

from elmolib.elmo import ElmoEmbedder
from elmolib.formats.options import options_of
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model, write_published
from elmolib.settings.architecture import Architecture
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import Vocabulary

pytestmark = [pytest.mark.peers, pytest.mark.slow]

TOLERANCE = 1e-5
BATCH_SIZE = 4


def changed(**values: object) -> Architecture:
    return Architecture(**{**vars(TINY), **values})


MODELS = {
    "skip": TINY,
    "no skip": changed(use_skip_connections=False, n_layers=3, cell_clip=0.5, proj_clip=0.3),
    "no projections": changed(
        n_layers=1, activation="tanh", projection_dim=5, lstm_dim=5, proj_clip=None
    ),
}

SENTENCES = [
    ["The", "river", "bank", "was", "steep", "."],
    ["."],
    ["Râul", "Dunărea", "河岸", "👩‍👧", "Donaudampfschifffahrtsgesellschaft"],
    ["the", "the", "the"],
    ["w"] * 30,
    ["A", "bank"],
    ["steep", "river", "?", "!"],
]

# Both programs carry each row's state from batch to batch, so each run needs a new session.
SIMPLE_ELMO = """
import sys, json
import numpy as np
import tensorflow as tf
from simple_elmo import ElmoModel

sentences, batch_size, out, *folders = json.loads(sys.argv[1])
answers = {}
for folder in folders:
    for layers in ("all", "average", "top"):
        for warmup in (False, True):
            with tf.Graph().as_default():
                model = ElmoModel()
                model.load(folder, max_batch_size=batch_size)
                vectors = model.get_elmo_vectors(sentences, warmup=warmup, layers=layers)
            answers[f"{folder} {layers} {warmup}"] = vectors
np.savez(out, **answers)
"""

BILM_TF = """
import sys, json
import numpy as np
import tensorflow.compat.v1 as tf
tf.disable_v2_behavior()
sys.modules["tensorflow"] = tf
from bilm import Batcher, BidirectionalLanguageModel

sentences, batch_size, out, *folders = json.loads(sys.argv[1])
answers = {}
for folder in folders:
    with tf.Graph().as_default(), tf.Session() as session:
        width = json.load(open(f"{folder}/options.json"))["char_cnn"]["max_characters_per_token"]
        ids = tf.placeholder("int32", (None, None, width))
        model = BidirectionalLanguageModel(
            f"{folder}/options.json", f"{folder}/weights.hdf5", max_batch_size=batch_size
        )
        layers = model(ids)["lm_embeddings"]
        session.run(tf.global_variables_initializer())
        batcher = Batcher(f"{folder}/vocab.txt", width)
        for first in range(0, len(sentences), batch_size):
            batch = batcher.batch_sentences(sentences[first : first + batch_size])
            answers[f"{folder} {first}"] = session.run(layers, {ids: batch})
np.savez(out, **answers)
"""


def ask(program: str, folders: list[Path], out: Path) -> dict[str, np.ndarray]:
    """Run another program in a subprocess, because it needs Keras 2."""
    question = json.dumps([SENTENCES, BATCH_SIZE, str(out), *map(str, folders)])
    done = subprocess.run(
        [sys.executable, "-c", program, question],
        env=os.environ | {"TF_USE_LEGACY_KERAS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(out, allow_pickle=False) as answers:
        return dict(answers)


def write_own(folder: Path, options: Architecture) -> Path:
    """Write a model as training does."""
    words = ["<S>", "</S>", "<UNK>", "the", "river", "bank"]
    path = folder / "elmo.h5"
    folder.mkdir(parents=True)
    arrays = {name: 0.5 * values for name, values in random_arrays(options, len(words)).items()}
    write_model(
        path,
        StoredModel(options, arrays, Vocabulary(words), Tokenizer(tokenized=True, language="en")),
    )
    return path


def in_order(vectors: np.ndarray) -> list[np.ndarray]:
    """Cut off the padding of (sentences, ..., longest, features): one array per sentence."""
    return [row[..., : len(words), :] for row, words in zip(vectors, SENTENCES, strict=True)]


def assert_close(got, expected) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Path]]:
    """Write each model as elmolib's file, as this file with an `options.json`, and as published."""
    written = {}
    for name, options in MODELS.items():
        folder = tmp_path_factory.mktemp(name.replace(" ", "_"))
        own = write_own(folder / "own", options)
        renamed, published = folder / "renamed", folder / "published"
        renamed.mkdir()
        (renamed / "model.hdf5").write_bytes(own.read_bytes())
        (renamed / "options.json").write_text(json.dumps(options_of(options)))
        write_published(published, read_model(own))
        written[name] = own, renamed, published
    return written


@pytest.fixture(scope="module")
def of_simple_elmo(files, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folders = [folder for _, *both in files.values() for folder in both]
    return ask(SIMPLE_ELMO, folders, tmp_path_factory.mktemp("answers") / "simple_elmo.npz")


@pytest.mark.parametrize("form", ["renamed", "published"])
@pytest.mark.parametrize("name", MODELS)
class TestSimpleElmo:
    """simple-elmo from PyPI."""

    @pytest.fixture
    def embedder(self, files, name) -> ElmoEmbedder:
        return ElmoEmbedder(files[name][0])

    @pytest.fixture
    def theirs(self, files, of_simple_elmo, name, form):
        folder = files[name][1 if form == "renamed" else 2]
        return lambda layers, warmup: in_order(of_simple_elmo[f"{folder} {layers} {warmup}"])

    @pytest.mark.parametrize("layers", ["all", "average", "top"])
    def test_its_first_batch_has_our_vectors(self, embedder, theirs, layers):
        ours = embedder.embed(SENTENCES, layers=layers)
        assert_close(ours[:BATCH_SIZE], theirs(layers, warmup=False)[:BATCH_SIZE])

    @pytest.mark.parametrize("layers", ["all", "average", "top"])
    def test_its_later_batches_have_our_vectors_with_carried_state(self, embedder, theirs, layers):
        ours = embedder.embed(SENTENCES, layers=layers, batch_size=BATCH_SIZE, carry_state=True)
        assert_close(ours, theirs(layers, warmup=False))

    def test_its_warm_up_is_the_first_batch_read_twice(self, embedder, theirs):
        carrying = {"layers": "all", "batch_size": BATCH_SIZE, "carry_state": True}
        embedder.embed(SENTENCES[:BATCH_SIZE], **carrying)
        assert_close(embedder.embed(SENTENCES, **carrying), theirs("all", warmup=True))


def test_bilm_tf(files, tmp_path: Path) -> None:
    answers = ask(BILM_TF, [published for *_, published in files.values()], tmp_path / "bilm.npz")
    for own, _, published in files.values():
        ours = ElmoEmbedder(own).embed(
            SENTENCES, layers="all", batch_size=BATCH_SIZE, carry_state=True
        )
        for first in range(0, len(SENTENCES), BATCH_SIZE):
            batch = ours[first : first + BATCH_SIZE]
            for vectors, padded in zip(batch, answers[f"{published} {first}"], strict=True):
                theirs = padded[:, : vectors.shape[1]]
                np.testing.assert_allclose(vectors, theirs, atol=TOLERANCE, rtol=0)
