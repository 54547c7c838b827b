"""The sentence box, as a browser would use it but without one."""

from __future__ import annotations

import io
import math
import re
from html import unescape
from threading import Event, current_thread

import numpy as np
import pytest
from matplotlib import image
from small_models import TINY, random_arrays

from elmolib import plots
from elmolib.elmo import ElmoEmbedder
from elmolib.errors import ElmolibError
from elmolib.text import Tokenizer
from elmolib.weights import write_model
from elmolib.widgets import MOST_CELLS, MOST_WORDS, Latest, sentence_box, value_cells

ENOUGH = 60  # seconds after which a test has failed rather than is slow


class FakeEmbedder:
    """Draws words without a model, remembers what was asked, and can be held up."""

    n_layers = 2

    def __init__(self) -> None:
        self.drawn: list[tuple[list[str], object]] = []
        self.threads: list[str] = []
        self.started, self.go = Event(), Event()
        self.go.set()
        self.error: Exception | None = None

    def words(self, sentence):
        return sentence.split()

    def heatmap(self, words, layer, others=None):
        self.drawn.append((words, layer) if others is None else (words, layer, others))
        self.threads.append(current_thread().name)
        self.started.set()
        assert self.go.wait(ENOUGH)
        if self.error is not None:
            raise self.error
        vectors = np.eye(len(words), 3) + 1
        if others is None:
            return plots.heatmap(words, vectors)
        return plots.heatmap(words, vectors, others, np.eye(len(others), 3) - 1)


@pytest.fixture
def embedder():
    return FakeEmbedder()


def test_the_first_picture_is_there_at_once(embedder):
    box = sentence_box(embedder, "the river bank")
    assert embedder.drawn == [(["the", "river", "bank"], 2)]
    assert bytes(box.image.value).startswith(b"\x89PNG")
    assert box.message.value == ""
    assert box.sentence.value == "the river bank"


def test_the_picture_follows_the_sentence_and_the_layer(embedder):
    box = sentence_box(embedder, "a b")
    first = box.image.value
    box.sentence.value = "a b c"
    box.wait()
    assert embedder.drawn[-1] == (["a", "b", "c"], 2)
    assert box.image.value != first
    for label, layer in box.layer.options:
        box.layer.value = layer
        box.wait()
        assert embedder.drawn[-1] == (["a", "b", "c"], layer), label


def test_typing_waits_for_no_picture_and_skips_what_is_stale(embedder):
    box = sentence_box(embedder, "first")
    embedder.go.clear()
    embedder.started.clear()
    box.sentence.value = "second"
    assert embedder.started.wait(ENOUGH)
    for n in range(20):
        box.sentence.value = f"typed {n}"
    embedder.go.set()
    box.wait()
    assert [words for words, _ in embedder.drawn] == [["first"], ["second"], ["typed", "19"]]


def test_a_picture_that_became_stale_is_not_shown(embedder):
    box = sentence_box(embedder, "first")
    shown = []
    box.image.observe(lambda change: shown.append(change["new"]), "value")
    embedder.go.clear()
    embedder.started.clear()
    box.sentence.value = "second"
    assert embedder.started.wait(ENOUGH)
    box.sentence.value = "third"
    embedder.go.set()
    box.wait()
    assert shown == [box.image.value]
    assert values_of(box) == [("third · third", 1.0)]


def test_pictures_are_drawn_in_one_other_thread(embedder):
    box = sentence_box(embedder, "first")
    for n in range(3):
        box.sentence.value = f"typed {n}"
        box.wait()
    assert embedder.threads[0] == current_thread().name
    assert current_thread().name not in embedder.threads[1:]


def test_an_error_is_shown_and_goes_away(embedder):
    box = sentence_box(embedder, "a b")
    picture = box.image.value
    for error, message in (
        (ElmolibError("a clear sentence"), "a clear sentence"),
        (KeyError(), "KeyError"),
    ):
        embedder.error = error
        box.sentence.value += " c"
        box.wait()
        assert box.message.value == message
        assert box.image.value == picture
    embedder.error = None
    box.sentence.value = "a b"
    box.wait()
    assert box.message.value == ""


def test_rendering_can_be_asked_for_without_a_browser(embedder):
    box = sentence_box(embedder, "a b", layer="average")
    box.unobserve_all()
    box.sentence.unobserve_all("value")
    box.sentence.value = "c"
    box.render_now()
    assert embedder.drawn[-1] == (["c"], "average")


@pytest.mark.parametrize("n", [0, 1, MOST_WORDS, MOST_WORDS + 1, 5000])
def test_any_number_of_words_behaves(embedder, n):
    box = sentence_box(embedder, " ".join(["w"] * n))
    assert len(embedder.drawn[-1][0]) == min(n, MOST_WORDS)
    assert bytes(box.image.value).startswith(b"\x89PNG")
    too_many = f"Only the first {MOST_WORDS} words are drawn."
    assert box.message.value == (too_many if n > MOST_WORDS else "")


def test_a_second_sentence_makes_the_columns(embedder):
    box = sentence_box(embedder, "a b", other="c d e")
    assert embedder.drawn[-1] == (["a", "b"], 2, ["c", "d", "e"])
    box.other.value = "f"
    box.wait()
    assert embedder.drawn[-1] == (["a", "b"], 2, ["f"])
    assert values_of(box) == [("a · f", -0.58), ("b · f", -0.87)]
    box.other.value = "   "
    box.wait()
    assert embedder.drawn[-1] == (["a", "b"], 2)


