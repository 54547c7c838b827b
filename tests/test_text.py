"""Sentences and words, in any script."""

from __future__ import annotations

import unicodedata
import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elmolib.errors import OptionsError
from elmolib.text import Tokenizer, without_tags

LANGUAGES = ("en", "ro", "de", "zh", "ja", "ar", "th", "hi", "xx")

# Half surrogate pairs, joiners, combining marks, spaces of many kinds and ends of sentences.
TRICKY = (
    " \n\r\t\v\x1c\x85\u00a0\u2028\u3000\u0301\u200d\u200b\ufeff\0.!?。؟aB1,'«»中ที่👩🏽\ud800\udc00"
)
any_text = st.text(st.characters(), max_size=200) | st.text(st.sampled_from(TRICKY), max_size=60)


def without_space(text: str) -> str:
    return "".join(text.split())


@given(any_text, st.sampled_from(LANGUAGES), st.booleans())
@example("a \u0301b", "en", False)
@example("\ud800", "en", False)
@example("👩‍👩‍👧 e\u0301 \u200d", "en", True)
def test_words_are_the_text_without_white_space(text, language, tokenized):
    tokenizer = Tokenizer(tokenized=tokenized, language=language, unicode_form=None)
    kept = without_space(
        "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    )
    words = tokenizer.words(text)
    assert "".join(words) == kept
    assert all(word and not any(map(str.isspace, word)) for word in words)
    sentences = tokenizer.sentences(text)
    assert "".join(word for words in sentences for word in words) == kept
    assert all(sentences)


@given(any_text, st.sampled_from(["NFC", "NFKC"]))
def test_words_are_normalised(text, form):
    words = Tokenizer(unicode_form=form).words(text)
    expected = unicodedata.normalize(
        form, text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )
    assert without_space("".join(words)).replace("\ufffd", "") == without_space(expected).replace(
        "\ufffd", ""
    )


@pytest.mark.parametrize(
    ("language", "paragraph", "expected"),
    [
        (
            "en",
            "Dr. Smith paid $3.50 (cash). He didn't mind!",
            ["Dr . Smith paid $ 3.50 ( cash ) .", "He didn't mind !"],
        ),
        ("ro", "Râul curge repede. Ştie oricine?", ["Râul curge repede .", "Ştie oricine ?"]),
        ("zh", "我爱北京。你好！", ["我 爱 北京 。", "你好 ！"]),
        ("ar", "مرحبا بالعالم. كيف حالك؟", ["مرحبا بالعالم .", "كيف حالك ؟"]),
        ("th", "สวัสดีชาวโลก", ["สวัสดี ชาว โลก"]),
        ("en", "   \t ", []),
        ("en", "", []),
    ],
)
def test_a_paragraph_becomes_sentences_of_words(language, paragraph, expected):
    sentences = Tokenizer(language=language).sentences(paragraph)
    assert [" ".join(words) for words in sentences] == expected


def test_an_emoji_with_joiners_is_one_word():
    assert Tokenizer().words("👩‍👩‍👧 👍🏽!") == ["👩‍👩‍👧", "👍🏽", "!"]


def test_tokenised_text_is_only_split_at_white_space():
    tokenizer = Tokenizer(tokenized=True)
    assert tokenizer.sentences(" He did n't . She did .\r") == [
        ["He", "did", "n't", ".", "She", "did", "."]
    ]
    assert tokenizer.sentences(" \r") == []


@pytest.mark.parametrize("tokenized", [True, False])
def test_a_sentence_of_any_length_is_split_alike(tokenized, monkeypatch):
    tokenizer = Tokenizer(tokenized=tokenized)
    text = "The bank,\u2003 it's \u0301steep . 我爱北京\x1c👩‍👩‍👧  end"
    expected = tokenizer.words(text)
    for n in range(1, len(text) + 1):
        monkeypatch.setattr("elmolib.text.PIECES_AT_ONCE", n)
        assert tokenizer.words(text) == expected


def test_words_do_not_begin_new_sentences():
    assert Tokenizer().words("One. Two.") == ["One", ".", "Two", "."]


def test_romanian_cedillas_become_commas_on_request():
    text = "Ştefan ţine şi Ţara"
    assert Tokenizer(romanian_commas=True).words(text) == ["Ștefan", "ține", "și", "Țara"]
    assert Tokenizer().words(text) == text.split()
    apart = unicodedata.normalize("NFD", text)
    assert Tokenizer(romanian_commas=True).words(apart) == ["Ștefan", "ține", "și", "Țara"]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("no markup", "no markup"),
        ("1 < 2 & 3 > 2", "1 < 2 & 3 > 2"),
        ("a<br>b<br/>c", "a b c"),
        ("<b>pep</b>per", "pepper"),
        ("Salt &amp; r&#226;u &lt;", "Salt & râu <"),
        ("<a href='x>y'>link</a>", "link"),
        ("<!-- hidden -->seen", "seen"),
        ("a<script>x < y;</script>b", "a b"),
        ("<p class=p>one</p><p>two</p>", "one two"),
        ("<p class=it's>one</p><!DOCTYPE html>two <?xml a?>three", "one two three"),
        ("<!-- a --> b --> <!-- c <b>d</b>", "b --> <!-- c d"),
        ("a <b c < d <!-- e", "a <b c < d <!-- e"),
        ("a</SCRIPT>b<style media=all>never ended", "a b"),
        ("<script src=x/>seen <b>&am</b>p;", "seen &amp;"),
        ("&#55296; &#x110000; &#" + "9" * 5000 + "; &#0;", "\ufffd \ufffd \ufffd \ufffd"),
    ],
)
def test_html_is_stripped(html, text):
    assert " ".join(without_tags(html).split()) == text
    assert Tokenizer(tokenized=True, strip_html=True).words(html) == text.split()


