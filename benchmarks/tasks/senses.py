"""Predict word senses by the nearest mean vector, as in table 5 of Peters et al. 2018."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from benchmarks.tasks.archives import member, members, unescape_penn
from benchmarks.tasks.common import TaskConfig, with_average
from benchmarks.tasks.results import Row, compare_with_layer_below
from benchmarks.tasks.vectors import Embedder, single_layers
from benchmarks.tasks.whitening import whitening
from benchmarks.tasks.wordnet import Lemma, first_senses, lemma_of
from elmolib.embedding.cosine import cosine_similarities
from elmolib.errors import TextError
from elmolib.scoring.confidence import bootstrap, ratio
from elmolib.text.lines import split_lines

TASK = "word senses"
SEMCOR = "wsd/semcor3.0.zip"
ALL_WORDS = "wsd/wsd-evaluation-datasets.zip"

PARTS = ("senseval2", "senseval3", "semeval2007", "semeval2013", "semeval2015")
"""The five datasets that make up ALL; identifiers of words begin with the dataset's name."""

DEVELOPMENT = "semeval2007"

SETS = {
    "ALL": PARTS,
    f"ALL but {DEVELOPMENT}": tuple(part for part in PARTS if part != DEVELOPMENT),
    **{part: (part,) for part in PARTS},
}

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Candidates for the weight of the log frequency of a sense in the sum of cosine and frequency."""

_VECTORS_AT_ONCE = 4096
_PARTS_OF_SPEECH = {"NOUN": "n", "VERB": "v", "ADJ": "a", "ADV": "r"}


class SenseTagged(NamedTuple):
    """A word with its senses.

    Attributes:
        first, end: the position of the word in its sentence, and the position after it. An
            expression such as `primary election` counts as one word here, with several positions.
        lemma: the base form of the word, and its part of speech.
        senses: the correct senses, as sense keys.
        identifier: the name of the word in the dataset, which begins with a name in `PARTS`.
    """

    first: int
    end: int
    lemma: Lemma
    senses: tuple[str, ...]
    identifier: str = ""

    def mean_of(self, layers: np.ndarray) -> np.ndarray:
        """Average `layers`, the vectors of the sentence, over this word's positions."""
        return layers[:, self.first : self.end].mean(axis=1)


class SenseSentence(NamedTuple):
    """The words of a sentence, and those words that have a sense."""

    words: list[str]
    tagged: list[SenseTagged]


def read_semcor(archive: Path) -> list[SenseSentence]:
    """Read SemCor 3.0.

    A word whose sense is not in WordNet 3.0 counts as a word without a sense.

    References:
        The README of SemCor 3.0. Its files look like XML, but their attributes have no quotes.
    """
    files = members(archive, "*/tagfiles/br-*")
    return [sentence for _, text in files for sentence in _semcor_sentences(text)]


def read_all_words(archive: Path) -> list[SenseSentence]:
    """Read the dataset ALL of the unified framework, which consists of five datasets.

    Raises:
        TextError: the dataset is damaged, or a word has no gold sense.

    References:
        Raganato et al. 2017, "Word Sense Disambiguation: A Unified Evaluation Framework".
    """
    lines = split_lines(member(archive, "*/ALL/ALL.gold.key.txt"))
    gold = {name: tuple(senses) for name, *senses in map(str.split, lines)}
    try:
        corpus = ElementTree.fromstring(member(archive, "*/ALL/ALL.data.xml"))
        return [_all_words_sentence(sentence, gold) for sentence in corpus.iter("sentence")]
    except ElementTree.ParseError as error:
        raise TextError(f"{archive}: ALL.data.xml is damaged: {error}.") from None
    except KeyError as error:
        raise TextError(f"{archive}: ALL.gold.key.txt lacks the sense of {error}.") from None


def measure(embedder: Embedder | None, config: TaskConfig) -> list[Row]:
    """Predict the senses of all words of the unified all-words datasets.

    The vector of a sense is the mean of its words' vectors in SemCor. A word gets the sense of its
    lemma with the largest cosine, or the first sense in WordNet if SemCor lacks the lemma. Each
    layer is also measured whitened, without and with the frequency of senses; see
    `whitened_choices`.

    Args:
        embedder: the embedder to measure; None for the baseline, the first sense of every word.
        config: the folders of the data and of WordNet, and the seed.

    Returns:
        F1 for each layer and for their average, on each dataset, on ALL, and on ALL without
        SemEval-2007, on which the weight of frequency is chosen. As every word gets an answer, F1
        is the accuracy. The bootstrap resamples sentences.
    """
    first = first_senses(config.wordnet)
    sentences = read_all_words(config.data / ALL_WORDS)
    test = [each for sentence in sentences for each in sentence.tagged]
    if embedder is None:
        answers = {"first sense": Choices([first.get(each.lemma, "") for each in test])}
        return _rows(answers, sentences, config.seed)
    semcor = read_semcor(config.data / SEMCOR)
    learned = learn_senses(embedder, semcor)
    vectors = _tagged_vectors(embedder, sentences)
    answers = nearest_senses(test, vectors, learned, first)
    answers |= whitened_choices(test, vectors, learned, first)
    n_training = sum(len(sentence.tagged) for sentence in semcor)
    return _rows(answers, sentences, config.seed, n_training)


