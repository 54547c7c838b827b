"""8-bit vectors are near the float32 vectors, in any batch and in any language."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_models import TINY, random_arrays

from elmolib import ElmoEmbedder, cli
from elmolib.embedding import int8, onnx_graphs, onnx_runtime
from elmolib.embedding.companions import fingerprint
from elmolib.embedding.int8 import clipped_shares, scales_of, stored_scales
from elmolib.embedding.numpy_runtime import NumpyRuntime
from elmolib.embedding.vector_file import EmbeddedCorpus
from elmolib.errors import CorpusError, ParameterError, WeightsError
from elmolib.formats.published import SHIPPED
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model
from elmolib.settings.architecture import Architecture
from elmolib.text.vocabulary import Vocabulary

INSTRUCTIONS = {"avx512_vnni", "avx_vnni", "asimddp"}
GERMAN = """Alle Menschen sind frei und gleich an Würde und Rechten geboren .
Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen .
Jeder hat Anspruch auf die in dieser Erklärung verkündeten Rechte und Freiheiten .
Niemand darf in Sklaverei oder Leibeigenschaft gehalten werden .
Straßenbahnhaltestelle , Äpfel & Öl : 3,50 € !""".splitlines()
WORDS = ["the", "river", "bank", "was", "steep", "a", "of", "and", "money", "in", "to", "is"]
SENTENCES = [WORDS[k:] + WORDS[:k] for k in range(len(WORDS))]


@pytest.fixture
def runs_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On processors that elmolib refuses, compute the same numbers with other instructions."""
    try:
        onnx_runtime.require_int8()
    except ParameterError:
        monkeypatch.setattr(onnx_graphs, "WEIGHTS_DTYPE", np.uint8)
        monkeypatch.setattr(onnx_runtime, "require_int8", lambda: None)
    yield


def stored(path: Path, architecture: Architecture = TINY, seed: int = 0, **parts) -> StoredModel:
    arrays = {name: 0.5 * v for name, v in random_arrays(architecture, seed=seed).items()}
    write_model(path, StoredModel(architecture, arrays, **parts))
    return read_model(path)


def test_it_is_refused_where_the_processor_lacks_the_instructions(tmp_path: Path) -> None:
    stored(tmp_path / "elmo.h5")
    if INSTRUCTIONS & set(Path("/proc/cpuinfo").read_text().split()):
        ElmoEmbedder(tmp_path / "elmo.h5", precision="int8", calibrate=SENTENCES)
        return
    with pytest.raises(ParameterError, match=r"^precision='int8' needs a processor with VNNI.*\.$"):
        ElmoEmbedder(tmp_path / "elmo.h5", precision="int8", calibrate=SENTENCES)


@pytest.mark.parametrize("per_column", [True, False])
def test_a_product_is_that_of_whole_numbers(runs_here, per_column: bool) -> None:
    generator = np.random.default_rng(0)
    # The largest weight of each column is 127, so each column has step 1 and is not rounded.
    weights = generator.integers(-127, 128, (40, 8))
    weights[0] = 127
    x = generator.integers(-128, 128, (5, 40)).astype(np.float32)
    steps = np.full(40, 0.5, np.float32) if per_column else np.float32(0.5)
    bias = np.arange(8, dtype=np.float32)
    graph = onnx_graphs.Graph()
    product = graph.product("x", weights.astype(np.float32), bias, steps)
    inputs = {"x": ("float32", ("n", 40))}
    model = graph.model(inputs, {"y": (product, ("n", 8))}, apart=True)
    session = onnx_runtime._session(model, graph.constants)
    (found,) = session.run(None, {"x": 0.5 * x})
    np.testing.assert_allclose(found, 0.5 * (x.astype(int) @ weights) + bias, rtol=1e-6)
    (clipped,) = session.run(None, {"x": np.full((1, 40), 1000, np.float32)})
    np.testing.assert_allclose(clipped[0], 0.5 * 127 * weights.sum(axis=0) + bias, rtol=1e-6)


