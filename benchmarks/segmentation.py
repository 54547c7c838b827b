"""Measure how well and how fast elmolib, and sentencex alone, split text into sentences.

    python -m benchmarks.segmentation DATA --page docs/sentences.md

`DATA` holds treebanks of Universal Dependencies (`**/xx_*.conllu.gz`) and texts in many languages
(`**/udhr2.zip` of NLTK). The tables are printed. With `--page PAGE`, the tables also replace the
text between the lines `<!-- tables -->` and `<!-- end of tables -->` in the file PAGE.
"""

from __future__ import annotations

import argparse
import gzip
import re
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import sentencex

from elmolib.files import atomic_write
from elmolib.text.lines import split_lines
from elmolib.text.sentences import split_sentences
from elmolib.text.tokenizer import Tokenizer

SENTENCES_PER_LINE = 10
UDHR = """
eng deu fra spa ita por_PT ron cat nld dan nob swe fin ces slk pol rus ukr bul hun tur ell arb heb
hin ind vie tha khm bod mya cmn_hans jpn kor
"""
LONG_LINES = {
    "en": "He came yesterday. What do you say? ",
    "zh": "他昨天来了，可是我没有看见他。你说什么呢？",
    "ja": "彼は昨日来たが、私は会わなかった。何だって？",
    "ro": "El a zis: „Da, vin.” Apoi a plecat. ",
    "fr": "Il est venu « hier. ",
}
WITHOUT_SPACES = ("zh", "ja")

Splitter = Callable[[str], Iterable[str]]


def main() -> None:
    """Run the command; see the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--page", type=Path, help="the page in which tables are replaced")
    given = parser.parse_args()
    tables = "\n".join([*quality(given.data), "", *speed(given.data), "", *growth()])
    print(tables)
    if given.page:
        page = re.sub(
            "(?s)(?<=<!-- tables -->\n).*(?=<!-- end of tables -->)",
            lambda _: f"\n{tables}\n\n",
            given.page.read_text(encoding="utf-8"),
        )
        with atomic_write(given.page) as unfinished:
            unfinished.write_text(page, encoding="utf-8")


def treebanks(data: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the name, the language and the sentences of each treebank."""
    for path in sorted(data.glob("**/*-ud-*.conllu.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            sentences = [line[9:].strip() for line in lines if line.startswith("# text = ")]
        yield path.name.removesuffix(".conllu.gz"), path.name.split("_")[0], sentences


def f1_of_ends(split: Splitter, language: str, sentences: list[str]) -> float:
    """Return the F1 of the sentence ends that a program finds in lines of ten treebank sentences.

    The end of a line is not counted, because every program finds it.
    """
    counts = [0, 0, 0]
    for line, gold in _lines(language, sentences):
        found, expected = _ends(split(line)), _ends(gold)
        for k, ends in enumerate((found & expected, found, expected)):
            counts[k] += len(ends)
    return 2 * counts[0] / (counts[1] + counts[2])


def _lines(language: str, sentences: list[str]) -> Iterator[tuple[str, list[str]]]:
    space = "" if language in WITHOUT_SPACES else " "
    for first in range(0, len(sentences), SENTENCES_PER_LINE):
        gold = sentences[first : first + SENTENCES_PER_LINE]
        yield space.join(gold), gold


def _ends(sentences: Iterable[str]) -> set[int]:
    """Return the ends of all sentences but the last, counted in characters except white space."""
    ends, length = set(), 0
    for sentence in sentences:
        length += len("".join(sentence.split()))
        ends.add(length)
    return ends - {length}


def megabytes_per_second(split: Splitter, lines: list[str], seconds: float = 0.3) -> float:
    """Measure the speed of the fastest of several passes over the lines."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        for line in lines:
            for _ in split(line):
                pass
        best = min(best, time.perf_counter() - start)
    return len("\n".join(lines).encode()) / 1e6 / best


def quality(data: Path) -> Iterator[str]:
    """Yield the lines of the table of F1 by treebank."""
    yield "| treebank | sentences | sentencex | elmolib |"
    yield "|---|---:|---:|---:|"
    for name, language, sentences in treebanks(data):
        programs = partial(sentencex.segment, language), partial(split_sentences, language=language)
        f1 = (f"{100 * f1_of_ends(program, language, sentences):.1f}" for program in programs)
        yield f"| {name} | {len(sentences):,} | {' | '.join(f1)} |"


def speed(data: Path) -> Iterator[str]:
    """Yield the lines of the table of speeds on the Universal Declaration of Human Rights."""
    yield "| language | sentencex, MB/s | elmolib, MB/s | elmolib, relative to English |"
    yield "|---|---:|---:|---:|"
    english = 0.0
    with zipfile.ZipFile(next(data.glob("**/udhr2.zip"))) as archive:
        for name in UDHR.split():
            if (file := f"udhr2/{name}.txt") not in archive.namelist():
                continue
            language = Tokenizer(language=name[:3]).language
            text = archive.read(file).decode()
            lines = [line for line in split_lines(text) if line.strip()]
            before = megabytes_per_second(partial(sentencex.segment, language), lines)
            now = megabytes_per_second(partial(split_sentences, language=language), lines)
            english = english or now
            yield f"| {language} | {before:.3g} | {now:.3g} | {now / english:.2f} |"


def growth() -> Iterator[str]:
    """Yield the lines of the table of seconds for a single long line."""
    yield "| one line | 1 million characters, s | 10 million characters, s |"
    yield "|---|---:|---:|"
    for language, piece in LONG_LINES.items():
        seconds = []
        for length in (10**6, 10**7):
            line = (piece * (length // len(piece) + 1))[:length]
            start = time.perf_counter()
            for _ in split_sentences(line, language):
                pass
            seconds.append(f"{time.perf_counter() - start:.2f}")
        yield f"| {language}: {piece.strip()} | {' | '.join(seconds)} |"


if __name__ == "__main__":
    main()
