"""ELMo models of other programs: they give the vectors of these programs, whatever their form."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from foreign_models import (
    CHARACTERS,
    WORDS,
    bilm_tf_form,
    graph_of,
    state_dict,
    text,
    write_allennlp,
    write_checkpoint,
    write_hub_module,
    write_many_langs,
    write_torch,
    write_torch_zip,
    write_variables,
)
from small_models import TINY, random_arrays

from elmolib import ElmoEmbedder
from elmolib.cli import main
from elmolib.embedding.companions import fingerprint
from elmolib.errors import (
    DownloadError,
    ElmolibError,
    OptionsError,
    ParameterError,
    WeightsError,
)
from elmolib.formats.options import options_of
from elmolib.formats.published import MANY_LANGS, _files_of, fetch, is_published
from elmolib.formats.readers import read_model
from elmolib.formats.torch_file import read_tensors
from elmolib.formats.weights import StoredModel, write_model, write_published
from elmolib.settings.architecture import Architecture
from elmolib.text.spelling import BYTES, Spelling
from elmolib.text.vocabulary import Vocabulary

FORMATS = Path(__file__).parents[1].parent / "shared" / "reference" / "formats"
HANDED = {
    "elmoformanylangs_word_char": "",
    "elmoformanylangs_char_only": "",
    "elmoformanylangs_word_only": "",
    "bilm_tf_checkpoint": "",
    "bilm_tf_checkpoint/one_layer": "",
    "bilm_tf_word_checkpoint": "",
    "bilm_tf_word_checkpoint/shared_softmax": "",
    "tf1_hub_module": "module.tar.gz",
    "tf1_hub_module/google_names": "../google_names.tar.gz",
    "allennlp_archive": "model.tar.gz",
    "allennlp_archive/fine_tuned": "model.tar.gz",
    "allennlp_archive/without_options": "model.tar.gz",
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


# --- The handed cases


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


@pytest.mark.shared
def test_character_and_word_ids_are_those_of_the_program() -> None:
    path, sentences, expected = handed("elmoformanylangs_word_char")
    model = read_model(path)
    keys = (line.rsplit("\t", 1) for line in (path / "char.dic").read_text("utf-8").split("\n"))
    row = {key[0].strip(): int(key[1]) for key in keys if len(key) == 2}
    for i, sentence in enumerate(sentences):
        words = ["<bos>", *sentence, "<eos>"]
        ids = model.spelling.character_ids(words, 50)
        rows = model.spelling.rows(words, 50)
        np.testing.assert_array_equal(rows, expected[f"sent{i}_word_ids"])
        theirs = expected[f"sent{i}_char_ids"]
        assert (ids == 260).sum() == (theirs == row["<pad>"]).sum()
        assert (theirs[:, 0] == row["<eow>"]).all()
        pairs = {(ours, their) for ours, their in zip(ids.ravel(), theirs.ravel(), strict=True)}
        assert len(pairs) == len({ours for ours, _ in pairs}) == len({their for _, their in pairs})


@pytest.mark.shared
def test_the_configuration_may_be_missing(tmp_path: Path) -> None:
    path, _, _ = handed("elmoformanylangs_word_char")
    shutil.copytree(path, tmp_path / "model")
    (tmp_path / "model" / "cnn_6_7_8_16_sample.json").unlink()
    assert_same_model(read_model(tmp_path / "model"), read_model(path))


# --- Checkpoints of bilm-tf

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
    write_many_langs(tmp_path / "other")
    with pytest.raises(ParameterError, match="cannot be trained further, because it does not"):
        load_pretrained(bilm, ours, tmp_path / "other", {})


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


# --- TF-Hub

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


# --- AllenNLP


@pytest.mark.parametrize("write", [write_torch, write_torch_zip], ids=["old", "zip"])
def test_an_elmo_in_a_model_of_allennlp(tmp_path: Path, write) -> None:
    folder = tmp_path / "model"
    write_allennlp(folder, write, "text_field_embedder.token_embedder_elmo._elmo.")
    (folder / "config.json").write_text("{}")
    expected = Architecture(**{**vars(TINY), "max_characters": 50})
    for path in (folder, folder / "weights.th", packed(folder), zipped(folder)):
        model = read_model(path)
        assert model.architecture == expected
        assert_arrays(model, random_arrays(TINY))
        np.testing.assert_allclose(model.mix, MIX, rtol=1e-6)
    options = folder / "fta" / "model.text_field_embedder.token_embedders.elmo.options_file"
    options.parent.mkdir()
    options.write_text(json.dumps(options_of(TINY)))
    assert read_model(folder).architecture == TINY
    embedder = ElmoEmbedder(packed(folder), runtime="numpy")
    layers = embedder.embed(SENTENCES, layers="all")
    for mixed, each in zip(embedder.embed(SENTENCES, layers="mix"), layers, strict=True):
        np.testing.assert_allclose(mixed, np.tensordot(MIX, each, 1), atol=1e-6)
    with pytest.raises(ParameterError, match="'all', 'average', 'top', 'mix' or a number"):
        embedder.embed(SENTENCES, layers="best")


def test_other_encoders_of_allennlp_are_refused(tmp_path: Path) -> None:
    write_torch(tmp_path / "weights.th", {"_contextualizer.layer.weight": np.zeros((2, 2))})
    with pytest.raises(WeightsError, match="has another encoder than ELMo, such as a Transformer"):
        read_model(tmp_path)
    write_torch(tmp_path / "weights.th", {"tagger.weight": np.zeros((2, 2))})
    with pytest.raises(WeightsError, match="has no ELMo: name a model with the ELMo of"):
        read_model(tmp_path)


def test_the_first_of_several_elmos_is_read(tmp_path: Path) -> None:
    first = write_allennlp(tmp_path, prefix="first.")
    others = {name.replace("first.", "second."): -a for name, a in first.items()}
    write_allennlp(tmp_path, prefix="first.", **others)
    with pytest.warns(UserWarning, match=r"has several ELMos: 'first\.' is read"):
        assert_arrays(read_model(tmp_path), random_arrays(TINY))


# --- Pickles

NASTY = {
    "function": (b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.", "it names os system"),
    "getattr": (b"\x80\x02c__builtin__\ngetattr\n)R.", "it names __builtin__ getattr"),
    "operation": (b"\x80\x02(cos\nsystem\no.", "its pickle has the operation OBJ"),
    "new object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "the operation NEWOBJ"),
    "number": (b"\x80\x02K\x07.", "damaged"),
    "cut off": (b"\x80\x02}(", "damaged"),
    "tuple as a key": (b"\x80\x02})K\x01s.", "a key that is no text"),
    "empty stack": (b"\x80\x02R.", "damaged"),
}


@pytest.mark.parametrize("trick", NASTY)
@pytest.mark.parametrize("form", ["old", "zip"])
def test_a_pickle_that_is_more_than_tensors_is_refused(
    tmp_path: Path, trick: str, form: str
) -> None:
    pickled, message = NASTY[trick]
    if form == "old":
        write_torch(tmp_path / "weights.th", {"a": np.zeros(1, np.float32)})
        whole = (tmp_path / "weights.th").read_bytes()
        own = state_dict({"a": np.zeros(1, np.float32)})
        (tmp_path / "weights.th").write_bytes(whole.replace(own, pickled))
    else:
        with zipfile.ZipFile(tmp_path / "weights.th", "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
    with pytest.raises(WeightsError, match=message) as caught:
        read_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "old, new, message",
    [
        (b"\x88s.", b"\x89s.", "its numbers are big-endian"),
        (b"FloatStorage", b"QuantStorage", "it names torch QuantStorage"),
        (b"J\x03\x00\x00\x00t", b"J\xfd\xff\xff\xfft", "is not"),
        (b"J\x01\x00\x00\x00t", b"J\x02\x00\x00\x00t", "not stored row by row"),
        (text("cuda:3") + b"J\x06", text("cuda:3") + b"J\x05", "not completely stored"),
    ],
    ids=["endianness", "kind", "negative", "strides", "count"],
)
def test_a_tensor_that_is_not_whole_is_refused(tmp_path: Path, old, new, message) -> None:
    path = tmp_path / "weights.th"
    write_torch(path, {"a": np.arange(6, dtype=np.float32).reshape(2, 3)})
    assert read_tensors(path, "a")["a"].read().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(WeightsError, match=message):
        read_tensors(path, "a")


@pytest.mark.backends
@pytest.mark.parametrize("is_new", [False, True])
def test_files_that_pytorch_writes_are_read(tmp_path: Path, is_new: bool) -> None:
    import torch

    values = torch.arange(12.0).reshape(3, 4)
    state = {
        "whole": values,
        "part": values[1:],
        "parameter": torch.nn.Parameter(values * 2),
        "half": values.half(),
        "double": values.double(),
        "scalar": torch.tensor(3.5),
        "count": torch.tensor(3),
    }
    path = tmp_path / "weights.th"
    torch.save(state, path, _use_new_zipfile_serialization=is_new)
    found = read_tensors(path, "weights.th")
    assert found.keys() == state.keys() - {"count"}
    for name, array in found.items():
        assert array.shape == tuple(state[name].shape)
        np.testing.assert_array_equal(array.read(), state[name].detach().numpy())
    torch.save({"transposed": values.T}, path, _use_new_zipfile_serialization=is_new)
    with pytest.raises(WeightsError, match="transposed is not stored row by row"):
        read_tensors(path, "weights.th")


# --- ELMoForManyLangs


@pytest.mark.parametrize("config", [True, False])
@pytest.mark.parametrize("kind", ["word_char", "char_only", "word_only"])
def test_a_model_of_elmoformanylangs(tmp_path: Path, kind: str, config: bool) -> None:
    folder = tmp_path / "ro.model"
    characters, words = kind != "word_only", kind != "char_only"
    parts = write_many_langs(folder, characters, words, config)
    for path in (folder, zipped(folder), packed(folder)):
        model = read_model(path)
        a = model.architecture
        assert a.max_characters == (TINY.max_characters if config else 50)
        assert (a.lstm_dim, a.n_layers, a.use_skip_connections) == (4, 2, True)
        lstms = {n: v for n, v in random_arrays(TINY).items() if not n.startswith("char_cnn")}
        assert_arrays(model, lstms)
    assert "UDPipe" in model.training_record["tokens"]
    # Layer 0, by the program's formulas
    embedder = ElmoEmbedder(folder, runtime="numpy")
    sentence = ["river", "riverbank", "bună ziua", "水", "<bos>", "<pad>"]
    embedded = embedder._encoder.encode([sentence], boundaries=True)[0][0, :, :3]
    most = a.max_characters
    for word, vector in zip(["<bos>", *sentence, "<eos>"], embedded, strict=True):
        expected = parts["char_cnn/projection_bias"].astype(float)
        if characters:
            inside = [word] if word in ("<bos>", "<eos>") else list(word[: most - 2])
            keys = ["<eow>", *inside, "<bow>"]
            keys += ["<pad>"] * (most - len(keys))
            known = {key: row for row, key in enumerate(CHARACTERS)}
            x = parts["characters"][[known.get(key, known["<oov>"]) for key in keys]]
            features = np.concatenate([_pooled(x, parts, i) for i in range(len(TINY.filters))])
            carry, transform = (
                features @ parts[f"char_cnn/highway_0/{part}"]
                + parts[f"char_cnn/highway_0/{part}_bias"]
                for part in ("carry", "transform")
            )
            gate = 1 / (1 + np.exp(-carry.astype(float)))
            features = gate * np.maximum(transform, 0) + (1 - gate) * features
            expected = expected + features @ parts["char_cnn/projection"]
        if words:
            cut = word[: most - 2]
            row = WORDS.index(cut if cut in WORDS else "<oov>")
            expected = expected + parts["table"][row] @ parts["inner"]
        np.testing.assert_allclose(vector, expected, atol=2e-6, err_msg=word)


def _pooled(x: np.ndarray, parts: dict[str, np.ndarray], i: int) -> np.ndarray:
    kernel, bias = parts[f"char_cnn/kernel_{i}"], parts[f"char_cnn/bias_{i}"]
    windows = (x[start : start + len(kernel)] for start in range(len(x) - len(kernel) + 1))
    found = [np.einsum("wd,wdn->n", window, kernel) for window in windows]
    return np.maximum(np.max(found, axis=0) + bias, 0)


OPENING = """
import sys, time, json
import numpy as np
from pathlib import Path
from elmolib.formats.published import MANY_LANGS, _files_of, fetch, is_published
from elmolib.formats.readers import read_model
from elmolib.formats import torch_file

def kilobytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

before, started = kilobytes("VmRSS"), time.perf_counter()
Path("/proc/self/clear_refs").write_text("5")
if sys.argv[2] == "whole":
    model = read_model(Path(sys.argv[1]))
    size = sum(values.nbytes for values in model.arrays.values())
else:
    files = sorted(Path(sys.argv[1]).glob("*.pkl"))
    tensors = [array.read() for f in files for array in torch_file.read_tensors(f, "").values()]
    size = sum(values.nbytes for values in tensors)
seconds = time.perf_counter() - started
print(json.dumps({"size": size, "peak": 1024 * (kilobytes("VmHWM") - before), "seconds": seconds}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_model_is_opened_in_little_more_memory_than_its_arrays(tmp_path: Path) -> None:
    dims = {"lstm_dim": 4096, "projection_dim": 512, "n_layers": 2}
    write_many_langs(tmp_path, architecture=Architecture(**{**vars(TINY), **dims}))
    found = {}
    for what in ("whole", "reader"):
        command = [sys.executable, "-c", OPENING, str(tmp_path), what]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[what] = json.loads(done.stdout)
    print(found)
    assert found["whole"]["size"] > 300_000_000
    assert found["whole"]["peak"] < 1.3 * found["whole"]["size"]
    assert found["whole"]["peak"] < 1.5 * found["reader"]["peak"]


def test_many_characters_get_ids_around_the_marks() -> None:
    characters = ("", *(chr(0x4E00 + k) for k in range(400)))
    spelling = Spelling(characters=characters)
    ids = spelling.character_ids([chr(0x4E00 + 254), chr(0x4E00 + 255), "a"], 4)
    assert ids[:, 1].tolist() == [255, 261, 0]
    assert spelling.n_characters == 406


def test_a_vietnamese_word_may_hold_spaces(tmp_path: Path) -> None:
    write_many_langs(tmp_path)
    embedder = ElmoEmbedder(tmp_path)
    assert embedder.words(["bună ziua", "the"]) == ["bună ziua", "the"]
    assert embedder.words("bună ziua\tthe") == ["bună ziua", "the"]


CHANGES = {
    "encoder": ({"encoder": {"name": "lstm"}}, OptionsError, "its encoder is not 'elmo'"),
    "embedder": ({"token_embedder": {"name": "lstm"}}, OptionsError, "its token_embedder is not"),
    "section": ({"encoder": 3}, OptionsError, "its encoder is not"),
    "dim": ({"encoder": {"dim": 9}}, WeightsError, "has the shape"),
    "clip": ({"encoder": {"cell_clip": -1}}, OptionsError, "cell_clip must be"),
    "layers": ({"encoder": {"n_layers": 1}}, WeightsError, "unexpected array .*: check lstm.n_lay"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_configuration_of_something_else_is_refused(tmp_path: Path, change: str) -> None:
    write_many_langs(tmp_path)
    changed, error, message = CHANGES[change]
    settings = json.loads((tmp_path / "cnn.json").read_text())
    for name, part in changed.items():
        settings[name] = settings[name] | part if isinstance(part, dict) else part
    (tmp_path / "cnn.json").write_text(json.dumps(settings))
    with pytest.raises(error, match=message) as caught:
        read_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("char.dic", "a\t0\n", r"char\.dic lacks <bos>"),
        ("char.dic", "a\t99\n", r"char\.dic has rows that the weights lack"),
        ("word.dic", "a\tb\n", r"word\.dic is not a list of keys and rows"),
        ("word.dic", "a\t0\n", r"word\.dic: words must contain the word unknown"),
        ("word.dic", None, r"word\.dic cannot be read"),
    ],
)
def test_a_malformed_list_is_refused(tmp_path: Path, name: str, content, message) -> None:
    write_many_langs(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(ElmolibError, match=message) as caught:
        read_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


# --- What an embedder of any model can do


@pytest.fixture
def many_langs(tmp_path: Path) -> Path:
    """A model that spells words by lists."""
    write_many_langs(tmp_path / "model")
    return tmp_path / "model"


def test_our_own_file_keeps_spelling_and_mix(tmp_path: Path, many_langs: Path) -> None:
    model = read_model(many_langs)
    mixed = StoredModel(**{**vars(model), "mix": (0.1, 0.2, 0.7)})
    write_model(tmp_path / "elmo.h5", mixed)
    again = read_model(tmp_path / "elmo.h5")
    assert_same_model(again, mixed)
    assert again.format == 2
    assert fingerprint(again.architecture, again.arrays, again.spelling) != fingerprint(
        again.architecture, again.arrays
    )
    with h5py.File(tmp_path / "elmo.h5", "r+") as file:
        file.attrs["mix"] = np.bytes_(b'{"weights": [0.5]}')
    with pytest.raises(WeightsError, match="its mix has not one weight per layer"):
        read_model(tmp_path / "elmo.h5")
    with pytest.raises(WeightsError, match="cannot hold .* write an elmo.h5 instead"):
        write_published(tmp_path / "published", model)


def test_a_corpus_is_embedded_and_words_are_remembered(tmp_path: Path, many_langs: Path) -> None:
    embedder = ElmoEmbedder(many_langs)
    (tmp_path / "text.txt").write_text("the\triver\nbună ziua\tthe\n", encoding="utf-8")
    out = embedder.embed_corpus(tmp_path / "text.txt", tmp_path / "vectors.h5", progress=False)
    with h5py.File(out) as file:
        expected = embedder.embed([["bună ziua", "the"]])[0]
        np.testing.assert_allclose(file["1"][()], expected, atol=1e-6)
    before = embedder.embed([["the", "river"]])[0]
    embedder.remember(["the", "bună ziua"])
    for each in (embedder, ElmoEmbedder(many_langs)):
        np.testing.assert_allclose(each.embed([["the", "river"]])[0], before, atol=1e-6)
    similar = embedder.similarity(["the", "river"], ["the"], words=("the", "the"))
    assert -1 <= similar <= 1
    assert embedder.heatmap(["the", "river"]).axes


def test_8_bits_and_onnx_files(tmp_path: Path, many_langs: Path) -> None:
    from elmolib.embedding.int8 import scales_of
    from elmolib.embedding.onnx_file import write_onnx

    scales = scales_of(read_model(many_langs), [["the", "river"], ["bună ziua"]])
    assert set(scales.steps) >= {"char_cnn/highway_0", "forward_0"}
    with pytest.raises(WeightsError, match="an ONNX file reads the bytes of words"):
        write_onnx(tmp_path / "a.onnx", read_model(many_langs))


@pytest.mark.parametrize("kind", ["word_char", "char_only", "word_only"])
def test_the_keras_layer_reads_strings(tmp_path: Path, kind: str) -> None:
    import keras
    import tensorflow as tf

    from elmolib.embedding.keras_layer import ElmoEmbedding

    write_many_langs(tmp_path / "model", kind != "word_only", kind != "char_only")
    layer = ElmoEmbedding.from_model(tmp_path / "model", dropout=0.0)
    words = keras.Input((None,), dtype="string")
    model = keras.Model(words, layer(words))
    sentences = [["the", "river", "bună"], ["水", "riverbank", ""]]
    embedder = ElmoEmbedder(tmp_path / "model", runtime="numpy")
    expected = embedder.embed([sentences[0], sentences[1][:2]])
    model.save(tmp_path / "model.keras")
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        found = each.predict(tf.constant(sentences), verbose=0)
        np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
        np.testing.assert_allclose(found[1, :2], expected[1], atol=1e-5)
    ids = np.zeros((1, 2, TINY.max_characters), np.int32)
    if kind == "char_only":
        spelling = layer.spelling
        ids[0] = spelling.character_ids(sentences[0][:2], TINY.max_characters) + 1
        expected = embedder.embed([sentences[0][:2]])[0]
        np.testing.assert_allclose(np.asarray(layer(ids))[0], expected, atol=1e-5)
    else:
        with pytest.raises(ParameterError, match="has a table of words, so give it strings"):
            layer(ids)


def test_the_command_line_converts_and_describes(tmp_path: Path, many_langs: Path) -> None:
    def run(*words: object) -> str:
        done = CliRunner().invoke(main, list(map(str, words)))
        assert done.exit_code == 0, done.output
        return done.output

    run("convert", many_langs, tmp_path / "elmo.h5")
    assert_same_model(read_model(tmp_path / "elmo.h5"), read_model(many_langs))
    for path, form in ((many_langs, "ELMoForManyLangs"), (tmp_path / "elmo.h5", "elmolib 2")):
        data = json.loads(run("info", path, "--json"))
        assert data["format"] == form
        assert data["spelling"] == {"characters": len(CHARACTERS) - 5, "words": len(WORDS)}
        assert data["mix"] is None
        assert "UDPipe" in data["record"]["tokens"]
    write_allennlp(tmp_path / "archive")
    run("convert", packed(tmp_path / "archive"), tmp_path / "mixed.h5")
    np.testing.assert_allclose(json.loads(run("info", tmp_path / "mixed.h5", "--json"))["mix"], MIX)
    refused = CliRunner().invoke(main, ["convert", str(many_langs), str(tmp_path / "folder")])
    assert "because bilm-tf and AllenNLP spell all words by their bytes" in refused.output
    write_checkpoint(tmp_path / "ckpt", TINY, random_arrays(TINY))
    assert json.loads(run("info", tmp_path / "ckpt" / "model.ckpt-40", "--json"))["layers"] == 3


def test_published_languages_are_known() -> None:
    assert len(MANY_LANGS) == 44
    assert is_published("many-langs/ro")
    assert not is_published("many-langs/xx")
    address = "http://vectors.nlpl.eu/repository/11/{}.zip"
    for code, number in (("ar", 136), ("de", 142), ("fr", 150), ("ro", 169), ("zh", 179)):
        (file,) = _files_of(f"many-langs/{code}", None)
        assert file.url == address.format(number)
        assert file.name == f"many-langs/{code}/{number}.zip"
    with pytest.raises(DownloadError, match="did you mean 'many-langs/ro'"):
        fetch("many-langs/ron")


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
