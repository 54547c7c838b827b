"""In each epoch, each direction predicts every word once, from the correct neighbouring word."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small_corpus import lexicon_of, split_of, training_settings
from small_models import TINY, words_of

from elmolib.corpus import stream
from elmolib.corpus.stream import BACKWARD, FORWARD, read_and_predict
from elmolib.errors import TrainingError
from elmolib.model.layers import CharCNN
from elmolib.settings.architecture import Architecture
from elmolib.text.characters import PADDING, character_ids, trim_columns
from elmolib.text.vocabulary import SPECIAL_WORDS, UNK
from elmolib.training.batches import Batch, Batches, log_expected_count, sample_negatives

KNOWN = [f"known{i}" for i in range(9)]
RARE = [f"rare{i}" for i in range(6)]
VOCABULARY = len(SPECIAL_WORDS) + len(KNOWN)
WORDS = [*SPECIAL_WORDS, *KNOWN, *RARE]

word_ids = st.integers(UNK, len(WORDS) - 1)
corpora = st.lists(st.lists(word_ids, min_size=1, max_size=9), min_size=1, max_size=30)


def make(
    sentences, batch_size=2, unroll_steps=3, n_negatives=None, seed=7, shuffle=True
) -> Batches:
    settings = training_settings(
        batch_size=batch_size,
        unroll_steps=unroll_steps,
        n_negatives=n_negatives,
        seed=seed,
        shuffle=shuffle,
    )
    corpus = SimpleNamespace(
        train=split_of(sentences),
        lexicon=lexicon_of(KNOWN + RARE),
        vocabulary=[*SPECIAL_WORDS, *KNOWN],
    )
    return Batches(corpus, TINY, settings)


def make_texts_large(monkeypatch) -> None:
    """Shuffle texts of more than ten sentences in blocks of seven."""
    monkeypatch.setattr(stream, "WHOLE_SHUFFLE", 10)
    monkeypatch.setattr(stream, "BLOCK", 7)


def some_sentences(n=40, seed=3):
    rng = np.random.default_rng(seed)
    return [rng.integers(UNK, len(WORDS), rng.integers(1, 9)).tolist() for _ in range(n)]


def read_words(batch: Batch, direction: int) -> np.ndarray:
    """The words that a batch reads, as strings (batch, time)."""
    words = [word for group in batch.characters for word in words_of(group)]
    return np.array(words)[batch.words[direction]].T


def predicted_words(batch: Batch, direction: int) -> np.ndarray:
    """The vocabulary's words that a batch predicts, as strings (batch, time)."""
    targets = batch.targets[direction].T
    return np.array(WORDS)[batch.rows[targets] if len(batch.rows) else targets]


def epoch_pairs(batches: Batches, epoch: int, direction: int) -> list[tuple[str, str]]:
    """All (read, predicted) pairs of an epoch in stream order, without padding."""
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    parts = [batches[step] for step in steps]
    read = np.concatenate([read_words(part, direction) for part in parts], axis=1)
    predicted = np.concatenate([predicted_words(part, direction) for part in parts], axis=1)
    counts = np.concatenate([part.weights.T for part in parts], axis=1) == 1
    return [
        (str(r), str(p))
        for row in range(batches.settings.batch_size)
        for r, p, c in zip(read[row], predicted[row], counts[row], strict=True)
        if c
    ]


def sentences_read(pairs, direction) -> Counter:
    """Count the sentences in a stream of pairs, each with its words in text order."""
    first, last = ("<S>", "</S>") if direction == FORWARD else ("</S>", "<S>")
    found, current = Counter(), None
    for (read, predicted), following in zip(pairs, [*pairs[1:], (first, None)], strict=True):
        assert (read == first) == (current is None)
        current = [] if read == first else [*current, read]
        if following[0] == first:
            assert predicted == last
            found[tuple(current if direction == FORWARD else current[::-1])] += 1
            current = None
        else:
            in_vocabulary = following[0] in WORDS[:VOCABULARY]
            assert predicted == (following[0] if in_vocabulary else "<UNK>")
    return found


def test_a_sentence_by_hand():
    ids, lengths = np.array([11, 12, 13, 21]), np.array([3, 1])
    read, predicted = read_and_predict(ids, lengths, FORWARD)
    assert read.tolist() == [0, 11, 12, 13, 0, 21]
    assert predicted.tolist() == [11, 12, 13, 1, 21, 1]
    read, predicted = read_and_predict(ids, lengths, BACKWARD)
    assert read.tolist() == [1, 13, 12, 11, 1, 21]
    assert predicted.tolist() == [13, 12, 11, 0, 21, 0]


