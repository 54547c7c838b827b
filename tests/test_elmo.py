"""ELMo and ElmoEmbedder."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import TINY, random_arrays

from elmolib.elmo import ELMo, ElmoEmbedder
from elmolib.errors import ElmolibError, ParameterError, WeightsError
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model, write_published
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import Vocabulary

DIM = 2 * TINY.projection_dim
N_LAYERS = TINY.n_layers + 1
VOCABULARY = Vocabulary(["<S>", "</S>", "<UNK>", "the", "bank"])

PARAMETERS = """
run_dir: {run_dir}
text: wikipedia
heldout_fraction: 0.2
min_count: 2
char_embedding_dim: 3
filters: [[1, 2], [2, 3]]
n_highway: 1
max_characters: 12
lstm_dim: 4
projection_dim: 3
n_layers: 2
epochs: 1
batch_size: 2
unroll_steps: 4
n_negatives: 4
metrics_every: 1
pictures_every: 1
progress: none
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "elmo.h5"
    arrays = random_arrays(TINY, len(VOCABULARY))
    write_model(path, StoredModel(TINY, arrays, VOCABULARY, Tokenizer(), {"epochs": 3}))
    return path


@pytest.fixture(scope="module")
def embedder(weights) -> ElmoEmbedder:
    return ElmoEmbedder(weights)


@pytest.fixture
def params(tmp_path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMETERS.format(run_dir=tmp_path / "run"))
    return path


@pytest.fixture
def elmo(params) -> ELMo:
    return ELMo("no-such-file.txt", params=params)


def test_get_elmo_gives_one_array_per_layer(embedder):
    layers = embedder.get_elmo("It's the river bank.")
    assert [layer.shape for layer in layers] == [(5, DIM)] * N_LAYERS
    assert all(layer.dtype == np.float32 for layer in layers)
    np.testing.assert_array_equal(layers, embedder.embed("It's the river bank.", layers="all"))


def test_strings_are_split_by_the_tokenizer_of_the_model(tmp_path, embedder, weights):
    stored = read_model(weights)
    path = tmp_path / "split.h5"
    write_model(path, StoredModel(TINY, stored.arrays, None, Tokenizer(tokenized=True)))
    assert embedder.words("(late) bank.") == ["(", "late", ")", "bank", "."]
    assert ElmoEmbedder(path).words("(late) bank.") == ["(late)", "bank."]
    np.testing.assert_array_equal(
        embedder.embed("(late) bank."), embedder.embed([["(", "late", ")", "bank", "."]])[0]
    )


def test_a_string_gives_an_array_and_a_list_gives_a_list(embedder):
    alone = embedder.embed("the bank")
    assert isinstance(alone, np.ndarray)
    for several in (
        ["the bank", "a"],
        ("the bank", ["a"]),
        [["the", "bank"], ["a"]],
        np.array(["the bank", "a"]),
        (sentence for sentence in ["the bank", "a"]),
    ):
        vectors = embedder.embed(several)
        assert [v.shape for v in vectors] == [(2, DIM), (1, DIM)]
        np.testing.assert_allclose(vectors[0], alone, atol=1e-5)
    assert embedder.embed([]) == []


def test_layers_are_chosen_from_all(embedder):
    sentences = ["the river bank .", "the", ""]
    everything = embedder.embed(sentences, layers="all")
    for layers, pick in {
        "average": lambda v: v.mean(axis=0),
        "top": lambda v: v[-1],
        0: lambda v: v[0],
        2: lambda v: v[2],
        np.int64(1): lambda v: v[1],
    }.items():
        chosen = embedder.embed(sentences, layers=layers)
        for got, full in zip(chosen, everything, strict=True):
            np.testing.assert_allclose(got, pick(full), atol=1e-6)
            assert got.base is None, "a view keeps all layers in memory"


@pytest.mark.parametrize("layers", [3, -1, 1.5, True, "first", None, [0]])
def test_unknown_layers_are_refused_with_the_choices(embedder, layers):
    with pytest.raises(ParameterError, match="'all', 'average', 'top' or a number from 0 to 2"):
        embedder.embed("the bank", layers=layers)


@pytest.mark.parametrize("sentence", [None, 3, b"the bank", ["the", None], [["the"]], 1.0])
def test_an_item_that_is_not_a_sentence_is_named_by_its_index(embedder, sentence):
    with pytest.raises(ParameterError, match="sentence 1 must be a string or a list of words"):
        embedder.embed(["the bank", sentence])


