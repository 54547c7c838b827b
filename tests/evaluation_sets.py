"""Made-up evaluation datasets in the formats of the real ones, and vectors that solve the tasks."""

from __future__ import annotations

import gzip
import itertools
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

DIM = 64


class PerfectEmbedder:
    """Random vectors: layer 0 depends on the word, layer 1 on the word and the word before it."""

    def __init__(self, n_layers: int = 2) -> None:
        self.n_layers = n_layers
        self._vectors: dict[tuple[str, ...], np.ndarray] = {}

    def encode_each(self, sentences: Sequence[Sequence[str]]) -> Iterator[tuple[int, np.ndarray]]:
        # Yield the last sentence first, because an embedder may yield in any order.
        for k in reversed(range(len(sentences))):
            words = list(sentences[k])
            before = ["", *words][: len(words)]
            keys = [[(word,) for word in words], list(zip(words, before, strict=True))]
            layers = [[self._of(key) for key in layer] for layer in keys[: self.n_layers]]
            yield k, np.array(layers, np.float32).reshape(self.n_layers, len(words), DIM)

    def _of(self, key: tuple[str, ...]) -> np.ndarray:
        if key not in self._vectors:
            seed = int.from_bytes("\n".join(key).encode(), "big") % 2**63
            self._vectors[key] = np.random.default_rng(seed).normal(size=DIM)
        return self._vectors[key]


def write_zip(path: Path, files: Mapping[str, str], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text.encode(encoding))
    return path


