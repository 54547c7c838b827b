"""Split text into sentences and words, in any script and without a download."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from html import unescape
from itertools import chain, islice
from typing import Any, Literal, Self

from icu4py.breakers import WordBreaker

from elmolib.errors import OptionsError
from elmolib.settings.base import Language, Settings, Tokenized, key
from elmolib.text.lines import between_marks
from elmolib.text.sentences import split_sentences

# The maximum number of pieces of a sentence in memory at once. Equal words share one string.
PIECES_AT_ONCE = 2**16
_ROMANIAN_COMMAS = str.maketrans("ŞşŢţ", "ȘșȚț")
_UNPAIRED_SURROGATE = re.compile("[\ud800-\udfff]")
# The invisible characters (see `unicode_form`) that touch a word.
_INVISIBLE = "[\xad\u061c\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
_INVISIBLE_IN_WORD = re.compile(_INVISIBLE + r"(?:(?=\S)|(?<=\S.))")


class Tokenizer(Settings):
    """Split text into sentences and words according to these settings.

    A model must read text that is split in the same way as its training text, so its weight file
    contains these settings.

    Args:
        tokenized: if true, each line is one sentence and white space separates its words. With
            "tabs", tabs separate the words, so a word may hold spaces. If false, rules split text.
        language: the code of the language whose rules to use, such as "en", "ro" or "pt-BR". Any
            BCP 47 spelling works. A language without rules gets a warning and the rules of Unicode.
        strip_html: remove HTML tags and decode entities such as `&amp;`. Each line is processed
            on its own, so a tag, comment or script that continues on the next line is not found.
        unicode_form: "NFC", "NFKC", or None to leave the text as it is. Both forms also drop
            invisible characters: soft hyphens, direction marks, word joiners, byte order marks.
        romanian_commas: turn ŞşŢţ with a cedilla into ȘșȚț with a comma below.

    Raises:
        ParameterError: a setting has an unknown name or a wrong type.

    Example:
        >>> Tokenizer().sentences("It's Dr. Brown. He came (late)!")
        [["It's", 'Dr', '.', 'Brown', '.'], ['He', 'came', '(', 'late', ')', '!']]
        >>> Tokenizer(tokenized=True).sentences("Dr. Brown came . Late !")
        [['Dr.', 'Brown', 'came', '.', 'Late', '!']]

    References:
        Words: Unicode Standard Annex 29 and the dictionaries of ICU (package `icu4py`).
        Sentences: the same annex and elmolib's table of abbreviations; for English, the package
        `sentencex` of the Wikimedia Foundation.
    """

    tokenized: Tokenized = False
    language: Language = "en"
    strip_html: bool = key("remove HTML tags", False)
    unicode_form: Literal["NFC", "NFKC"] | None = key("Unicode normal form, or null", "NFC")
    romanian_commas: bool = key("turn Romanian cedillas into commas below", False)

    @classmethod
    def from_json(cls, settings: Any, source: str = "tokenizer") -> Self:
        """Read what `to_json` returned, or raise an OptionsError that begins with `source`."""
        if not isinstance(settings, dict) or set(settings) != set(cls.model_fields):
            names = ", ".join(sorted(cls.model_fields))
            raise OptionsError(f"{source} must have exactly the keys {names}.")
        return super().from_json(settings, source)

    def sentences(self, line: str) -> list[list[str]]:
        """Split a line of text (a paragraph or a sentence) into sentences, each a list of words."""
        return list(self.each_sentence(line))

    def each_sentence(self, line: str, may_have_marks: bool = True) -> Iterator[list[str]]:
        """Yield what `sentences` returns, one sentence at a time."""
        if may_have_marks and "<" in line and len(parts := between_marks(line)) > 1:
            return chain.from_iterable(map(self.each_sentence, parts))
        clean = self.clean(line)
        if self.tokenized:
            return iter([words] if (words := self._split(clean)) else [])
        sentences = split_sentences(clean, self.language)
        return (words for sentence in sentences if (words := self._split(sentence)))

    def words(self, sentence: str) -> list[str]:
        """Split one sentence into words. No word is empty. Words hold spaces only with "tabs".

        Joined together, the words give the cleaned sentence without white space and sentence marks.
        """
        return self._split(self.clean("\t".join(between_marks(sentence))))

    def clean(self, text: str, is_word: bool = False) -> str:
        """Apply the settings that change characters. With `is_word`, HTML is not stripped.

        Unpaired surrogates, which UTF-8 cannot encode, become U+FFFD.
        """
        if self.strip_html and not is_word:
            text = without_tags(text)
        if text.isascii():
            return text
        if not text.isprintable():
            text = _UNPAIRED_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
            if self.unicode_form is not None:
                text = _INVISIBLE_IN_WORD.sub("", text)
        if self.unicode_form is not None:
            text = unicodedata.normalize(self.unicode_form, text)
        return text.translate(_ROMANIAN_COMMAS) if self.romanian_commas else text

    def clean_word(self, word: str) -> str:
        """Clean one word from a list of words. It stays one word."""
        clean = self.clean(word, is_word=True)
        if self.unicode_form is None:
            return clean
        pieces = clean.split()
        # NFKC turns some characters into several words. Such a word is not changed.
        return " ".join(pieces) if 0 < len(pieces) <= len(word.split()) else word

    def _split(self, sentence: str) -> list[str]:
        if not self.tokenized:
            # ICU's dictionaries do not know that a zero width space separates words.
            pieces = WordBreaker(sentence.replace("\u200b", " "), self.language)
            # A piece can be white space, or contain white space before a combining mark.
            is_short = len(sentence) < PIECES_AT_ONCE
            return "\n".join(pieces).split() if is_short else _words_of(pieces)
        if self.tokenized == "tabs":
            return list(filter(None, (" ".join(word.split()) for word in sentence.split("\t"))))
        if len(sentence) < PIECES_AT_ONCE:
            return sentence.split()
        return _words_of(match[0] for match in re.finditer(r"\S+", sentence))


def _words_of(pieces: Iterable[str]) -> list[str]:
    """Remove white space from the pieces of a long sentence."""
    words, known = list[str](), dict[str, str]()
    # Each `islice` would restart ICU's iterator, so wrap the iterator in a generator.
    remaining = (piece for piece in pieces)
    while some := "\n".join(islice(remaining, PIECES_AT_ONCE)):
        words += [known.setdefault(word, word) for word in some.split()]
    return words


_COMMENT = re.compile("<!--.*?-->", re.DOTALL)
_UNSEEN = re.compile(r"<(script|style)\b[^<>]*(?<!/)>.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(
    r"""<(?!(?:unk|pad|[be]os)>)                            # words in published texts, not tags
        (?: [!?](?=[a-z\[])  |  /?([a-z][^\s/<>]*) )        # the tag's name, if it has one
        (?: (?: [^<>"'] | "[^"<]*" | '[^'<]*' )*+ | [^<>]* )>  # a > in quotes does not end it""",
    re.VERBOSE | re.IGNORECASE,
)
# Python cannot convert a number with thousands of digits, and no character has such a number.
_LONG_NUMBER = re.compile(r"&#\d{10,};?", re.ASCII)
_FORMATTING = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "em", "font", "i", "mark"}
    | {"q", "s", "small", "span", "strike", "strong", "sub", "sup", "tt", "u", "wbr"}
)


def without_tags(text: str) -> str:
    """Return the text that a browser would show for one line of HTML, on one line.

    Tags that only format, such as `<b>`, are removed; all other tags become a space. The running
    time is proportional to the length of the line. For this reason, a `<` inside an unfinished tag
    starts a new tag, and a tag or comment without an end is kept as text.
    """
    if "<" not in text and "&" not in text:
        return text
    # Only the text before the last `-->` can hold complete comments.
    commented, end, rest = text.rpartition("-->")
    pieces = _TAG.split(_UNSEEN.sub(" ", _COMMENT.sub("", commented + end) + rest))
    pieces[::2] = [unescape(_LONG_NUMBER.sub("\N{REPLACEMENT CHARACTER}", p)) for p in pieces[::2]]
    pieces[1::2] = ["" if not tag or tag.lower() in _FORMATTING else " " for tag in pieces[1::2]]
    return "".join(pieces).replace("\n", " ")
