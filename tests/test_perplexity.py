"""Scores compared with brute force, and with the scores that bilm-tf gives to its own model."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from keras import ops
from small_corpus import lexicon_of, made_up_sentences, split_of
from small_models import TINY, random_arrays
from wikitext import wikitext

from elmolib.corpus.prepared import spread_sentences
from elmolib.corpus.stream import BACKWARD, FORWARD
from elmolib.errors import TextError, WeightsError
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model
from elmolib.model.bilm import BiLM
from elmolib.scoring.heldout import (
    score_heldout,
    unigram_log_probabilities,
    unigram_perplexity,
)
from elmolib.scoring.metrics import (
    accuracy_table,
    loss_by_frequency,
    macro_scores,
    perplexity_table,
)
from elmolib.scoring.perplexity import Scorer, perplexity, windows_of_sentences, windows_of_split
from elmolib.scoring.softmax import Softmax
from elmolib.text.characters import character_ids
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import SPECIAL_WORDS, Vocabulary

KNOWN = ["the", "river", "bank", "was", "steep", "."]
RARE = ["of", "Rome", "!"]
VOCABULARY = Vocabulary(KNOWN)
SENTENCES = [s.split() for s in ("the river was steep .", "Rome !", "the bank of Rome was steep !")]
WT2_VALID = "d606c761252b3fcb5db3068e06bc5f511a3d9fe5b9862057c0b8b9f9d70f1638"
WT2_TRAIN = "98d1d565e60b805e65db6138be138877a0e529a3a0e316a8eef9fc3535cda1f0"


@pytest.fixture
def bilm() -> BiLM:
    return BiLM.from_arrays(TINY, random_arrays(TINY, len(VOCABULARY), seed=3))


@pytest.fixture
def small_windows(monkeypatch):
    """Make windows end within sentences, so that the state must be carried to the next window."""
    monkeypatch.setattr("elmolib.scoring.perplexity.WINDOW", 4)


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def losses_by_hand(bilm, sentences) -> np.ndarray:
    """Return the losses (2, targets) of all predictions, computed word by word."""
    losses = [[], []]
    for direction in (FORWARD, BACKWARD):
        first, last = ("<S>", "</S>") if direction == FORWARD else ("</S>", "<S>")
        state = bilm.initial_state(1)
        for sentence in sentences:
            words = sentence if direction == FORWARD else sentence[::-1]
            for read, predicted in zip([first, *words], [*words, last], strict=True):
                step = np.zeros((2, 1, 1), np.int32)
                characters = character_ids([read], TINY.max_characters).astype(np.int32)
                layers, new_state = bilm(characters, step, state)
                # The state is for both directions, but only `direction` is used.
                state = new_state
                top = np.asarray(layers[direction][-1])[0].astype(np.float64)
                logits = top @ ops.convert_to_numpy(bilm.softmax_W).T.astype(np.float64)
                probabilities = log_softmax(logits + ops.convert_to_numpy(bilm.softmax_b))
                losses[direction].append(-probabilities[0, VOCABULARY[predicted]])
    return np.array(losses)


def test_scores_equal_those_of_reading_word_by_word(bilm, small_windows):
    wanted = losses_by_hand(bilm, SENTENCES)
    windows = list(windows_of_sentences(SENTENCES, VOCABULARY, TINY))
    assert [w.targets.shape[1] for w in windows] == [4, 4, 4, 4, 1]
    scorer = Scorer(bilm)
    scores = scorer.score(windows)
    np.testing.assert_allclose(scores.losses, wanted, rtol=0, atol=2e-5)

    result = scorer.perplexity(windows)
    assert result.n_targets == 5 + 2 + 7 + 3
    assert result.vocabulary_size == len(VOCABULARY)
    assert math.isclose(result.forward, math.exp(wanted[FORWARD].mean()), rel_tol=1e-5)
    assert math.isclose(result.backward, math.exp(wanted[BACKWARD].mean()), rel_tol=1e-5)
    assert math.isclose(result.mean, math.exp(wanted.mean()), rel_tol=1e-5)
    assert "17 targets per direction and 9 words" in str(result)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_full_softmax_by_brute_force(monkeypatch, block):
    n, size, dim = 20, 33, 5
    rng = np.random.default_rng(block)
    outputs = rng.normal(size=(n, dim)).astype(np.float32)
    W = rng.normal(size=(size, dim)).astype(np.float32)
    b = rng.normal(size=size).astype(np.float32)
    targets = rng.integers(0, size, n)
    monkeypatch.setattr("elmolib.scoring.softmax.BLOCK", n * block)

    softmax = Softmax(None, W, b)
    losses, ranks, best, best_losses = softmax.compare(outputs, targets)
    logits = outputs.astype(np.float64) @ W.T + b
    rows = np.arange(n)
    np.testing.assert_allclose(losses, -log_softmax(logits)[rows, targets], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(softmax.losses(outputs, targets), losses)
    logs = softmax.log_probabilities(outputs)
    np.testing.assert_allclose(logs, log_softmax(logits), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(ranks, (logits > logits[rows, targets][:, None]).sum(axis=1))
    np.testing.assert_array_equal(best, logits.argmax(axis=1))
    np.testing.assert_allclose(best_losses, -log_softmax(logits).max(axis=1), rtol=0, atol=1e-5)
    # The most probable word has rank 0.
    np.testing.assert_array_equal(softmax.compare(outputs, best)[1], np.zeros(n))


def test_huge_logits_stay_finite():
    W = np.array([[1e4], [-1e4], [0.0]], np.float32)
    softmax = Softmax(None, W, np.zeros(3, np.float32))
    losses, ranks, best, best_losses = softmax.compare(np.ones((1, 1), np.float32), np.array([1]))
    assert losses[0] == pytest.approx(2e4)
    assert (ranks[0], best[0], best_losses[0]) == (2, 0, 0)


def corpus_of(train, heldout) -> SimpleNamespace:
    """Return an object, made from lists of words, that scoring takes for a prepared corpus."""
    words = [*SPECIAL_WORDS, *KNOWN, *RARE]
    counts = Counter(word for sentence in train for word in sentence)
    lexicon = replace(lexicon_of(KNOWN + RARE), counts=np.array([counts[word] for word in words]))

    def split(sentences):
        return split_of([[words.index(word) for word in sentence] for sentence in sentences])

    return SimpleNamespace(
        path="corpus",
        vocabulary=VOCABULARY,
        lexicon=lexicon,
        train=split(train),
        heldout=split(heldout),
    )


def test_a_prepared_corpus_has_the_perplexity_of_its_text(bilm, small_windows, tmp_path):
    corpus = corpus_of(SENTENCES, SENTENCES)
    windows = windows_of_split(corpus.heldout, corpus, TINY)
    from_ids = Scorer(bilm).perplexity(windows)

    arrays = random_arrays(TINY, len(VOCABULARY), seed=3)
    write_model(
        tmp_path / "elmo.h5", StoredModel(TINY, arrays, VOCABULARY, Tokenizer(tokenized=True))
    )
    text = tmp_path / "heldout.txt"
    text.write_text("\n".join(" ".join(sentence) for sentence in SENTENCES), encoding="utf-8")
    from_text = perplexity(tmp_path / "elmo.h5", text)
    assert from_text.n_targets == from_ids.n_targets
    for part in ("forward", "backward", "mean"):
        assert math.isclose(getattr(from_text, part), getattr(from_ids, part), rel_tol=1e-5)
    assert perplexity(tmp_path / "elmo.h5", [str(text)]) == from_text


def test_models_and_texts_that_cannot_be_scored_are_named(bilm, tmp_path):
    write_model(tmp_path / "bare.h5", StoredModel(TINY, random_arrays(TINY), None, Tokenizer()))
    arrays = random_arrays(TINY, len(VOCABULARY))
    write_model(tmp_path / "elmo.h5", StoredModel(TINY, arrays, VOCABULARY, Tokenizer()))
    with pytest.raises(WeightsError, match=r"bare\.h5 has no softmax"):
        perplexity(tmp_path / "bare.h5", tmp_path / "missing.txt")
    with pytest.raises(TextError, match=r"missing\.txt"):
        perplexity(tmp_path / "elmo.h5", tmp_path / "missing.txt")
    (tmp_path / "blank.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(TextError, match=r"blank\.txt holds no sentence to score"):
        perplexity(tmp_path / "elmo.h5", tmp_path / "blank.txt")


def test_unigram_by_hand():
    """Probabilities are counts plus one; rare words count as <UNK>, sentence ends as </S>."""
    corpus = corpus_of([["the", "bank", "Rome"], ["the", "!"]], [["the", "of"]])
    size = len(KNOWN) + 3
    total = 5 + 2 + size
    probability = {"the": 3 / total, "<UNK>": 3 / total, "</S>": 3 / total, "bank": 2 / total}
    log_p = unigram_log_probabilities(corpus)
    assert math.isclose(np.exp(log_p).sum(), 1.0)
    for word, p in probability.items():
        assert math.isclose(math.exp(log_p[VOCABULARY.words.index(word)]), p)
    wanted = (probability["the"] * probability["<UNK>"] * probability["</S>"]) ** (-1 / 3)
    assert math.isclose(unigram_perplexity(corpus), wanted)


def test_macro_scores_by_hand():
    #             a  a  a  b  b  rare
    targets = np.array([3, 3, 3, 4, 4, 5, 1, 1, 1])
    best = np.array([3, 3, 4, 4, 3, 3, 1, 1, 1])
    scores = macro_scores(targets, best, min_targets=2)
    # "a" is chosen 4 times, and 2 of its 3 targets are found. "b" is chosen twice, and 1 of its 2
    # targets is found. Rare words and special words are left out.
    assert scores.n_words == 2
    assert math.isclose(scores.precision, (2 / 4 + 1 / 2) / 2)
    assert math.isclose(scores.recall, (2 / 3 + 1 / 2) / 2)
    assert math.isclose(scores.f1, (4 / 7 + 1 / 2) / 2)
    # A word that was never chosen has precision 0.
    assert macro_scores(np.array([3, 3]), np.array([4, 4]), 2).precision == 0
    assert math.isnan(macro_scores(targets, best, min_targets=4).f1)


def test_accuracy_by_hand():
    table = accuracy_table(SimpleNamespace(ranks=np.array([[0, 1, 4, 5], [9, 10, 99, 100]])))
    assert table.loc["forward"].tolist() == [0.25, 0.75, 1, 1]
    assert table.loc["backward"].tolist() == [0, 0, 0.25, 0.75]


def test_loss_by_frequency_adds_up(bilm):
    train = [sentence.split() for sentence in 4 * ["the river was steep .", "the bank of Rome !"]]
    corpus = corpus_of(train, SENTENCES)
    scores = score_heldout(Scorer(bilm), corpus)
    perplexities = perplexity_table(scores, corpus)["perplexity"]
    assert math.isclose(perplexities["unigram"], unigram_perplexity(corpus), rel_tol=1e-6)
    table = loss_by_frequency(scores, corpus)
    assert list(table.index) == ["1+", "<UNK>", "sentence end"]
    assert table["targets"].sum() == scores.targets.size
    assert table.loc["sentence end", "targets"] == 2 * len(SENTENCES)
    for name, direction in (("forward", FORWARD), ("backward", BACKWARD)):
        # Both directions predict the same words, so each has half of the targets in a band.
        total = (table[name] * table["targets"] / 2).sum()
        assert math.isclose(total, scores.losses[direction].sum(), rel_tol=1e-5)
        one_sentence = table.loc["1+"]
        assert one_sentence[f"{name}_low"] <= one_sentence[name] <= one_sentence[f"{name}_high"]
    log_perplexity = (table["unigram"] * table["targets"]).sum() / table["targets"].sum()
    assert math.isclose(math.exp(log_perplexity), unigram_perplexity(corpus), rel_tol=1e-6)


@pytest.mark.parametrize(("n_targets", "n_sentences"), [(1, 1), (60, 10), (600, 100), (9999, 100)])
def test_spread_sentences(n_targets, n_sentences):
    sentences = [[k, k, k, k, k] for k in range(100)]
    chosen = spread_sentences(split_of(sentences), n_targets)
    firsts = chosen.ids[chosen.bounds[:-1]].tolist()
    assert [chosen.ids[a:b].tolist() for a, b in itertools.pairwise(chosen.bounds)] == [
        [k] * 5 for k in firsts
    ]
    assert len(firsts) == n_sentences
    assert firsts == list(range(0, 100, 100 // n_sentences))


@pytest.mark.shared
def test_losses_of_a_bilm_tf_model_agree_to_six_digits(shared):
    """The reference is a float64 implementation of bilm-tf's formulas."""
    stored = read_model(shared / "reference" / "wt2")
    sentences = (line.split(" ") for line in wikitext(shared, "valid").split("\n"))
    windows = windows_of_sentences(sentences, stored.vocabulary, stored.architecture)
    scorer = Scorer(BiLM.from_arrays(stored.architecture, stored.arrays))
    scores = scorer.score(itertools.islice(windows, 6))
    means = scores.losses[:, :2_700].mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(means, [5.7582545, 5.7464711], rtol=0, atol=5e-6)


