"""Build the text of `en-tiny`: 22 million words, separated by spaces, of freely licensed English.

    python -m recipes.open_english --data DOWNLOADS --output data/open-english

Sources, all free to reuse: two collections of Project Gutenberg books (public domain), twelve
OpenStax textbooks (CC BY 4.0), the training part of WikiText-2 and an excerpt of Wikipedia (CC
BY-SA 3.0). Each source becomes `<source>.train.txt` and `<source>.heldout.txt`, one paragraph per
line. `sources.json` in the same folder says how many lines were kept, held out and dropped.

A paragraph is dropped if it has fewer than four words, or shares 13 words in a row with a text
that models are evaluated on (the measure of overlap of Brown et al. 2020, arXiv:2005.14165,
appendix C). A sentence of WikiText-2 is dropped if it contains `<unk>`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from elmolib.files import atomic_write

SOURCES = {
    "gutenberg-core": "lm/gutenberg-en-core.zip",
    "gutenberg-extra": "lm/gutenberg-en-extra.zip",
    "openstax": "lm/openstax-en.zip",
    "wikitext-2": "lm/wikitext-2.zip",
    "wikipedia": "lm/wikipedia-en-gensim.txt.gz",
}

EVALUATED_ON = (
    "pos/en_ewt-ud-*.conllu.gz",
    "pos/brown.zip",
    "pos/treebank.zip",
    "ner/conll2003-en.zip",
    "wsd/semcor3.0.zip",
    "wsd/wsd-evaluation-datasets.zip",
    "wsd/WiC_dataset.zip",
    "wsd/senseval.zip",
    "sentiment/sst-flat.zip",
    "similarity/stsbenchmark.zip",
    "lm/ptb-mikolov.tgz",
)

HELDOUT_EVERY = 200
"""Of 2,000 paragraphs, ten consecutive paragraphs are held out, so that these keep context."""

MIN_WORDS = 4
SHARED_WORDS = 13


def files_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each file in a `.zip`, `.tgz` or `.gz` file."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith("/"):
                    yield name, archive.read(name).decode("utf-8", "replace")
    elif path.suffix == ".tgz":
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                if stream is not None:
                    yield member.name, stream.read().decode("utf-8", "replace")
    else:
        yield path.name, gzip.decompress(path.read_bytes()).decode("utf-8", "replace")


def detokenized(line: str) -> str:
    """Undo the tokenization of WikiText-2, such as ` @-@ ` within words and ` , ` after words."""
    line = re.sub(r" @(.)@ ", r"\1", line)
    line = re.sub(r" (['’](?:s|t|re|ve|ll|d|m)\b)", r"\1", line)
    line = re.sub(r" ([.,;:!?)\]%])", r"\1", line)
    line = re.sub(r"([(\[$£]) ", r"\1", line)
    return re.sub(r'" ([^"]*?) "', r'"\1"', line)


def paragraphs(path: Path) -> Iterator[str]:
    for name, text in files_of(path):
        if not name.endswith("MANIFEST.tsv"):
            # Project Gutenberg marks italics by underscores.
            yield from (line.replace("_", "").strip() for line in text.splitlines())


def wikitext_paragraphs(path: Path) -> Iterator[str]:
    """Yield the training part's paragraphs, without headings and sentences with `<unk>`."""
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("wikitext-2/wiki.train.tokens").decode().splitlines()
    for line in lines:
        if not line.strip().startswith("="):
            sentences = re.split(r"(?<= [.!?]) (?=[A-Z\"(])", line.strip())
            yield detokenized(" ".join(s for s in sentences if "<unk>" not in s))


def plain_words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def runs_of_words(words: list[str]) -> Iterator[tuple[str, ...]]:
    return (
        tuple(words[first : first + SHARED_WORDS]) for first in range(len(words) - SHARED_WORDS + 1)
    )


def evaluated_lines(name: str, text: str) -> Iterator[str]:
    """Extract the approximate text of a labelled file, without its tags and other columns."""
    if ".conllu" in name or name.startswith("conll2003/"):
        column = 1 if ".conllu" in name else 0
        for block in re.split(r"\n\s*\n", text):
            rows = (line.split() for line in block.splitlines() if not line.startswith("#"))
            yield " ".join(row[column] for row in rows if len(row) > column)
    elif name.startswith(("brown/", "treebank/tagged")):
        yield " ".join(re.findall(r"(\S+)/\S+", text))
    elif "tagfiles" in name or name.endswith((".xml", ".pos")):
        yield re.sub(r"<[^>]*>", " ", text)
    elif name.endswith((".csv", ".tsv", ".data.txt")) or "stsa." in name or "ptb." in name:
        yield from re.split(r"[\n\t]", text)


def evaluated_runs(data: Path) -> set[tuple[str, ...]]:
    return {
        run
        for pattern in EVALUATED_ON
        for path in sorted(data.glob(pattern))
        for name, text in files_of(path)
        for line in evaluated_lines(name, text)
        for run in runs_of_words(plain_words(line))
    }


def overlaps(line: str, evaluated: set[tuple[str, ...]]) -> bool:
    return any(run in evaluated for run in runs_of_words(plain_words(line)))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def build(data: Path, output: Path) -> dict[str, Counter[str]]:
    """Write every source's two files and `sources.json`, and return the counts by source."""
    output.mkdir(parents=True, exist_ok=True)
    evaluated = evaluated_runs(data)
    record: dict[str, Counter[str]] = {}
    for source, place in SOURCES.items():
        path = data / place
        lines = wikitext_paragraphs(path) if source == "wikitext-2" else paragraphs(path)
        sides: dict[str, list[str]] = {"train": [], "heldout": []}
        counts: Counter[str] = Counter()
        for line in lines:
            if len(line.split()) < MIN_WORDS:
                counts["short_lines"] += 1
            elif overlaps(line, evaluated):
                counts["overlapping_lines"] += 1
            else:
                block = counts["kept_lines"] // 10
                side = "heldout" if block % HELDOUT_EVERY == HELDOUT_EVERY // 2 else "train"
                sides[side].append(line)
                counts["kept_lines"] += 1
                counts[f"{side}_words"] += len(line.split())
        for side, kept in sides.items():
            write_lines(output / f"{source}.{side}.txt", kept)
        record[source] = counts
    write_lines(output / "sources.json", [json.dumps(record, indent=2, sort_keys=True)])
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the downloads")
    parser.add_argument("--output", type=Path, required=True, help="folder for the text files")
    given = parser.parse_args()
    for source, counts in build(given.data, given.output).items():
        print(f"{source:16}", ", ".join(f"{key} {value:,}" for key, value in counts.items()))


if __name__ == "__main__":
    main()