def test_a_batch_by_hand():
    """The batch has one sentence in two rows. The softmax lacks one of its four words."""
    batches = make([[3, 12, 4, 3]], batch_size=2, unroll_steps=2)
    assert batches.n_targets == 5
    assert batches.steps_per_epoch == 2  # rows of 2 and 3 predictions
    first, second = batches[0], batches[1]
    assert read_words(first, FORWARD).tolist() == [["<S>", "known0"], ["rare0", "known1"]]
    assert predicted_words(first, FORWARD).tolist() == [["known0", "<UNK>"], ["known1", "known0"]]
    assert read_words(first, BACKWARD).tolist() == [["</S>", "known0"], ["known1", "rare0"]]
    assert predicted_words(first, BACKWARD).tolist() == [["known0", "known1"], ["<UNK>", "known0"]]
    assert first.weights.T.tolist() == [[1, 1], [1, 1]]
    assert second.weights.T.tolist() == [[0, 0], [1, 0]]
    assert read_words(second, FORWARD)[1, 0] == "known0"
    assert predicted_words(second, FORWARD)[1, 0] == "</S>"
    assert read_words(second, BACKWARD)[1, 0] == "known0"
    assert predicted_words(second, BACKWARD)[1, 0] == "<S>"


@given(corpora, st.integers(1, 4), st.integers(1, 5), st.sampled_from([None, 5]), st.data())
def test_every_word_is_predicted_once_per_epoch_and_direction(
    sentences, batch_size, unroll_steps, n_negatives, data
):
    n_targets = sum(len(sentence) + 1 for sentence in sentences)
    if n_targets < batch_size * unroll_steps:
        batch_size = unroll_steps = 1
    batches = make(sentences, batch_size, unroll_steps, n_negatives)
    epoch = data.draw(st.integers(0, 3))
    expected = Counter(tuple(WORDS[i] for i in sentence) for sentence in sentences)
    for direction in (FORWARD, BACKWARD):
        pairs = epoch_pairs(batches, epoch, direction)
        assert len(pairs) == n_targets
        assert sentences_read(pairs, direction) == expected


@pytest.mark.parametrize("epoch", [0, 2])
def test_shuffling_in_blocks_loses_no_sentence(monkeypatch, epoch):
    make_texts_large(monkeypatch)
    sentences = some_sentences(45)
    batches = make(sentences, batch_size=3, unroll_steps=4)
    assert len(batches.streams[FORWARD].block_lengths) == 7
    expected = Counter(tuple(WORDS[i] for i in sentence) for sentence in sentences)
    orders = []
    for direction in (FORWARD, BACKWARD):
        pairs = epoch_pairs(batches, epoch, direction)
        assert sentences_read(pairs, direction) == expected
        orders.append(pairs)
    in_order = [WORDS[i] for sentence in sentences for i in sentence]
    assert [r for r, _ in orders[FORWARD] if r != "<S>"] != in_order


@pytest.mark.parametrize("large", [False, True], ids=["whole", "blocks"])
def test_any_step_can_be_computed_without_the_ones_before(monkeypatch, large):
    if large:
        make_texts_large(monkeypatch)
    sentences = some_sentences()
    arguments = {"batch_size": 3, "unroll_steps": 4, "n_negatives": 5}
    batches = make(sentences, **arguments)
    n_steps = 2 * batches.steps_per_epoch + 3
    in_order = list(make(sentences, **arguments).read_ahead(0, n_steps))
    assert len(in_order) == n_steps
    for step in np.random.default_rng(0).permutation(n_steps):
        for name, wanted, got in zip(Batch._fields, in_order[step], batches[step], strict=True):
            pairs = zip(got, wanted, strict=True) if name == "characters" else [(got, wanted)]
            for a, b in pairs:
                np.testing.assert_array_equal(a, b, err_msg=f"{name} of step {step}")
    assert list(batches.read_ahead(4, 4)) == []


