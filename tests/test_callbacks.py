"""Reports during training: when they are written, which epochs they cover, and their values."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from small_corpus import small_parameters

from elmolib.corpus.prepare import prepare_corpus
from elmolib.corpus.prepared import sentences_of
from elmolib.corpus.stream import BACKWARD, FORWARD
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.keras_runtime import KerasRuntime
from elmolib.explore.neighbours import Query, embedded_lines, find_neighbours
from elmolib.live import reports
from elmolib.live.reports import N_NEIGHBOURS, DetailedMetrics, latest_file, latest_report
from elmolib.model.bilm import BiLM
from elmolib.scoring.perplexity import windows_of_sentences, windows_of_split
from elmolib.scoring.prediction import predict
from elmolib.scoring.softmax import softmax_of
from elmolib.training.loop import Training

METRICS = {"metrics.json", "predictions.txt"}
PICTURES = {"heatmap.png", "neighbours.csv"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("callbacks")


@pytest.fixture(scope="module")
def corpus(folder):
    return prepare_corpus(small_parameters(folder))


@pytest.fixture(scope="module")
def bilm(folder, corpus) -> BiLM:
    """A model whose most probable word changes from position to position."""
    model = BiLM(small_parameters(folder).architecture, len(corpus.vocabulary))
    rng = np.random.default_rng(0)
    for variable in model.weights_by_name().values():
        variable.assign(rng.normal(size=variable.shape).astype(np.float32))
    return model


def report(bilm, corpus, folder, n_epochs, unfinished=False, **arguments) -> DetailedMetrics:
    """Call the callback as training for `n_epochs` does."""
    callback = DetailedMetrics(corpus, folder, "the bank was steep .", **arguments)
    callbacks = keras.callbacks.CallbackList([callback], model=bilm)
    callbacks.on_train_begin()
    for epoch in range(n_epochs):
        callbacks.on_epoch_begin(epoch)
        callbacks.on_epoch_end(epoch, {})
    if unfinished:
        callbacks.on_epoch_begin(n_epochs)
    callbacks.on_train_end()
    return callback


def files(folder) -> dict[str, set[str]]:
    return {
        report.name: {path.name for path in report.iterdir()} for report in sorted(folder.iterdir())
    }


def metrics_of(folder, epoch) -> dict:
    return json.loads((folder / f"epoch_{epoch:03d}" / "metrics.json").read_text())


def test_reports_are_written_when_due_and_at_the_end(bilm, corpus, tmp_path):
    report(bilm, corpus, tmp_path, 7, metrics_every=2, pictures_every=3, show=False)
    assert files(tmp_path) == {
        "epoch_002": METRICS,
        "epoch_003": PICTURES,
        "epoch_004": METRICS,
        "epoch_006": METRICS | PICTURES,
        "epoch_007": METRICS | PICTURES,
    }
    assert metrics_of(tmp_path, 4)["covers_epochs"] == [3, 4]
    assert metrics_of(tmp_path, 6)["covers_epochs"] == [5, 6]
    assert metrics_of(tmp_path, 7)["covers_epochs"] == [7, 7]


@pytest.mark.slow
def test_no_report_is_written_twice(bilm, corpus, tmp_path, capsys):
    report(bilm, corpus, tmp_path, 2, metrics_every=2, pictures_every=1)
    assert files(tmp_path) == {"epoch_001": PICTURES, "epoch_002": METRICS | PICTURES}
    assert capsys.readouterr().out.count("saved in") == 2


def test_unfinished_epoch_is_marked(bilm, corpus, tmp_path):
    report(bilm, corpus, tmp_path, 2, unfinished=True, metrics_every=2, pictures_every=9)
    assert metrics_of(tmp_path, 2)["epoch_is_finished"]
    last = metrics_of(tmp_path, 3)
    assert not last["epoch_is_finished"]
    assert last["covers_epochs"] == [3, 3]
    assert files(tmp_path)["epoch_003"] == METRICS | PICTURES


@pytest.mark.slow
def test_resumed_run_covers_unreported_epochs(bilm, corpus, tmp_path):
    report(bilm, corpus, tmp_path, 2, unfinished=True, metrics_every=2, show=False)
    callback = DetailedMetrics(corpus, tmp_path, "the bank .", metrics_every=2, show=False)
    callbacks = keras.callbacks.CallbackList([callback], model=bilm)
    callbacks.on_train_begin()
    for epoch in (2, 3):
        callbacks.on_epoch_begin(epoch)
        callbacks.on_epoch_end(epoch, {})
    assert metrics_of(tmp_path, 3)["covers_epochs"] == [3, 3]
    assert metrics_of(tmp_path, 4)["covers_epochs"] == [3, 4]


def test_without_training_there_is_no_report(bilm, corpus, tmp_path):
    report(bilm, corpus, tmp_path / "reports", 0)
    assert not (tmp_path / "reports").exists()


def test_same_weights_give_same_files(bilm, corpus, tmp_path):
    for name in ("one", "two"):
        report(bilm, corpus, tmp_path / name, 1, show=False)
    one, two = (sorted((tmp_path / name).rglob("*.*")) for name in ("one", "two"))
    assert len(one) == len(two) == 4
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def logits_of(bilm, window):
    """Logits (2, n, vocabulary) of a window that has one row."""
    directions, _ = bilm(window.characters, window.words, bilm.initial_state(1))
    tops = [ops.convert_to_numpy(layers[-1])[:, 0] for layers in directions]  # (n, projection)
    W, b = ops.convert_to_numpy(bilm.softmax_W), ops.convert_to_numpy(bilm.softmax_b)
    return np.stack(tops) @ W.T + b


def heldout_logits(bilm, corpus):
    """Targets (2, n) and logits (2, n, vocabulary) of all held-out text."""
    (window,) = windows_of_split(corpus.heldout, corpus, bilm.architecture)
    return window.targets, logits_of(bilm, window)


def test_metrics_by_brute_force(bilm, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "MIN_TARGETS", 3)
    report(bilm, corpus, tmp_path, 1, show=False)
    metrics = metrics_of(tmp_path, 1)
    targets, logits = heldout_logits(bilm, corpus)
    assert metrics["n_targets"] == targets.shape[1]
    assert metrics["vocabulary_size"] == len(corpus.vocabulary)
    for name, direction in (("forward", FORWARD), ("backward", BACKWARD)):
        wanted, ranking = targets[direction].tolist(), np.argsort(-logits[direction], axis=1)
        hits = [target in row[:5] for target, row in zip(wanted, ranking, strict=True)]
        chosen = ranking[:, 0].tolist()
        right = [t == c for t, c in zip(wanted, chosen, strict=True)]
        assert metrics[name]["top_1"] == pytest.approx(np.mean(right))
        assert metrics[name]["top_5"] == pytest.approx(np.mean(hits))

        words = [w for w in set(wanted) if wanted.count(w) >= 3 and w > 2]
        both = {w: sum(t == c == w for t, c in zip(wanted, chosen, strict=True)) for w in words}
        precisions = [both[w] / chosen.count(w) if chosen.count(w) else 0 for w in words]
        recalls = [both[w] / wanted.count(w) for w in words]
        assert metrics[name]["n_frequent_words"] == len(words) > 3
        assert metrics[name]["macro_precision"] == pytest.approx(np.mean(precisions))
        assert metrics[name]["macro_recall"] == pytest.approx(np.mean(recalls))
        f1 = [2 * p * r / (p + r) if p + r else 0 for p, r in zip(precisions, recalls, strict=True)]
        assert metrics[name]["macro_f1"] == pytest.approx(np.mean(f1))


def test_cost_is_bounded(bilm, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "N_TARGETS", 30)
    report(bilm, corpus, tmp_path, 1, show=False)
    n_all = corpus.heldout.n_words + corpus.heldout.n_sentences
    assert 10 <= metrics_of(tmp_path, 1)["n_targets"] <= 40 < n_all


def test_means_are_null_without_frequent_words(bilm, corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reports, "MIN_TARGETS", 10**6)
    report(bilm, corpus, tmp_path, 1)
    assert metrics_of(tmp_path, 1)["forward"]["macro_f1"] is None
    assert "over the 0 words with at least 1000000 targets" in capsys.readouterr().out


@pytest.mark.slow
def test_printed_and_saved_metrics_agree(bilm, corpus, tmp_path, capsys):
    report(bilm, corpus, tmp_path, 1)
    out = capsys.readouterr().out
    metrics = metrics_of(tmp_path, 1)
    for name in ("forward", "backward"):
        (line,) = [line for line in out.split("\n") if line.startswith(name) and "%" in line]
        assert f"{metrics[name]['top_1']:.1%}" in line
        assert f"{metrics[name]['macro_f1']:.3f}" in line
    assert (tmp_path / "epoch_001" / "predictions.txt").read_text() in out
    report(bilm, corpus, tmp_path, 1, show=False)
    assert capsys.readouterr().out == ""


def test_without_held_out_text_only_the_heatmap_is_drawn(bilm, corpus, tmp_path, capsys):
    bare = SimpleNamespace(tokenizer=corpus.tokenizer, heldout=None, vocabulary=corpus.vocabulary)
    report(bilm, bare, tmp_path, 2, metrics_every=1, pictures_every=2)
    assert files(tmp_path) == {"epoch_002": {"heatmap.png"}}
    assert capsys.readouterr().out.count("set heldout_text or heldout_fraction") == 1


def test_neighbours_by_brute_force(bilm, corpus):
    encoder = SentenceEncoder(KerasRuntime(bilm))
    sentences = sentences_of(corpus.heldout, corpus)
    query = ["the", "bank", "was", "steep", "."]
    (vectors,) = encoder.encode([query])
    queries = [Query(query, i, vector) for i, vector in enumerate(vectors[1])]
    lines = embedded_lines(encoder, sentences, layers=1)
    found = find_neighbours(queries, lines, n=4, different_words=True)
    pool = [
        (word, vector / np.linalg.norm(vector), s, i)
        for s, (words, layers) in enumerate(zip(sentences, encoder.encode(sentences), strict=True))
        for i, (word, vector) in enumerate(zip(words, layers[1], strict=True))
    ]
    for position, (vector, neighbours) in enumerate(zip(vectors[1], found, strict=True)):
        vector = vector / np.linalg.norm(vector)
        best = {}
        for word, other, s, i in pool:
            if (sentences[s], i) != (query, position):
                best[word] = max(best.get(word, -1), float(vector @ other))
        wanted = sorted(best.values(), reverse=True)[:4]
        np.testing.assert_allclose([n.similarity for n in neighbours], wanted, rtol=0, atol=1e-5)
        assert len({n.word for n in neighbours}) == 4
        for neighbour in neighbours:
            assert neighbour.sentence[neighbour.position] == neighbour.word
            assert best[neighbour.word] == pytest.approx(neighbour.similarity, abs=1e-5)


def test_neighbours_are_saved_as_a_table(bilm, corpus, tmp_path):
    report(bilm, corpus, tmp_path, 1, show=False)
    table = pd.read_csv(tmp_path / "epoch_001" / "neighbours.csv")
    assert table["word"].tolist() == [
        w for w in ["the", "bank", "was", "steep", "."] for _ in range(N_NEIGHBOURS)
    ]
    assert table["similarity"].between(-1, 1.000001).all()
    assert all(n in c.split() for n, c in zip(table["neighbour"], table["context"], strict=True))


def test_predictions_by_brute_force(bilm, corpus):
    sentences = [["the", "bank", "was", "unheard-of", "."], ["river"]]
    size = len(corpus.vocabulary)
    encoder = SentenceEncoder(KerasRuntime(bilm))
    softmax = softmax_of(bilm, corpus.vocabulary)
    for prediction, sentence in zip(
        predict(encoder, softmax, sentences, top_k=3), sentences, strict=True
    ):
        (window,) = windows_of_sentences([sentence], corpus.vocabulary, bilm.architecture)
        logits = logits_of(bilm, window)
        # In each direction, the last row predicts a sentence mark, not a word, so leave it out.
        in_text_order = logits[FORWARD][:-1], logits[BACKWARD][:-1][::-1]
        assert prediction.sentence == sentence
        for expected, rows in zip(
            (prediction.forward, prediction.backward), in_text_order, strict=True
        ):
            assert expected.probabilities.shape == (len(sentence), 3)
            for words, p, row in zip(expected.words, expected.probabilities, rows, strict=True):
                exact = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
                order = np.argsort(-exact)[:3]
                assert words == [corpus.vocabulary.words[i] for i in order]
                np.testing.assert_allclose(p, exact[order], rtol=1e-4)
        lines = str(prediction).split("\n")
        assert [line.split()[-1] for line in lines[1:]] == [
            prediction.forward.words[-1][0],
            prediction.backward.words[-1][0],
        ]
        table = prediction.table()
        assert list(table.columns) == sentence
        assert table.iloc[1, 0].startswith(prediction.backward.words[0][0])
    (everything,) = predict(encoder, softmax, [["river"]], top_k=10**6)
    assert everything.forward.probabilities.shape == (1, size)
    assert everything.forward.probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_run_reports_as_its_parameters_say(folder, corpus, tmp_path):
    parameters = small_parameters(
        folder,
        run_dir=str(tmp_path / "run"),
        corpus_dir=str(corpus.path),
        metrics_every=1,
        pictures_every=5,
        max_steps=70,
        sentence="the boat was green !",
    )
    assert latest_report(parameters) is None
    assert latest_file(parameters, "heatmap.png") is None
    Training(parameters, corpus).run([DetailedMetrics.of(corpus, parameters)])
    reports = tmp_path / "run" / "reports"
    assert files(reports) == {"epoch_001": METRICS, "epoch_002": METRICS | PICTURES}
    report = latest_report(parameters)
    text = (reports / "epoch_002/predictions.txt").read_text()
    assert str(report).startswith("epoch 2: ")
    assert str(report).endswith(text)
    # The HTML tables for notebooks contain the same words as the text file.
    words = re.findall("<td>(.*?)</td>", report._repr_html_().partition("<br>")[2])
    assert list(filter(None, map(unescape, words))) == text.split()
    table = pd.read_csv(reports / "epoch_002" / "neighbours.csv")
    assert table["word"].unique().tolist() == ["the", "boat", "was", "green", "!"]
    for name in PICTURES:
        assert latest_file(parameters, name) == reports / "epoch_002" / name


@pytest.mark.slow
def test_run_resumed_within_an_epoch_reports_that_epoch(folder, corpus, tmp_path):
    class StopAt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch in (5, 9)

    parameters = small_parameters(
        folder, run_dir=str(tmp_path / "run"), corpus_dir=str(corpus.path)
    )
    for steps in (6, 10):
        training = Training(parameters, corpus)
        training.run([StopAt(), DetailedMetrics.of(corpus, parameters)])
        assert training.step == steps
        assert not metrics_of(tmp_path / "run" / "reports", 1)["epoch_is_finished"]
    assert list(files(tmp_path / "run" / "reports")) == ["epoch_001"]
