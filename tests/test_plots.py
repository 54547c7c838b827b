"""Pictures show the correct values and are legible, and drawing them has no side effects."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image as images
from matplotlib import pyplot
from matplotlib.figure import Figure

from elmolib import ElmoEmbedder, plots
from elmolib.embedding.cosine import cosine_similarities
from elmolib.errors import ElmolibError
from elmolib.plots import fonts
from elmolib.plots.heatmaps import SIMILARITY_COLOURS

MIXED_SCRIPTS = [
    "הנהר",
    "مرحبا",
    "河岸",
    "नमस्ते",
    "👩‍👧",
    "\x00",
    "$5",
    "$x$",
    "a_b^c",
    "\\frac",
    "",
]


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)


def labels(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def pixels(figure) -> np.ndarray:
    return images.imread(io.BytesIO(plots.png(figure)))


def all_texts(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_cosine_similarities_are_those_of_the_definition():
    a, b = vectors(4), vectors(3, seed=1)
    expected = [[x @ y / (np.sqrt(x @ x) * np.sqrt(y @ y)) for y in b] for x in a]
    np.testing.assert_allclose(cosine_similarities(a, b), expected, atol=1e-6)
    np.testing.assert_allclose(np.diag(cosine_similarities(a)), 1, atol=1e-6)


def test_a_zero_vector_is_similar_to_nothing():
    similarities = cosine_similarities(np.array([[0.0, 0.0], [1.0, 2.0]]))
    np.testing.assert_allclose(similarities, [[0, 0], [0, 1]], atol=1e-12)


@given(st.integers(0, 5), st.floats(1e-3, 1e3))
def test_similarities_depend_on_directions_only_and_stay_in_bounds(n, scale):
    similarities = cosine_similarities(vectors(n))
    assert similarities.shape == (n, n)
    assert np.abs(similarities).max(initial=0) <= 1
    np.testing.assert_allclose(cosine_similarities(scale * vectors(n)), similarities, atol=1e-5)


def test_a_heatmap_shows_similarities_labelled_with_their_words():
    words = ["The", "river", "bank", "bank"]
    axes = plots.heatmap(words, vectors(4), title="layer 2").axes[0]
    np.testing.assert_allclose(
        axes.collections[0].get_array(), cosine_similarities(vectors(4)), atol=1e-6
    )
    assert labels(axes.xaxis) == labels(axes.yaxis) == words
    assert axes.get_title() == "layer 2"


def test_two_sentences_label_two_axes():
    axes = plots.heatmap(["a", "b"], vectors(2), ["c", "d", "e"], vectors(3, seed=1)).axes[0]
    assert axes.collections[0].get_array().shape == (2, 3)
    assert labels(axes.yaxis) == ["a", "b"]
    assert labels(axes.xaxis) == ["c", "d", "e"]


def test_every_layer_has_its_heatmap():
    layers = [vectors(3, seed) for seed in range(4)]
    figure = plots.layer_heatmaps(["a", "b", "c"], layers)
    drawn = [ax for ax in figure.axes if ax.get_title()]
    for number, (ax, layer) in enumerate(zip(drawn, layers, strict=True)):
        similarities = cosine_similarities(layer)
        np.testing.assert_allclose(ax.collections[0].get_array(), similarities, atol=1e-6)
        assert ax.get_title().startswith(f"layer {number}")


def test_a_colour_means_the_same_in_every_heatmap():
    near = plots.heatmap(["a", "b"], np.array([[1.0, 0.0], [1.0, 0.01]])).axes[0]
    far = plots.heatmap(["a", "b"], np.array([[1.0, 0.0], [0.0, 1.0]])).axes[0]
    assert near.collections[0].get_clim() == far.collections[0].get_clim() == (0, 1)
    assert near.collections[0].get_cmap() == far.collections[0].get_cmap()


def test_lightness_alone_tells_the_colours_apart():
    colours = matplotlib.colormaps[SIMILARITY_COLOURS](np.linspace(0, 1, 64))[:, :3]
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()
    assert lightness[-1] - lightness[0] > 0.6


@pytest.mark.parametrize("n", [1, 2, 6, 13, 40, 41, 200])
def test_no_two_words_of_a_heatmap_overlap(n):
    axes = plots.heatmap([f"w{i}" + "x" * (i % 14) for i in range(n)], vectors(n)).axes[0]
    figure = axes.figure
    figure.canvas.draw()
    whole = figure.bbox
    for axis, corner in ((axes.yaxis, 1), (axes.xaxis, 0)):
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        rotation = axis.get_ticklabels()[0].get_rotation()
        assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 for box in boxes)
        assert all(whole.y0 <= box.y0 and box.y1 <= whole.y1 for box in boxes)
        if rotation not in (0, 90):
            continue  # the boxes of slanted words overlap even if the words do not
        spans = sorted((box.p0[corner], box.p1[corner]) for box in boxes)
        # A text box is as high as the tallest letters, so the empty parts of two boxes may overlap.
        slack = 0.25 * axis.get_ticklabels()[0].get_fontsize() * figure.dpi / 72
        assert all(a[1] <= b[0] + slack for a, b in zip(spans, spans[1:], strict=False))


def test_up_to_40_words_have_a_label_and_some_of_200_have():
    forty, many = (plots.heatmap([str(i) for i in range(n)], vectors(n)).axes[0] for n in (40, 200))
    assert labels(forty.yaxis) == [str(i) for i in range(40)]
    assert min(label.get_fontsize() for label in forty.get_yticklabels()) >= 9
    assert 20 < len(labels(many.yaxis)) <= 100
    assert labels(many.yaxis)[1] == f"{many.get_yticks()[1] - 0.5:g}"


def test_long_words_are_cut_and_short_ones_are_not():
    axes = plots.heatmap(["Donaudampfschifffahrt", "sixteen letters!", "河" * 9], vectors(3)).axes[
        0
    ]
    assert labels(axes.yaxis)[:2] == ["Donaudampfschiff…", "sixteen letters!"]


def test_an_empty_sentence_gives_a_picture_that_says_so():
    axes = plots.heatmap([], np.empty((0, 8), np.float32)).axes[0]
    assert "no words" in all_texts(axes.figure)
    assert plots.png(axes.figure).startswith(b"\x89PNG")


def test_dollar_signs_and_backslashes_are_not_read_as_mathematics():
    axes = plots.heatmap(["$x$", "\\frac", "$"], vectors(3), title="$y$").axes[0]
    assert labels(axes.yaxis) == ["$x$", "\\frac", "$"]
    assert not axes.title.get_parse_math()
    assert not any(label.get_parse_math() for label in axes.get_xticklabels())
    plots.png(axes.figure)


def test_any_script_is_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.heatmap(MIXED_SCRIPTS, vectors(len(MIXED_SCRIPTS)))
        plots.png(figure)


def test_a_script_without_a_font_is_named(monkeypatch):
    monkeypatch.setattr(fonts, "_families", lambda: (fonts.USUAL,))
    axes = plots.heatmap(["הנהר", "河岸"], vectors(2)).axes[0]
    assert labels(axes.yaxis) == ["הנהר", "□□"], "the usual font has Hebrew"
    assert "No installed font can draw CJK: install one" in all_texts(axes.figure)


def test_hebrew_runs_from_the_right_and_arabic_letters_join():
    def drawn(word: str) -> np.ndarray:
        figure = plots.Picture(3, 1)
        fonts.write(figure.text(0.5, 0.5, "", ha="center", fontsize=40), word)
        ink = (1 - pixels(figure)[..., 0]).sum(axis=0)
        return np.trim_zeros(ink)

    # The letter alef is much darker than yod, so dark pixels show which letter is on the right.
    alef_first, yod_first = drawn("אי"), drawn("יא")
    middle = min(len(alef_first), len(yod_first)) // 2
    assert alef_first[-middle:].sum() > alef_first[:middle].sum()
    assert yod_first[:middle].sum() > yod_first[-middle:].sum()
    # The invisible zero-width non-joiner separates the letters, and separate letters are wider.
    assert len(drawn("سل")) < 0.9 * len(drawn("س\u200cل"))


def test_a_font_that_has_the_script_is_found(monkeypatch):
    has = {"DejaVu Sans": {ord("a"), ord(fonts.BOX)}, "Roman": {ord("b")}, "Han": {ord("河")}}
    monkeypatch.setattr(fonts, "_families", lambda: ("DejaVu Sans", "Roman", "Han"))
    monkeypatch.setattr(fonts, "_characters_of", has.__getitem__)
    assert fonts.families_for("a河") == (["DejaVu Sans", "Han"], set())
    assert fonts.families_for("a") == (["DejaVu Sans"], set())
    assert fonts.families_for("b河岸") == (["DejaVu Sans", "Roman", "Han"], {"岸"})


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=6), max_size=4))
def test_any_words_can_be_drawn(words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.heatmap(words, vectors(len(words)), title=" ".join(words))
        assert plots.png(figure)


def test_drawing_leaves_pyplot_and_the_settings_of_the_caller_alone():
    windows, settings = pyplot.get_fignums(), dict(matplotlib.rcParams)
    plots.png(plots.heatmap(["a", "河"], vectors(2), title="layer 2"))
    plots.learning_curve(pd.DataFrame({"epoch": [1], "heldout_mean": [9.0]}))
    assert pyplot.get_fignums() == windows
    assert dict(matplotlib.rcParams) == settings


def test_a_picture_looks_the_same_whatever_the_settings_of_the_caller():
    words, expected = ["a", "b"], pixels(plots.heatmap(["a", "b"], vectors(2)))
    with matplotlib.rc_context({"font.size": 30, "ytick.major.size": 40, "axes.facecolor": "red"}):
        figure = plots.heatmap(words, vectors(2))
        np.testing.assert_array_equal(pixels(figure), expected)


def test_every_function_returns_the_figure_that_it_has_drawn_in():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plots.heatmap(["a"], vectors(1), ax=left) is figure
    assert plots.zipf([3, 2, 1], ax=right) is figure
    assert plots.zipf([], ax=right) is figure
    part = figure.subfigures().subplots()
    assert plots.coverage([3, 2, 1], ax=part) is figure
    for made in (
        plots.heatmap([], vectors(0)),
        plots.sentence_lengths([2, 3]),
        plots.word_lengths([2, 3], [1, 1], 50),
        plots.characters({"a": 1}),
        plots.layer_weights([0.5, 0.5]),
    ):
        assert isinstance(made, Figure)


def test_threads_draw_the_same_pictures():
    def draw(n: int) -> np.ndarray:
        return pixels(plots.heatmap([f"w{i}" for i in range(n)], vectors(n)))

    sizes = [2, 5, 9] * 4
    expected = {n: draw(n) for n in set(sizes)}
    with ThreadPoolExecutor(4) as threads:
        for n, picture in zip(sizes, threads.map(draw, sizes), strict=True):
            np.testing.assert_array_equal(picture, expected[n])


def test_a_notebook_can_show_a_picture():
    assert plots.heatmap(["a"], vectors(1))._repr_png_().startswith(b"\x89PNG")


def test_pictures_are_saved_as_png_and_svg(tmp_path):
    figure = plots.heatmap(["a", "b"], vectors(2))
    plots.save(figure, tmp_path / "new" / "heatmap.png")
    plots.save(figure, tmp_path / "heatmap.SVG")
    assert images.imread(tmp_path / "new" / "heatmap.png").ndim == 3
    assert "<svg" in (tmp_path / "heatmap.SVG").read_text()
    with pytest.raises(ElmolibError, match=r"must end in .png or .svg"):
        plots.save(figure, tmp_path / "heatmap.bmp")
    with pytest.raises(ElmolibError, match="below.png could not be written"):
        plots.save(figure, tmp_path / "heatmap.SVG" / "below.png")


def test_lengths_are_counted():
    axes = plots.sentence_lengths([1, 3, 3, 4]).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0, 1, 0, 2, 1]
    assert "median 3" in axes.get_legend().get_texts()[0].get_text()


def test_frequent_words_count_more_and_the_cut_is_marked():
    axes = plots.word_lengths([1, 2, 2], counts=[10, 1, 5], max_characters=4).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0, 10, 6]
    assert "cut here" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_few_very_long_sentences_are_left_out():
    axes = plots.sentence_lengths([5] * 1000 + [9000]).axes[0]
    assert axes.get_xlim()[1] < 10
    assert "longest 9,000, not shown" in all_texts(axes.figure)


def test_zipf_and_coverage_sort_the_counts():
    counts = np.array([1, 5, 0, 4])
    ranks, frequencies = plots.zipf(counts).axes[0].lines[0].get_data()
    np.testing.assert_array_equal(ranks, [1, 2, 3])
    np.testing.assert_array_equal(frequencies, [5, 4, 1])
    axes = plots.coverage(counts, vocabulary_size=2).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.5, 0.9, 1.0])
    assert "2 words cover 90.0%" in all_texts(axes.figure)


@pytest.mark.parametrize("draw", [plots.zipf, plots.coverage, plots.sentence_lengths])
def test_no_text_gives_a_picture_that_says_so(draw):
    assert "There" in all_texts(draw([]))


def test_a_million_words_are_drawn_with_few_points():
    counts = np.arange(1_000_000, 0, -1)
    assert all(len(plots.zipf(counts).axes[0].lines[i].get_xdata()) <= 500 for i in range(2))
    assert len(plots.coverage(counts).axes[0].lines[0].get_xdata()) <= 500


def test_the_learning_curve_shows_what_the_history_has():
    history = pd.DataFrame({"epoch": [1, 2], "heldout_mean": [9.0, 7.0], "train_text_mean": [8, 6]})
    axes = plots.learning_curve(history, unigram=20).axes[0]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines == {
        "held out, mean": [9, 7],
        "training, mean": [8, 6],
        "word frequencies alone": [20, 20],
    }
    assert "No epoch" in all_texts(plots.learning_curve(pd.DataFrame()))


def test_the_learning_curve_has_lines_within_epochs_and_at_most_four_entries():
    parts = ("forward", "backward", "mean")
    columns = [f"{kind}_{part}" for kind in ("heldout", "train_text") for part in parts]
    steps = pd.DataFrame({"epoch": [0.5, 0.7, 1.0], **dict.fromkeys(columns, [9.0, np.nan, 8.0])})
    history = pd.DataFrame({"epoch": [1.0], **dict.fromkeys(columns, [7.5])})
    axes = plots.learning_curve(history, steps=steps).axes[0]
    entries = [text.get_text() for text in axes.get_legend().get_texts()]
    assert entries == [*(f"held out, {part}" for part in parts), "training, mean"]
    lines = [list(line.get_xdata()) for line in axes.lines if line.get_linestyle() != "None"]
    points = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]
    assert lines == [[0.5, 1.0]] * 4
    assert points == [[1.0]] * 4


def test_a_single_epoch_has_whole_numbers_and_a_legend_that_hides_no_line():
    history = pd.DataFrame({"epoch": [1], "heldout_mean": [9.1], "train_text_mean": [8.7]})
    axes = plots.learning_curve(history, unigram=9.2).axes[0]
    axes.figure.canvas.draw()
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]
    assert len({label.get_text() for label in axes.get_yticklabels()}) > 2
    assert axes.get_legend().get_window_extent().y0 >= axes.bbox.y1
    assert "word frequencies alone" in [text.get_text() for text in axes.texts]


def test_layer_weights_are_bars_with_a_line_for_the_average():
    axes = plots.layer_weights([0.5, 0.2, 0.2, 0.1]).axes[0]
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], [0.5, 0.2, 0.2, 0.1])
    assert set(axes.lines[0].get_ydata()) == {0.25}
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["layer 0\nno context", "layer 1", "layer 2", "layer 3"]
    for text in ("50%", "20%", "10%", "average"):
        assert text in all_texts(axes.figure)


@pytest.mark.parametrize("n", [0, 1, 6, 15, 41])
def test_a_heatmap_and_its_colour_bar_fill_their_figure(n, monkeypatch):
    monkeypatch.setattr(fonts, "_families", lambda: (fonts.USUAL,))
    words = [f"w{i}" + "x" * (i % 14) for i in range(n)]
    figure = plots.heatmap(["河", *words], vectors(n + 1), title="layer 2")
    for dpi in (100, 150):
        figure.dpi = dpi
        figure.canvas.draw()
        boxes = [ax.get_tightbbox() for ax in figure.axes]
        (note,) = (text.get_window_extent() for text in figure.texts)
        whole, edge = figure.bbox, 0.1 * dpi
        assert abs(boxes[0].x0 - whole.x0) < edge
        assert abs(boxes[-1].x1 - whole.x1) < edge
        assert abs(boxes[0].y1 - whole.y1) < edge
        assert abs(boxes[0].y0 - note.y1) < edge
        for left, right in zip(boxes, boxes[1:], strict=False):
            assert 0 < right.x0 - left.x1 < 0.1 * whole.width
            assert left.y0 < right.y0 < right.y1 < left.y1


def test_a_heatmap_of_an_embedder_is_a_figure_that_opens_no_window():
    embedder = ElmoEmbedder.from_pretrained("en-tiny")
    figure, windows = Figure(), pyplot.get_fignums()
    ax = figure.add_subplot()
    assert embedder.heatmap("the river bank", ax=ax) is figure
    assert labels(ax.yaxis) == ["the", "river", "bank"]
    assert isinstance(embedder.heatmap("the river bank"), Figure)
    assert pyplot.get_fignums() == windows
