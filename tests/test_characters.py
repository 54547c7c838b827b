"""Character ids of words, compared with two reference implementations and the published rule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import words_of

from elmolib.errors import OptionsError
from elmolib.text.characters import (
    PREDICTION_SHIFT,
    character_ids,
    character_ids_of_bytes,
)

REFERENCE = Path(__file__).parents[1].parent / "shared" / "reference" / "char_ids.json"


@pytest.mark.shared
def test_reference_tokens_have_the_ids_of_bilm_tf_and_allennlp():
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    tokens = [entry["token"] for entry in reference["tokens"]]
    expected = [entry["ids"] for entry in reference["tokens"]]
    assert len(tokens) > 70
    ids = character_ids(tokens, reference["max_characters_per_token"]) + PREDICTION_SHIFT
    np.testing.assert_array_equal(ids, expected)
    marks = character_ids(["<S>", "</S>"]) + PREDICTION_SHIFT
    np.testing.assert_array_equal(marks, [reference["bos"], reference["eos"]])


@pytest.mark.shared
def test_the_reference_batch_is_reproduced_with_whole_rows_of_padding():
    batch = json.loads(REFERENCE.read_text(encoding="utf-8"))["batch_example"]
    expected = np.array(batch["ids_with_bos_eos"])
    ids = np.zeros(expected.shape, dtype=int)
    for row, sentence in enumerate(batch["sentences"]):
        words = ["<S>", *sentence, "</S>"]
        ids[row, : len(words)] = character_ids(words) + PREDICTION_SHIFT
    np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("", [258, 259, 260, 260, 260, 260]),
        ("a", [258, 97, 259, 260, 260, 260]),
        ("ab", [258, 97, 98, 259, 260, 260]),
        ("abcd", [258, 97, 98, 99, 100, 259]),
        ("abcdefgh", [258, 97, 98, 99, 100, 259]),
        ("aaa€", [258, 97, 97, 97, 0xE2, 259]),
        ("\ud800a", [258, 97, 259, 260, 260, 260]),
        ("<S>", [258, 256, 259, 260, 260, 260]),
        ("</S>", [258, 257, 259, 260, 260, 260]),
        ("<S>x", [258, 60, 83, 62, 120, 259]),
        ("</S>x", [258, 60, 47, 83, 62, 259]),
        ("\0", [258, 0, 259, 260, 260, 260]),
    ],
)
def test_words_are_bytes_between_marks(word, expected):
    ids = character_ids(["other", word, "<S>"], max_characters=6)
    assert ids.dtype == np.int16
    assert ids[1].tolist() == expected


def test_the_sentence_marks_fit_the_narrowest_width():
    assert character_ids(["<S>", "</S>", "xy"], 3).tolist() == [
        [258, 256, 259],
        [258, 257, 259],
        [258, 120, 259],
    ]


def test_no_words_give_an_empty_array_of_full_width():
    assert character_ids([], 50).shape == (0, 50)


def test_a_width_without_room_for_a_character_is_refused():
    with pytest.raises(OptionsError, match="max_characters is 2"):
        character_ids(["a"], max_characters=2)


def ids_by_rule(word: str, width: int) -> list[int]:
    """Compute the character ids of one word by the published rule."""
    marks = {"<S>": [256], "</S>": [257]}
    inner = marks.get(word, list(word.encode("utf-8", "ignore"))[: width - 2])
    return ([258, *inner, 259] + [260] * width)[:width]


any_words = st.lists(st.text(st.characters(), max_size=70) | st.sampled_from(["<S>", "</S>"]))


@given(any_words, st.integers(3, 60))
def test_many_words_at_once_have_the_ids_of_one_at_a_time(words, width):
    assert character_ids(words, width).tolist() == [ids_by_rule(word, width) for word in words]


@given(st.lists(st.text(min_size=1, max_size=12)), st.randoms())
def test_words_in_any_order_are_read_from_one_array(words, random):
    encoded = [word.encode() for word in words]
    text = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    lengths = np.array([len(word) for word in encoded], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    order = random.sample(range(len(words)), len(words))
    ids = character_ids_of_bytes(text, starts[order], lengths[order], 50)
    np.testing.assert_array_equal(ids, character_ids([words[number] for number in order]))


@given(st.lists(st.text(max_size=12)))
def test_words_are_recovered_from_their_ids(words):
    assert words_of(character_ids(words, 50)) == words
