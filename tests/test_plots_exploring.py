"""Pictures of words in their sentences: what they show beside values known otherwise."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from elmolib import plots
from elmolib.neighbours import Nearest, Neighbour
from elmolib.occurrences import Occurrences, SelfSimilarity, Senses
from elmolib.plots import exploring
from elmolib.plots.exploring import PROBABILITY_COLOURS
from elmolib.prediction import Expected, Prediction


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def prediction(sentence: list[str], top_k: int = 2) -> Prediction:
    n = len(sentence)
    words = [[f"w{place}{rank}" for rank in range(top_k)] for place in range(n)]
    probabilities = np.linspace(0.9, 0.001, n * top_k).reshape(n, top_k)
    backward = Expected([["b0", "b1"][:top_k] for _ in range(n)], probabilities / 2)
    return Prediction(sentence, Expected(words, probabilities), backward, backward)


def test_neighbours_stand_in_their_sentences_beside_word2vec_s():
    found = Nearest(
        "bank",
        [Neighbour("shore", 0.91, ["on", "the", "shore", "of", "the", "sea"], 2)],
        [("money", 0.8), ("credit", 0.75)],
    )
    shown = texts(plots.concordance(["The river bank"], [found]))
    assert "bank  in  “The river bank”" in shown
    assert shown.index("on the") < shown.index("shore") < shown.index("of the sea")
    assert {"0.91", "money", "0.80", "credit", "0.75"} <= set(shown)


def test_a_long_sentence_is_cut_around_the_neighbour():
    words = [f"word{i}" for i in range(60)]
    found = Nearest("x", [Neighbour("word30", 0.5, words, 30)], [])
    shown = texts(plots.concordance(["x"], [found]))
    before = next(text for text in shown if text.endswith("word29"))
    after = next(text for text in shown if text.startswith("word31"))
    assert before.startswith("… ")
    assert after.endswith(" …")
    assert max(len(before), len(after)) < 50
    assert "(too rare)" in shown


def test_a_strip_names_what_was_expected_and_frames_what_was_right():
    expected = prediction(["w00", "b1"])
    figure = plots.expected_words(expected)
    shown = texts(figure)
    assert {"w00 90%", "b1 <1%", "b0 45%"} <= set(shown)
    cells = figure.axes[0].patches
    framed = {
        tuple(np.round(cell.get_xy(), 2)) for cell in cells if tuple(cell.get_edgecolor())[3] > 0
    }
    # Forward, the most probable word stands just above the sentence; `b1` is second below it.
    assert framed == {(-0.47, 0.54), (0.53, 3.54)}


def test_a_long_sentence_goes_on_in_the_next_strip():
    figure = plots.expected_words(prediction([f"s{i}" for i in range(7)]), words_per_line=3)
    shown = texts(figure)
    assert all(f"s{i}" in shown for i in range(7))
    assert len([ax for ax in figure.axes if ax.patches and ax.get_yticklabels()]) >= 3
    assert "no words" in " ".join(texts(plots.expected_words(prediction([]))))


def test_darker_is_more_probable():
    lightness = PROBABILITY_COLOURS(np.linspace(0, 1, 32))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) < 0).all()


def test_a_map_has_a_panel_per_layer_and_shows_every_place_once():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(3, 10, 4)).astype(np.float32)
    vectors[0] = 1.0
    labels = np.array([0] * 6 + [1] * 4)
    found = Occurrences("bank", [["the", "bank"]] * 10, [1] * 10, vectors)
    figure = plots.occurrence_maps(found, Senses(labels, [2, 7]))
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == ["layer 0: no context", "layer 1", "layer 2"]
    for ax in panels:
        assert [len(points.get_offsets()) for points in ax.collections] == [6, 4]
    units = vectors[2] / np.linalg.norm(vectors[2], axis=1, keepdims=True)
    drawn = np.concatenate([points.get_offsets() for points in panels[2].collections])
    # A plane keeps no distance longer than it is.
    apart = np.linalg.norm(units[0] - units[9])
    assert np.linalg.norm(drawn[0] - drawn[9]) <= apart + 1e-6
    shown = texts(figure)
    assert "all 10 places are one point" in shown
    assert "6 like “the bank”" in shown


def test_what_cannot_be_drawn_is_told_above_the_legend_of_a_map_and_not_upon_it(monkeypatch):
    write = exploring.write
    monkeypatch.setattr(exploring, "write", lambda *args: write(*args) | {"CJK"})
    vectors = np.random.default_rng(1).normal(size=(2, 10, 4)).astype(np.float32)
    found = Occurrences("bank", [["the", "bank"]] * 10, [1] * 10, vectors)
    figure = plots.occurrence_maps(found, Senses(np.array([0] * 6 + [1] * 4), [2, 7]))
    plots.png(figure)
    (legend,) = figure.legends
    note, *groups = legend.get_title(), *legend.get_texts()
    assert "No font here can draw CJK" in note.get_text()
    for group in groups:
        assert not note.get_window_extent().overlaps(group.get_window_extent())


def test_self_similarity_is_a_line_per_word():
    table = pd.DataFrame([[0.9, 0.5], [0.9, 0.7]], index=["bank", "$x$"])
    axes = plots.self_similarity(SelfSimilarity(table, np.array([0.1, 0.2])))
    np.testing.assert_allclose([line.get_ydata() for line in axes.lines[:2]], table)
    shown = texts(axes.figure)
    assert {"bank", "$x$"} <= set(shown)
    assert "layer 1\nrandom words: 0.20" in shown


def test_names_of_lines_do_not_overlap():
    table = pd.DataFrame({0: 0.9, 1: np.linspace(0.5, 0.51, 9)}, index=[f"w{i}" for i in range(9)])
    axes = plots.self_similarity(SelfSimilarity(table, np.zeros(2)))
    axes.figure.canvas.draw()
    names = [text for text in axes.texts if text.get_text() in table.index]
    boxes = sorted((Text.get_window_extent(text) for text in names), key=lambda box: box.y0)
    assert len(boxes) == 9
    slack = 3
    assert all(a.y1 <= b.y0 + slack for a, b in zip(boxes, boxes[1:], strict=False))


@pytest.mark.parametrize(
    "word",
    ["河岸", "הנהר", "$x$", "a_b^c", "x" * 60, "\x00"],
    ids=["han", "he", "$", "_", "x", "0"],
)
def test_any_word_can_be_drawn_without_a_warning(word):
    found = Nearest(word, [Neighbour(word, 0.5, [word, word], 1)], [(word, 0.5)])
    places = Occurrences(word, [[word]] * 3, [0] * 3, np.eye(3)[None].astype(np.float32))
    table = pd.DataFrame([[0.9, 0.5]], index=[word])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            plots.concordance([word], [found]),
            plots.expected_words(prediction([word, word])),
            plots.occurrence_maps(places, Senses(np.zeros(3, int), [0])),
            plots.self_similarity(SelfSimilarity(table, np.zeros(2))).figure,
        ):
            assert plots.png(figure).startswith(b"\x89PNG")
