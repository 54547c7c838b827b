"""Pictures of words in their sentences, compared with values computed here."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from elmolib import plots
from elmolib.explore.occurrences import Occurrences, SelfSimilarity, Senses
from elmolib.plots import fonts


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_a_map_has_a_panel_per_layer_and_shows_every_occurrence_once():
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
    # A projection onto a plane cannot increase a distance.
    apart = np.linalg.norm(units[0] - units[9])
    assert np.linalg.norm(drawn[0] - drawn[9]) <= apart + 1e-6
    shown = texts(figure)
    assert "all 10 occurrences are one point" in shown
    assert "6 like “the bank”" in shown


def test_a_note_on_missing_fonts_does_not_cover_the_legend_of_a_map(monkeypatch):
    monkeypatch.setattr(fonts, "_families", lambda: (fonts.USUAL,))
    vectors = np.random.default_rng(1).normal(size=(2, 10, 4)).astype(np.float32)
    found = Occurrences("岸", [["the", "岸"]] * 10, [1] * 10, vectors)
    figure = plots.occurrence_maps(found, Senses(np.array([0] * 6 + [1] * 4), [2, 7]))
    plots.png(figure)
    (legend,) = figure.legends
    note, *groups = legend.get_title(), *legend.get_texts()
    assert "No installed font can draw CJK" in note.get_text()
    for group in groups:
        assert not note.get_window_extent().overlaps(group.get_window_extent())


def test_self_similarity_is_a_line_per_word():
    table = pd.DataFrame([[0.9, 0.5], [0.9, 0.7]], index=["bank", "$x$"])
    (axes,) = plots.self_similarity(SelfSimilarity(table, np.array([0.1, 0.2]))).axes
    np.testing.assert_allclose([line.get_ydata() for line in axes.lines[:2]], table)
    shown = texts(axes.figure)
    assert {"bank", "$x$"} <= set(shown)
    assert "layer 1\nrandom words: 0.20" in shown


def test_names_of_lines_do_not_overlap():
    table = pd.DataFrame({0: 0.9, 1: np.linspace(0.5, 0.51, 9)}, index=[f"w{i}" for i in range(9)])
    (axes,) = plots.self_similarity(SelfSimilarity(table, np.zeros(2))).axes
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
    places = Occurrences(word, [[word]] * 3, [0] * 3, np.eye(3)[None].astype(np.float32))
    table = pd.DataFrame([[0.9, 0.5]], index=[word])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (
            plots.occurrence_maps(places, Senses(np.zeros(3, int), [0])),
            plots.self_similarity(SelfSimilarity(table, np.zeros(2))),
        ):
            assert plots.png(figure).startswith(b"\x89PNG")
