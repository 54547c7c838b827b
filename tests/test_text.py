"""Sentences and words, in any script."""

from __future__ import annotations

import unicodedata
import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elmolib.errors import OptionsError
from elmolib.text.lines import count_marks, warn_of_marks
from elmolib.text.tokenizer import Tokenizer, without_tags

LANGUAGES = ("en", "ro", "de", "zh", "ja", "ar", "th", "hi", "xx")

# Unpaired surrogates, joiners, combining marks, spaces of many kinds, and sentence ends.
TRICKY = (
    " \n\r\t\v\x1c\x85\u00a0\u2028\u3000\u0301\u200d\u200b\ufeff\0.!?。؟aB1,'«»中ที่👩🏽\ud800\udc00"
)
# A soft hyphen, direction marks, word joiners and byte order marks.
UNSEEN = "\xad\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
any_text = st.text(st.characters(), max_size=200) | st.text(st.sampled_from(TRICKY), max_size=60)
# Hypothesis also tries strings that it finds in the code, such as "<S>", which `words` drops.
any_text = any_text.filter(lambda text: count_marks([text]) == 0)


def without_space(text: str) -> str:
    return "".join(text.split())


@pytest.mark.filterwarnings("ignore:There are no rules for sentences")
@given(any_text, st.sampled_from(LANGUAGES), st.booleans())
@example("a \u0301b", "en", False)
@example("\ud800", "en", False)
@example("👩‍👩‍👧 e\u0301 \u200d", "en", True)
def test_words_are_the_text_without_white_space(text, language, tokenized):
    tokenizer = Tokenizer(tokenized=tokenized, language=language, unicode_form=None)
    text = text if tokenized else text.replace("\u200b", " ")  # an invisible space
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
    dropped = str.maketrans("\u200b", " ", UNSEEN + "\ufffd")
    words = "".join(Tokenizer(unicode_form=form).words(text)).translate(dropped)
    seen = text.encode("utf-8", "ignore").decode().translate(dropped)
    assert without_space(words) == without_space(unicodedata.normalize(form, seen))


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
        monkeypatch.setattr("elmolib.text.tokenizer.PIECES_AT_ONCE", n)
        assert tokenizer.words(text) == expected


def test_words_ignores_sentence_boundaries():
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


def test_html_is_kept_by_default():
    assert Tokenizer(tokenized=True).words("a <br> b &amp; c") == ["a", "<br>", "b", "&amp;", "c"]


@pytest.mark.parametrize(
    "piece",
    ["<p ", "<", "</", "<!--", "<!", "<script>", '<p "', "<p '<q \"", "-->", "&#", "<a>", "&l"],
)
def test_unterminated_html_takes_no_longer_than_other_text(piece):
    """The time must not be quadratic: reading to the line's end for each "<" would take hours."""
    length = len(piece) * 300_000
    assert len(without_tags(piece * 300_000)) <= length
    assert without_tags(piece * 300_000 + " -->\" '> seen").endswith(" seen") == (
        piece != "<script>"
    )


PUBLISHED = "the <unk> of <UNK> and <pad>"


def test_words_of_published_texts_are_no_tags():
    tokenizer = Tokenizer(tokenized=True, strip_html=True)
    assert tokenizer.words(f"<p>{PUBLISHED}</p> <unknown> a<br>b") == [*PUBLISHED.split(), "a", "b"]


# --- Sentence marks


@pytest.mark.parametrize("strip_html", [False, True])
@pytest.mark.parametrize("tokenized", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        "<S> the river </S>",
        "<s> the river </s>",
        "<s>the river</s>",
        " <s>\tthe river  </s> ",
        "the river </s>",
        "<bos> the river <EOS>",
    ],
)
def test_marks_of_a_sentence_are_no_words(line, tokenized, strip_html):
    tokenizer = Tokenizer(tokenized=tokenized, strip_html=strip_html)
    assert tokenizer.words(line) == ["the", "river"]
    assert tokenizer.sentences(line) == [["the", "river"]]


def test_marks_within_a_line_separate_sentences():
    line = "<s> a river </s> <s> banks </s>"
    assert Tokenizer(tokenized=True).sentences(line) == [["a", "river"], ["banks"]]
    assert count_marks([line, "a<s> 1 < 2 <strong>", "</S>"]) == 5
    with pytest.warns(UserWarning, match=r"text.txt: dropped 5 sentence marks such as <s>"):
        warn_of_marks(5, "text.txt")