def test_html_is_kept_unless_it_is_to_go():
    assert Tokenizer(tokenized=True).words("a <br> b &amp; c") == ["a", "<br>", "b", "&amp;", "c"]


@pytest.mark.parametrize(
    "piece",
    ["<p ", "<", "</", "<!--", "<!", "<script>", '<p "', "<p '<q \"", "-->", "&#", "<a>", "&l"],
)
def test_html_that_never_ends_takes_no_longer_than_any(piece):
    """Were it read again from every beginning of a tag, it would take hours."""
    length = len(piece) * 300_000
    assert len(without_tags(piece * 300_000)) <= length
    assert without_tags(piece * 300_000 + " -->\" '> seen").endswith(" seen") == (
        piece != "<script>"
    )


@given(any_text)
def test_any_text_can_be_searched_for_html(text):
    assert "<b>" not in Tokenizer(strip_html=True).clean(text + "<b>")


@given(st.builds(Tokenizer, tokenized=st.booleans(), strip_html=st.booleans()))
def test_settings_survive_json(tokenizer):
    assert Tokenizer.from_json(tokenizer.to_json()) == tokenizer


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tokenized": 1}, "m.h5: tokenized is 1"),
        ({"language": None}, "m.h5: language is None"),
        ({"language": "../en"}, "m.h5: language is '../en'"),
        ({"unicode_form": "NFX"}, "m.h5: unicode_form is 'NFX'"),
        ({"unicode_form": []}, r"m.h5: unicode_form is \[\]"),
        ({"surprise": 1}, "m.h5 must hold exactly the keys"),
    ],
)
def test_impossible_settings_are_refused(change, complaint):
    with pytest.raises(OptionsError, match=complaint):
        Tokenizer.from_json({**Tokenizer().to_json(), **change}, "m.h5")


def test_settings_that_are_no_dictionary_are_refused():
    with pytest.raises(OptionsError, match="tokenizer must hold exactly the keys"):
        Tokenizer.from_json([])


@pytest.mark.shared
def test_human_rights_are_split_in_every_script_without_loss(shared):
    tokenizer = Tokenizer(language="xx", unicode_form=None)
    n_files = 0
    with zipfile.ZipFile(shared / "data" / "multilingual" / "udhr2.zip") as archive:
        for name in archive.namelist()[::8]:
            if name.endswith(".txt"):
                n_files += 1
                text = archive.read(name).decode("utf-8", "replace")[:20_000]
                words = [
                    word
                    for line in text.split("\n")
                    for s in tokenizer.sentences(line)
                    for word in s
                ]
                assert "".join(words) == without_space(text), name
    assert n_files > 40