@pytest.mark.parametrize(
    "use",
    [
        lambda e: e.get_elmo(["the river", "the bank"]),
        lambda e: e.embed([["the river bank"]]),
        lambda e: e.embed_sentences([["the", "river bank"]]),
        lambda e: e.similarity("the bank", ["the river", "the bank"]),
        lambda e: e.similarity(["the\nriver"], "the bank"),
        lambda e: e.heatmap(["the river", "the bank"]),
        lambda e: e.heatmap("the bank", other=("the river",)),
        lambda e: e.predict(["the river", "the bank"]),
        lambda e: e.nearest("the", ["the river"], ["the bank"]),
    ],
)
def test_a_list_of_sentences_is_not_taken_for_a_sentence(embedder, use):
    with pytest.raises(
        ParameterError, match="items are words, but .*river.* holds white space: giv"
    ):
        use(embedder)


@pytest.mark.parametrize("words", [["the", "river", "bank"], ("a", "b"), np.array(["a", "b"])])
def test_a_list_of_words_is_not_taken_for_sentences_silently(embedder, words):
    for embed in (embedder.embed, embedder.embed_sentences):
        with pytest.warns(UserWarning, match="is a single word: .*a list in a list") as got:
            assert len(embed(words)) == len(words)
        assert [warning.filename for warning in got] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedder.embed([list(words)])
        embedder.embed(["a"])
        embedder.embed([*words, "two words"])
        embedder.similarity("a", "b")


def test_normalized_vectors_have_length_1_and_the_same_direction(embedder):
    plain = embedder.embed("the river bank", layers="all")
    unit = embedder.embed("the river bank", layers="all", normalize=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1, atol=1e-5)
    lengths = np.linalg.norm(plain, axis=-1, keepdims=True)
    np.testing.assert_allclose(unit * lengths, plain, atol=1e-5)
    assert unit.dtype == np.float32


def test_the_same_sentence_always_has_the_same_vectors(embedder):
    first = embedder.embed("the river bank .", layers="all")
    embedder.embed(["something else entirely", "the", "river"] * 20, batch_size=7)
    embedder.embed(["something else"], carry_state=True)
    together = embedder.embed(["a much longer sentence about the bank", "the river bank ."], "all")
    np.testing.assert_allclose(embedder.embed("the river bank .", layers="all"), first, atol=1e-5)
    np.testing.assert_allclose(together[1], first, atol=1e-5)


def test_state_is_carried_only_on_request(embedder):
    embedder.reset_state()
    fresh = embedder.embed(["the bank"], carry_state=True)[0]
    carried = embedder.embed(["the bank"], carry_state=True)[0]
    assert np.abs(fresh - carried).max() > 1e-3
    embedder.reset_state()
    np.testing.assert_array_equal(embedder.embed(["the bank"], carry_state=True)[0], fresh)
    np.testing.assert_allclose(embedder.embed("the bank"), fresh, atol=1e-5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=40))
def test_any_string_has_finite_vectors_of_the_right_shape(embedder, text):
    vectors = embedder.embed(text, layers="all")
    assert vectors.shape == (N_LAYERS, len(embedder.words(text)), DIM)
    assert np.isfinite(vectors).all()


def test_unpaired_surrogates_are_accepted(embedder):
    assert embedder.embed(["\ud800", ["\udfff", "x\ud800"]])[1].shape == (2, DIM)


def test_an_empty_sentence_has_no_words(embedder):
    assert [layer.shape for layer in embedder.get_elmo("")] == [(0, DIM)] * N_LAYERS
    assert embedder.embed(" \n").shape == (0, DIM)


def test_the_heatmap_shows_the_chosen_layer(embedder):
    axes = embedder.heatmap("the river bank", layer=1).axes[0]
    vectors = embedder.embed("the river bank", layers=1, normalize=True).astype(np.float64)
    np.testing.assert_allclose(axes.collections[0].get_array(), vectors @ vectors.T, atol=1e-5)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["the", "river", "bank"]
    with pytest.raises(ParameterError, match="a single layer"):
        embedder.heatmap("the river bank", layer="all")


def test_the_embedder_can_neither_train_nor_save(embedder):
    assert issubclass(ELMo, ElmoEmbedder)
    for name in ("train", "save_elmo_weights", "load_pretrained_elmo"):
        assert hasattr(ELMo, name)
        assert not hasattr(embedder, name)


def test_the_embedder_reads_every_published_form(tmp_path, weights, embedder):
    stored = read_model(weights)
    published = StoredModel(TINY, stored.arrays, VOCABULARY, Tokenizer(tokenized=True))
    write_published(tmp_path / "published", published)
    expected = embedder.embed([["the", "bank"]])[0]
    for other in (
        ElmoEmbedder(tmp_path / "published"),
        ElmoEmbedder(str(weights)),
        ElmoEmbedder(
            tmp_path / "published/weights.hdf5", options=tmp_path / "published/options.json"
        ),
    ):
        np.testing.assert_array_equal(other.embed([["the", "bank"]])[0], expected)


