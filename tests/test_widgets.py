"""The sentence box, tested without a browser."""

from __future__ import annotations

import base64
import io
import math
import re
from html import unescape
from threading import Event, current_thread

import matplotlib
import numpy as np
import pytest
from matplotlib import image
from small_models import TINY, random_arrays

from elmolib.embedder import ElmoEmbedder
from elmolib.errors import ElmolibError
from elmolib.formats.weights import StoredModel, write_model
from elmolib.live.heatmap_html import MAX_TOOLTIPS, heatmap_html
from elmolib.live.widgets import MAX_WORDS, LatestOnly, SentenceBox
from elmolib.plots.heatmaps import SIMILARITY_COLOURS
from elmolib.text.tokenizer import Tokenizer

TIMEOUT = 60  # seconds


class FakeEmbedder:
    """An embedder without a model, which records its calls, and can wait or raise an error."""

    n_layers = 2

    def __init__(self) -> None:
        self.drawn: list[tuple[list[str], object]] = []
        self.threads: list[str] = []
        self.started, self.go = Event(), Event()
        self.go.set()
        self.error: Exception | None = None

    def words(self, sentence):
        return sentence.split()

    def heatmap_title(self, layer):
        return f"layer {layer} of <x>"

    def embed(self, sentences, layer):
        words, *others = sentences
        self.drawn.append((words, layer, *others))
        self.threads.append(current_thread().name)
        self.started.set()
        assert self.go.wait(TIMEOUT)
        if self.error is not None:
            raise self.error
        return [np.eye(len(words), 3) + 1, *(np.eye(len(each), 3) - 1 for each in others)]


@pytest.fixture
def embedder():
    return FakeEmbedder()


def test_first_picture_is_drawn_at_once(embedder):
    box = SentenceBox(embedder, "the river bank")
    assert embedder.drawn == [(["the", "river", "bank"], 2)]
    assert "layer 2 of &lt;x&gt;" in box.picture.value
    assert box.message.value == ""
    assert box.sentence.value == "the river bank"


def test_picture_follows_sentence_and_layer(embedder):
    box = SentenceBox(embedder, "a b")
    first = box.picture.value
    box.sentence.value = "a b c"
    box.wait()
    assert embedder.drawn[-1] == (["a", "b", "c"], 2)
    assert box.picture.value != first
    for label, layer in box.layer.options:
        box.layer.value = layer
        box.wait()
        assert embedder.drawn[-1] == (["a", "b", "c"], layer), label


def test_typing_does_not_wait_for_pictures_and_skips_stale_text(embedder):
    box = SentenceBox(embedder, "first")
    embedder.go.clear()
    embedder.started.clear()
    box.sentence.value = "second"
    assert embedder.started.wait(TIMEOUT)
    for n in range(20):
        box.sentence.value = f"typed {n}"
    embedder.go.set()
    box.wait()
    assert [words for words, _ in embedder.drawn] == [["first"], ["second"], ["typed", "19"]]


def test_stale_picture_is_not_shown(embedder):
    box = SentenceBox(embedder, "first")
    shown = []
    box.picture.observe(lambda change: shown.append(change["new"]), "value")
    embedder.go.clear()
    embedder.started.clear()
    box.sentence.value = "second"
    assert embedder.started.wait(TIMEOUT)
    box.sentence.value = "third"
    embedder.go.set()
    box.wait()
    assert shown == [box.picture.value]
    assert values_of(box) == [("third · third", 1.0)]


def test_all_pictures_are_drawn_in_one_other_thread(embedder):
    box = SentenceBox(embedder, "first")
    for n in range(3):
        box.sentence.value = f"typed {n}"
        box.wait()
    assert len(embedder.threads) == 4
    assert len(set(embedder.threads)) == 1
    assert current_thread().name not in embedder.threads


