"""From text to sentences of words, in any script and without a download."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from html import unescape
from itertools import islice

import sentencex
from icu4py.breakers import WordBreaker

from elmolib.errors import OptionsError

UNICODE_FORMS = ("NFC", "NFKC")

ROMANIAN_COMMAS = str.maketrans("ŞşŢţ", "ȘșȚț")
"""Letters with a cedilla, as old Romanian text has them, and the right ones with a comma below."""

LONE_SURROGATE = re.compile("[\ud800-\udfff]")

PIECES_AT_ONCE = 2**16
"""Pieces of a sentence that are held at once beside its words, each of which is held once."""


@dataclass(frozen=True)
class Tokenizer:
    """The way in which a text becomes sentences of words.

    A model must be asked about words cut as those it has learnt, so its weight file holds these
    settings.

    Args:
        tokenized: each line is one sentence whose words stand between white space, so that nothing
            needs to be found out; otherwise sentences and words are found by rules.
        language: ISO 639 code for the rules, such as `"en"` or `"ro"`. Languages without rules of
            their own are split like a related one.
        strip_html: drop HTML tags and resolve entities such as `&amp;`. Each line stands alone: a
            tag, comment or script that goes on in the next line is not seen as one.
        unicode_form: `"NFC"`, `"NFKC"`, or None for text left as it is.
        romanian_commas: turn ŞşŢţ with a cedilla into ȘșȚț with a comma below.

    Raises:
        OptionsError: a setting has the wrong type or is not one of those above.

    Example:
        >>> Tokenizer().sentences("It's Dr. Brown. He came (late)!")
        [["It's", 'Dr', '.', 'Brown', '.'], ['He', 'came', '(', 'late', ')', '!']]
        >>> Tokenizer(tokenized=True).sentences("Dr. Brown came . Late !")
        [['Dr.', 'Brown', 'came', '.', 'Late', '!']]

    References:
        Words: Unicode Standard Annex 29 with the dictionaries of ICU, from the package `icu4py`.
        Sentences: the package `sentencex` of the Wikimedia Foundation.
    """

    tokenized: bool = False
    language: str = "en"
    strip_html: bool = False
    unicode_form: str | None = "NFC"
    romanian_commas: bool = False

    def __post_init__(self) -> None:
        for name in ("tokenized", "strip_html", "romanian_commas"):
            if not isinstance(getattr(self, name), bool):
                raise OptionsError(f"{name} is {getattr(self, name)!r}, but must be true or false.")
        if not isinstance(self.language, str) or not re.fullmatch(r"[\w-]{2,35}", self.language):
            raise OptionsError(
                f"language is {self.language!r}, but must be a code such as 'en' or 'ro'."
            )
        if self.unicode_form is not None and self.unicode_form not in UNICODE_FORMS:
            raise OptionsError(
                f"unicode_form is {self.unicode_form!r}, but must be null, NFC or NFKC."
            )

    def sentences(self, line: str) -> list[list[str]]:
        """Split a line of a text file.

        Args:
            line: a paragraph, or one sentence of words between white space if `tokenized`.

        Returns:
            The words of each sentence, without empty words and sentences.
        """
        return list(self.each_sentence(line))

    def each_sentence(self, line: str) -> Iterator[list[str]]:
        """Give the sentences of a line as `sentences` does, one by one, however long it is."""
        clean = self.clean(line)
        sentences = [clean] if self.tokenized else sentencex.segment(self.language, clean)
        return (words for sentence in sentences if (words := self._split(sentence)))

    def words(self, sentence: str) -> list[str]:
        """Split one sentence into words.

        Args:
            sentence: any string; nothing in it begins a new sentence.

        Returns:
            Its words, none of them empty or with white space inside. Put together they are the
            sentence after `clean`, without its white space.
        """
        return self._split(self.clean(sentence))

    def clean(self, text: str) -> str:
        """Apply what the settings ask for before text is split.

        Half of a surrogate pair, which no UTF-8 file can hold, becomes U+FFFD.
        """
        if self.strip_html:
            text = without_tags(text)
        if text.isascii():
            return text
        if self.unicode_form is not None:
            text = unicodedata.normalize(self.unicode_form, text)
        if self.romanian_commas:
            text = text.translate(ROMANIAN_COMMAS)
        return LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)

    def _split(self, sentence: str) -> list[str]:
        if self.tokenized:
            if len(sentence) < PIECES_AT_ONCE:
                return sentence.split()
            return _words_of(match[0] for match in re.finditer(r"\S+", sentence))
        return _words_of(WordBreaker(sentence, self.language))

    def to_json(self) -> dict:
        """The settings as a dictionary for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, settings: dict, source: str = "tokenizer") -> Tokenizer:
        """Read what `to_json` gave.

        Args:
            settings: the dictionary.
            source: what to call it in an error, such as the name of its file.

        Raises:
            OptionsError: a setting is missing, unknown or impossible.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(settings, dict) or set(settings) != names:
            raise OptionsError(f"{source} must hold exactly the keys {', '.join(sorted(names))}.")
        try:
            return cls(**settings)
        except OptionsError as error:
            raise OptionsError(f"{source}: {error}") from None


def _words_of(pieces: Iterable[str]) -> list[str]:
    """Take white space out of what a sentence was cut into."""
    words: list[str] = []
    known: dict[str, str] = {}
    # ICU's iterator begins anew whenever it is asked to iterate.
    remaining = (piece for piece in pieces)
    while some := list(islice(remaining, PIECES_AT_ONCE)):
        # A piece that ICU cuts can be white space, or hold some before a combining mark.
        found = "\n".join(some).split()
        if len(some) < PIECES_AT_ONCE and not words:
            return found
        words += [known.setdefault(word, word) for word in found]
    return words


def without_tags(text: str) -> str:
    """Drop the HTML tags, comments, scripts and styles of one line and resolve its entities.

    It takes time in proportion to the line, whatever stands in it. So a `<` ends whatever tag is
    open, quotes or not, and what begins like a tag or comment but never ends is text.

    Args:
        text: a line; one that holds neither `<` nor `&` is given back as it is.

    Returns:
        The text that a browser would show, on one line. Tags between words leave a space, those of
        mere formatting do not.

    Example:
        >>> without_tags("<p>Salt &amp; <b>pep</b>per<br>Oil, 1 < 2</p>").strip()
        'Salt & pepper Oil, 1 < 2'
    """
    if "<" not in text and "&" not in text:
        return text
    # Behind the last end of a comment none is searched for.
    commented, end, rest = text.rpartition("-->")
    pieces = _TAG.split(_UNSEEN.sub(" ", _COMMENT.sub("", commented + end) + rest))
    pieces[::2] = [
        unescape(_ENDLESS_NUMBER.sub("\N{REPLACEMENT CHARACTER}", p)) for p in pieces[::2]
    ]
    pieces[1::2] = ["" if not tag or tag.lower() in _FORMATTING else " " for tag in pieces[1::2]]
    return "".join(pieces).replace("\n", " ")


_COMMENT = re.compile("<!--.*?-->", re.DOTALL)
_UNSEEN = re.compile(r"<(script|style)\b[^<>]*(?<!/)>.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(
    r"""<(?: [!?](?=[a-z\[])  |  /?([a-z][^\s/<>]*) )       # its name, if it has one
        (?: (?: [^<>"'] | "[^"<]*" | '[^'<]*' )*+ | [^<>]* )>  # a > in quotes does not end it""",
    re.VERBOSE | re.IGNORECASE,
)
# Python refuses to read thousands of digits as a number, and no character's has so many.
_ENDLESS_NUMBER = re.compile(r"&#\d{10,};?", re.ASCII)

_FORMATTING = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "em", "font", "i", "mark"}
    | {"q", "s", "small", "span", "strike", "strong", "sub", "sup", "tt", "u", "wbr"}
)
