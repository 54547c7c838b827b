"""Names, copies, pickles, descriptions and pipelines work for models as Python users expect."""

from __future__ import annotations

import copy
import logging
import pickle
import pkgutil
import shutil
import tomllib
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn.base
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from small_corpus import made_up_sentences
from small_models import TINY, random_arrays

from elmolib import ELMo, ElmoEmbedder, ElmoEmbedding, ElmoVectorizer, Parameters, perplexity
from elmolib.backend import show_messages
from elmolib.corpus.prepare import prepare_corpus
from elmolib.errors import CorpusError, ParameterError, TextError, VocabularyError, WeightsError
from elmolib.formats.readers import read_model, read_vocabulary
from elmolib.formats.weights import StoredModel, write_model, write_published
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import SPECIAL_WORDS, Vocabulary

DIM = 2 * TINY.projection_dim
WORDS = [*SPECIAL_WORDS, "the", "bank", "river", "was", "steep", "."]
SENTENCES = [sentence.split() for sentence in made_up_sentences(150)]
SMALL = {
    "filters": [[1, 4], [2, 6]],
    "char_embedding_dim": 4,
    "lstm_dim": 8,
    "projection_dim": 6,
    "batch_size": 6,
    "unroll_steps": 3,
    "max_steps": 3,
    "min_count": 1,
    "progress": "none",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "elmo.h5"
    arrays = random_arrays(TINY, len(WORDS))
    write_model(path, StoredModel(TINY, arrays, Vocabulary(WORDS), Tokenizer(tokenized=True)))
    return path


@pytest.fixture(scope="module")
def embedder(weights) -> ElmoEmbedder:
    return ElmoEmbedder(weights)


# --- Names of models and parameter files


def test_a_model_is_named_alike_everywhere(tmp_path, weights, monkeypatch):
    write_published(tmp_path / "folder", read_model(weights))
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "folder")
    text = tmp_path / "text.txt"
    text.write_text("the river bank was steep .\n" * 3)
    expected = perplexity(weights, text)
    monkeypatch.setattr("elmolib.formats.published.fetch", lambda name, *_: weights)
    vectors = ElmoEmbedder(weights).embed([["the", "bank"]])[0]
    for name in ("en-tiny", "small", "https://host/elmo.h5", str(tmp_path / "folder"), archive):
        np.testing.assert_allclose(
            ElmoEmbedder(name).embed([["the", "bank"]])[0], vectors, atol=1e-6
        )
        assert perplexity(name, text) == expected
        assert read_vocabulary(name).words == WORDS
        assert ElmoEmbedding.from_model(name).architecture == TINY
        elmo = ELMo(text, params="tiny", pretrained=name)
        elmo.load_pretrained_elmo(name)
        np.testing.assert_allclose(elmo.embed([["the", "bank"]])[0], vectors, atol=1e-6)


def test_a_misspelt_model_is_named_with_those_that_exist():
    with pytest.raises(
        WeightsError, match="en-tinny cannot be read .*: published names are en-tiny"
    ):
        ElmoEmbedder("en-tinny")


def test_parameter_files_are_found_by_name_outside_the_project(tmp_path, monkeypatch, root):
    expected = Parameters.from_yaml(root / "params/tiny.yaml", epochs=2)
    monkeypatch.chdir(tmp_path)
    assert Parameters.from_yaml("tiny", epochs=2) == expected
    assert ELMo("wikipedia", epochs=2).parameters == expected
    with pytest.raises(ParameterError, match=r"tinny.*No such file"):
        Parameters.from_yaml("tinny")


# --- Training from memory


class Twice:
    """Sentences that can be iterated over more than once."""

    def __iter__(self):
        return iter(SENTENCES)


