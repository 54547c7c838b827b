"""Word senses by the nearest of averaged vectors: table 5 of the paper."""

from __future__ import annotations

import html
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from elmolib.errors import TextError
from elmolib.evaluation.confidence import bootstrap, ratio
from elmolib.evaluation.reading import as_written, member, members
from elmolib.evaluation.results import Row, row
from elmolib.evaluation.setting import Setting
from elmolib.evaluation.vectors import Embedder, with_average
from elmolib.evaluation.wordnet import Lemma, first_senses, lemma_of
from elmolib.similarity import cosine_similarities

TASK, TASK_OF_ONE_WORD = "word senses", "senses of one word"

SEMCOR = "wsd/semcor3.0.zip"
ALL_WORDS = "wsd/wsd-evaluation-datasets.zip"
ONE_WORD = "wsd/senseval.zip"

PARTS = ("senseval2", "senseval3", "semeval2007", "semeval2013", "semeval2015")
"""The five sets that make up ALL; its identifiers begin with these names."""

WORDS = ("line", "hard", "serve", "interest")
DRAWN_PER_WORD = 1000
"""Sentences drawn for each of `WORDS`, half of them to learn from: a small, quick set."""

_PARTS_OF_SPEECH = {"NOUN": "n", "VERB": "v", "ADJ": "a", "ADV": "r"}


class SenseTagged(NamedTuple):
    """A word of a sentence and its senses.

    Attributes:
        first, end: its place in the sentence; a word such as `primary election` takes two.
        lemma: its base form and part of speech.
        senses: sense keys, any of which is right.
        identifier: its name in the set, which tells what part of the set it belongs to.
    """

    first: int
    end: int
    lemma: Lemma
    senses: tuple[str, ...]
    identifier: str = ""


class SenseSentence(NamedTuple):
    """The words of a sentence and those of them that have a sense."""

    words: list[str]
    tagged: list[SenseTagged]


def read_semcor(archive: Path) -> list[SenseSentence]:
    """Read SemCor 3.0: the words that have a sense, and those around them.

    Words whose sense WordNet 3.0 has no more are taken for words without one.

    References:
        The README of SemCor 3.0. Its files look like XML, but no attribute is in quotes.
    """
    files = members(archive, "*/tagfiles/br-*")
    return [sentence for _, text in files for sentence in _semcor_sentences(text)]


def read_all_words(archive: Path) -> list[SenseSentence]:
    """Read the set ALL of the unified framework, which holds all five sets.

    Raises:
        TextError: it is damaged, or a word has no gold sense.

    References:
        Raganato et al. 2017, "Word Sense Disambiguation: A Unified Evaluation Framework".
    """
    lines = member(archive, "*/ALL/ALL.gold.key.txt").splitlines()
    gold = {name: tuple(senses) for name, *senses in map(str.split, lines)}
    try:
        corpus = ElementTree.fromstring(member(archive, "*/ALL/ALL.data.xml"))
        return [_all_words_sentence(sentence, gold) for sentence in corpus.iter("sentence")]
    except ElementTree.ParseError as error:
        raise TextError(f"{archive}: ALL.data.xml is damaged: {error}.") from None
    except KeyError as error:
        raise TextError(f"{archive}: ALL.gold.key.txt lacks the sense of {error}.") from None


def measure(embedder: Embedder | None, setting: Setting) -> list[Row]:
    """Tell the senses of all words of the unified all-words sets.

    The vector of a sense is the mean of its words' vectors in SemCor. A word takes the sense of
    its lemma with the largest cosine, or the first sense in WordNet where SemCor lacks the lemma.

    Args:
        embedder: of the vectors; None for the first sense throughout.
        setting: the data, WordNet and the seed.

    Returns:
        F1 per layer and of the layers' average, on each set and on all. Since every word gets an
        answer, it is the share of right ones. The bootstrap draws sentences.
    """
    first = first_senses(setting.wordnet)
    test = read_all_words(setting.data / ALL_WORDS)
    if embedder is None:
        answers = {"first sense": [first.get(each.lemma, "") for each in _tagged(test)]}
        return _rows(answers, test, setting.seed)
    semcor = read_semcor(setting.data / SEMCOR)
    learnt = learn_senses(embedder, semcor)
    answers = nearest_senses(embedder, test, learnt, first)
    known = sum(each.lemma in learnt for each in _tagged(test)) / sum(1 for _ in _tagged(test))
    n_training = sum(len(each.senses) for each in _tagged(semcor))
    return _rows(answers, test, setting.seed, n_training, **{"lemma in SemCor": round(known, 4)})


