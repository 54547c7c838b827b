"""Tables about a prepared corpus, compared with counts made by hand."""

from __future__ import annotations

from collections import Counter

import pytest
from small_corpus import made_up_sentences, small_parameters

from elmolib import plots
from elmolib.corpus.overview import character_counts, first_sentences, left_out_table
from elmolib.corpus.prepare import prepare_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    lines = ["", *made_up_sentences(150), " ", "an extraordinarily long word"]
    (folder / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return prepare_corpus(small_parameters(folder, heldout_fraction=0.1))


def test_first_sentences_are_those_of_the_text(tmp_path):
    parameters = small_parameters(tmp_path, heldout_fraction=None)
    shown = first_sentences(prepare_corpus(parameters), n=3)
    assert shown.splitlines() == made_up_sentences(150)[:3]


def test_left_out_table_by_hand(corpus):
    table = left_out_table(corpus, max_characters=12)
    words = Counter(word for line in made_up_sentences(150) for word in line.split())
    words += Counter(["an", "extraordinarily", "long", "word"])
    assert table.loc["lines without a word", ["how many", "of"]].tolist() == [2, 153]
    held_out = table.loc["held-out sentences"]
    assert held_out["how many"] == corpus.heldout.n_sentences
    assert held_out["of"] == 151
    assert held_out["share"] == pytest.approx(corpus.heldout.n_sentences / 151)
    too_long = [word for word in words if len(word.encode()) > 10]
    assert table.loc["distinct words that are truncated", "how many"] == len(too_long) > 0
    without = table.loc["distinct words outside the vocabulary"]
    assert without["of"] == len(words)
    assert without["how many"] == len([w for w in words if w not in corpus.vocabulary])


def test_characters_are_counted(tmp_path):
    corpus = prepare_corpus(small_parameters(tmp_path, heldout_fraction=None))
    expected = Counter("".join(made_up_sentences(150)).replace(" ", ""))
    assert character_counts(corpus).to_dict() == expected
    assert list(character_counts(corpus)) == sorted(expected.values(), reverse=True)
    assert len(plots.characters(character_counts(corpus)).axes[0].patches) == len(expected)


def test_the_character_chart_has_a_bar_per_character_and_mentions_the_rest():
    (axes,) = plots.characters({"a": 50, "B": 25, "7": 10, ".": 10, "河": 3, "z": 2}, n=5).axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.5, 0.25, 0.1, 0.1, 0.03])
    assert len({bar.get_facecolor() for bar in axes.patches}) == 5
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[-1] == "1 more characters: 2.0% of the text"
    assert "small letters" in legend
    assert plots.characters({}).axes[0].texts[0].get_text() == "There are no characters to count."


def test_the_zipf_chart_finds_the_exponent():
    (axes,) = plots.zipf([round(1e6 / rank**1.3) for rank in range(1, 2000)]).axes
    label = axes.get_legend().get_texts()[0].get_text()
    assert label == "this text: about 1 / rank^1.30"
