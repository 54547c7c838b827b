"""Perplexity with intervals, losses by length and frequency, calibration, and tables of runs."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from small_corpus import small_parameters, split_of

from elmolib import plots
from elmolib.corpus.prepare import prepare_corpus
from elmolib.corpus.stream import BACKWARD, FORWARD
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.keras_runtime import KerasRuntime
from elmolib.errors import CorpusError, WeightsError
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model
from elmolib.scoring.heldout import score_heldout
from elmolib.scoring.metrics import (
    calibration,
    loss_by_frequency,
    loss_by_length,
    perplexity_table,
)
from elmolib.scoring.perplexity import Scores
from elmolib.scoring.prediction import Expected, Prediction, log_probability
from elmolib.scoring.runs import TrainedRun, find_runs, read_runs, runs_table
from elmolib.scoring.softmax import softmax_of
from elmolib.text.vocabulary import EOS, Vocabulary
from elmolib.training.loop import Training


def corpus_of(lengths: list[int]) -> SimpleNamespace:
    split = split_of([[3] * length for length in lengths])
    lexicon = SimpleNamespace(counts=np.array([0, 0, 0, 9]))
    return SimpleNamespace(
        path="corpus", heldout=split, train=split, lexicon=lexicon, vocabulary=Vocabulary(["a"])
    )


def scores_of(losses: np.ndarray) -> Scores:
    empty = np.zeros(losses.shape, np.int64)
    return Scores(empty, losses.astype(np.float32), empty, empty, losses.astype(np.float32))


def first_choices(probabilities: list[float], right: list[bool]) -> Scores:
    """Return scores in which both directions have these probabilities and correct answers."""
    best = np.zeros((2, len(right)), np.int64)
    losses = np.tile(-np.log(probabilities), (2, 1)).astype(np.float32)
    return Scores(best + np.logical_not(right), losses, best, best, losses)


@pytest.mark.parametrize("table", [perplexity_table, loss_by_length, loss_by_frequency])
def test_scores_of_another_text_are_refused(table):
    scores = scores_of(np.array([[1, 2, 3, 4, 5], [10, 20, 30, 40, 50]]))
    with pytest.raises(CorpusError, match="scores of 5 predictions .* has 6: score the whole text"):
        table(scores, corpus_of([1, 3]))


def test_the_first_sentence_starts_from_zero_state(tmp_path):
    """The first sentence has the same loss if it is scored alone."""
    corpus = prepare_corpus(small_parameters(tmp_path))
    training = Training(small_parameters(tmp_path), corpus)
    losses = score_heldout(training.scorer, corpus).losses
    end = int(corpus.heldout.bounds[1])
    words = corpus.lexicon.words(corpus.heldout.ids[:end])
    softmax = softmax_of(training.bilm, corpus.vocabulary)
    alone = log_probability(SentenceEncoder(KerasRuntime(training.bilm)), softmax, words)
    assert losses[FORWARD, : end + 1].sum() == pytest.approx(-alone.forward, rel=1e-4)
    assert losses[BACKWARD, : end + 1].sum() == pytest.approx(-alone.backward, rel=1e-4)


def test_intervals_contain_the_perplexity_and_shrink_with_more_sentences():
    generator = np.random.default_rng(0)
    widths = []
    for n in (20, 2000):
        losses = generator.gamma(4, 1, (2, 5 * n))
        table = perplexity_table(scores_of(losses), corpus_of([4] * n))
        means = [*losses.mean(axis=1), losses.mean()]
        for name, mean in zip(table.index[:-1], means, strict=True):
            row = table.loc[name]
            assert row["perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
            assert row["low"] < row["perplexity"] < row["high"]
        widths.append(np.log(table["high"] / table["low"])[:-1].mean())
    assert list(table["sentences"]) == [2000] * 4
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.4)


def test_intervals_agree_with_the_normal_approximation():
    losses = np.random.default_rng(1).gamma(4, 1, (2, 3000))
    row = perplexity_table(scores_of(losses), corpus_of([0] * 3000)).loc["forward"]
    expected = 2 * 1.96 * losses[0].std() / math.sqrt(3000)
    assert math.log(row["high"] / row["low"]) == pytest.approx(expected, rel=0.1)


def test_sentences_are_sorted_into_bands_by_their_words():
    lengths = [1, 5, 6, 41, 300]
    losses = np.concatenate([np.full(n + 1, n) for n in lengths])
    table = loss_by_length(scores_of(np.stack([losses, 2 * losses])), corpus_of(lengths))
    assert list(table.index) == ["1-5", "6-10", "41+"]
    assert list(table["sentences"]) == [2, 1, 2]
    assert table.loc["1-5", "forward"] == pytest.approx((2 * 1 + 6 * 5) / 8)
    assert table.loc["6-10", "backward"] == pytest.approx(12)
    assert (table["forward_low"] <= table["forward"]).all()


def test_calibration_by_hand():
    scores = first_choices([0.05, 0.08, 0.85, 0.85, 1.0], [0, 1, 1, 1, 0])
    found = calibration(scores, 10)["forward"]
    np.testing.assert_allclose(found.table["confidence"], [0.065, 0.85, 1.0], atol=1e-6)
    np.testing.assert_allclose(found.table["accuracy"], [0.5, 1.0, 0.0])
    np.testing.assert_allclose(found.table["low"], [0.0, 0.8, 0.9], atol=1e-9)
    assert list(found.table["predictions"]) == [2, 2, 1]
    assert found.error == pytest.approx((2 * 0.435 + 2 * 0.15 + 1 * 1.0) / 5, abs=1e-6)


@given(st.integers(0, 50))
def test_calibrated_predictions_have_a_small_error(seed):
    generator = np.random.default_rng(seed)
    probabilities = generator.uniform(0.01, 0.99, 20_000)
    right = generator.uniform(size=20_000) < probabilities
    assert calibration(first_choices(probabilities, right))["forward"].error < 0.03
    assert calibration(first_choices(probabilities, ~right))["backward"].error > 0.3


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, dropout in (("a", 0.1), ("b", 0.3)):
        parameters = small_parameters(folder, run_dir=str(folder / name), dropout=dropout)
        Training(parameters, prepare_corpus(parameters)).run()
    return folder


def test_the_table_of_runs_shows_parameters_that_differ(runs_folder):
    (runs_folder / "empty").mkdir(exist_ok=True)
    assert find_runs(runs_folder) == [runs_folder / "a", runs_folder / "b"]
    runs = read_runs(find_runs(runs_folder))
    table = runs_table(runs)
    assert list(table.index) == ["a", "b"]
    assert list(table["dropout"]) == ["0.1", "0.3"]
    assert "run_dir" not in table
    for name in ("a", "b"):
        history = pd.read_csv(runs_folder / name / "history.csv")
        assert table.loc[name, "mean"] == history["heldout_mean"].iloc[-1]
        assert table.loc[name, "minutes"] == pytest.approx(history["seconds"].sum() / 60)
    with h5py.File(runs_folder / "a" / "elmo.h5") as file:
        sizes = {}
        file.visititems(lambda name, node: sizes.update({name: getattr(node, "size", 0)}))
    del sizes["vocabulary"], sizes["record"]
    assert table.loc["a", "weights"] == sum(sizes.values())


def test_a_run_that_was_stopped_in_its_first_epoch_is_compared_too(tmp_path):
    parameters = small_parameters(tmp_path)
    training = Training(parameters, prepare_corpus(parameters))
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(training.bilm, "stop_training", True)
    )
    training.run([stop])
    runs = read_runs(find_runs(tmp_path))
    assert [len(run.history) for run in runs] == [0]
    table = runs_table(runs)
    assert table.loc["run", "epochs"] == 0
    assert table.loc["run", ["mean", "minutes"]].isna().all()
    assert "No run has an epoch" in texts(plots.runs(runs))


def test_a_weight_file_without_a_training_record_is_named(runs_folder, tmp_path):
    stored = read_model(runs_folder / "a" / "elmo.h5")
    write_model(
        tmp_path / "elmo.h5",
        StoredModel(stored.architecture, stored.arrays, stored.vocabulary, stored.tokenizer),
    )
    with pytest.raises(WeightsError, match=r"elmo\.h5 does not record how it was trained"):
        read_runs([tmp_path])


def texts(figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(Text))


def test_perplexities_are_drawn_with_their_ends():
    table = pd.DataFrame(
        {"perplexity": [100.0, 90.0], "low": [95.0, 80.0], "high": [110.0, 99.0]},
        index=["forward", "backward"],
    )
    (axes,) = plots.perplexities(table, unigram=500).axes
    ends = [bars.get_segments()[0][:, 0].tolist() for bars in axes.collections]
    assert ends == [[95, 110], [80, 99]]
    assert "100.0  (95.0 to 110.0)" in texts(axes.figure)


@pytest.mark.filterwarnings("error")
def test_loss_by_frequency_is_drawn_with_its_ends_and_as_perplexity():
    table = pd.DataFrame(
        {"forward": [2.0, 7.0], "forward_low": [1.5, 6.0], "forward_high": [2.5, 9.0]}
        | {"backward": [3.0, 8.0], "backward_low": [3.0, 8.0], "backward_high": [3.0, 8.0]}
        | {"unigram": [4.0, 9.0], "targets": [30, 10]},
        index=["100+", "1+"],
    )
    (axes,) = plots.loss_by_frequency(table).axes
    plots.png(axes.figure)
    bars = axes.collections[0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[1.5, 2.5], [6, 9]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100+\n75%", "1+\n25%"]
    (right,) = axes.child_axes
    low, high = right.get_ylim()
    assert [tick for tick in right.get_yticks() if low <= tick <= high] == [1, 10, 100, 1000, 10000]
    assert np.isclose(high, np.exp(axes.get_ylim()[1]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("width", "ticks"), [(0.2, 3), (1.0, 3), (4.0, 4)])
def test_any_range_of_nats_has_perplexities_beside_it(width, ticks):
    table = pd.DataFrame(
        {"forward": [5.0, 5.0 + width], "backward": 5.0, "sentences": 3}
        | {f"{name}_{end}": 5.0 for name in ("forward", "backward") for end in ("low", "high")},
        index=["1-5", "6-10"],
    )
    table["forward_high"] = table["forward"]
    (axes,) = plots.loss_by_length(table).axes
    plots.png(axes.figure)
    (right,) = axes.child_axes
    low, high = right.get_ylim()
    assert ticks <= sum(low <= tick <= high for tick in right.get_yticks()) <= 9


def test_intervals_of_bands_are_over_sentences(tmp_path):
    corpus = prepare_corpus(small_parameters(tmp_path))
    n = int(np.diff(corpus.heldout.bounds).sum() + corpus.heldout.n_sentences)
    targets = np.full((2, n), EOS)
    targets[:, 0] = len(corpus.vocabulary) - 1
    losses = np.random.default_rng(0).normal(5, 1, (2, n)).astype(np.float32)
    scores = scores_of(losses)._replace(targets=targets)
    table = loss_by_frequency(scores, corpus)
    rare, often = table.iloc[0], table.loc["sentence end"]
    assert rare["forward_low"] == rare["forward"] == rare["forward_high"]
    assert rare["forward"] == pytest.approx(losses[0, 0])
    assert often["forward_low"] < often["forward"] < often["forward_high"]
    with pytest.raises(CorpusError, match="score the whole text"):
        loss_by_frequency(scores_of(losses[:, 1:]), corpus)


def test_loss_by_length_is_drawn_band_by_band():
    table = pd.DataFrame(
        {"forward": [2.0, 1.0], "forward_low": 0.5, "forward_high": 3.0}
        | {"backward": [4.0, 3.0], "backward_low": 0.5, "backward_high": 5.0, "sentences": [7, 9]},
        index=["1-5", "6-10"],
    )
    (axes,) = plots.loss_by_length(table).axes
    lines = {line.get_label(): line for line in axes.containers}
    assert lines["forward"].lines[0].get_ydata().tolist() == [2, 1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1-5\n7", "6-10\n9"]


def test_the_diagram_shows_each_bin_above_its_share():
    found = calibration(first_choices([0.05, 0.08, 0.85, 0.85], [0, 1, 1, 1]), 10)["forward"]
    figure = plots.reliability({"forward": found})
    above, below = figure.axes
    np.testing.assert_allclose(above.lines[1].get_xydata(), [[0.065, 0.5], [0.85, 1]], atol=1e-6)
    assert [bar.get_height() for bar in below.patches] == [0.5, 0.5]
    assert f"off by {found.error:.1%}" in texts(figure)


def test_runs_are_drawn_over_epochs_and_time():
    history = pd.DataFrame(
        {"epoch": [1, 2], "heldout_mean": [90.0, 80.0], "seconds": [60.0, 120.0]}
    )
    bare = TrainedRun("$b$", pd.DataFrame({"epoch": [1]}), {}, 5, 7)
    figure = plots.runs([TrainedRun("$a$", history, {}, 5, 7), bare])
    by_epoch, by_time = figure.axes
    assert by_epoch.lines[0].get_xydata().tolist() == [[1, 90], [2, 80]]
    assert by_time.lines[0].get_xydata().tolist() == [[1, 90], [3, 80]]
    assert len(by_epoch.lines) == 1
    assert "$a$ (7 words)" in texts(figure)
    assert plots.png(figure).startswith(b"\x89PNG")
    assert "No run has an epoch" in texts(plots.runs([bare]))


def test_predictions_are_an_html_table_with_the_right_ones_in_bold():
    forward = Expected([["<UNK>", "river"], ["bank", "b"]], np.array([[0.5, 0.25], [0.9, 0.001]]))
    backward = Expected([["a", "the"], ["c", "d"]], np.array([[0.3, 0.2], [0.2, 0.1]]))
    html = Prediction(["river", "bank"], forward, backward, backward)._repr_html_()
    bare = re.sub(r"</?span[^>]*>", "", html).replace("&ensp;", " ")
    rows = re.findall("<tr>(.*?)</tr>", bare)
    assert rows[1:] == [
        "<td>&lt;UNK&gt; 50% <b>river</b> 25%</td><th>river</th><td>a 30% the 20%</td>",
        "<td><b>bank</b> 90% b &lt;1%</td><th>bank</th><td>c 20% d 10%</td>",
    ]
    strengths = list(map(float, re.findall(r"rgba\(1, 102, 94, (.*?)\)", html)))
    assert strengths[:2] == sorted(strengths[:2], reverse=True)
    assert "<tr><th>" in Prediction([], *[Expected([], np.zeros((0, 2)))] * 3)._repr_html_()
