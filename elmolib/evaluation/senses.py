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
from elmolib.evaluation.results import Row, above_layer_below, row
from elmolib.evaluation.setting import Setting
from elmolib.evaluation.vectors import Embedder, single_layers, with_average
from elmolib.evaluation.wordnet import Lemma, first_senses, lemma_of
from elmolib.similarity import cosine_similarities, whitening

TASK, TASK_OF_ONE_WORD = "word senses", "senses of one word"

SEMCOR = "wsd/semcor3.0.zip"
ALL_WORDS = "wsd/wsd-evaluation-datasets.zip"
ONE_WORD = "wsd/senseval.zip"

PARTS = ("senseval2", "senseval3", "semeval2007", "semeval2013", "semeval2015")
"""The five sets that make up ALL; its identifiers begin with these names."""

DEVELOPMENT = "semeval2007"
SETS = {
    "ALL": PARTS,
    f"ALL but {DEVELOPMENT}": tuple(part for part in PARTS if part != DEVELOPMENT),
    **{part: (part,) for part in PARTS},
}

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Of these, the weight of a sense's frequency beside the cosine is chosen."""

WORDS = ("line", "hard", "serve", "interest")
DRAWN_PER_WORD = 1000
"""Sentences drawn for each of `WORDS`, half of them to learn from: a small, quick set."""

