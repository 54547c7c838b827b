"""Fine-tuning copies the correct weights, and lowers the perplexity on a new domain."""

from __future__ import annotations

import shutil
from contextlib import redirect_stdout
from io import StringIO
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_corpus import small_parameters

from elmolib.corpus.prepare import prepare_corpus
from elmolib.elmo import ELMo
from elmolib.errors import ParameterError, WeightsError
from elmolib.formats.published import SHIPPED
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model, write_published
from elmolib.live.watch import progress_callbacks
from elmolib.scoring.perplexity import perplexity
from elmolib.scoring.runs import model_path
from elmolib.text.tokenizer import Tokenizer
from elmolib.training.loop import Training

KEPT = {"vocabulary_file": "pretrained", "min_count": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a model on the generated text for a few epochs."""
    folder = tmp_path_factory.mktemp("trained")
    parameters = small_parameters(folder, epochs=8, n_negatives=None)
    return Training(parameters, prepare_corpus(parameters)).run()


@pytest.fixture(scope="module")
def fine_tuned(trained, tmp_path_factory):
    """Fine-tune a copy of the trained model on another domain, then delete the copy."""
    folder = write_other_domain(tmp_path_factory.mktemp("fine_tuned"))
    copy = shutil.copy(trained, folder / "copy.h5")
    training = training_from(copy, folder, **KEPT, epochs=4, progress="line")
    before = training.heldout_perplexity()
    with redirect_stdout(StringIO()) as printed:
        training.run(progress_callbacks(training))
    copy.unlink()
    return SimpleNamespace(
        folder=folder, training=training, before=before, printed=printed.getvalue()
    )


@pytest.fixture
def other_domain(tmp_path):
    return write_other_domain(tmp_path)


def write_other_domain(folder: Path) -> Path:
    """Write sentences of another grammar, with some of the same words, and a held-out text."""
    kinds = ["in the {} , {} the bear {}", "the {} {} near every {}", "{} {} {} !"]
    words = ["boat forest bank", "slept sang was swam flooded", "river money house deep sea"]
    lines = [
        kind.format(*choice)
        for kind in kinds
        for choice in product(*(choices.split() for choices in words))
    ]
    lines = [lines[i] for i in np.random.default_rng(0).permutation(len(lines))]
    (folder / "text.txt").write_text("\n".join(lines[30:]) + "\n", encoding="utf-8")
    (folder / "heldout.txt").write_text("\n".join(lines[:30]) + "\n", encoding="utf-8")
    return folder


def training_from(pretrained: Path | None, folder: Path, **changes: object) -> Training:
    values = {
        "text": str(folder / "text.txt"),
        "heldout_text": str(folder / "heldout.txt"),
        "heldout_fraction": None,
        "pretrained": pretrained and str(pretrained),
        **changes,
    }
    parameters = small_parameters(folder, **values)
    return Training(parameters, prepare_corpus(parameters))


def softmax_by_word(arrays, vocabulary) -> dict:
    rows = zip(arrays["softmax/W"], arrays["softmax/b"], strict=True)
    return dict(zip(vocabulary.words, rows, strict=True))


def arrays_of(training: Training) -> dict:
    return {name: np.asarray(v.value) for name, v in training.bilm.weights_by_name().items()}


def test_with_the_vocabulary_of_the_model_only_the_order_changes(trained, tmp_path, other_domain):
    stored = read_model(trained)
    training = training_from(trained, tmp_path, **KEPT)
    words = training.corpus.vocabulary.words
    assert sorted(words) == sorted(stored.vocabulary.words)
    assert words != stored.vocabulary.words, "the new text should have further words"
    arrays = arrays_of(training)
    before = softmax_by_word(stored.arrays, stored.vocabulary)
    for word, (W, b) in softmax_by_word(arrays, training.corpus.vocabulary).items():
        np.testing.assert_array_equal(W, before[word][0])
        assert b == before[word][1]
    for name in arrays.keys() - {"softmax/W", "softmax/b"}:
        np.testing.assert_array_equal(arrays[name], stored.arrays[name])
    assert (training.transfer.n_kept, training.transfer.n_new) == (len(words), 0)


def test_before_training_the_perplexity_is_that_of_the_model(trained, tmp_path, other_domain):
    training = training_from(trained, tmp_path, **KEPT)
    ours = training.heldout_perplexity()
    theirs = perplexity(trained, tmp_path / "heldout.txt")
    assert ours.n_targets == theirs.n_targets
    np.testing.assert_allclose(
        [ours.forward, ours.backward], [theirs.forward, theirs.backward], rtol=1e-5
    )


def test_with_a_new_vocabulary_known_words_keep_their_rows(trained, tmp_path, other_domain):
    stored = read_model(trained)
    training = training_from(trained, tmp_path)
    fresh = training_from(None, tmp_path)
    before = softmax_by_word(stored.arrays, stored.vocabulary)
    new_rows = softmax_by_word(arrays_of(fresh), fresh.corpus.vocabulary)
    known, new = set(), set()
    for word, (W, b) in softmax_by_word(arrays_of(training), training.corpus.vocabulary).items():
        rows = before if word in stored.vocabulary else new_rows
        (known if word in stored.vocabulary else new).add(word)
        np.testing.assert_array_equal(W, rows[word][0])
        assert b == rows[word][1]
    assert {"<S>", "</S>", "<UNK>", "the", "bear", "bank"} <= known
    assert {"forest", "swam", ","} <= new
    assert (training.transfer.n_kept, training.transfer.n_new) == (len(known), len(new))


def test_fine_tuning_lowers_the_new_domains_perplexity(fine_tuned):
    before = fine_tuned.before
    after = perplexity(fine_tuned.training.weights_path, fine_tuned.folder / "heldout.txt")
    assert after.vocabulary_size == before.vocabulary_size
    assert after.forward < before.forward / 2
    assert after.backward < before.backward / 2
    printed = fine_tuned.printed
    assert "copy.h5: 30 words kept, 0 new" in printed
    assert f"before training: held-out {before}" in printed
    assert printed.index("before training") < printed.index("epoch 1/4")


def test_the_default_recipe_fine_tunes_too(trained, tmp_path, other_domain):
    elmolib = {"recipe": "elmolib", "learning_rate": 0.02}
    training = training_from(trained, tmp_path, **KEPT, **elmolib, epochs=4)
    before = training.heldout_perplexity()
    training.run()
    after = training.heldout_perplexity()
    assert after.forward < before.forward / 2
    assert after.backward < before.backward / 2


def test_the_fine_tuned_file_is_self_contained(fine_tuned):
    stored = read_model(fine_tuned.training.weights_path)
    assert stored.vocabulary == fine_tuned.training.corpus.vocabulary
    assert stored.training_record["parameters"]["pretrained"] == "copy.h5"


def test_a_run_resumes_without_the_pretrained_model(fine_tuned):
    training = fine_tuned.training
    again = Training(training.parameters, training.corpus)
    assert (again.step, again.transfer) == (training.step, None)
    before, after = arrays_of(training), arrays_of(again)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_published_model_needs_no_tokenizer_and_no_softmax(trained, tmp_path, other_domain):
    stored = read_model(trained)
    arrays = {name: a for name, a in stored.arrays.items() if not name.startswith("softmax/")}
    published = StoredModel(stored.architecture, arrays, None, Tokenizer(tokenized=True))
    write_published(tmp_path / "published", published)
    training = training_from(tmp_path / "published", tmp_path)
    assert training.transfer.n_kept == 0
    assert training.transfer.n_new == len(training.corpus.vocabulary)
    name = "char_cnn/embedding"
    np.testing.assert_array_equal(arrays_of(training)[name], arrays[name])
    with pytest.raises(WeightsError, match="has no softmax with its vocabulary"):
        prepare_corpus(
            training.parameters.model_copy(update={**KEPT, "corpus_dir": str(tmp_path / "c")})
        )


def test_a_model_of_another_architecture_is_refused_naming_every_key(
    trained, tmp_path, other_domain
):
    with pytest.raises(ParameterError) as caught:
        training_from(
            trained, tmp_path, lstm_dim=9, cell_clip=None, filters=[[1, 4]], activation="tanh"
        )
    changes = 'filters to [[1, 4], [2, 6]], activation to "relu", lstm_dim to 8, cell_clip to 3.0'
    assert str(caught.value) == (
        f"{trained} has another architecture than the parameters: set {changes}."
    )


def test_a_missing_model_is_named_in_the_error(tmp_path, other_domain):
    with pytest.raises(WeightsError, match="none.h5 cannot be read as a model"):
        training_from(tmp_path / "none.h5", tmp_path)


def test_a_changed_vocabulary_of_the_model_prepares_the_corpus_again(
    trained, tmp_path, other_domain
):
    copy = tmp_path / "copy.h5"
    shutil.copy(trained, copy)
    first = training_from(copy, tmp_path, **KEPT).corpus
    stored = read_model(trained)
    fewer = type(stored.vocabulary)(stored.vocabulary.words[:-1])
    arrays = {**stored.arrays}
    arrays |= {name: arrays[name][:-1] for name in ("softmax/W", "softmax/b")}
    write_model(copy, StoredModel(stored.architecture, arrays, fewer, stored.tokenizer))
    second = training_from(copy, tmp_path, **KEPT).corpus
    assert len(second.vocabulary) == len(first.vocabulary) - 1


def test_elmo_resolves_paths_from_the_working_directory(tmp_path, monkeypatch):
    small_parameters(tmp_path).to_yaml(tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    elmo = ELMo("text.txt", "pretrained", params="params.yaml", pretrained="elmo.h5")
    assert elmo.parameters.pretrained == str(tmp_path / "elmo.h5")
    assert (elmo.parameters.vocabulary_file, elmo.parameters.min_count) == ("pretrained", 1)
    for name in ("small", "https://example.org/elmo.zip"):
        elmo = ELMo("text.txt", params="params.yaml", pretrained=name)
        assert elmo.parameters.pretrained == name


def test_model_path_is_the_model_named_or_else_the_run_s_own(trained, tmp_path):
    untrained = small_parameters(tmp_path, pretrained=str(trained))
    with pytest.raises(WeightsError, match=r"no .*run/elmo\.h5: run .* set model to an existing"):
        model_path(untrained)
    named = small_parameters(tmp_path, model=str(trained))
    assert model_path(named) == trained
    assert model_path(small_parameters(tmp_path, model="en-tiny")) == SHIPPED["en-tiny"]
    shutil.copytree(trained.parent, tmp_path / "run")
    assert model_path(untrained) == tmp_path / "run" / "elmo.h5"
    assert model_path(named) == trained