# --- Words in lists


@given(any_text, st.booleans(), st.sampled_from(["NFC", "NFKC"]))
def test_a_word_of_a_list_is_the_word_of_a_text(text, commas, form):
    tokenizer = Tokenizer(tokenized=True, unicode_form=form, romanian_commas=commas)
    words = tokenizer.words(text)
    assert [tokenizer.clean_word(word) for word in words] == words
    for word in text.split():
        split = tokenizer.words(word)
        assert tokenizer.clean_word(word) == (split[0] if len(split) == 1 else word)


def test_a_word_of_a_list_stays_one_word():
    tokenizer = Tokenizer(unicode_form="NFKC", romanian_commas=True, strip_html=True)
    given_words = [
        "S\u0327i",
        " ti",
        "\ufeffThe",
        "Do\xadnau",
        "\xad",
        "<b>",
        "New York",
        "ﬁ",
        "ﷺ",
        "\u200f",
    ]
    expected = ["Și", "ti", "The", "Donau", "\xad", "<b>", "New York", "fi", "ﷺ", "\u200f"]
    assert list(map(tokenizer.clean_word, given_words)) == expected


def test_without_a_unicode_form_words_stay_as_they_are():
    words = ["S\u0327i", " ti ", "\ufeffThe", "Do\xadnau", "a\tb"]
    as_published = Tokenizer(tokenized=True, unicode_form=None)
    assert list(map(as_published.clean_word, words)) == words


def test_what_nobody_sees_is_dropped_from_words():
    text = "The\ufeff Do\xadnau \u200fشارع\u200f \u2060a\ufeffb\u2060"
    expected = ["The", "Donau", "شارع", "ab"]
    for tokenized in (False, True):
        assert Tokenizer(tokenized=tokenized).words(text) == expected
    # Joiners and non-joiners are kept, because they change how words look.
    assert Tokenizer(tokenized=True).words("می\u200cروم 👩\u200d🦰") == [
        "می\u200cروم",
        "👩\u200d🦰",
    ]
    # An invisible character that is a word by itself, as in WikiText, is kept.
    assert Tokenizer(tokenized=True).words("W \ufeff / 51") == ["W", "\ufeff", "/", "51"]


def test_a_zero_width_space_separates_words():
    assert Tokenizer(language="km").words("ខ្ញុំ\u200bទៅ\u200bផ្សារ") == ["ខ្ញុំ", "ទៅ", "ផ្សារ"]


def test_words_between_tabs_may_hold_spaces():
    tokenizer = Tokenizer(tokenized="tabs")
    assert tokenizer.sentences("Hà  Nội\tlà\t\t thủ đô \t.") == [["Hà Nội", "là", "thủ đô", "."]]
    assert tokenizer.words("<s>\tHà Nội\t</s>") == ["Hà Nội"]
    assert tokenizer.clean_word("Hà  Nô\u0323i") == "Hà Nội"
    assert Tokenizer.from_json(tokenizer.to_json()) == tokenizer


@given(any_text)
def test_any_text_can_be_searched_for_html(text):
    assert "<b>" not in Tokenizer(strip_html=True).clean(text + "<b>")


@given(st.builds(Tokenizer, tokenized=st.booleans(), strip_html=st.booleans()))
def test_settings_survive_json(tokenizer):
    assert Tokenizer.from_json(tokenizer.to_json()) == tokenizer


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tokenized": 1}, "m.h5: tokenized must be true or false or tabs, not 1"),
        ({"language": None}, "m.h5: language must be a language code such as en, not null"),
        ({"language": "../en"}, "m.h5: language must be a language code such as en, not '../en'"),
        ({"unicode_form": "NFX"}, "m.h5: unicode_form must be NFC or NFKC or null, not 'NFX'"),
        ({"unicode_form": []}, r"m.h5: unicode_form must be NFC or NFKC or null, not \[\]"),
        ({"surprise": 1}, "m.h5 must have exactly the keys"),
    ],
)
def test_invalid_settings_are_refused(change, complaint):
    with pytest.raises(OptionsError, match=complaint):
        Tokenizer.from_json({**Tokenizer().to_json(), **change}, "m.h5")


def test_settings_must_be_a_dictionary():
    with pytest.raises(OptionsError, match="tokenizer must have exactly the keys"):
        Tokenizer.from_json([])


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore:There are no rules for sentences")
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