def test_shuffles_differ_only_by_direction_epoch_and_seed():
    sentences = [[3 + i % 12, 3 + i // 12] for i in range(60)]

    def order(batches, epoch, direction):
        pairs = epoch_pairs(batches, epoch, direction)
        words = [read for read, _ in pairs if not read.startswith("<")]
        sentence_wise = [tuple(words[i : i + 2]) for i in range(0, len(words), 2)]
        return sentence_wise if direction == FORWARD else [pair[::-1] for pair in sentence_wise]

    one, other = make(sentences), make(sentences, seed=8)
    orders = [order(one, epoch, d) for epoch in (0, 1) for d in (FORWARD, BACKWARD)]
    orders += [order(other, 0, FORWARD)]
    assert all(Counter(o) == Counter(orders[0]) for o in orders)
    assert len({tuple(o) for o in orders}) == len(orders)
    assert order(make(sentences), 1, BACKWARD) == order(one, 1, BACKWARD)


@pytest.mark.parametrize("large", [False, True], ids=["whole", "blocks"])
def test_without_shuffling_every_epoch_reads_the_text_in_order(monkeypatch, large):
    if large:
        make_texts_large(monkeypatch)
    sentences = some_sentences()
    batches = make(sentences, batch_size=3, unroll_steps=4, shuffle=False)
    in_order = [[WORDS[i] for i in sentence] for sentence in sentences]
    for epoch in (0, 1):
        forward = [read for read, _ in epoch_pairs(batches, epoch, FORWARD)]
        assert forward == [word for sentence in in_order for word in ["<S>", *sentence]]
        backward = [read for read, _ in epoch_pairs(batches, epoch, BACKWARD)]
        assert backward == [word for sentence in in_order for word in ["</S>", *sentence[::-1]]]


def test_rows_are_the_distinct_words_of_the_softmax():
    batches = make(some_sentences(), n_negatives=5)
    for step in range(5):
        batch = batches[step]
        used = np.concatenate([batch.targets.ravel(), batch.negatives.ravel()])
        assert sorted(set(used.tolist())) == list(range(len(batch.rows)))
        assert len(set(batch.rows.tolist())) == len(batch.rows)
        assert batch.rows.max() < VOCABULARY
        for direction in (FORWARD, BACKWARD):
            assert len(set(batch.negatives[direction].tolist())) == 5
        assert batch.negatives[FORWARD].tolist() != batch.negatives[BACKWARD].tolist()


def test_each_word_of_a_batch_is_listed_once():
    batch = make(some_sentences(), batch_size=4, unroll_steps=8)[0]
    words = [word for group in batch.characters for word in words_of(group)]
    assert len(set(words)) == len(words)
    assert set(np.unique(batch.words)) == set(range(len(words)))


def test_too_little_text_raises_an_error():
    with pytest.raises(TrainingError, match=r"has 4 words and sentence ends.*batch_size 2 times "):
        make([[3, 4, 5]], batch_size=2, unroll_steps=3)


@pytest.mark.parametrize("n_negatives", [VOCABULARY, 8192])
def test_too_many_negatives_mean_the_full_softmax(caplog, n_negatives):
    many, full = (make(some_sentences(), n_negatives=n)[1] for n in (n_negatives, None))
    assert "has only 12 words, so all are used" in caplog.text
    for found, expected in zip(many[1:], full[1:], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not many.is_sampled
    assert make(some_sentences(), n_negatives=VOCABULARY - 1)[0].is_sampled


def drawn_one_by_one(n, size, rng):
    """Sample in the plainest way: draw words log-uniformly until there are `n` different ones."""
    found, n_draws = [], 0
    while len(found) < n:
        word = min(int(np.exp(rng.random() * np.log(size + 1))) - 1, size - 1)
        n_draws += 1
        if word not in found:
            found.append(word)
    return found, n_draws


@pytest.mark.parametrize(("n", "size"), [(1, 1), (5, 40), (40, 40), (200, 10_000)])
def test_negatives_equal_those_drawn_one_by_one(n, size):
    for seed in range(5):
        got, got_draws = sample_negatives(n, size, np.random.default_rng(seed))
        ids, n_draws = drawn_one_by_one(n, size, np.random.default_rng(seed))
        assert got.tolist() == ids
        assert got_draws == n_draws


def test_negatives_follow_the_log_uniform_distribution():
    size, n = 30, 20_000
    rng = np.random.default_rng(5)
    first = np.array([sample_negatives(1, size, rng)[0][0] for _ in range(n)])
    k = np.arange(size)
    law = np.log((k + 2) / (k + 1)) / np.log(size + 1)
    chi_square = ((np.bincount(first, minlength=size) - n * law) ** 2 / (n * law)).sum()
    assert chi_square < 58.3  # p = 0.001 with 29 degrees of freedom
    np.testing.assert_allclose(np.exp(log_expected_count(k, size, 1)), law, rtol=1e-6)


@pytest.mark.slow
@example(["a", "bé"], [1, 3], "relu", 14)  # padded
@example(["abcdabcdabcdab"], [1, 3], "relu", 14)  # not padded
@given(
    st.lists(st.text("abcdé銀", min_size=0, max_size=11), min_size=1, max_size=6),
    st.lists(st.integers(1, 7), min_size=1, max_size=3),
    st.sampled_from(["relu", "tanh"]),
    st.integers(7, 14),
)
def test_trimmed_columns_change_no_vector(words, widths, activation, max_characters):
    options = Architecture(
        char_embedding_dim=3,
        filters=tuple((width, 2) for width in widths),
        n_highway=1,
        activation=activation,
        max_characters=max_characters,
        lstm_dim=4,
        projection_dim=3,
        n_layers=1,
        cell_clip=None,
        proj_clip=None,
        use_skip_connections=True,
    )
    layer = CharCNN(options)
    layer.build()
    for variable in layer.weights:
        values = np.random.default_rng(len(words)).normal(size=variable.shape)
        variable.assign(values.astype(np.float32))
    whole = character_ids(words, max_characters)
    trimmed = trim_columns(whole, max(widths))
    assert (whole[:, trimmed.shape[1] :] == PADDING).all()
    untrimmed = layer(whole.astype(np.int32))
    np.testing.assert_allclose(layer(trimmed), untrimmed, rtol=0, atol=1e-6)
    if (trimmed[:, -max(widths) :] == PADDING).all():
        np.testing.assert_allclose(layer(trimmed, padded=True), untrimmed, rtol=0, atol=1e-6)


def test_columns_are_trimmed():
    assert trim_columns(character_ids(["abc", "a"], 50), 4).shape == (2, 3 + 2 + 4)