def test_the_convolutions_are_those_of_whole_numbers(runs_here) -> None:
    generator = np.random.default_rng(0)
    # All weights are whole and the largest is 127, so nothing is rounded.
    embedding = generator.integers(-127, 128, (261, TINY.char_embedding_dim))
    embedding[0] = 127
    weights, expected = {"char_cnn/embedding": embedding.astype(np.float32)}, []
    characters = generator.integers(0, 261, (6, 11), dtype=np.int32)
    for i, (width, n_filters) in enumerate(TINY.filters):
        kernel = generator.integers(-127, 128, (width, TINY.char_embedding_dim, n_filters))
        kernel[0, 0] = 127
        bias = generator.integers(-9, 10, n_filters)
        weights |= {f"char_cnn/kernel_{i}": kernel.astype(np.float32)}
        weights |= {f"char_cnn/bias_{i}": bias.astype(np.float32)}
        windows = [embedding[characters[:, k : k + width]] for k in range(11 - width + 1)]
        sums = np.einsum("pnwe,wef->pnf", np.stack(windows), kernel)
        expected.append(sums.max(axis=0) + bias)
    graph = onnx_graphs.Graph(steps={"char_cnn/highway_0": np.ones(1, np.float32)})
    maxima = graph("Concat", *onnx_graphs._maxima_8_bit(graph, TINY, weights, "characters"), axis=1)
    inputs = {"characters": ("int32", ("words", "columns"))}
    model = graph.model(inputs, {"y": (maxima, ("words", TINY.n_filters))}, apart=True)
    (found,) = onnx_runtime._session(model, graph.constants).run(None, {"characters": characters})
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-6)


def test_the_command_line_embeds_in_8_bits_and_shows_the_clipped_shares(
    runs_here, tmp_path: Path
) -> None:
    model = shutil.copy(SHIPPED["en-tiny"], tmp_path)
    text, out = tmp_path / "german.txt", tmp_path / "vectors.h5"
    text.write_text("\n".join(GERMAN) + "\n", encoding="utf-8")
    call = partial(CliRunner().invoke, cli.main, catch_exceptions=False)
    assert json.loads(call(["info", str(model), "--json"]).stdout)["int8_clipped"] is None
    for scales_file in SHIPPED["en-tiny"].parent.glob("*.int8.json"):
        shutil.copy(scales_file, tmp_path)
    assert call(["embed", str(model), str(text), str(out), "--precision", "int8"]).exit_code == 0
    embedder = ElmoEmbedder(model, precision="int8")
    with EmbeddedCorpus(out) as embedded:
        for row, line in enumerate(GERMAN):
            np.testing.assert_array_equal(embedded[row], embedder.embed([line])[0])
    scales = stored_scales(read_model(model))
    assert scales is not None
    assert json.loads(call(["info", str(model), "--json"]).stdout)["int8_clipped"] == scales.clipped
    wrong = call(["embed", str(model), str(text), str(out), "--precision", "int4"])
    assert wrong.exit_code == 2
    assert "precision must be 'float32', or 'int8'" in wrong.stderr


def test_calibrated_on_english_it_embeds_german(runs_here, root: Path, tmp_path: Path) -> None:
    text = (root / "docs" / "evaluation.md").read_text(encoding="utf-8").split("\n")
    english = [line.split() for line in text if len(line.split()) > 4]
    path = shutil.copy(SHIPPED["en-tiny"], tmp_path)
    exact = ElmoEmbedder(path, runtime="onnx")
    embedder = ElmoEmbedder(path, precision="int8", calibrate=english)
    assert (embedder.encoder.runtime.name, embedder.encoder.runtime.precision) == ("onnx", "int8")
    for name, sentences in (("English", english[1::2]), ("German", GERMAN)):
        pairs = zip(embedder.embed(sentences, "all"), exact.embed(sentences, "all"), strict=True)
        got, expected = (np.concatenate(each, axis=1) for each in zip(*pairs, strict=True))
        products = (got * expected).sum(axis=2)
        cosines = products / np.linalg.norm(got, axis=2) / np.linalg.norm(expected, axis=2)
        assert (cosines.mean(axis=1) > 0.999).all(), name
        assert cosines.min() > 0.99, name
    scales, words = embedder.encoder.runtime.scales, [line.split() for line in GERMAN]
    runtime = NumpyRuntime(exact.encoder.architecture, exact.encoder.runtime.arrays())
    shares = clipped_shares(runtime, words, scales.steps)
    assert (
        set(shares)
        == set(scales.clipped)
        == {
            "char_cnn/highway_0",
            "char_cnn/projection",
            *(f"{direction}_{layer}" for direction in ("forward", "backward") for layer in (0, 1)),
        }
    )
    assert max(shares.values()) < 1e-3
    assert max(scales.clipped.values()) < 1e-3
    # If each step is divided by 100, many values are clipped. The shares must show this.
    small = {name: steps / 100 for name, steps in scales.steps.items()}
    clipped = clipped_shares(runtime, words, small)
    assert min(clipped.values()) > 0.2, clipped


def test_a_sentence_has_the_same_bits_alone_and_in_a_batch(runs_here) -> None:
    embedder = ElmoEmbedder("en-tiny", precision="int8")  # the scales come with the model
    together = embedder.embed([*GERMAN, "w " * 70], "all")
    for sentence, expected in zip(GERMAN, together, strict=False):
        embedder.encoder.forget_words()
        np.testing.assert_array_equal(embedder.embed([sentence], "all")[0], expected)


