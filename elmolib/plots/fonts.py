"""Choose fonts for words of any script, and name the scripts that no installed font can draw."""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager, get_font
from matplotlib.text import Text

USUAL = "DejaVu Sans"  # comes with Matplotlib
LONGEST_LABEL = 16  # the most characters of a word that a label shows
BOX = "\N{WHITE SQUARE}"  # drawn in place of a character that no font has


def write(text: Text, content: str) -> None:
    """Set the content of a Matplotlib text, and the fonts that can draw it."""
    families, _ = families_for(content)
    # Otherwise Matplotlib would read text between dollar signs as mathematics.
    text.set(text=drawable(content, families), parse_math=False, fontfamily=families)


def note_missing_fonts(figure: Figure, contents: Iterable[str]) -> Figure:
    """Write below a figure which scripts in its texts no font can draw. Return the figure."""
    if message := missing_fonts(contents):
        figure.supxlabel(message, fontsize=9)
    return figure


def missing_fonts(contents: Iterable[str]) -> str:
    """Return a sentence that names the scripts that no font can draw, or "" if there are none."""
    _, missing = families_for("".join(contents))
    scripts = ", ".join(sorted({_script_of(character) for character in missing}))
    return scripts and f"No installed font can draw {scripts}: install one such as Noto."


def shortened(word: str) -> str:
    """Cut a word that is too long for a label."""
    return word if len(word) <= LONGEST_LABEL else word[:LONGEST_LABEL] + "\N{HORIZONTAL ELLIPSIS}"


def families_for(text: str) -> tuple[list[str], set[str]]:
    """Return the font families that a text needs, and the characters that no font has."""
    families, missing = [USUAL], {c for c in text if not _is_invisible(c)}
    for family in _families():
        found = {c for c in missing if ord(c) in _characters_of(family)}
        missing -= found
        if found and family != USUAL:
            families.append(family)
        if not missing:
            break
    return families, missing


def drawable(text: str, families: Iterable[str]) -> str:
    """Replace characters that no font has by `BOX`, so that Matplotlib does not warn about them."""
    fonts = [_characters_of(family) for family in families]
    return "".join(
        c if any(ord(c) in font for font in fonts) else "" if _is_invisible(c) else BOX
        for c in text
    )


def _is_invisible(character: str) -> bool:
    """Whether this is a joiner, variation selector, control character or combining mark."""
    return unicodedata.category(character) in ("Cf", "Cc", "Mn")


def _script_of(character: str) -> str:
    """Return the first word of a character's Unicode name, such as CJK or THAI."""
    if unicodedata.category(character)[0] in "SC":
        return "symbols"
    return unicodedata.name(character).split(" ")[0]


@lru_cache(maxsize=1)
def _families() -> tuple[str, ...]:
    """Return all installed families: `USUAL`, then Noto Sans of many scripts, then the others."""
    # The font Last Resort has every character, but draws only the name of the character's script.
    names = {font.name for font in _upright_fonts() if not font.name.startswith("Last Resort")}
    order = sorted(names, key=lambda name: ("Noto Sans" not in name, "CJK" in name, name))
    return (USUAL, *(name for name in order if name != USUAL))


@lru_cache(maxsize=4096)
def _characters_of(family: str) -> frozenset[int]:
    path = next(font.fname for font in _upright_fonts() if font.name == family)
    return frozenset(get_font(path).get_charmap())


def _upright_fonts() -> list[FontEntry]:
    return [f for f in fontManager.ttflist if f.style == "normal" and f.weight in ("normal", 400)]
