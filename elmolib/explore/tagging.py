"""Read sentences with a tag for each word, and measure the accuracy of taggers on them."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from elmolib.corpus.sources import find_files, read_chunks
from elmolib.errors import TextError

COLUMNS = ["ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC"]
UPOS = re.compile("A(DJ|DP|DV|UX)|[CS]CONJ|DET|INTJ|N(OUN|UM)|P(ART|RON|ROPN|UNCT)|SYM|VERB|X|_")
_ID = re.compile(r"[0-9]+([-.][0-9]+)?")

Tags = Sequence[str]


class TaggedSentence(NamedTuple):
    """The words of a sentence and the tag of each word."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


def read_conllu(path: str | Path, clean: Callable[[str], str] = str) -> list[TaggedSentence]:
    """Read the words and universal parts of speech of a treebank; other columns are not checked.

    A contraction is read as the separate words that it consists of. Empty nodes are left out.

    Args:
        path: a CoNLL-U file in UTF-8, plain or compressed.
        clean: the function that cleans each word, such as `ElmoEmbedder.tokenizer.clean_word`.

    Raises:
        TextError: the file cannot be read, is not CoNLL-U, or lacks tags or words.

    Example:
        >>> read_conllu("en_ewt-ud-dev.conllu", embedder.tokenizer.clean_word)[0].tags
        ('ADP', 'DET', 'PROPN', 'VERB', 'DET', 'NOUN', 'PUNCT')

    References:
        https://universaldependencies.org/format.html
    """
    sentences: list[TaggedSentence] = []
    pairs: list[tuple[str, str]] = []
    columns = COLUMNS
    files = [read_chunks(file) for file in find_files(path)]
    lines = chain.from_iterable(chunk.lines() for chunk in chain.from_iterable(files))
    for number, line in enumerate(chain(lines, [""]), start=1):
        if line.startswith("# global.columns"):
            columns = line.partition("=")[2].split()
        elif line.strip() and not line.startswith("#"):
            pairs += _tagged_word(line, columns, f"{path}, line {number}", not pairs)
        elif not line.strip() and pairs:
            words, tags = zip(*pairs, strict=True)
            sentences.append(TaggedSentence(tuple(map(clean, words)), tags))
            pairs = []
    if not sentences:
        raise TextError(f"{path} has no sentences: give a CoNLL-U file with words.")
    return sentences


def _tagged_word(line: str, columns: list[str], where: str, first: bool) -> list[tuple[str, str]]:
    """Return the word of a line and its tag, or nothing for a contraction or an empty node."""
    cells = line.split("\t")
    named = dict(zip(columns, cells, strict=False))
    number, form, tag = (named.get(name, "") for name in ("ID", "FORM", "UPOS"))
    problem = None
    if len(cells) > len(columns) and not UPOS.fullmatch(tag):
        problem = f"{len(cells)} columns instead of {len(columns)}: CoNLL-2009 is another format"
    elif not _ID.fullmatch(number):
        problem = "this is not CoNLL-U, where an ID and a tab begin the line of a word"
    elif number == "1" and not first:
        problem = "the empty line before the first word of a sentence is missing"
    elif number.isdigit() and (not form.strip() or tag in ("", "_")):
        problem = f"the word {form!r:.60} has no UPOS tag"
    elif number.isdigit() and form == "_" and tag not in ("PUNCT", "SYM", "X"):
        problem = "the word is withheld: add the words, as the treebank's README says"
    if problem:
        raise TextError(f"{where}: {problem}.")
    return [(form, tag)] if number.isdigit() else []


def tag_names(sentences: Sequence[TaggedSentence]) -> list[str]:
    """Return the tags that occur, sorted."""
    return sorted({tag for sentence in sentences for tag in sentence.tags})


def commonest_tags(
    training: Sequence[TaggedSentence], sentences: Sequence[Sequence[str]]
) -> list[Tags]:
    """Give each word its most frequent tag in `training`, or that of all words if it is new."""
    counts = _tag_counts(training)
    overall = sum(counts.values(), Counter()).most_common(1)[0][0]
    commonest = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    return [[commonest.get(word, overall) for word in words] for words in sentences]


def tagger_table(
    training: Sequence[TaggedSentence],
    heldout: Sequence[TaggedSentence],
    predictions: Mapping[str, Sequence[Tags]],
) -> pd.DataFrame:
    """Compute the accuracy of taggers on words that have one, several or no tags in `training`.

    `predictions` has the tags that each tagger predicts for `heldout`, by the tagger's name. The
    columns of the table are kinds of words. The first row has the share of each kind among all
    words, from 0 to 1; every other row has the accuracy of one tagger on each kind.
    """
    counts = _tag_counts(training)
    n_tags = np.array([len(counts.get(word, ())) for words, _ in heldout for word in words])
    kinds = {
        "all words": n_tags >= 0,
        "always one tag": n_tags == 1,
        "several tags": n_tags > 1,
        "never seen": n_tags == 0,
    }
    truth = np.array([tag for _, tags in heldout for tag in tags])
    rows = {"share of the words": {kind: which.mean() for kind, which in kinds.items()}}
    for tagger, given in predictions.items():
        right = pd.Series([tag for tags in given for tag in tags]) == truth
        # The mean of no words is NaN.
        rows[tagger] = {kind: right[which].mean() for kind, which in kinds.items()}
    return pd.DataFrame.from_dict(rows, orient="index")


def _tag_counts(sentences: Sequence[TaggedSentence]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            counts[word][tag] += 1
    return dict(counts)
