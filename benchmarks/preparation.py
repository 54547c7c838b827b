"""Speed and memory of preparing a corpus from text files."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from benchmarks.workspace import Workspace
from elmolib.corpus import wikipedia

_COPY = "\x00"
"""Placeholder in a copied text for the number of the copy."""


def measure(workspace: Workspace, megabytes: float, tokenized: bool) -> dict:
    """Measure megabytes prepared per second, and the peak memory of all processes together.

    Args:
        workspace: the workspace, which provides the text.
        megabytes: the size of the text.
        tokenized: use tokenized text; otherwise preparation must also find sentences and words.
    """
    folder = workspace.folder("preparation")
    text, source = folder / "text.txt", workspace.text
    if not tokenized:
        source = folder / "raw.txt"
        source.write_text(wikipedia.excerpt(), encoding="utf-8", newline="\n")
    write_large_text(source, text, int(megabytes * 1e6))
    parameters = workspace.parameters("small") | {
        "text": str(text),
        "tokenized": tokenized,
        "unicode_form": None if tokenized else "NFC",
        "corpus_dir": workspace.new_folder(),
        "run_dir": workspace.new_folder(),
    }
    with workspace.program("ours", "prepare", {"parameters": parameters}) as program:
        answer = program.ask()
    size = text.stat().st_size
    text.unlink()
    speed = size / 1e6 / answer["seconds"]
    return {"tokenized": tokenized, "bytes": size, "megabytes_per_second": speed, **answer}


def write_large_text(source: Path, target: Path, size: int) -> None:
    """Repeat a text until the target has `size` bytes, with new words in every copy.

    Words that occur once get the copy's number as a suffix, because in a real text, unlike in plain
    copies, the number of distinct words grows with the text.
    """
    text = source.read_text(encoding="utf-8")
    counts = Counter(text.split())
    copy = re.sub(
        r"[^\W\d_]{4,}", lambda m: m[0] + _COPY if counts[m[0]] == 1 else m[0], text
    ).replace("<UNK>", f"unknown{_COPY}")
    with target.open("w", encoding="utf-8", newline="\n") as file:
        number = 0
        while file.tell() < size:
            file.write(copy.replace(_COPY, str(number) if number else ""))
            number += 1
