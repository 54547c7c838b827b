"""Words of any script in a picture: fonts that have them, and boxes where no font has."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

LONGEST_LABEL = 16
"""Columns of a word that a picture shows; of a longer word it shows the beginning."""

BOX = "\N{WHITE SQUARE}"
"""Stands for a character that no font can draw."""


def write(text: Text, content: str) -> set[str]:
    """Write any words into a text of a figure; return the scripts that could not be."""
    families, undrawn = families_for(content)
    # Dollar signs are only dollar signs.
    text.set(text=drawable(content, families), parse_math=False, fontfamily=families)
    return {script_of(character) for character in undrawn}


def shortened(word: str) -> str:
    """Cut a word that is too long for a picture."""
    columns = 0
    for end, character in enumerate(word):
        columns += width_in_columns(character)
        if columns > LONGEST_LABEL:
            return word[:end] + "\N{HORIZONTAL ELLIPSIS}"
    return word


def width_in_columns(text: str) -> int:
    """How wide a text is, Chinese characters counting twice and marks above letters nothing."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def drawable(text: str, families: Sequence[str]) -> str:
    """Put boxes for what no font can draw; left as it is, each would raise a warning."""
    drawn = frozenset().union(*map(_characters_of, families))
    return "".join(
        character if ord(character) in drawn else "" if _is_invisible(character) else BOX
        for character in text
    )


def families_for(text: str) -> tuple[list[str], set[str]]:
    """Choose fonts that together can draw a text.

    Returns:
        names of font families, the usual one first, and the characters that none can draw.
    """
    families = [_usual_family()]
    missing = {
        c for c in text if not _is_invisible(c) and ord(c) not in _characters_of(families[0])
    }
    for family in _other_families() if missing else ():
        found = {c for c in missing if ord(c) in _characters_of(family)}
        if found:
            families.append(family)
            missing -= found
        if not missing:
            break
    return families, missing


def _is_invisible(character: str) -> bool:
    # Joiners, variation selectors and control characters have no shape of their own.
    return unicodedata.category(character) in ("Cf", "Cc", "Mn")


def script_of(character: str) -> str:
    """Name a character's script by the first word of its Unicode name, as in CJK or THAI."""
    if unicodedata.category(character)[0] in "SC":
        return "symbols"
    return unicodedata.name(character).split(" ")[0]


@lru_cache(maxsize=1)
def _usual_family() -> str:
    return get_font(findfont(FontProperties())).family_name


@lru_cache(maxsize=1)
def _other_families() -> tuple[str, ...]:
    """All families that might help out, those made for many scripts first."""
    # Last Resort draws the name of the script in place of every character there is.
    names = {font.name for font in _upright_fonts() if not font.name.startswith("Last Resort")}
    return tuple(sorted(names, key=lambda name: ("Noto Sans" not in name, "CJK" in name, name)))


@lru_cache(maxsize=4096)
def _characters_of(family: str) -> frozenset[int]:
    path = next(font.fname for font in _upright_fonts() if font.name == family)
    return frozenset(get_font(path).get_charmap())


def _upright_fonts() -> list[FontEntry]:
    return [f for f in fontManager.ttflist if f.style == "normal" and f.weight in ("normal", 400)]