_VECTORS_AT_ONCE = 4096

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

    Each layer is also tried whitened, and then with the frequency of senses, as `whitened_choices`
    tells.

    Args:
        embedder: of the vectors; None for the first sense throughout.
        setting: the data, WordNet and the seed.

    Returns:
        F1 per layer and of the layers' average, on each set, on all, and on all but the one that
        a weight is chosen on. Since every word gets an answer, it is the share of right ones. The
        bootstrap draws sentences.
    """
    first = first_senses(setting.wordnet)
    sentences = read_all_words(setting.data / ALL_WORDS)
    test = [each for sentence in sentences for each in sentence.tagged]
    if embedder is None:
        answers = {"first sense": Choices([first.get(each.lemma, "") for each in test])}
        return _rows(answers, sentences, setting.seed)
    semcor = read_semcor(setting.data / SEMCOR)
    learnt = learn_senses(embedder, semcor)
    vectors = _tagged_vectors(embedder, sentences)
    answers = nearest_senses(test, vectors, learnt, first)
    answers |= whitened_choices(test, vectors, learnt, first)
    n_training = sum(len(sentence.tagged) for sentence in semcor)
    return _rows(answers, sentences, setting.seed, n_training)


class LearntSenses(NamedTuple):
    """What SemCor tells of senses.

    Attributes:
        senses: of each lemma, the keys of those that occur.
        vectors: of each lemma, their mean vectors, float32 (senses, layers, dim).
        counts: how often each sense occurs.
        mean: of the vectors of all words that have a sense, (layers, dim).
        covariance: of the same, (layers, dim, dim).
    """

    senses: dict[Lemma, list[str]]
    vectors: dict[Lemma, np.ndarray]
    counts: Counter[str]
    mean: np.ndarray
    covariance: np.ndarray


class Choices(NamedTuple):
    """A sense key for each word, and the weight of frequency that it was chosen with."""

    senses: list[str]
    weight: float = 0.0


def learn_senses(embedder: Embedder, sentences: Sequence[SenseSentence]) -> LearntSenses:
    """Average the vectors of all words of each sense."""
    sums: dict[str, np.ndarray] = {}
    counts: Counter[str] = Counter()
    moments = _Moments()
    for place, layers in embedder.encode_each([sentence.words for sentence in sentences]):
        for each in sentences[place].tagged:
            vector = _vector(layers, each)
            moments.add(vector)
            for sense in each.senses:
                counts[sense] += 1
                sums[sense] = sums[sense] + vector if sense in sums else vector
    senses: dict[Lemma, list[str]] = defaultdict(list)
    for sense in sorted(sums):
        senses[lemma_of(sense)].append(sense)
    means = {
        lemma: np.stack([sums[sense] / counts[sense] for sense in of_lemma])
        for lemma, of_lemma in senses.items()
    }
    return LearntSenses(dict(senses), means, counts, *moments.mean_and_covariance())


class _Moments:
    """Mean and covariance of vectors (layers, dim) that come one by one."""

    def __init__(self) -> None:
        self._waiting: list[np.ndarray] = []
        self._n = 0
        self._sum = self._products = np.zeros(())

    def add(self, vector: np.ndarray) -> None:
        self._waiting.append(vector)
        # One product of many vectors takes far less time than many of one.
        if len(self._waiting) == _VECTORS_AT_ONCE:
            self._take()

    def mean_and_covariance(self) -> tuple[np.ndarray, np.ndarray]:
        self._take()
        mean = self._sum / self._n
        return mean, self._products / self._n - mean[:, :, np.newaxis] * mean[:, np.newaxis]

    def _take(self) -> None:
        if self._waiting:
            by_layer = np.stack(self._waiting, axis=1).astype(np.float64)
            self._n += len(self._waiting)
            self._sum = self._sum + by_layer.sum(axis=1)
            self._products = self._products + by_layer.transpose(0, 2, 1) @ by_layer
            self._waiting = []


def nearest_senses(
    test: Sequence[SenseTagged],
    vectors: np.ndarray,
    learnt: LearntSenses,
    first: dict[Lemma, str],
) -> dict[str, Choices]:
    """Choose a sense for every word, by each layer and by their average.

    Args:
        test: the words.
        vectors: theirs, float32 (words, layers, dim).
        learnt: the vectors of senses.
        first: the sense of a lemma that was not learnt; none at all, "", where it lacks it too.

    Returns:
        the choices by the name of the layer.
    """
    answers = {}
    for system, unknown in with_average(vectors):
        known = {
            lemma: dict(with_average(of_lemma))[system]
            for lemma, of_lemma in learnt.vectors.items()
        }
        cosines = _cosines(test, unknown, known)
        answers[system] = Choices(_chosen(test, cosines, learnt, first))
    return answers


def whitened_choices(
    test: Sequence[SenseTagged],
    vectors: np.ndarray,
    learnt: LearntSenses,
    first: dict[Lemma, str],
) -> dict[str, Choices]:
    """Choose as `nearest_senses` does, but first make all directions of a layer weigh the same.

    A few directions, in which all words differ much, otherwise outweigh the many that tell senses
    apart. In a second round the logarithm of a sense's count in SemCor, times a weight, is added
    to its cosine. The weight of `WEIGHTS` that does best on SemEval-2007 is taken.

    References:
        SemEval-2007 as development set: Raganato et al. 2017, section 4.
    """
    development = np.array([each.identifier.startswith(DEVELOPMENT) for each in test])
    answers = {}
    for k, (system, unknown) in enumerate(single_layers(vectors)):
        whiten = whitening(learnt.mean[k], learnt.covariance[k])
        known = {lemma: whiten(of_lemma[:, k]) for lemma, of_lemma in learnt.vectors.items()}
        cosines = _cosines(test, whiten(unknown[:, 0]), known)
        by_weight = {w: _chosen(test, cosines, learnt, first, w) for w in WEIGHTS}

        def right(weight: float, chosen=by_weight) -> int:
            pairs = zip(chosen[weight], test, development, strict=True)
            return sum(sense in each.senses for sense, each, counts in pairs if counts)

        best = max(WEIGHTS, key=right)
        answers[f"{system}, whitened"] = Choices(by_weight[0.0])
        answers[f"{system}, whitened, with frequency"] = Choices(by_weight[best], best)
    return answers


def _cosines(
    test: Sequence[SenseTagged], vectors: np.ndarray, known: dict[Lemma, np.ndarray]
) -> list[np.ndarray | None]:
    """Compare each word with the senses of its lemma, if any are known."""
    return [
        cosine_similarities(known[each.lemma], vector[np.newaxis])[:, 0]
        if each.lemma in known
        else None
        for each, vector in zip(test, vectors, strict=True)
    ]


def _chosen(
    test: Sequence[SenseTagged],
    cosines: Sequence[np.ndarray | None],
    learnt: LearntSenses,
    first: dict[Lemma, str],
    weight: float = 0.0,
) -> list[str]:
    chosen = []
    for each, of_senses in zip(test, cosines, strict=True):
        if of_senses is None:
            chosen.append(first.get(each.lemma, ""))
        else:
            senses = learnt.senses[each.lemma]
            frequencies = np.log([learnt.counts[sense] for sense in senses])
            chosen.append(senses[int(np.argmax(of_senses + weight * frequencies))])
    return chosen


def _tagged_vectors(embedder: Embedder, sentences: Sequence[SenseSentence]) -> np.ndarray:
    """Embed all words that have a sense: float32 (words, layers, dim)."""
    vectors: list[list[np.ndarray]] = [[] for _ in sentences]
    for place, layers in embedder.encode_each([sentence.words for sentence in sentences]):
        vectors[place] = [_vector(layers, each) for each in sentences[place].tagged]
    return np.stack([vector for of_sentence in vectors for vector in of_sentence])


def _vector(layers: np.ndarray, each: SenseTagged) -> np.ndarray:
    return layers[:, each.first : each.end].mean(axis=1)


def _rows(
    answers: dict[str, Choices],
    test: Sequence[SenseSentence],
    seed: int,
    n_training: int = 0,
) -> list[Row]:
    rows = []
    for data, parts in SETS.items():
        right = {
            system: _right_by_sentence(given, test, parts) for system, (given, _) in answers.items()
        }
        for system, (_, weight) in answers.items():
            if not len(right[system]):
                continue
            notes: dict[str, object] = {"weight of frequency": weight} if weight else {}
            rows.append(
                row(
                    TASK,
                    data,
                    system,
                    "F1",
                    bootstrap(right[system], ratio, seed=seed),
                    "sentences",
                    seed,
                    n=int(right[system][:, 1].sum()),
                    examples="words",
                    n_training=n_training,
                    **notes | above_layer_below(system, right, seed),
                )
            )
    return rows


def _right_by_sentence(
    given: Sequence[str], sentences: Sequence[SenseSentence], parts: tuple[str, ...]
) -> np.ndarray:
    """Count right answers and words of the sentences that belong to parts: integers (n, 2)."""
    answers = iter(given)
    counts = []
    for sentence in sentences:
        right = [next(answers) in each.senses for each in sentence.tagged]
        if right and sentence.tagged[0].identifier.startswith(parts):
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