class LearnedSenses(NamedTuple):
    """Sense statistics of SemCor.

    Attributes:
        senses: for each lemma, the keys of the senses that occur in SemCor.
        vectors: for each lemma, the mean vectors of these senses, float32 (senses, layers, dim).
        counts: how often each sense occurs.
        mean: mean vector of all words with a sense, (layers, dim).
        covariance: the covariance of the vectors of these words, (layers, dim, dim).
    """

    senses: dict[Lemma, list[str]]
    vectors: dict[Lemma, np.ndarray]
    counts: Counter[str]
    mean: np.ndarray
    covariance: np.ndarray


class Choices(NamedTuple):
    """A sense key for each word, and the weight of frequency with which the keys were chosen."""

    senses: list[str]
    weight: float = 0.0


def learn_senses(embedder: Embedder, sentences: Sequence[SenseSentence]) -> LearnedSenses:
    """Average the vectors of all words of each sense."""
    sums: dict[str, np.ndarray] = {}
    counts: Counter[str] = Counter()
    moments = _Moments()
    for k, layers in embedder.encode_each([sentence.words for sentence in sentences]):
        for each in sentences[k].tagged:
            vector = each.mean_of(layers)
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
    return LearnedSenses(dict(senses), means, counts, *moments.mean_and_covariance())


class _Moments:
    """Mean and covariance of a stream of vectors (layers, dim)."""

    def __init__(self) -> None:
        self._waiting: list[np.ndarray] = []
        self._n = 0
        self._sum = self._products = np.zeros(())

    def add(self, vector: np.ndarray) -> None:
        self._waiting.append(vector)
        # One matrix product for many vectors is far faster than a product for each vector.
        if len(self._waiting) == _VECTORS_AT_ONCE:
            self._flush()

    def mean_and_covariance(self) -> tuple[np.ndarray, np.ndarray]:
        self._flush()
        mean = self._sum / self._n
        return mean, self._products / self._n - mean[:, :, np.newaxis] * mean[:, np.newaxis]

    def _flush(self) -> None:
        if self._waiting:
            by_layer = np.stack(self._waiting, axis=1).astype(np.float64)
            self._n += len(self._waiting)
            self._sum = self._sum + by_layer.sum(axis=1)
            self._products = self._products + by_layer.transpose(0, 2, 1) @ by_layer
            self._waiting = []


def nearest_senses(
    test: Sequence[SenseTagged],
    vectors: np.ndarray,
    learned: LearnedSenses,
    first: dict[Lemma, str],
) -> dict[str, Choices]:
    """Choose a sense for every word, with each layer and with their average.

    Args:
        test: the words.
        vectors: the vectors of the words, float32 (words, layers, dim).
        learned: the vectors of senses.
        first: the first sense of each lemma, used if `learned` lacks the lemma. If both lack it,
            the choice is "".

    Returns:
        the choices of each layer, by the layer's name.
    """
    answers = {}
    for system, unknown in with_average(vectors):
        known = {
            lemma: dict(with_average(of_lemma))[system]
            for lemma, of_lemma in learned.vectors.items()
        }
        cosines = _cosines(test, unknown, known)
        answers[system] = Choices(_choose(test, cosines, learned, first))
    return answers


