"""From text files to a prepared corpus: speed and memory."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from benchmarks.program import Program
from benchmarks.setting import Setting
from elmolib import wikipedia

PLACE = "\x00"
"""Stands in the text where the number of the copy goes."""


def measure(setting: Setting, megabytes: int, tokenized: bool) -> dict:
    """Measure MB/s and the memory of all processes together.

    Args:
        setting: where the text is.
        megabytes: how much text.
        tokenized: whether it is; otherwise sentences and words are to be found.
    """
    folder = setting.folder("preparation")
    text = folder / "text.txt"
    raw = folder / "raw.txt"
    if tokenized:
        source = setting.text
    else:
        source = raw
        wikipedia.write_text(raw)
    write_large_text(source, text, int(megabytes * 1e6))
    parameters = setting.recipe("small") | {
        "text": str(text),
        "tokenized": tokenized,
        "unicode_form": None if tokenized else "NFC",
        "corpus_dir": setting.new_folder(),
        "run_dir": setting.new_folder(),
    }
    with Program("ours", "prepare", {"parameters": parameters}, folder) as program:
        answer = program.ask()
    size = text.stat().st_size
    text.unlink()
    return {
        "tokenized": tokenized,
        "bytes": size,
        "megabytes_per_second": size / 1e6 / answer["seconds"],
        **answer,
    }


def write_large_text(source: Path, target: Path, size: int) -> None:
    """Copy a text over and over until it is large, with new words in every copy.

    Words that are rare get the number of the copy, for a text that only repeats itself would have
    a lexicon that stops growing.
    """
    text = source.read_text(encoding="utf-8")
    counts = Counter(text.split())
    copy = re.sub(
        r"[^\W\d_]{4,}", lambda m: m[0] + PLACE if counts[m[0]] == 1 else m[0], text
    ).replace("<UNK>", f"unknown{PLACE}")
    with target.open("w", encoding="utf-8", newline="\n") as stream:
        number = 0
        while stream.tell() < size:
            stream.write(copy.replace(PLACE, str(number) if number else ""))
            number += 1