def test_error_is_shown_until_the_next_picture(embedder):
    box = SentenceBox(embedder, "a b")
    picture = box.picture.value
    for error, message in (
        (ElmolibError("a clear sentence"), "a clear sentence"),
        (KeyError(), "KeyError"),
    ):
        embedder.error = error
        box.sentence.value += " c"
        box.wait()
        assert box.message.value == message
        assert box.picture.value == picture
    embedder.error = None
    box.sentence.value = "a b"
    box.wait()
    assert box.message.value == ""


def test_refresh_and_wait_draw_without_a_browser(embedder):
    box = SentenceBox(embedder, "a b")
    box.layer.value = "average"
    box.unobserve_all()
    box.sentence.unobserve_all("value")
    box.sentence.value = "c"
    box.refresh()
    box.wait()
    assert embedder.drawn[-1] == (["c"], "average")


@pytest.mark.parametrize("n", [0, 1, MAX_WORDS, MAX_WORDS + 1, 5000])
def test_any_number_of_words_is_accepted(embedder, n):
    box = SentenceBox(embedder, " ".join(["w"] * n))
    assert len(embedder.drawn[-1][0]) == min(n, MAX_WORDS)
    assert ("data:image/png;base64," in box.picture.value) is (n > 0)
    too_many = f"Only the first {MAX_WORDS} words are drawn."
    assert box.message.value == (too_many if n > MAX_WORDS else "")


def test_second_sentence_makes_the_columns(embedder):
    box = SentenceBox(embedder, "a b")
    box.other.value = "c d e"
    box.wait()
    assert embedder.drawn[-1] == (["a", "b"], 2, ["c", "d", "e"])
    box.other.value = "f"
    box.wait()
    assert embedder.drawn[-1] == (["a", "b"], 2, ["f"])
    assert values_of(box) == [("a · f", -0.58), ("b · f", -0.87)]
    box.other.value = "   "
    box.wait()
    assert embedder.drawn[-1] == (["a", "b"], 2)


def values_of(box) -> list[tuple[str, float]]:
    """The text of each tooltip, the two words and their value, in reading order."""
    texts = [unescape(text) for text in re.findall('data-value="(.*?)"', box.picture.value)]
    return [(pair, float(value)) for pair, value in (text.rsplit("  ", 1) for text in texts)]


def test_every_tooltip_shows_words_and_value(embedder):
    box = SentenceBox(embedder, 'the "<b>" &amp;')
    words, _ = embedder.drawn[-1]
    vectors = np.eye(3, 3) + 1
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = [
        (f"{row} · {column}", pytest.approx(unit[i] @ unit[j], abs=0.005))
        for i, row in enumerate(words)
        for j, column in enumerate(words)
    ]
    assert values_of(box) == expected
    assert box.picture.value.count("<b>") == 1  # only the title is bold