def whitened_choices(
    test: Sequence[SenseTagged],
    vectors: np.ndarray,
    learned: LearnedSenses,
    first: dict[Lemma, str],
) -> dict[str, Choices]:
    """Choose senses as `nearest_senses` does, with whitened layers.

    Without whitening, a few directions with large variance dominate the cosine and hide the
    directions in which senses differ. Each layer also makes a choice "with frequency": the log of a
    sense's count in SemCor is multiplied by a weight and added to the cosine. The weight is the one
    of `WEIGHTS` that is best on SemEval-2007.

    References:
        Raganato et al. 2017, section 4, which also uses SemEval-2007 as development set.
    """
    development = np.array([each.identifier.startswith(DEVELOPMENT) for each in test])
    answers = {}
    for k, (system, unknown) in enumerate(single_layers(vectors)):
        whiten = whitening(learned.mean[k], learned.covariance[k])
        known = {lemma: whiten(of_lemma[:, k]) for lemma, of_lemma in learned.vectors.items()}
        cosines = _cosines(test, whiten(unknown[:, 0]), known)
        by_weight = {w: _choose(test, cosines, learned, first, w) for w in WEIGHTS}

        def right(weight: float, chosen=by_weight) -> int:
            triples = zip(chosen[weight], test, development, strict=True)
            return sum(sense in each.senses for sense, each, counts in triples if counts)

        best = max(WEIGHTS, key=right)
        answers[f"{system}, whitened"] = Choices(by_weight[0.0])
        answers[f"{system}, whitened, with frequency"] = Choices(by_weight[best], best)
    return answers


def _cosines(
    test: Sequence[SenseTagged], vectors: np.ndarray, known: dict[Lemma, np.ndarray]
) -> list[np.ndarray | None]:
    """Return each word's cosines with the senses of its lemma; None for an unknown lemma."""
    return [
        cosine_similarities(known[each.lemma], vector[np.newaxis])[:, 0]
        if each.lemma in known
        else None
        for each, vector in zip(test, vectors, strict=True)
    ]


def _choose(
    test: Sequence[SenseTagged],
    cosines: Sequence[np.ndarray | None],
    learned: LearnedSenses,
    first: dict[Lemma, str],
    weight: float = 0.0,
) -> list[str]:
    chosen = []
    for each, of_senses in zip(test, cosines, strict=True):
        if of_senses is None:
            chosen.append(first.get(each.lemma, ""))
        else:
            senses = learned.senses[each.lemma]
            frequencies = np.log([learned.counts[sense] for sense in senses])
            chosen.append(senses[int(np.argmax(of_senses + weight * frequencies))])
    return chosen


def _tagged_vectors(embedder: Embedder, sentences: Sequence[SenseSentence]) -> np.ndarray:
    """Embed all words with a sense: float32 (words, layers, dim)."""
    vectors: list[list[np.ndarray]] = [[] for _ in sentences]
    for k, layers in embedder.encode_each([sentence.words for sentence in sentences]):
        vectors[k] = [each.mean_of(layers) for each in sentences[k].tagged]
    return np.stack([vector for of_sentence in vectors for vector in of_sentence])


def _rows(
    answers: dict[str, Choices],
    test: Sequence[SenseSentence],
    seed: int,
    n_training: int = 0,
) -> list[Row]:
    rows = []
    for data, parts in SETS.items():
        right = {
            system: _right_by_sentence(chosen, test, parts)
            for system, (chosen, _) in answers.items()
        }
        for system, (_, weight) in answers.items():
            if not len(right[system]):
                continue
            notes: dict[str, object] = {"weight of frequency": weight} if weight else {}
            interval = bootstrap(right[system], ratio, seed=seed)
            row = Row.of(
                *(TASK, data, system, "F1", interval, "sentences", seed),
                n=int(right[system][:, 1].sum()),
                examples="words",
                n_training=n_training,
                **notes | compare_with_layer_below(system, right, seed),
            )
            rows.append(row)
    return rows


def _right_by_sentence(
    chosen: Sequence[str], sentences: Sequence[SenseSentence], parts: tuple[str, ...]
) -> np.ndarray:
    """Count the correct answers and the words of each sentence in the parts: int (sentences, 2)."""
    answers = iter(chosen)
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
        sentence.words.extend(unescape_penn(word) for word in content.split("_") if word)
        values = dict(value.partition("=")[::2] for value in attributes.split())
        senses = _semcor_senses(values)
        if senses and len(sentence.words) > first:
            end = len(sentence.words)
            sentence.tagged.append(SenseTagged(first, end, lemma_of(senses[0]), senses))
    if sentence.words:
        yield sentence


def _semcor_senses(values: dict[str, str]) -> tuple[str, ...]:
    """Return a word's sense keys, except keys with the number 0, which WordNet lacks."""
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
        sentence.words.extend(unescape_penn(word) for word in (each.text or "").split())
        if each.tag == "instance":
            lemma = each.attrib["lemma"].lower(), _PARTS_OF_SPEECH[each.attrib["pos"]]
            name = each.attrib["id"]
            end = len(sentence.words)
            sentence.tagged.append(SenseTagged(first, end, lemma, gold[name], name))
    return sentence