@pytest.mark.parametrize("changes", [{}, {"n_highway": 0, "activation": "tanh", "n_layers": 3}])
def test_clips_are_exact(runs_here, tmp_path: Path, changes: dict) -> None:
    architecture = Architecture(**{**TINY.to_json(), "proj_clip": 0.25, **changes})
    arrays = {name: 4 * v for name, v in random_arrays(architecture).items()}
    write_model(tmp_path / "elmo.h5", StoredModel(architecture, arrays))
    embedder = ElmoEmbedder(tmp_path / "elmo.h5", precision="int8", calibrate=SENTENCES)
    assert max(np.abs(v[1]).max() for v in embedder.embed(SENTENCES, "all")) == 0.25


def test_scales_are_computed_once_and_belong_to_the_weights(
    runs_here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stored(tmp_path / "elmo.h5")
    assert stored_scales(model) is None
    with pytest.raises(ParameterError, match=r"elmo\.h5 contains no text from which .* calibrate"):
        ElmoEmbedder(tmp_path / "elmo.h5", precision="int8")
    first = ElmoEmbedder(tmp_path / "elmo.h5", precision="int8", calibrate=SENTENCES)
    (file,) = tmp_path.glob("*.int8.json")
    assert file.name == f"elmo.h5.{fingerprint(TINY, model.arrays)[:12]}.int8.json"
    with monkeypatch.context() as patch:
        patch.setattr(int8, "compute_scales", None)
        again = ElmoEmbedder(tmp_path / "elmo.h5", precision="int8")
        unpickled = pickle.loads(pickle.dumps(first))
    for other in (again, unpickled):
        assert other.encoder.runtime.scales.sha256 == first.encoder.runtime.scales.sha256
        np.testing.assert_array_equal(other.embed("the bank"), first.embed("the bank"))
    assert stored_scales(model).clipped == first.encoder.runtime.scales.clipped
    assert stored_scales(stored(tmp_path / "elmo.h5", seed=1)) is None
    file.write_text(file.read_text().replace("forward_1", "forward_7"))
    stored(tmp_path / "elmo.h5")
    with pytest.raises(
        WeightsError, match=r"int8\.json is damaged: remove it, and compute it again"
    ):
        ElmoEmbedder(tmp_path / "elmo.h5", precision="int8")


def test_the_text_is_the_held_out_sample_or_else_the_vocabulary(runs_here, tmp_path: Path) -> None:
    vocabulary = Vocabulary(WORDS)
    listed = stored(tmp_path / "words.h5", vocabulary=vocabulary)
    sampled = stored(
        tmp_path / "sample.h5", vocabulary=vocabulary, training_record={"sample": SENTENCES}
    )
    bare = stored(tmp_path / "bare.h5")
    assert scales_of(sampled).sha256 == scales_of(bare, SENTENCES).sha256
    assert scales_of(listed).sha256 == scales_of(bare, [vocabulary.words]).sha256
    (tmp_path / "words.h5").rename(tmp_path / "moved.h5")
    moved = replace(listed, source=str(tmp_path / "moved.h5"), vocabulary=None)
    with pytest.raises(ParameterError, match="moved.h5 contains no text"):
        scales_of(moved)


def test_a_file_of_vectors_keeps_to_its_precision_and_scales(runs_here, tmp_path: Path) -> None:
    stored(tmp_path / "elmo.h5")
    text, out = tmp_path / "text.txt", tmp_path / "v.h5"
    text.write_text("the river\n")
    ElmoEmbedder(tmp_path / "elmo.h5", precision="int8", calibrate=SENTENCES).embed_corpus(
        text, out, progress=False
    )
    ElmoEmbedder(tmp_path / "elmo.h5", precision="int8").embed_corpus(text, out, progress=False)
    others = ElmoEmbedder(tmp_path / "elmo.h5", precision="int8", calibrate=[["money"]])
    with pytest.raises(CorpusError, match=r"v\.h5 was made with another scales"):
        others.embed_corpus(text, out, progress=False)
    with pytest.raises(CorpusError, match=r"another precision and another scales"):
        ElmoEmbedder(tmp_path / "elmo.h5", runtime="onnx").embed_corpus(text, out, progress=False)


def test_other_runtimes_are_refused(tmp_path: Path) -> None:
    stored(tmp_path / "elmo.h5")
    with pytest.raises(ParameterError, match=r"^precision must be .*runtime='onnx', not 'int8'\.$"):
        ElmoEmbedder(tmp_path / "elmo.h5", runtime="numpy", precision="int8")
