"""Runtimes give the same vectors and are chosen by name; NumPy and ONNX load no framework."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from small_models import TINY, random_arrays
from threadpoolctl import threadpool_info, threadpool_limits

from elmolib import ElmoEmbedder
from elmolib.embedding import runtimes
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.numpy_runtime import NumpyRuntime
from elmolib.embedding.onnx_file import write_onnx
from elmolib.errors import ElmolibError, ParameterError
from elmolib.formats.options import architecture_from_options
from elmolib.formats.published import SHIPPED
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model
from elmolib.parallel import ONE_BLAS_THREAD
from elmolib.settings.architecture import Architecture
from elmolib.text.characters import PREDICTION_SHIFT, character_ids
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import Vocabulary

LIGHT = ["numpy", "onnx"]

SENTENCES = ["The river bank was steep .", "Râul 河岸", "", "w " * 60, "She saw nothing ."]
HEAVY = ["tensorflow", "keras", "jax", "torch", "scipy", "pandas", "matplotlib"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["<S>", "</S>", "<UNK>", "the", "river", "bank"]
    arrays = {name: 0.5 * values for name, values in random_arrays(TINY, len(words)).items()}
    path = tmp_path_factory.mktemp("model") / "elmo.h5"
    write_model(path, StoredModel(TINY, arrays, Vocabulary(words)))
    return path


@pytest.mark.parametrize("runtime", LIGHT)
def test_every_feature_agrees_with_tensorflow(runtime: str, model: Path, tmp_path: Path) -> None:
    light, keras = (ElmoEmbedder(model, runtime=name) for name in (runtime, "tensorflow"))
    assert (light.encoder.runtime.name, keras.encoder.runtime.name) == (runtime, "tensorflow")

    def results(embedder: ElmoEmbedder) -> list[np.ndarray]:
        corpus = tmp_path / f"{embedder.encoder.runtime.name}.txt"
        corpus.write_text("\n".join(SENTENCES), encoding="utf-8")
        embedded = embedder.embed_corpus(corpus, corpus.with_suffix(".h5"), "all", progress=False)
        nearest = embedder.nearest("bank", SENTENCES[0], embedded, k=3)
        figure = embedder.heatmap(SENTENCES[0])
        predicted = embedder.predict(SENTENCES[0], top_k=3)
        return [
            *embedder.embed(SENTENCES, "all"),
            *embedder.embed(SENTENCES, "all", carry_state=True),
            *embedder.embed(SENTENCES, "all", carry_state=True),
            embedder.embed_sentences(SENTENCES, pooling="max"),
            np.array([neighbour.similarity for neighbour in nearest.in_context]),
            figure.axes[0].collections[0].get_array(),
            *(expected.probabilities for expected in predicted[1:]),
            np.array(embedder.sentence_log_prob(SENTENCES[0])),
        ]

    for got, expected in zip(results(light), results(keras), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("runtime", LIGHT)
def test_a_sentence_has_the_same_vectors_in_any_batch(runtime: str, root: Path) -> None:
    embedder = ElmoEmbedder.from_pretrained("en-tiny", runtime=runtime)
    text = (root / "README.md").read_text(encoding="utf-8").splitlines()
    together = embedder.embed(text, "all")
    largest = max(np.abs(vectors).max() for vectors in together if vectors.size)
    for place in range(0, len(text), 7):
        embedder.encoder.forget_words()
        alone = embedder.embed([text[place]], "all")[0]
        np.testing.assert_allclose(alone, together[place], rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("runtime", LIGHT)
def test_light_runtimes_load_no_framework(runtime: str, model: Path) -> None:
    program = f"""