Senses = dict[Lemma, tuple[list[str], np.ndarray]]
"""The senses of each lemma and their vectors, float32 (senses, layers, dim)."""


def learn_senses(embedder: Embedder, sentences: Sequence[SenseSentence]) -> Senses:
    """Average the vectors of all words of each sense."""
    sums: dict[str, np.ndarray] = {}
    counts: Counter[str] = Counter()
    for place, layers in embedder.encode_each([sentence.words for sentence in sentences]):
        for each in sentences[place].tagged:
            vector = _vector(layers, each)
            for sense in each.senses:
                counts[sense] += 1
                sums[sense] = sums[sense] + vector if sense in sums else vector
    by_lemma: dict[Lemma, list[str]] = defaultdict(list)
    for sense in sorted(sums):
        by_lemma[lemma_of(sense)].append(sense)
    return {
        lemma: (senses, np.stack([sums[sense] / counts[sense] for sense in senses]))
        for lemma, senses in by_lemma.items()
    }


def nearest_senses(
    embedder: Embedder,
    sentences: Sequence[SenseSentence],
    learnt: Senses,
    first: dict[Lemma, str],
) -> dict[str, list[str]]:
    """Choose a sense for every tagged word, by each layer and by their average.

    Args:
        embedder: of the vectors.
        sentences: what to tell the senses of.
        learnt: the vectors of senses.
        first: the sense of a lemma that was not learnt; none at all, "", where it lacks it too.

    Returns:
        sense keys in the order of the words, by the name of the layer.
    """
    answers: dict[int, list[dict[str, str]]] = {}
    for place, layers in embedder.encode_each([sentence.words for sentence in sentences]):
        answers[place] = []
        for each in sentences[place].tagged:
            vector = _vector(layers, each)[np.newaxis]
            fallback = first.get(each.lemma, "")
            senses, vectors = learnt.get(each.lemma, ([fallback], vector))
            by_layer = zip(with_average(vectors), with_average(vector), strict=True)
            answers[place].append(
                {
                    name: senses[int(cosine_similarities(known, unknown).argmax())]
                    for (name, known), (_, unknown) in by_layer
                }
            )
    in_order = [chosen for place in sorted(answers) for chosen in answers[place]]
    return {name: [chosen[name] for chosen in in_order] for name in in_order[0]}


def _vector(layers: np.ndarray, each: SenseTagged) -> np.ndarray:
    return layers[:, each.first : each.end].mean(axis=1)


def _tagged(sentences: Sequence[SenseSentence]) -> Iterator[SenseTagged]:
    for sentence in sentences:
        yield from sentence.tagged


def _rows(
    answers: dict[str, list[str]],
    test: Sequence[SenseSentence],
    seed: int,
    n_training: int = 0,
    **notes: object,
) -> list[Row]:
    rows = []
    for data in ("ALL", *PARTS):
        for system, given in answers.items():
            right = _right_by_sentence(given, test, "" if data == "ALL" else data)
            if len(right):
                rows.append(
                    row(
                        TASK,
                        data,
                        system,
                        "F1",
                        bootstrap(right, ratio, seed=seed),
                        "sentences",
                        seed,
                        n=int(right[:, 1].sum()),
                        examples="words",
                        n_training=n_training,
                        **notes,
                    )
                )
    return rows


def _right_by_sentence(
    given: Sequence[str], sentences: Sequence[SenseSentence], part: str
) -> np.ndarray:
    """Count right answers and words of the sentences that belong to a part: integers (n, 2)."""
    answers = iter(given)
    counts = []
    for sentence in sentences:
        right = [next(answers) in each.senses for each in sentence.tagged]
        if right and sentence.tagged[0].identifier.startswith(part):
            counts.append((sum(right), len(right)))
    return np.array(counts)


_SEMCOR_LINE = re.compile(r"<(s|wf|punc)\b([^>]*)>([^<]*)")


def _semcor_sentences(text: str) -> Iterator[SenseSentence]:
    sentence = SenseSentence([], [])
    for element, attributes, content in _SEMCOR_LINE.findall(text):
        if element == "s":
            if sentence.words:
                yield sentence
            sentence = SenseSentence([], [])
            continue
        first = len(sentence.words)
        sentence.words.extend(as_written(word) for word in content.split("_") if word)
        values = dict(value.partition("=")[::2] for value in attributes.split())
        senses = _semcor_senses(values)
        if senses and len(sentence.words) > first:
            end = len(sentence.words)
            sentence.tagged.append(SenseTagged(first, end, lemma_of(senses[0]), senses))
    if sentence.words:
        yield sentence


