"""The sentence box, as a browser would use it but without one."""

from __future__ import annotations

from threading import Event, current_thread

import numpy as np
import pytest
from small_models import TINY, random_arrays

from elmolib import plots
from elmolib.elmo import ElmoEmbedder
from elmolib.errors import ElmolibError
from elmolib.text import Tokenizer
from elmolib.weights import write_model
from elmolib.widgets import MOST_WORDS, Latest, sentence_box

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

    def heatmap(self, words, layer):
        self.drawn.append((words, layer))
        self.threads.append(current_thread().name)
        self.started.set()
        assert self.go.wait(ENOUGH)
        if self.error is not None:
            raise self.error
        return plots.heatmap(words, np.eye(len(words), 3) + 1)


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


def test_a_real_model_answers(tmp_path):
    write_model(tmp_path / "elmo.h5", TINY, random_arrays(TINY), None, Tokenizer())
    embedder = ElmoEmbedder(tmp_path / "elmo.h5")
    box = sentence_box(embedder)
    box.sentence.value = "the bank's river"
    box.layer.value = 1
    box.wait()
    expected = embedder.heatmap("the bank's river", layer=1)
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