@pytest.mark.parametrize("face", [ElmoEmbedder, ELMo])
def test_a_published_model_only_embeds_whichever_class_loads_it(
    face, monkeypatch, weights, embedder
):
    monkeypatch.setattr("elmolib.formats.published.fetch", lambda *asked: weights)
    found = face.from_pretrained("small")
    assert type(found) is ElmoEmbedder
    np.testing.assert_array_equal(found.embed("the"), embedder.embed("the"))


def test_embedding_needs_neither_training_nor_pictures(weights):
    program = f"""
import sys
from elmolib import ElmoEmbedder
ElmoEmbedder({str(weights)!r}).embed("the bank")
heavy = ("seaborn", "gensim", "elmolib.plots", "elmolib.training")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "use",
    [
        lambda elmo: elmo.get_elmo("the bank"),
        lambda elmo: elmo.embed(["the bank"]),
        lambda elmo: elmo.heatmap("the bank"),
        lambda elmo: elmo.words("the bank"),
        lambda elmo: elmo.save_elmo_weights("elmo.h5"),
        lambda elmo: elmo.reset_state(),
    ],
)
def test_without_a_model_one_sentence_says_what_to_do(elmo, use):
    with pytest.raises(ElmolibError, match=r"no weights yet: call train\(\) or load_pretrained"):
        use(elmo)


def test_saving_and_loading_changes_nothing(tmp_path, elmo, weights):
    elmo.load_pretrained_elmo(weights)
    elmo.save_elmo_weights(tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == weights.read_bytes()


def test_a_failed_load_leaves_the_model_as_it_was(tmp_path, elmo, weights):
    elmo.load_pretrained_elmo(weights)
    before = elmo.embed("the bank")
    (tmp_path / "broken.h5").write_bytes(b"no HDF5")
    with pytest.raises(WeightsError):
        elmo.load_pretrained_elmo(tmp_path / "broken.h5")
    np.testing.assert_array_equal(elmo.embed("the bank"), before)


def test_paths_are_relative_to_the_working_directory(tmp_path, params, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elmo = ELMo(["a.txt", Path("b.txt")], word2idx="words.csv", params=params)
    assert elmo.parameters.text == (str(tmp_path / "a.txt"), str(tmp_path / "b.txt"))
    assert elmo.parameters.vocabulary_file == str(tmp_path / "words.csv")
    assert elmo.parameters.min_count == 1, "the vocabulary file should decide which words are kept"
    assert ELMo("wikipedia", params=params).parameters.text == "wikipedia"


def test_a_broken_parameter_stops_at_once(params):
    params.write_text(params.read_text() + "epoch: 3\n")
    with pytest.raises(ParameterError, match="epoch.*'epochs'"):
        ELMo("corpus.txt", params=params)


def test_training_ends_with_its_model_in_use_without_reading_it_again(
    tmp_path, params, monkeypatch
):
    text = tmp_path / "corpus.txt"
    words = ["the", "river", "bank", "was", "steep", "and", "the", "old", "bank", "was", "closed"]
    text.write_text("\n".join(" ".join(words[i % 5 :]) + f" {i} ." for i in range(60)))
    mapping = tmp_path / "word2idx.csv"
    mapping.write_text(
        "Word,Index\n" + "".join(f"{word},{i}\n" for i, word in enumerate(sorted(set(words))))
    )
    elmo = ELMo(text, word2idx=mapping, params=params)
    trained = []
    take_over = elmo._take_over
    with monkeypatch.context() as patch:
        patch.setattr(elmo, "_take_over", lambda it: [trained.append(it), take_over(it)])
        patch.setattr("elmolib.scoring.loaded_model.read_model", None)
        elmo.train()
    assert elmo.encoder.runtime.bilm is trained[0].bilm
    layers = elmo.get_elmo("the river bank")
    assert [layer.shape for layer in layers] == [(3, DIM)] * N_LAYERS
    elmo.save_elmo_weights(tmp_path / "elmo.h5")
    assert (tmp_path / "elmo.h5").read_bytes() == (tmp_path / "run/elmo.h5").read_bytes()
    assert set(words) <= set(read_model(tmp_path / "elmo.h5").vocabulary.words)
    loaded = ElmoEmbedder(tmp_path / "elmo.h5", runtime="tensorflow")
    np.testing.assert_array_equal(loaded.embed("the river bank", layers=2), layers[2])
    assert loaded.sentence_log_prob("the bank") == elmo.sentence_log_prob("the bank")
    assert loaded.predict("the bank").forward.words == elmo.predict("the bank").forward.words