import json, sys
from elmolib import ElmoEmbedder
embedder = ElmoEmbedder({str(model)!r}, runtime={runtime!r})
embedder.embed({SENTENCES!r})
embedder.predict("the river")
print(json.dumps(list(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not set(HEAVY) & set(json.loads(done.stdout.splitlines()[-1]))


def _embed_in_child(embedder: ElmoEmbedder, results: multiprocessing.SimpleQueue) -> None:
    try:
        results.put(embedder.embed(SENTENCES, "all"))
    except ElmolibError as error:
        results.put(str(error))


def _after_fork(embedder: ElmoEmbedder) -> list[np.ndarray] | str:
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    child = context.Process(target=_embed_in_child, args=(embedder, results))
    child.start()
    result = results.get()
    child.join()
    return result


@pytest.mark.filterwarnings("ignore:.*fork.*")
@pytest.mark.parametrize("runtime", LIGHT)
def test_a_fork_embeds_too(runtime: str, model: Path) -> None:
    embedder = ElmoEmbedder(model, runtime=runtime)
    expected = embedder.embed(SENTENCES, "all")
    for got, wanted in zip(_after_fork(embedder), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_fork_that_would_hang_says_so(model: Path) -> None:
    embedder = ElmoEmbedder(model, runtime="tensorflow")
    assert "After a fork, tensorflow would hang" in _after_fork(embedder)


def test_the_threads_of_blas_are_as_before(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    def threads() -> list[int]:
        return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]

    # Find the libraries again: other tests may have loaded a second BLAS, such as SciPy's.
    monkeypatch.setattr(ONE_BLAS_THREAD, "_controller", None)
    inside = []
    step = NumpyRuntime._step
    monkeypatch.setattr(
        NumpyRuntime, "_step", lambda *args: inside.append(max(threads())) or step(*args)
    )
    embedder = ElmoEmbedder(model, runtime="numpy")
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        embedder.embed(SENTENCES, batch_size=1)
        assert threads() == before
    assert set(inside) == {1}


def test_unknown_and_missing_runtimes_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    with pytest.raises(ParameterError, match=r"^runtime must be 'auto' or one of .*, not 'caffe'"):
        ElmoEmbedder(model, runtime="caffe")
    with pytest.raises(ParameterError, match=r"^precision must be .*, not 'int3'\.$"):
        ElmoEmbedder(model, runtime="numpy", precision="int3")
    with pytest.raises(ParameterError, match="here Keras runs on tensorflow: .*KERAS_BACKEND=jax"):
        monkeypatch.setattr(runtimes, "find_spec", lambda name: True)
        ElmoEmbedder(model, runtime="tensorflow")
        ElmoEmbedder(model, runtime="jax")
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name != "numpy" else True)
    with pytest.raises(ParameterError, match=r"needs the package torch, .*: pip install .*torch"):
        ElmoEmbedder(model, runtime="torch")
    assert ElmoEmbedder(model).encoder.runtime.name == "numpy"
    assert os.environ.get("KERAS_BACKEND") in (None, "tensorflow")
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnx" else True)
    with pytest.raises(ParameterError, match=r"needs the package onnx, .*'elmolib\[fast\]'\.$"):
        ElmoEmbedder(model, runtime="onnx")
    assert ElmoEmbedder(model).encoder.runtime.name == "numpy"
    for module in ("onnx_graphs", "onnx_file"):
        monkeypatch.delitem(sys.modules, f"elmolib.embedding.{module}")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ElmolibError, match=r"needs the package onnx, .*'elmolib\[fast\]'\.$"):
        importlib.import_module("elmolib.embedding.onnx_file")


def test_a_file_of_vectors_is_not_resumed_by_another_runtime(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the river\n")
    ElmoEmbedder(model, runtime="numpy").embed_corpus(text, tmp_path / "v.h5", progress=False)
    with pytest.raises(ElmolibError, match="was made with another runtime"):
        other = ElmoEmbedder(model, runtime="tensorflow")
        other.embed_corpus(text, tmp_path / "v.h5", progress=False)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_highway": 0, "activation": "tanh", "use_skip_connections": False, "n_layers": 3},
        {"projection_dim": 5, "lstm_dim": 5, "cell_clip": None, "proj_clip": None},
    ],
)
def test_an_onnx_file_embeds_from_ids_alone(changes: dict, tmp_path: Path) -> None:
    architecture = Architecture(**{**TINY.to_json(), **changes})
    arrays = {name: 0.5 * values for name, values in random_arrays(architecture).items()}
    stored = StoredModel(architecture, arrays, tokenizer=Tokenizer(tokenized=True))
    write_onnx(tmp_path / "elmo.onnx", stored)
    onnx.checker.check_model(str(tmp_path / "elmo.onnx"), full_check=True)
    sentences = [sentence.split() for sentence in SENTENCES]
    ids = np.zeros((len(sentences), 60, TINY.max_characters), np.int64)
    for row, sentence in zip(ids, sentences, strict=True):
        row[: len(sentence)] = character_ids(sentence, TINY.max_characters) + PREDICTION_SHIFT
    session = onnxruntime.InferenceSession(tmp_path / "elmo.onnx")
    (layers,) = session.run(None, {"characters": ids})
    encoder = SentenceEncoder(NumpyRuntime(architecture, arrays))
    for k, expected in enumerate(encoder.encode(sentences)):
        n_words = len(sentences[k])
        np.testing.assert_allclose(layers[:, k, :n_words], expected, atol=1e-5)
        assert not layers[:, k, n_words:].any()
    metadata = session.get_modelmeta().custom_metadata_map
    assert Tokenizer.from_json(json.loads(metadata["tokenizer"]), "") == stored.tokenizer
    assert architecture_from_options(json.loads(metadata["options"])) == architecture


def test_an_onnx_file_is_as_small_as_float16_weights(tmp_path: Path) -> None:
    stored = read_model(SHIPPED["en-tiny"])
    write_onnx(tmp_path / "elmo.onnx", stored)
    assert (tmp_path / "elmo.onnx").stat().st_size < 1.05 * SHIPPED["en-tiny"].stat().st_size
    session = onnxruntime.InferenceSession(tmp_path / "elmo.onnx")
    ids = character_ids(SENTENCES[0].split(), 50)[None] + np.int64(PREDICTION_SHIFT)
    (layers,) = session.run(None, {"characters": ids})
    expected = ElmoEmbedder("en-tiny", runtime="numpy").embed([SENTENCES[0].split()], "all")[0]
    np.testing.assert_allclose(layers[:, 0], expected, atol=1e-5)
