"""ELMo models of other programs: they give the vectors of these programs, whatever their form."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from foreign_models import (
    bilm_tf_form,
    graph_of,
    write_checkpoint,
    write_hub_module,
    write_variables,
)
from small_models import TINY, random_arrays

from elmolib import ElmoEmbedder
from elmolib.errors import (
    OptionsError,
    ParameterError,
    WeightsError,
)
from elmolib.formats.options import options_of
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model, write_published
from elmolib.settings.architecture import Architecture
from elmolib.text.spelling import BYTES, Spelling
from elmolib.text.vocabulary import Vocabulary

FORMATS = Path(__file__).parents[1].parent / "shared" / "reference" / "formats"


HANDED = {
    "bilm_tf_checkpoint": "",
    "bilm_tf_checkpoint/one_layer": "",
    "bilm_tf_word_checkpoint": "",
    "bilm_tf_word_checkpoint/shared_softmax": "",
    "tf1_hub_module": "module.tar.gz",
    "tf1_hub_module/google_names": "../google_names.tar.gz",
}


"""The folder of each handed case, and the model in it."""


VOCABULARY = Vocabulary(["the", "river"])


SENTENCES = [["the", "river", "unheard-of"], ["bună", "水"], ["<S>", "</S>", "<bos>"]]


MIX = np.exp([0.5, -1.0, 0.25]) / np.exp([0.5, -1.0, 0.25]).sum() * 1.5


def handed(case: str) -> tuple[Path, list[list[str]], dict[str, np.ndarray]]:
    """Return the model of a case, its sentences and what its program computed."""
    folder = FORMATS / case.removesuffix("/google_names")
    sentences = json.loads((folder / "sentences.json").read_text(encoding="utf-8"))
    with np.load(folder / "expected.npz") as file:
        return folder / HANDED[case].removeprefix("../"), sentences, dict(file)


def assert_same_model(found: StoredModel, expected: StoredModel) -> None:
    assert found.architecture == expected.architecture
    assert found.arrays.keys() == expected.arrays.keys()
    for name, values in expected.arrays.items():
        assert found.arrays[name].tobytes() == values.tobytes(), name
    parts = ("vocabulary", "spelling", "mix", "tokenizer", "training_record")
    for part in parts:
        assert getattr(found, part) == getattr(expected, part), part


def assert_arrays(model: StoredModel, expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(model.arrays[name], values, rtol=0, atol=5e-7, err_msg=name)


def packed(folder: Path, inside: str = ".") -> Path:
    path = folder.parent / f"{folder.name}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, inside)
    return path


def zipped(folder: Path) -> Path:
    path = folder.parent / f"{folder.name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in filter(Path.is_file, folder.rglob("*")):
            archive.write(file, f"inner/{file.relative_to(folder)}")
    return path


@pytest.mark.shared
@pytest.mark.parametrize("case", HANDED)
def test_vectors_are_those_of_the_program(case: str) -> None:
    path, sentences, expected = handed(case)
    embedder = ElmoEmbedder(path, runtime="numpy")
    within = 1.5e-5 if "hub" in case else 1e-5
    for i, sentence in enumerate(sentences):
        layers = embedder.embed([sentence], layers="all")[0]
        np.testing.assert_allclose(layers, expected[f"sent{i}_layers"], rtol=0, atol=within)
        if f"sent{i}_loss" in expected:
            found = embedder.sentence_log_prob(sentence)
            losses = -np.array([found.forward, found.backward]) / found.n_targets
            np.testing.assert_allclose(losses, expected[f"sent{i}_loss"], rtol=0, atol=within)
        key = {"google_names": "elmo_google_names", "tf1_hub_module": "elmo"}
        key = key.get(case.rpartition("/")[2], "mix")
        if f"sent{i}_{key}" in expected:
            mixed = embedder.embed([sentence], layers="mix")[0]
            np.testing.assert_allclose(mixed, expected[f"sent{i}_{key}"], rtol=0, atol=within)


@pytest.mark.shared
@pytest.mark.parametrize("case", HANDED)
def test_a_model_is_kept_bit_for_bit_in_our_own_file(tmp_path: Path, case: str) -> None:
    path, sentences, _ = handed(case)
    model = read_model(path)
    write_model(tmp_path / "elmo.h5", model)
    assert_same_model(read_model(tmp_path / "elmo.h5"), model)
    before, after = (ElmoEmbedder(each, runtime="numpy") for each in (path, tmp_path / "elmo.h5"))
    for layers in ("all", "mix") if model.mix else ("all",):
        pairs = zip(before.embed(sentences, layers), after.embed(sentences, layers), strict=True)
        assert all(ours.tobytes() == theirs.tobytes() for ours, theirs in pairs)


@pytest.mark.shared
@pytest.mark.parametrize("case", HANDED)
@pytest.mark.parametrize("runtime", ["onnx", "tensorflow"])
def test_every_runtime_computes_every_model(case: str, runtime: str) -> None:
    path, sentences, expected = handed(case)
    embedder = ElmoEmbedder(path, runtime=runtime)
    for i, layers in enumerate(embedder.embed(sentences, layers="all")):
        np.testing.assert_allclose(layers, expected[f"sent{i}_layers"], rtol=0, atol=2e-5)


ONE_LAYER = Architecture(
    **{**vars(TINY), "n_layers": 1, "lstm_dim": 5, "projection_dim": 5, "n_highway": 0}
)


@pytest.mark.parametrize("architecture", [TINY, ONE_LAYER], ids=["two layers", "no projections"])
def test_a_checkpoint_opens_by_any_of_its_names(tmp_path: Path, architecture) -> None:
    arrays = random_arrays(architecture, len(VOCABULARY))
    write_checkpoint(tmp_path, architecture, arrays, step=9)
    write_checkpoint(tmp_path, architecture, {**arrays, "softmax/b": -arrays["softmax/b"]}, 40)
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY))
    for path in (tmp_path, tmp_path / "model.ckpt-40", tmp_path / "model.ckpt-40.index"):
        assert read_model(path).arrays["softmax/b"][0] == -arrays["softmax/b"][0]
    model = read_model(tmp_path / "model.ckpt-9")
    assert model.architecture == architecture
    assert model.vocabulary == VOCABULARY
    assert_arrays(model, arrays)
    assert model.slots == {}
    slots = read_model(tmp_path / "model.ckpt-9", slots=True).slots
    assert {name: a.tobytes() for name, a in slots.items()} == {
        name: (a**2).tobytes() for name, a in arrays.items()
    }
    (tmp_path / "checkpoint").unlink()
    assert read_model(tmp_path).source.endswith("model.ckpt-40")
    embedder = ElmoEmbedder(tmp_path)
    assert embedder.predict("the river").forward.words
    assert ElmoEmbedder(packed(tmp_path)).embed("the river").shape == (2, embedder.dim)


@pytest.mark.parametrize("with_adagrad", [True, False])
def test_training_goes_on_from_a_checkpoint(tmp_path: Path, with_adagrad: bool) -> None:
    import tensorflow as tf

    from elmolib.model.bilm import BiLM
    from elmolib.training.fine_tuning import load_pretrained

    arrays = random_arrays(TINY, len(VOCABULARY))
    write_checkpoint(tmp_path, TINY, arrays)
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY))
    with pytest.raises(ParameterError, match="another architecture"):
        load_pretrained(BiLM(ONE_LAYER, 6), VOCABULARY, tmp_path, {})
    ours = Vocabulary(["new", "river"])
    bilm = BiLM(TINY, len(ours))
    before = bilm.arrays()
    ones = {name: tf.Variable(np.ones_like(values)) for name, values in before.items()}
    transfer = load_pretrained(bilm, ours, tmp_path, ones if with_adagrad else {})
    state = "Adagrad goes on from its state" if with_adagrad else "with a new optimizer state"
    assert (transfer.n_kept, transfer.n_new, transfer.optimizer) == (4, 1, state)
    after = bilm.arrays()
    for name, values in arrays.items():
        if name.startswith("softmax/"):
            places = [VOCABULARY[word] for word in ("<S>", "</S>", "<UNK>", "river")]
            np.testing.assert_array_equal(after[name][[0, 1, 2, 4]], values[places])
            np.testing.assert_array_equal(after[name][3], before[name][3])
        else:
            np.testing.assert_array_equal(after[name], values)
        if with_adagrad:
            found = ones[name].numpy()
            if name.startswith("softmax/"):
                np.testing.assert_array_equal(found[[0, 1, 2, 4]], values[places] ** 2)
                assert (found[3] == 1).all()
            else:
                np.testing.assert_array_equal(found, values**2)


@pytest.mark.parametrize("reads_words", [False, True])
def test_perplexity_is_that_of_each_sentence(tmp_path: Path, reads_words: bool) -> None:
    from elmolib.scoring.perplexity import perplexity

    arrays = random_arrays(TINY, len(VOCABULARY))
    variables = bilm_tf_form(TINY, arrays)
    options = options_of(TINY)
    if reads_words:
        variables = {n: a for n, a in variables.items() if "/CNN" not in n and "/char" not in n}
        variables["lm/embedding"] = random_arrays(TINY, len(VOCABULARY), 1)["softmax/W"]
        del options["char_cnn"]
    write_variables(tmp_path / "model.ckpt-1", variables)
    (tmp_path / "options.json").write_text(json.dumps(options))
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY))
    (tmp_path / "text.txt").write_text("the river unheard-of the\n")
    found = perplexity(tmp_path, tmp_path / "text.txt")
    expected = ElmoEmbedder(tmp_path).sentence_log_prob("the river unheard-of the")
    losses = np.log([found.forward, found.backward])
    np.testing.assert_allclose(
        losses, [-expected.forward / 5, -expected.backward / 5], rtol=0, atol=1e-5
    )


def test_a_checkpoint_of_deeppavlov(tmp_path: Path) -> None:
    for epoch in (2, 10):
        variables = bilm_tf_form(TINY, random_arrays(TINY, seed=epoch))
        write_variables(tmp_path / f"saves/epochs/{epoch}/model", variables)
    (tmp_path / "options.json").write_text(json.dumps(options_of(TINY)))
    assert_arrays(read_model(tmp_path), random_arrays(TINY, seed=10))
    assert_arrays(read_model(tmp_path / "saves/epochs/2"), random_arrays(TINY, seed=2))
    assert_arrays(read_model(packed(tmp_path)), random_arrays(TINY, seed=10))


def test_a_checkpoint_adds_its_softmax_to_an_hdf5_file(tmp_path: Path) -> None:
    arrays = random_arrays(TINY, len(VOCABULARY))
    write_checkpoint(tmp_path, TINY, arrays)
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY))
    layers = {name: a for name, a in arrays.items() if not name.startswith("softmax/")}
    write_published(tmp_path / "other", StoredModel(TINY, layers))
    shutil.move(tmp_path / "other" / "weights.hdf5", tmp_path / "weights.hdf5")
    for path in (tmp_path, zipped(tmp_path)):
        model = read_model(path)
        assert model.source.endswith("weights.hdf5")
        assert_arrays(model, arrays)
    assert ElmoEmbedder(tmp_path).predict("the river").forward.words
    with h5py.File(tmp_path / "weights.hdf5", "r+") as file:
        file["char_embed"][0] = 7
    with pytest.warns(UserWarning, match=r"has other weights than .*: only its softmax is used"):
        assert read_model(tmp_path).arrays["char_cnn/embedding"][0, 0] == 7


@pytest.mark.parametrize("shared_softmax", [False, True])
@pytest.mark.parametrize("form", ["checkpoint", "hdf5"])
def test_a_model_that_reads_whole_words(tmp_path: Path, shared_softmax: bool, form: str) -> None:
    arrays = random_arrays(TINY, len(VOCABULARY))
    lstms = {name: a for name, a in arrays.items() if not name.startswith("char_cnn")}
    table = np.random.default_rng(1).normal(size=(len(VOCABULARY), 3)).astype(np.float32)
    if shared_softmax:
        del lstms["softmax/W"]
    variables = bilm_tf_form(TINY, arrays)
    kept = {n: a for n, a in variables.items() if "/CNN" not in n and "/char" not in n}
    kept["lm/embedding"] = table
    if shared_softmax:
        del kept["lm/softmax/W"]
    if form == "checkpoint":
        write_variables(tmp_path / "model.ckpt-40", kept)
    else:
        with h5py.File(tmp_path / "weights.hdf5", "w") as file:
            for name, values in kept.items():
                file[name.removeprefix("lm/")] = values
    options = options_of(TINY)
    del options["char_cnn"]
    (tmp_path / "options.json").write_text(json.dumps(options))
    with pytest.raises(WeightsError, match=r"reads whole words: add the vocab\.txt"):
        read_model(tmp_path)
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY))
    model = read_model(tmp_path)
    assert_arrays(model, lstms)
    if shared_softmax:
        assert model.arrays["softmax/W"].tobytes() == table.tobytes()
    embedder = ElmoEmbedder(tmp_path, runtime="numpy")
    vectors = embedder.embed([["river", "unheard-of"]], layers=0)[0]
    np.testing.assert_array_equal(vectors, np.hstack([table[[4, 2]]] * 2))
    assert embedder.predict(["the", "river"]).forward.words
    with pytest.raises(WeightsError, match="cannot hold .* because bilm-tf and AllenNLP spell all"):
        write_published(tmp_path / "export", model)


def test_variables_in_slices_or_pieces_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, TINY, random_arrays(TINY))
    prefix = tmp_path / "model.ckpt-40"
    data = tmp_path / "model.ckpt-40.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:-50])
    with pytest.raises(WeightsError, match=r"ckpt-40\.index cannot be read: .*not completely"):
        read_model(tmp_path)
    data.unlink()
    with pytest.raises(WeightsError, match="lacks .*data-00000-of-00001"):
        read_model(tmp_path)
    variables = bilm_tf_form(TINY, random_arrays(TINY))
    write_variables(prefix, variables, "lm/char_embed")
    with pytest.raises(WeightsError, match="lm/char_embed is in slices"):
        read_model(tmp_path)


def test_a_checkpoint_that_reads_in_one_direction_is_refused(tmp_path: Path) -> None:
    write_variables(tmp_path / "model.ckpt-1", {"lm/rnn/lstm_cell/kernel": np.zeros((6, 16))})
    with pytest.raises(WeightsError, match="holds no options: give options="):
        read_model(tmp_path)
    (tmp_path / "options.json").write_text(json.dumps(options_of(TINY)))
    with pytest.raises(WeightsError, match="reads in one direction, but ELMo in both"):
        read_model(tmp_path)


GRAPHS = {
    "usual": (3.0, 3.0, "Relu", True, 50),
    "no clips": (None, None, "Tanh", False, 10),
    "clips": (0.5, None, "Relu", True, 300),
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_hub_module_tells_its_options_by_its_graph(tmp_path: Path, graph: str) -> None:
    write_hub_module(tmp_path / "module", graph_of(*GRAPHS[graph]), ("x_ELMo_W", "x_ELMo_gamma"))
    cell_clip, proj_clip, activation, skip, most = GRAPHS[graph]
    for path in (tmp_path / "module", packed(tmp_path / "module")):
        model = read_model(path)
        values = {"cell_clip": cell_clip, "proj_clip": proj_clip, "max_characters": most}
        values |= {"activation": activation.lower(), "use_skip_connections": skip}
        assert model.architecture == Architecture(**{**vars(TINY), **values})
        assert_arrays(model, random_arrays(TINY))
        np.testing.assert_allclose(model.mix, MIX, rtol=1e-6)


def test_googles_names_of_the_mix_and_a_graph_that_tells_nothing(tmp_path: Path) -> None:
    write_hub_module(tmp_path, b"", ("weights", "scaling"))
    model = read_model(tmp_path)
    assert model.architecture == Architecture(**{**vars(TINY), "max_characters": 50})
    np.testing.assert_allclose(model.mix, MIX, rtol=1e-6)
    (tmp_path / "saved_model.pb").write_bytes(b"\x12\xff")
    with pytest.raises(WeightsError, match=r"saved_model\.pb is damaged"):
        read_model(tmp_path)


def _pooled(x: np.ndarray, parts: dict[str, np.ndarray], i: int) -> np.ndarray:
    kernel, bias = parts[f"char_cnn/kernel_{i}"], parts[f"char_cnn/bias_{i}"]
    windows = (x[start : start + len(kernel)] for start in range(len(x) - len(kernel) + 1))
    found = [np.einsum("wd,wdn->n", window, kernel) for window in windows]
    return np.maximum(np.max(found, axis=0) + bias, 0)


def test_many_characters_get_ids_around_the_marks() -> None:
    characters = ("", *(chr(0x4E00 + k) for k in range(400)))
    spelling = Spelling(characters=characters)
    ids = spelling.character_ids([chr(0x4E00 + 254), chr(0x4E00 + 255), "a"], 4)
    assert ids[:, 1].tolist() == [255, 261, 0]
    assert spelling.n_characters == 406


def test_spelling_must_hold_together() -> None:
    assert Spelling.from_json(BYTES.to_json(), "x") == BYTES
    for settings, message in (
        ({"words": ["a"]}, "words must contain the word unknown"),
        ({"word_dim": 3}, "word_dim needs words"),
        ({"words": 3}, "words must be a list of words"),
        ({"marks": 3}, "marks must be two words"),
        ({"x": 3}, "x"),
    ):
        with pytest.raises(OptionsError, match=f"here: .*{message}"):
            Spelling.from_json(settings, "here")