def write_conllu(path: Path, sentences: Sequence[str]) -> None:
    """Write a CoNLL-U file from sentences of `word/TAG`."""
    blocks = []
    for sentence in sentences:
        pairs = [token.rpartition("/")[::2] for token in sentence.split()]
        rows = enumerate(pairs, start=1)
        blocks.append("".join(f"{k}\t{w}\t_\t{t}\t_\t_\t_\t_\t_\t_\n" for k, (w, t) in rows) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("".join(blocks))


TAGGED = ("they/PRON fish/VERB", "the/DET fish/NOUN", "we/PRON book/VERB", "a/DET book/NOUN")


def write_web_treebank(data: Path) -> None:
    """Write sentences in which only the word before distinguishes a noun from a verb."""
    for part, times in (("train", 12), ("dev", 2), ("test", 3)):
        write_conllu(data / f"pos/en_ewt-ud-{part}.conllu.gz", TAGGED * times)


def write_wordnet(folder: Path) -> None:
    """Write a WordNet of three nouns, one with two senses, and an adjective with a satellite."""
    header = "  1 a line of the licence\n"
    nouns = [
        "{} 17 n 01 bank 1 000 | sloping land",
        "{} 14 n 02 depository 0 bank 0 000 | takes deposits",
        "{} 05 n 01 Bear 0 000 | an animal",
    ]
    adjectives = [
        "{} 00 a 01 dear(a) 0 001 & 00000000 a 0000 | costs much",
        "{} 00 s 02 pricey 0 precious 2 001 & {} a 0000 | like it",
    ]
    folder.mkdir(parents=True)
    data, n = _with_offsets(header, nouns)
    (folder / "data.noun").write_text(data)
    (folder / "index.noun").write_text(
        f"{header}bank n 2 1 @ 2 1 {n[1]:08d} {n[0]:08d}  \nbear n 1 0 1 0 {n[2]:08d}  \n"
        f"depository n 1 0 1 0 {n[1]:08d}  \n"
    )
    data, a = _with_offsets(header, adjectives)
    (folder / "data.adj").write_text(data)
    (folder / "index.adj").write_text(
        f"{header}dear a 1 1 & 1 0 {a[0]:08d}  \npricey a 1 1 & 1 0 {a[1]:08d}  \n"
    )
    for name in ("verb", "adv"):
        (folder / f"data.{name}").write_text(header)
        (folder / f"index.{name}").write_text(header)


def _with_offsets(header: str, lines: Sequence[str]) -> tuple[str, list[int]]:
    """Replace the first {} of each line by its offset, other {} by the first line's offset."""
    blank = [line.replace("{}", "0" * 8) for line in lines]
    ends = itertools.accumulate([len(header), *(len(line) + 1 for line in blank)])
    offsets = list(ends)[:-1]
    text = header
    for line, offset in zip(lines, offsets, strict=True):
        text += line.replace("{}", f"{offset:08d}", 1).replace("{}", f"{offsets[0]:08d}") + "\n"
    return text, offsets


LAND, MONEY = "bank%1:17:01::", "bank%1:14:00::"


def write_senses(data: Path) -> None:
    """Write a SemCor in which the word before `bank` decides its sense, and two test sentences."""
    sentence = (
        "<s snum={n}>\n<wf cmd=ignore pos=DT>The</wf>\n<wf cmd=done rdf=group pos=NN "
        "lemma={before} wnsn=0 lexsn=1:00:00::>{before}</wf>\n"
        "<wf cmd=done pos=NN lemma=bank wnsn={number} lexsn={key}>{word}</wf>\n"
        "<punc>.</punc>\n</s>\n"
    )
    uses = [("river", 2, LAND), ("money", 1, MONEY)]
    text = "<contextfile concordance=brown>\n<context filename=br-x01 paras=yes>\n<p pnum=1>\n"
    for n, (before, number, key) in enumerate(uses, start=1):
        rest = key.partition("%")[2]
        text += sentence.format(n=n, before=before, number=number, key=rest, word="bank")
    # The expression `money_bank` has two senses, and one of them is not in WordNet.
    text += (
        "<s snum=3>\n<wf cmd=done pos=NN lemma=bank wnsn=1;0 "
        "lexsn=1:14:00::;1:99:00::>money_bank</wf>\n<punc>``</punc>\n</s>\n"
    )
    write_zip(data / "wsd/semcor3.0.zip", {"semcor3.0/brown1/tagfiles/br-x01": text})
    xml = '<?xml version="1.0" encoding="UTF-8" ?>\n<corpus lang="en" source="x">\n'
    gold = ""
    for name, before, key in (
        ("senseval2.d000.s000", "river", LAND),
        ("semeval2013.d000.s000", "money", MONEY),
    ):
        xml += (
            f'<text id="{name[:-5]}"><sentence id="{name}"><wf lemma="the" pos="DET">The</wf>'
            f'<wf lemma="{before}" pos="NOUN">{before}</wf>'
            f'<instance id="{name}.t000" lemma="bank" pos="NOUN">bank</instance>'
            f'<instance id="{name}.t001" lemma="bear" pos="NOUN">bear</instance>'
            "</sentence></text>\n"
        )
        gold += f"{name}.t000 {key}\n{name}.t001 bear%1:05:00:: bear%1:06:00::\n"
    top = "Evaluation_Datasets/ALL/ALL"
    write_zip(
        data / "wsd/wsd-evaluation-datasets.zip",
        {f"{top}.data.xml": f"{xml}</corpus>\n", f"{top}.gold.key.txt": gold},
    )


def write_one_word(data: Path) -> None:
    files = {}
    for word in ("line", "hard", "serve", "interest"):
        text = f'<corpus lang="en">\n<lexelt item="{word}-n">\n'
        for k in range(40):
            sense = ("A", "B")[k % 2]
            before = {"A": "red", "B": "blue"}[sense]
            text += (
                f'<instance id="{word}.{k}:">\n<answer instance="{word}.{k}:" senseid="{sense}"/>\n'
                '<context>\n <wf pos="NN">other</wf> <wf pos="NN">sentence</wf>\n'
                f' <wf pos="CC">&amp;</wf> <wf pos="JJ">{before}</wf> <head> '
                f'<wf pos="NN">{word}</wf></head> <wf pos=".">.</wf> \n</context>\n</instance>\n'
            )
        files[f"senseval/{word}.pos"] = f"{text}</lexelt>\n</corpus>\n"
    write_zip(data / "wsd/senseval.zip", files)


def write_word_in_context(data: Path) -> None:
    """Write pairs of sentences whose last word means the same if the words before it are equal."""
    pair = "bank\tN\t1-1\t{} bank .\t{} bank ."
    lines = [pair.format(a, b) for a in ("river", "money") for b in ("river", "money")] * 5
    gold = ["T", "F", "F", "T"] * 5
    files = {}
    for part in ("train", "dev", "test"):
        files[f"WiC_dataset/{part}/{part}.data.txt"] = "\n".join(lines) + "\n"
        files[f"WiC_dataset/{part}/{part}.gold.txt"] = "\n".join(gold) + "\n"
    write_zip(data / "wsd/WiC_dataset.zip", files)


def write_entities(data: Path) -> None:
    """Write two adjacent persons, a place of two words, and a name that is a place or a person."""
    blocks = [
        "Ann I-PER\nBob B-PER\nlaughs O",
        "in O\nNew I-LOC\nYork I-LOC",
        "Mr O\nYork I-PER\nBo I-PER",
    ]
    text = "-DOCSTART- -X- O O\n\n" + "\n\n".join(
        "\n".join(f"{w} X Y {t}" for w, t in map(str.split, block.splitlines()))
        for block in blocks * 20
    )
    files = {f"conll2003/eng.{part}": text + "\n" for part in ("train", "testa", "testb")}
    write_zip(data / "ner/conll2003-en.zip", files)


def write_sentiment(data: Path) -> None:
    """Write sentiment trees of two words, of which the second decides the class."""
    said = {0: "awful", 1: "poor", 2: "long", 3: "good", 4: "great"}
    text = "".join(f"({k} (2 -LRB-) ({k} {word}))\n" for k, word in said.items()) * 12
    files = {f"sst/trees/{part}.txt": text for part in ("train", "dev", "test")}
    write_zip(data / "sentiment/sst-trees.zip", files)


def write_reviews(data: Path) -> None:
    def reviews(stars: str, first: int, n: int) -> list[dict]:
        word = {"1": "slab", "5": "bun"}[stars]
        return [
            {"index": str(k), "title": word, "content": "Foarte.", "starRating": stars}
            for k in range(first, first + n)
        ]

    positive, negative = reviews("5", 0, 40), reviews("1", 100, 40)
    test = positive[:10] + negative[:10]
    files = {
        "LaRoSeDa/data/positive_reviews.json": json.dumps({"reviews": positive}),
        "LaRoSeDa/data/negative_reviews.json": json.dumps({"reviews": negative}),
        "LaRoSeDa/data_splitted/laroseda_test.json": json.dumps({"reviews": test}),
    }
    write_zip(data / "sentiment/laroseda-ro.zip", files)


def write_similarity(data: Path) -> None:
    """Write pairs of sentences whose score grows with the number of words that they share."""
    pairs = [
        (5.0, "A man plays.", "A man plays."),
        (4.0, "A man plays.", "A man sleeps."),
        (2.0, "A man plays.", "A cow sleeps!"),
        (0.0, "A man plays.", "Cows sleep!"),
    ]
    english = "".join(f"g\tf\t2012\t1\t{s:.3f}\t{a}\t{b}\n" for s, a, b in pairs * 5)
    romanian = "".join(f"{s}\t{a}\t{b}\n" for s, a, b in pairs * 5)
    parts = ("train", "test")
    files = {f"stsbenchmark/sts-{part}.csv": english for part in parts}
    write_zip(data / "similarity/stsbenchmark.zip", files)
    files = {f"RO-STS/dataset/text-similarity/RO-STS.{part}.tsv": romanian for part in parts}
    write_zip(data / "similarity/RO-STS.zip", files)


def write_wsj(data: Path) -> None:
    """Write twenty files of two parse trees, with a trace, a bracket, and a token on two lines."""
    tree = (
        "( (S \n    (NP-SBJ (PRP They) )\n    (VP (VBP fish)\n (-NONE- *-1) (-LRB- -LRB-)\n"
        "      (CD 1\\/2) ))\n  (. \n.) )\n( (NP (DT the) (NN fish) ))\n"
    )
    files = {f"treebank/combined/wsj_{k:04d}.mrg": tree for k in range(20)}
    write_zip(data / "pos/treebank.zip", files)


def write_brown(data: Path) -> None:
    text = (
        "\n\n\tThe/at-tl City/nn-tl isn't/bez* and\\/or/fw-cc --/-- ``/``\n\n\tit/pps 's/bez\n" * 8
    )
    write_zip(data / "pos/brown.zip", {f"brown/ca{k:02d}": text for k in range(1, 21)}, "latin-1")
