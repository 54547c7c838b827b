"""WikiText-2 as it was prepared for bilm-tf."""

from __future__ import annotations

import zipfile


def wikitext(shared, name: str) -> str:
    """Return a file of WikiText-2 as bilm-tf read it: one sentence per line."""
    with zipfile.ZipFile(shared / "data" / "lm" / "wikitext-2.zip") as archive:
        lines = archive.read(f"wikitext-2/wiki.{name}.tokens").decode().split("\n")
    sentences = []
    for line in lines:
        line = line.strip(" ")
        if line and not (line.startswith("= ") and line.endswith(" =")):
            parts = line.split(" . ")
            sentences += [f"{part} ." for part in parts[:-1]] + parts[-1:]
    words = [[w.replace("<unk>", "<UNK>") for w in s.split(" ") if w] for s in sentences]
    return "".join(" ".join(sentence) + "\n" for sentence in words if sentence)