def values_of(box) -> list[tuple[str, float]]:
    """What the cells over the picture tell, in reading order."""
    told = [unescape(text) for text in re.findall('data-value="(.*?)"', box.cells.value)]
    return [(pair, float(value)) for pair, value in (text.rsplit("  ", 1) for text in told)]


def test_every_cell_tells_its_words_and_value(embedder):
    box = sentence_box(embedder, 'the "<b>" &amp;')
    words, _ = embedder.drawn[-1]
    vectors = np.eye(3, 3) + 1
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = [
        (f"{row} · {column}", pytest.approx(unit[i] @ unit[j], abs=0.005))
        for i, row in enumerate(words)
        for j, column in enumerate(words)
    ]
    assert values_of(box) == expected
    assert "<b>" not in box.cells.value


def test_cells_lie_where_the_colours_are(embedder):
    n = 4
    axes = embedder.heatmap([f"w{i}" for i in range(n)], 2)
    picture = image.imread(io.BytesIO(plots.png(axes.figure)))[..., :3]
    html = value_cells(axes, ["w"] * n, ["w"] * n)
    left, top, width, height = (
        float(re.search(rf"{side}:([0-9.]+)%", html)[1]) / 100
        for side in ("left", "top", "width", "height")
    )
    similarities = np.asarray(axes.images[0].get_array())
    colours = axes.images[0].cmap(similarities)[..., :3]
    rows, columns, _ = picture.shape
    for (i, j), _ in np.ndenumerate(similarities):
        # Near a corner, where no number is written.
        y, x = top + height * (i + 0.1) / n, left + width * (j + 0.1) / n
        found = picture[round(y * rows), round(x * columns)]
        np.testing.assert_allclose(found, colours[i, j], atol=0.02)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_what_a_cell_tells_stays_within_the_picture(embedder, n):
    box = sentence_box(embedder, " ".join("abcde"[:n]))
    sides = re.findall('<i tabindex="-1" class="([a-z]+)"', box.cells.value)
    assert sides == [*["left"] * (n // 2), *["right"] * (n - n // 2)] * n


def test_too_many_cells_tell_nothing(embedder):
    n = math.isqrt(MOST_CELLS)
    box = sentence_box(embedder, " ".join(["w"] * n))
    assert len(values_of(box)) == n * n
    for words in (" ".join(["w"] * (n + 1)), ""):
        box.sentence.value = words
        box.wait()
        assert box.cells.value == ""


def test_the_picture_is_saved_and_never_written_over(embedder, tmp_path):
    box = sentence_box(embedder, "a b", folder=tmp_path / "new")
    png, svg = box.save_buttons
    for button, name in ((png, "_1.png"), (svg, "_1.svg"), (svg, "_2.svg")):
        button.click()
        box.wait()
        path = tmp_path / "new" / f"similarities{name}"
        assert box.message.value == f"Saved as {path}"
    files = {path.name: path.read_bytes()[:5] for path in (tmp_path / "new").iterdir()}
    assert files == {
        "similarities_1.png": b"\x89PNG\r",
        "similarities_1.svg": b"<?xml",
        "similarities_2.svg": b"<?xml",
    }


def test_two_clicks_in_a_row_save_both_forms(embedder, tmp_path):
    box = sentence_box(embedder, "a b", folder=tmp_path)
    for button in box.save_buttons:
        button.click()
    box.wait()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"similarities_1.png", "similarities_1.svg"}


def test_a_folder_that_cannot_be_written_is_named(embedder, tmp_path):
    (tmp_path / "file").touch()
    box = sentence_box(embedder, "a b", folder=tmp_path / "file")
    box.save_buttons[0].click()
    box.wait()
    assert str(tmp_path / "file") in box.message.value


def test_there_is_nothing_to_save_before_the_first_picture(embedder):
    embedder.error = ElmolibError("no model")
    box = sentence_box(embedder, "a b")
    with pytest.raises(ElmolibError, match="no picture to save yet"):
        box.save(".png")


def test_a_real_model_answers(tmp_path):
    write_model(tmp_path / "elmo.h5", TINY, random_arrays(TINY), None, Tokenizer())
    embedder = ElmoEmbedder(tmp_path / "elmo.h5")
    box = sentence_box(embedder)
    box.sentence.value = "the bank's river"
    box.layer.value = 1
    box.wait()
    expected = embedder.heatmap("the bank's river", layer=1)
    assert len(values_of(box)) == 3 * 3
    assert box.image.value == plots.png(expected.figure)


def test_requests_that_come_during_the_last_run_are_not_lost():
    runs, allowed, started = [], Event(), Event()

    def work():
        runs.append(len(runs))
        started.set()
        assert allowed.wait(ENOUGH)

    latest = Latest(work, pause=0)
    latest.ask()
    assert started.wait(ENOUGH)
    latest.ask()
    allowed.set()
    latest.wait()
    assert runs == [0, 1]
    latest.ask()
    latest.wait()
    assert runs == [0, 1, 2]