def _semcor_senses(values: dict[str, str]) -> tuple[str, ...]:
    """Spell the sense keys of a word that has some; number 0 is that of a lost sense."""
    numbers, keys = values.get("wnsn", ""), values.get("lexsn", "")
    return tuple(
        f"{values['lemma']}%{key}"
        for number, key in zip(numbers.split(";"), keys.split(";"), strict=False)
        if key and number != "0"
    )


def _all_words_sentence(
    element: ElementTree.Element, gold: dict[str, tuple[str, ...]]
) -> SenseSentence:
    sentence = SenseSentence([], [])
    for each in element:
        first = len(sentence.words)
        sentence.words.extend(as_written(word) for word in (each.text or "").split())
        if each.tag == "instance":
            lemma = each.attrib["lemma"].lower(), _PARTS_OF_SPEECH[each.attrib["pos"]]
            name = each.attrib["id"]
            end = len(sentence.words)
            sentence.tagged.append(SenseTagged(first, end, lemma, gold[name], name))
    return sentence


class OneWord(NamedTuple):
    """A sentence with a word of one of several senses at a place."""

    words: list[str]
    place: int
    sense: str


def read_one_word(archive: Path, word: str) -> list[OneWord]:
    """Read the sentences of `line`, `hard`, `serve` or `interest` as nltk has them."""
    text = member(archive, f"*/{word}.pos")
    return [
        example
        for instance in text.split("<instance ")[1:]
        if (example := _one_word(instance)) is not None
    ]


def _one_word(instance: str) -> OneWord | None:
    sense = re.search(r'senseid="([^"]*)"', instance).group(1)
    for line in instance.splitlines():
        before, head, after = line.partition("<head>")
        if head:
            words = _tokens(before)
            return OneWord([*words, *_tokens(after)], len(words), sense)
    return None


def _tokens(text: str) -> list[str]:
    return [as_written(html.unescape(word)) for word in re.findall(r">([^<>\s]+)</wf>", text)]


def measure_one_word(embedder: Embedder | None, setting: Setting) -> list[Row]:
    """Tell the senses of four words, learnt from half of some sentences drawn for each.

    Args:
        embedder: of the vectors; None for the most frequent sense.
        setting: the data and the seed.

    Returns:
        accuracy per word, layer and average of layers, by the nearest averaged vector.
    """
    rows = []
    for word in WORDS:
        examples = read_one_word(setting.data / ONE_WORD, word)
        order = np.random.default_rng(setting.seed).permutation(len(examples))[:DRAWN_PER_WORD]
        drawn = [examples[k] for k in order]
        training, test = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
        for system, given in _one_word_answers(embedder, training, test):
            right = np.array([a == each.sense for a, each in zip(given, test, strict=True)])
            rows.append(
                row(
                    TASK_OF_ONE_WORD,
                    word,
                    system,
                    "accuracy",
                    bootstrap(right, seed=setting.seed),
                    "sentences",
                    setting.seed,
                    n_training=len(training),
                )
            )
    return rows


def _one_word_answers(
    embedder: Embedder | None, training: list[OneWord], test: list[OneWord]
) -> Iterator[tuple[str, list[str]]]:
    if embedder is None:
        commonest = Counter(each.sense for each in training).most_common(1)[0][0]
        yield "commonest sense", [commonest] * len(test)
        return
    examples = training + test
    vectors = _vectors_at(embedder, examples)
    labels = np.array([each.sense for each in training])
    senses = sorted(set(labels))
    for system, layer in with_average(vectors):
        known, unknown = layer[: len(training)], layer[len(training) :]
        means = np.stack([known[labels == sense].mean(axis=0) for sense in senses])
        yield system, [senses[k] for k in cosine_similarities(unknown, means).argmax(axis=1)]


def _vectors_at(embedder: Embedder, examples: Sequence[OneWord]) -> np.ndarray:
    """Embed the word in question of each sentence: float32 (sentences, layers, dim)."""
    vectors: list[np.ndarray] = [np.empty(0)] * len(examples)
    for place, layers in embedder.encode_each([each.words for each in examples]):
        vectors[place] = layers[:, examples[place].place]
    return np.stack(vectors)