def test_sentences_in_memory_are_trained_on_like_their_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, words = tmp_path / "text.txt", tmp_path / "words.csv"
    text.write_text("\n".join(map(" ".join, SENTENCES)) + "\n", encoding="utf-8")
    indices = {word: 2 * i for i, word in enumerate(sorted({w for s in SENTENCES for w in s}))}
    words.write_text("".join(f"{word},{i}\n" for word, i in indices.items()), encoding="utf-8")
    lines = [" ".join(sentence) for sentence in SENTENCES]
    contents = set()
    for elmo in [
        ELMo(text, words, "tiny", tokenized=True, run_dir="runs/file", **SMALL),
        ELMo(Twice(), indices, run_dir="runs/twice", **SMALL),
        ELMo(sentences=lines, word2idx=indices, tokenized=True, run_dir="runs/lines", **SMALL),
    ]:
        elmo.train()
        stored = read_model(elmo.parameters.run_path / "elmo.h5")
        assert set(stored.vocabulary.words) == {*SPECIAL_WORDS, *indices}
        assert elmo.get_elmo(["the", "bank"])[0].shape == (2, 12)
        contents.add(b"".join(array.tobytes() for array in stored.arrays.values()))
    assert len(contents) == 1


def test_a_run_on_sentences_in_memory_resumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for steps in (3, 6):
        ELMo(
            SENTENCES, run_dir="runs/a", **SMALL | {"max_steps": steps, "recipe": "bilm-tf"}
        ).train()
        assert read_model("runs/a/elmo.h5").training_record["step"] == steps
    with pytest.raises(CorpusError, match="whose text was prepared with another"):
        ELMo(SENTENCES[1:], run_dir="runs/a", **SMALL).train()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"text": iter(SENTENCES)}, ParameterError, "sentences can be read only once"),
        ({"text": 7}, ParameterError, "text must be paths or sentences, not 7"),
        ({"text": SENTENCES, "sentences": []}, ParameterError, "cannot both be given"),
        ({"text": "a.txt", "epochz": 2}, ParameterError, "the nearest known one is 'epochs'"),
        ({"text": "a.txt", "word2idx": {0: "the"}}, VocabularyError, "word2idx, line 2: the index"),
        ({"text": "a.txt", "word2idx": {("a",): 1}}, VocabularyError, "must map words to indices"),
    ],
)
def test_what_cannot_be_trained_on_is_one_sentence(given, error, message):
    with pytest.raises(error, match=message):
        ELMo(**given)


def test_sentences_given_as_paths_and_words_with_spaces_are_named(tmp_path):
    with pytest.raises(TextError, match=r"no file .*a b: give sentences as ELMo\(sentences=...\)"):
        ELMo(["a b", "c d"], run_dir=tmp_path / "run", **SMALL).train()
    with pytest.raises(ParameterError, match="sentence 1 is a list.* 'b c' holds white space"):
        ELMo([["a"], ["b c"]], run_dir=tmp_path / "run", **SMALL).train()


# --- Copies, pickles and descriptions


@pytest.fixture(params=["embedder", "elmo"])
def loaded(request, weights) -> ElmoEmbedder:
    if request.param == "embedder":
        return ElmoEmbedder(weights, runtime="numpy")
    elmo = ELMo("text.txt")
    elmo.load_pretrained_elmo(weights)
    return elmo