def test_colours_are_those_of_the_similarities():
    values = np.random.default_rng(0).uniform(-0.2, 1, size=(3, 5))
    html = heatmap_html(list("abc"), list("vwxyz"), values, "a title")
    png = base64.b64decode(re.search("url[(]data:image/png;base64,(.*?)[)]", html)[1])
    expected = matplotlib.colormaps[SIMILARITY_COLOURS](values.clip(0, 1))
    np.testing.assert_allclose(image.imread(io.BytesIO(png)), expected, atol=1 / 255)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_tooltips_stay_within_the_picture(embedder, n):
    box = SentenceBox(embedder, " ".join("abcde"[:n]))
    sides = re.findall('<i tabindex="-1" class="([a-z]+)', box.picture.value)
    assert sides == [*["left"] * (n // 2), *["right"] * (n - n // 2)] * n


@pytest.mark.parametrize("n", [1, 40, 60, 61, 300])
def test_up_to_60_words_have_a_label_and_some_of_300_have(embedder, n):
    box = SentenceBox(embedder, " ".join(f"w{k}" for k in range(n)))
    labels = re.findall("<bdi>(.*?)</bdi>", box.picture.value)
    shown = labels[: len(labels) // 2]
    assert labels == shown * 2
    assert len(shown) == n if n <= 60 else 30 < len(shown) <= 60
    assert set(shown) <= {f"w{k}" for k in range(n)}


def test_labels_are_text_in_any_script(embedder):
    words = ["河岸", "नमस्ते", "مرحبا", "👩‍👧", "<i>", "Donaudampfschifffahrt"]
    html = SentenceBox(embedder, " ".join(words)).picture.value
    labels = list(map(unescape, re.findall("<bdi>(.*?)</bdi>", html)))
    assert labels == [*words[:-1], "Donaudampfschiff…"] * 2
    assert 'title="Donaudampfschifffahrt"' in html


def test_too_many_cells_have_no_tooltips(embedder):
    n = math.isqrt(MAX_TOOLTIPS)
    box = SentenceBox(embedder, " ".join(["w"] * n))
    assert len(values_of(box)) == n * n
    box.sentence.value = " ".join(["w"] * (n + 1))
    box.wait()
    assert values_of(box) == []
    box.sentence.value = ""
    box.wait()
    assert "There are no words to compare." in box.picture.value


def test_saving_never_overwrites_a_picture(embedder, tmp_path):
    box = SentenceBox(embedder, "a b", folder=tmp_path / "new")
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


def test_two_clicks_in_a_row_save_both_formats(embedder, tmp_path):
    box = SentenceBox(embedder, "a b", folder=tmp_path)
    for button in box.save_buttons:
        button.click()
    box.wait()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"similarities_1.png", "similarities_1.svg"}


def test_unwritable_folder_is_named(embedder, tmp_path):
    (tmp_path / "file").touch()
    box = SentenceBox(embedder, "a b", folder=tmp_path / "file")
    box.save_buttons[0].click()
    box.wait()
    assert str(tmp_path / "file") in box.message.value


def test_nothing_can_be_saved_before_the_first_picture(embedder):
    embedder.error = ElmolibError("no model")
    box = SentenceBox(embedder, "a b")
    with pytest.raises(ElmolibError, match="no picture to save yet"):
        box.save(".png")


def test_box_works_with_a_real_model(tmp_path):
    write_model(tmp_path / "elmo.h5", StoredModel(TINY, random_arrays(TINY), None, Tokenizer()))
    embedder = ElmoEmbedder(tmp_path / "elmo.h5")
    box = SentenceBox(embedder)
    box.sentence.value = "the bank's river"
    box.layer.value = 1
    box.wait()
    expected = embedder.heatmap("the bank's river", layer=1)
    assert len(values_of(box)) == 3 * 3
    cosines = np.asarray(expected.axes[0].collections[0].get_array()).ravel()
    shown = [value for _, value in values_of(box)]
    np.testing.assert_allclose(shown, cosines, atol=0.00501)


def test_requests_during_a_run_are_not_lost():
    runs, allowed, started = [], Event(), Event()

    def work(is_wanted):
        runs.append(len(runs))
        started.set()
        assert allowed.wait(TIMEOUT)

    latest = LatestOnly(work, runs.append)
    latest.request()
    assert started.wait(TIMEOUT)
    latest.request()
    allowed.set()
    latest.wait()
    assert runs == [0, 1]
    latest.request()
    latest.wait()
    assert runs == [0, 1, 2]


def test_only_the_latest_of_many_requests_runs():
    runs, allowed, started = [], Event(), Event()

    def work(is_wanted):
        started.set()
        assert allowed.wait(TIMEOUT)
        runs.append(is_wanted())

    latest = LatestOnly(work, runs.append)
    latest.request()
    assert started.wait(TIMEOUT)
    for _ in range(20):
        latest.request()
    latest.then(lambda: runs.append("other work"))
    latest.then(lambda: 1 / 0)
    allowed.set()
    latest.wait()
    assert runs == [False, True, "other work", "division by zero"]
