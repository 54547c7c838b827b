"""Split text into sentences with the rules of ICU or sentencex and a table of abbreviations."""

import re
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import sentencex
from icu4py.breakers import SentenceBreaker

MAX_PIECE = 2**12  # maximum characters per call of sentencex, whose time may grow quadratically

_ONE_SENTENCE = re.compile(r"[\w ,:()\-–—'\"«»„“”‚‘’，、：；（）]*+.?\s*")
_NUMBERED = re.compile(r"\W*(?:\w|\d+(?:\.\d+)*)\.")
_BEFORE_WORDS = "([{\"'“”„«‘‚’-–—"
_JOINED = re.compile("[-'’]")  # as in Bahnhof-Str. and l'avv.
_OPENING = "「『《〈（【〔“‘"
# ICU does not end a sentence at a Tibetan mark or before the dash of the next speaker. So replace
# the mark by a Khmer mark, and the dash by an asterisk: then ICU ends sentences there.
_TIBETAN, _KHMER = "།༎༑༔", "។"
_SPEAKER = re.compile(r"[—–-](?<=[.!?…]\s.)(?=\s?\w)")


def split_sentences(text: str, language: str) -> Iterable[str]:
    """Split a line of text into sentences. Joined together, they give the line again.

    The package sentencex splits English; ICU splits all other languages. The running time is
    proportional to the length of the line.
    """
    rules = rules_for(language)
    if rules != "en":
        return _by_icu(text, rules)
    return sentencex.segment("en", text) if len(text) <= MAX_PIECE else _by_sentencex(text)


@cache
def rules_for(language: str) -> str:
    """Return the language whose rules to use. If there is none, warn once and return "*"."""
    if language in _abbreviations():
        return language
    import langcodes  # this import is here, because it takes long

    # For example, arb and pes have the rules of their macrolanguages, ar and fa.
    for code in (language, langcodes.standardize_tag(language, macro=True)):
        if (name := langcodes.get(code).language) in _abbreviations():
            return name
    problem = f"There are no rules for sentences in the language {language!r}"
    effect = "so elmolib uses the rules of Unicode for all languages"
    warnings.warn(f"{problem}, {effect}.", stacklevel=2)
    return "*"


@cache
def _abbreviations() -> dict[str, set[str]]:
    """Read each language's abbreviations: a full stop after them does not end a sentence."""
    lines = Path(__file__).with_name("abbreviations.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.partition(":") for line in lines if not line.startswith("#")]
    common = set(rows[0][2].split())
    return {name: common.union(words.split()) for names, _, words in rows for name in names.split()}


def _by_icu(text: str, rules: str) -> Iterator[str]:
    if _ONE_SENTENCE.fullmatch(text):  # this test takes less time than ICU
        yield text
        return
    start, abbreviations = 0, _abbreviations()[rules]
    visible = _SPEAKER.sub("*", text)
    for mark in _TIBETAN:
        visible = visible.replace(mark, _KHMER)
    # ICU has special sentence rules only for Greek, and general rules for all other languages.
    for first, end in SentenceBreaker(visible, "el" if rules == "el" else "und").segments():
        if end < len(text):
            following, last = text[end], text[end - 1]
            if following in "—–-":
                following = text[end + 1 : end + 3].lstrip()[:1]
            # A Korean letter right after a closing quote is a particle of the same sentence.
            if following.islower() or (last in "\"'”’" and "가" <= following <= "힣"):
                continue
            ended = text[first if end - first < 40 else end - 40 : end].rstrip()
            if ended[-1:] == "." and (
                _is_abbreviation(ended[:-1], abbreviations)
                or (start == first and len(ended) < 20 and _NUMBERED.fullmatch(ended))
            ):
                continue
            # After a Chinese full stop, ICU mistakes an opening bracket for a closing one.
            if last in _OPENING and (closed := ended.rstrip(_OPENING)).endswith(("。", "！", "？")):
                end -= len(ended) - len(closed)
        yield text[start:end]
        start = end


def _is_abbreviation(before: str, abbreviations: set[str]) -> bool:
    """Whether a text ends in an abbreviation; if so, a full stop after it ends no sentence."""
    word = (before.rsplit(None, 1) or [""])[-1].lstrip(_BEFORE_WORDS)
    lower = word.lower()
    if lower in abbreviations or _JOINED.split(lower)[-1] in abbreviations:
        return True
    is_number = len(word) < 3 and word.isdigit() and "1" in abbreviations
    return is_number or (len(word) == 1 and word.isupper())


def _by_sentencex(text: str) -> Iterator[str]:
    """Split English text piece by piece. Each piece ends where ICU finds a sentence end."""
    piece = ""
    for sentence in _by_icu(text, "en"):
        if piece and len(piece) + len(sentence) > MAX_PIECE:
            yield from sentencex.segment("en", piece)
            piece = ""
        if len(sentence) > MAX_PIECE:
            yield sentence
        else:
            piece += sentence
    yield from sentencex.segment("en", piece)