def through_joblib(value, folder: Path):
    joblib.dump(value, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


@pytest.mark.parametrize(
    "again",
    [
        lambda value, folder: copy.copy(value),
        lambda value, folder: copy.deepcopy(value),
        lambda value, folder: sklearn.base.clone(value, safe=False),
        lambda value, folder: pickle.loads(pickle.dumps(value)),
        through_joblib,
    ],
)
def test_a_copy_has_the_same_vectors_and_its_own_state(tmp_path, loaded, again):
    loaded.reset_state()
    expected = loaded.get_elmo("the river bank")
    first = loaded.embed(["the bank"], carry_state=True)[0]
    twin = again(loaded, tmp_path)
    assert type(twin) is type(loaded) and twin is not loaded
    assert repr(twin) == repr(loaded)
    np.testing.assert_array_equal(twin.get_elmo("the river bank"), expected)
    np.testing.assert_array_equal(twin.embed(["the bank"], carry_state=True)[0], first)
    assert twin.predict("the bank").forward.words == loaded.predict("the bank").forward.words


def test_a_pickle_names_the_model_and_holds_no_weights(tmp_path, weights, monkeypatch):
    path = tmp_path / "elmo.h5"
    path.write_bytes(weights.read_bytes())
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(ElmoEmbedder("elmo.h5"))
    assert len(pickled) < 2000
    monkeypatch.chdir("/")
    assert pickle.loads(pickled).dim == DIM
    write_model(path, StoredModel(TINY, random_arrays(TINY, seed=1)))
    with pytest.raises(WeightsError, match=r"elmo\.h5 is not the model that was pickled"):
        pickle.loads(pickled)
    path.unlink()
    with pytest.raises(WeightsError, match=r"elmo\.h5 cannot be read as a model"):
        pickle.loads(pickled)
    assert b"en-tiny.h5" not in pickle.dumps(ElmoEmbedder.from_pretrained("en-tiny"))


def test_a_trained_and_an_untrained_elmo_are_pickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    elmo = pickle.loads(pickle.dumps(ELMo(SENTENCES, run_dir="run", **SMALL)))
    elmo.train()
    again = pickle.loads(pickle.dumps(elmo))
    for found, expected in zip(again.get_elmo("the bank"), elmo.get_elmo("the bank"), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert again.parameters == elmo.parameters


def test_models_and_corpora_describe_themselves(tmp_path, monkeypatch, embedder, weights):
    monkeypatch.chdir(tmp_path)
    assert (embedder.dim, len(embedder), embedder.n_layers) == (DIM, 3, 2)
    assert f"ElmoEmbedder({str(weights)!r}, 3 layers of 6 features, vocabulary of 9 words" in repr(
        embedder
    )
    elmo = ELMo(SENTENCES, run_dir="run", heldout_fraction=None, **SMALL)
    assert (repr(elmo), bool(elmo)) == ("ELMo(without weights)", True)
    text = tmp_path / "text.txt"
    text.write_text("a b\na\n")
    parameters = elmo.parameters.model_copy(update={"text": str(text)})
    corpus = prepare_corpus(parameters)
    assert len(corpus) == 2
    assert "corpus', 2 training sentences of 3 words, vocabulary of 5 words)" in repr(corpus)


def test_a_frame_has_a_row_per_word_and_columns_per_layer(embedder):
    vectors = embedder.get_elmo("the river bank")
    frame = embedder.to_frame("the river bank")
    assert list(frame.index) == ["the", "river", "bank"]
    assert frame.columns.names == ["layer", "feature"]
    for layer in range(3):
        np.testing.assert_array_equal(frame[layer], vectors[layer])
    np.testing.assert_array_equal(embedder.to_frame(["the"], layers=1).columns, range(DIM))
    assert embedder.to_frame("").shape == (0, 3 * DIM)


def test_messages_are_shown_in_notebooks_and_configured_as_usual(capsys):
    logger = logging.getLogger("elmolib")
    kept = logger.handlers[:], logger.level
    try:
        logger.handlers[:] = []
        logger.setLevel(logging.NOTSET)
        show_messages()
        show_messages()
        logging.getLogger("elmolib.corpus").info("said once")
        logging.getLogger("elmolib.corpus").debug("not said")
        assert capsys.readouterr().out == "said once\n"
    finally:
        logger.handlers[:], _ = kept
        logger.setLevel(kept[1])


# --- scikit-learn and spaCy


TEXTS = ["the river bank was steep .", "money", ["the", "bank"], "the river ."] * 5
LABELS = [0, 1, 1, 0] * 5


@pytest.mark.parametrize("given", [ElmoVectorizer(), ElmoVectorizer(layers=1, pooling="max")])
def test_the_vectorizer_keeps_the_rules_of_scikit_learn(given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)  # checks that need numbers
        check_estimator(given)


def test_the_vectorizer_gives_the_vectors_of_sentences(embedder, weights):
    vectorizer = ElmoVectorizer(weights, layers="top", pooling="max")
    with pytest.raises(NotFittedError):
        vectorizer.transform(TEXTS)
    expected = embedder.embed_sentences(TEXTS, "top", "max")
    np.testing.assert_allclose(vectorizer.fit_transform(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(vectorizer.transform(pd.Series(TEXTS)), expected, atol=1e-6)
    frame = vectorizer.set_output(transform="pandas").transform(TEXTS)
    assert list(frame.columns[:2]) == ["elmovectorizer0", "elmovectorizer1"]
    for wrong in (ElmoVectorizer(weights, layers="all"), ElmoVectorizer(weights, pooling="sum")):
        with pytest.raises(ParameterError):
            wrong.fit(TEXTS)
    with pytest.raises(ParameterError, match=r"a list of texts, such as \['a b'\]"):
        vectorizer.transform("a b")


@pytest.mark.parametrize(("as_object", "n_jobs"), [(False, 1), (True, 1), (True, 2)])
def test_a_pipeline_is_cross_validated_and_pickled(tmp_path, weights, as_object, n_jobs):
    model = ElmoEmbedder(weights, runtime="numpy") if as_object else str(weights)
    pipeline = make_pipeline(ElmoVectorizer(model), LogisticRegression())
    scores = cross_val_score(pipeline, TEXTS, LABELS, cv=2, n_jobs=n_jobs, error_score="raise")
    assert len(scores) == 2 and min(scores) > 0.9
    again = through_joblib(pipeline.fit(TEXTS, LABELS), tmp_path)
    np.testing.assert_allclose(again.predict_proba(TEXTS), pipeline.predict_proba(TEXTS), atol=1e-6)


@pytest.fixture
def nlp(root):
    """An English tokenizer; the component is registered as spaCy does it for installed packages."""
    import spacy

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pkgutil.resolve_name(project["entry-points"]["spacy_factories"]["elmo"])
    return spacy.blank("en")


@pytest.mark.spacy
@pytest.mark.parametrize("layers", ["all", "average", "top", 0])
def test_spacy_documents_get_the_vectors_of_their_tokens(nlp, weights, embedder, layers):
    nlp.add_pipe("elmo", config={"model": str(weights), "layers": layers})
    texts = ["It's the  river bank. The end!", "", "mone\u0301y"]
    for doc in [nlp(text) for text in texts] + list(nlp.pipe(texts)):
        words = [token.text for token in doc if not token.is_space]
        got = doc._.elmo
        assert got.shape[-2:] == (len(doc), DIM) and got.dtype == np.float32
        visible = [token.i for token in doc if not token.is_space]
        if words:
            expected = embedder.embed([words], layers)[0]
            np.testing.assert_allclose(got[..., visible, :], expected, atol=1e-5)
        assert not np.delete(got, visible, axis=-2).any()
    assert [token.text for token in nlp(texts[0])][:4] == ["It", "'s", "the", " "]
    nlp.add_pipe("sentencizer", first=True)
    sentences = [["It", "'s", "the", "river", "bank", "."], ["The", "end", "!"]]
    expected = np.concatenate(embedder.embed(sentences, layers), axis=-2)
    doc = nlp(texts[0])
    visible = [token.i for token in doc if not token.is_space]
    np.testing.assert_allclose(doc._.elmo[..., visible, :], expected, atol=1e-5)


@pytest.mark.spacy
def test_a_spacy_pipeline_is_saved_and_loaded(nlp, tmp_path, weights):
    import spacy

    nlp.add_pipe("elmo", config={"model": str(weights)})
    nlp.to_disk(tmp_path / "pipeline")
    again = spacy.load(tmp_path / "pipeline")
    np.testing.assert_array_equal(again("the bank")._.elmo, nlp("the bank")._.elmo)