@pytest.mark.slow
@pytest.mark.shared
def test_perplexity_of_a_bilm_tf_model_is_that_of_its_own_code(shared, tmp_path):
    text = wikitext(shared, "valid")
    assert hashlib.sha256(text.encode()).hexdigest() == WT2_VALID
    (tmp_path / "valid.txt").write_text(text, encoding="utf-8")

    result = perplexity(shared / "reference" / "wt2", tmp_path / "valid.txt")
    assert result.n_targets == 217_395
    assert result.vocabulary_size == 33_279
    assert math.isclose(result.forward, 321.76, rel_tol=5e-4)
    assert math.isclose(result.backward, 312.08, rel_tol=5e-4)
    assert math.isclose(result.mean, 316.88, rel_tol=5e-4)


@pytest.mark.shared
def test_unigram_of_wikitext(shared):
    """The reference data give the perplexity 917.5."""
    train, valid = wikitext(shared, "train"), wikitext(shared, "valid")
    assert hashlib.sha256(train.encode()).hexdigest() == WT2_TRAIN
    words = (
        (shared / "reference" / "wt2" / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    )
    ids = {word: i for i, word in enumerate(words)}

    def split(text):
        return split_of([[ids[word] for word in line.split(" ")] for line in text.split("\n")[:-1]])

    train_split = split(train)
    corpus = SimpleNamespace(
        vocabulary=Vocabulary(words),
        lexicon=SimpleNamespace(counts=np.bincount(train_split.ids, minlength=len(words))),
        train=train_split,
        heldout=split(valid),
    )
    assert corpus.vocabulary.words == words
    assert math.isclose(unigram_perplexity(corpus), 917.5, abs_tol=0.05)


def test_made_up_text_is_reproducible():
    sentences = made_up_sentences(150)
    assert len(set(sentences)) > 60
    assert sentences == made_up_sentences(150)
