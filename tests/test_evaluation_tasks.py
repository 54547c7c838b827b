"""Downstream tasks on made-up datasets with known answers, and the commands that run them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from evaluation_sets import (
    LAND,
    MONEY,
    PerfectEmbedder,
    write_entities,
    write_one_word,
    write_reviews,
    write_senses,
    write_sentiment,
    write_similarity,
    write_web_treebank,
    write_word_in_context,
    write_wordnet,
)
from gensim.models import KeyedVectors
from small_corpus import made_up_sentences, small_parameters
from small_models import TINY, random_arrays

from benchmarks.tasks import entities, lstm, one_word, part_of_speech, perplexities, senses
from benchmarks.tasks.__main__ import main
from benchmarks.tasks.baselines import (
    Word2VecEmbedder,
    untrained_encoder,
    word2vec_of_corpus,
)
from benchmarks.tasks.common import TaskConfig, WindowMean, split_vectors
from benchmarks.tasks.lstm import Examples, classify_sentences, classify_words
from benchmarks.tasks.probe import Labelled, linear_probe
from benchmarks.tasks.report import main as report
from benchmarks.tasks.results import compare_with_layer_below, layer_below, read_results
from benchmarks.tasks.similarity import pearson, sentence_vectors
from benchmarks.tasks.tasks import TASKS, measure_all, tasks_named
from benchmarks.tasks.vectors import word_vectors
from benchmarks.tasks.word_in_context import best_threshold
from elmolib.corpus.prepare import prepare_corpus
from elmolib.errors import ElmolibError, ParameterError, WeightsError
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel, write_model
from elmolib.scoring.perplexity import perplexity
from elmolib.text.tokenizer import Tokenizer


@pytest.fixture
def config(tmp_path) -> TaskConfig:
    """A folder with all datasets except the WSJ sample, Brown and the Romanian treebank."""
    data = tmp_path / "data"
    for write in (
        write_web_treebank,
        write_senses,
        write_one_word,
        write_word_in_context,
        write_entities,
        write_sentiment,
        write_reviews,
        write_similarity,
    ):
        write(data)
    write_wordnet(tmp_path / "wordnet")
    return TaskConfig(data, tmp_path / "wordnet", seed=3)


def values(rows, data: str | None = None) -> dict[str, float]:
    return {row.system: row.value for row in rows if data in (None, row.data)}


def test_part_of_speech_needs_the_neighboring_words(config):
    rows = TASKS["pos-ewt"].measure(PerfectEmbedder(), config)
    found = values(rows)
    # Half of the words are "fish" or "book". Both are nouns as often as verbs.
    assert found["layer 0"] == pytest.approx(0.75, abs=0.01)
    assert found["layer 1"] == found["mix"] == 1.0
    mix = rows[-1].notes["layer weights"]
    assert sum(mix) == pytest.approx(1, abs=2e-3) and mix[1] > mix[0]
    assert (rows[0].n, rows[0].drawn, rows[0].n_training, rows[0].seed) == (24, 12, 96, 3)
    (baseline,) = TASKS["pos-ewt"].measure(None, config)
    assert (baseline.system, baseline.value) == ("most frequent tag", 0.75)


def test_words_get_the_sense_of_the_nearest_mean_vector(config):
    rows = TASKS["senses"].measure(PerfectEmbedder(), config)
    # "bear" is not in SemCor, so it gets its first sense in WordNet, which is correct.
    found = values(rows, "ALL")
    assert found["layer 0"] == 0.75
    assert found["layer 1"] == found["average"] == found["layer 1, whitened"] == 1.0
    assert values(rows, "senseval2")["layer 1"] == 1.0
    sets = {row.data for row in rows}
    assert sets == {"ALL", "ALL but semeval2007", "senseval2", "semeval2013"}
    baseline = values(TASKS["senses"].measure(None, config), "ALL")
    assert baseline == {"first sense": 0.75}


def test_the_vector_of_a_sense_is_the_mean_over_its_words(config):
    embedder = PerfectEmbedder(n_layers=1)
    sentences = senses.read_semcor(config.data / senses.SEMCOR)
    learned = senses.learn_senses(embedder, sentences)
    vectors = learned.vectors["bank", "n"]
    assert learned.senses == {("bank", "n"): [MONEY, LAND]}
    assert learned.counts == {MONEY: 2, LAND: 1}
    layers = dict(embedder.encode_each([["bank", "money"]]))[0]
    bank, money = layers[0]
    np.testing.assert_allclose(vectors[0, 0], (bank + (money + bank) / 2) / 2, rtol=1e-6)
    np.testing.assert_allclose(vectors[1, 0], bank, rtol=1e-6)
    every = np.stack([bank, bank, (money + bank) / 2])
    np.testing.assert_allclose(learned.mean[0], every.mean(axis=0), rtol=1e-6)
    expected = np.cov(every.T, bias=True)
    np.testing.assert_allclose(learned.covariance[0], expected, rtol=1e-4, atol=1e-6)


def test_frequency_decides_between_similar_vectors_with_a_weight_chosen_on_development_words():
    seen = [("m", MONEY)] * 9 + [("l", LAND)]
    lemma = ("bank", "n")
    tag = senses.SenseTagged
    semcor = [senses.SenseSentence([w], [tag(0, 1, lemma, (key,))]) for w, key in seen]
    learned = senses.learn_senses(PerfectEmbedder(1), semcor)
    between = sum(dict(PerfectEmbedder(1).encode_each([["m"], ["l"]])).values())[:, 0]
    vectors = np.stack(
        [between + 0.01 * dict(PerfectEmbedder(1).encode_each([["l"]]))[0][:, 0]] * 2
    )

    def chosen(sense: str) -> senses.Choices:
        names = "semeval2007.d0", "senseval2.d0"
        test = [tag(0, 1, lemma, (sense,), name) for name in names]
        found = senses.whitened_choices(test, vectors.reshape(2, 1, -1), learned, {})
        assert found["vector, whitened"] == senses.Choices([LAND, LAND])
        return found["vector, whitened, with frequency"]

    assert chosen(LAND) == senses.Choices([LAND, LAND], 0.0)
    assert chosen(MONEY).senses == [MONEY, MONEY]
    assert chosen(MONEY).weight > 0


def test_senses_of_one_word_need_the_word_before(config):
    rows = TASKS["one-word"].measure(PerfectEmbedder(), config)
    assert {row.value for row in rows if row.system == "layer 1"} == {1.0}
    assert {row.n_training for row in rows} == {20}
    assert all(row.value < 0.8 for row in rows if row.system == "layer 0")
    assert len(TASKS["one-word"].measure(None, config)) == 4


def test_word_in_context_needs_context(config):
    found = values(TASKS["wic"].measure(PerfectEmbedder(), config))
    assert found["layer 0"] == 0.5
    assert found["layer 1"] == 1.0
    assert values(TASKS["wic"].measure(None, config)) == {"majority answer": 0.5}


def test_a_layer_is_compared_with_the_one_below():
    right = {"layer 1": np.array([[1, 2], [2, 2]]), "layer 2": np.array([[2, 2], [2, 2]])}
    note = compare_with_layer_below("layer 2", right, seed=0)
    assert list(note) == ["above layer 1"] and note["above layer 1"][0] == 0.25
    assert compare_with_layer_below("layer 1", right, seed=0) == {}
    assert layer_below("layer 12, whitened") == "layer 11, whitened"
    assert [layer_below(name) for name in ("layer 0", "layer 1", "mix")] == [None] * 3


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better_than_the_best_threshold(seed):
    generator = np.random.default_rng(seed)
    numbers = generator.normal(size=30).round(1)
    truth = generator.random(30) < 0.6
    tried = [*numbers, math.inf]
    most = max(np.sum((numbers >= threshold) == truth) for threshold in tried)
    assert np.sum((numbers >= best_threshold(numbers, truth)) == truth) == most


@pytest.mark.slow
def test_entities_need_the_word_before(config):
    found = values(TASKS["entities"].measure(PerfectEmbedder(), config))
    assert found["layer 1"] == found["mix"] == found["LSTM classifier"] == 1.0
    assert found["layer 0"] < 1.0
    # "York" alone is a place or a person, but each whole name has only one type.
    known = values(TASKS["entities"].measure(None, config))
    assert known == {"training entities": 1.0}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O I-PER I-PER O", [("PER", 1, 3)]),
        ("I-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),
        ("B-LOC B-LOC O I-ORG", [("LOC", 0, 1), ("LOC", 1, 2), ("ORG", 3, 4)]),
        ("O O", []),
        ("", []),
    ],
)
def test_spans_match_conlleval(tags, expected):
    assert entities.spans(tags.split()) == expected
    assert entities.spans(entities.to_iob2(tags.split())) == expected


def test_f1_of_entities_matches_a_count_by_hand():
    true = ["B-PER", "I-PER", "O", "B-LOC", "O"]
    given = ["B-PER", "O", "O", "B-LOC", "B-ORG"]
    counts = entities.span_counts(given, true)
    assert counts == (1, 3, 2)
    assert entities.f1(np.array([[counts, (1, 1, 1)]])) == pytest.approx([2 * 2 / (4 + 3)])


@pytest.mark.slow
def test_sentiment_is_predicted_from_words(config, monkeypatch):
    monkeypatch.setattr(lstm, "BATCH_SIZE", 4)
    fine = values(TASKS["sst5"].measure(PerfectEmbedder(), config))
    assert fine["layer 0"] == fine["LSTM classifier"] == 1.0
    assert values(TASKS["sst2"].measure(PerfectEmbedder(1), config)) == {
        "vector": 1.0,
        "LSTM classifier": 1.0,
    }
    assert values(TASKS["sst5"].measure(None, config)) == {"majority class": 0.2}
    rows = TASKS["laroseda"].measure(PerfectEmbedder(1), config)
    assert {(row.value, row.n, row.parts) for row in rows} == {(1.0, 20, "reviews")}


def test_similar_sentences_share_words(config):
    for name in ("sts", "ro-sts"):
        rows = TASKS[name].measure(PerfectEmbedder(), config)
        assert values(rows)["layer 0"] > 0.9
        assert values(TASKS[name].measure(None, config))["word overlap"] > 0.9


class DominatedEmbedder:
    """Features that count the letters of a word, and one feature of large, meaningless values."""

    def encode_each(self, sentences):
        for index, words in enumerate(sentences):
            vectors = np.zeros((1, len(words), 27), np.float32)
            for k, word in enumerate(words):
                for letter in filter(str.isalpha, word.lower()):
                    vectors[0, k, ord(letter) - ord("a")] += 1
                vectors[0, k, 26] = 200 * np.sin(len(words) * 7.0 + ord(words[0][0]))
            yield index, vectors


def test_whitening_removes_a_dominant_direction(config):
    found = values(TASKS["sts"].measure(DominatedEmbedder(), config))
    assert found["vector"] < found["vector, whitened"] - 0.1 and found["vector, whitened"] > 0.8


def test_pearson_matches_numpy():
    drawn = np.random.default_rng(0).normal(size=(6, 30, 2))
    drawn[..., 1] += drawn[..., 0]
    expected = [np.corrcoef(sample.T)[0, 1] for sample in drawn]
    np.testing.assert_allclose(pearson(drawn), expected, rtol=1e-12)


def test_word_vectors_are_in_order_even_if_the_embedder_yields_in_another():
    sentences = [["a", "b"], [], ["b"]]
    vectors = word_vectors(PerfectEmbedder(), sentences)
    assert vectors.values.shape == (3, 2, 64) and vectors.bounds.tolist() == [0, 2, 2, 3]
    np.testing.assert_array_equal(vectors.values[1, 0], vectors.values[2, 0])
    means = sentence_vectors(PerfectEmbedder(), sentences)
    np.testing.assert_allclose(means[0], vectors.values[:2].astype(np.float32).mean(0), atol=2e-3)
    assert not means[1].any()
    first, rest = split_vectors(vectors, [1, 2])
    assert (len(first.values), len(rest.values), rest.bounds.tolist()) == (2, 1, [0, 0, 1])


@pytest.mark.slow
def test_a_probe_separates_classes_that_a_plane_separates_and_no_others():
    generator = np.random.default_rng(0)
    vectors = (100 + 5 * generator.normal(size=(600, 1, 4))).astype(np.float16)
    plane = (vectors[:, 0, 0] > vectors[:, 0, 1]).astype(np.int32)
    circle = (((vectors[:, 0] - 100) ** 2).sum(axis=1) > 84).astype(np.int32)
    for labels, low, high in ((plane, 0.93, 1.0), (circle, 0.3, 0.7)):
        parts = [Labelled(vectors[a:b], labels[a:b]) for a, b in ((0, 400), (400, 500))]
        learned = linear_probe(*parts, vectors[500:], 2)
        assert low <= np.mean(learned.predicted == labels[500:]) <= high
        again = linear_probe(*parts, vectors[500:], 2)
        np.testing.assert_array_equal(learned.predicted, again.predicted)


@pytest.mark.slow
def test_an_lstm_uses_word_order_that_a_mean_loses():
    embedder = PerfectEmbedder(n_layers=1)
    sentences = [["a", "b"], ["b", "a"], ["a", "a", "b"], ["b", "a", "a"]] * 25
    labels = np.array([0, 1, 0, 1] * 25)
    vectors = word_vectors(embedder, sentences)
    of_sentences = Examples(vectors, labels)
    learned = classify_sentences(of_sentences, of_sentences, vectors, 2)
    np.testing.assert_array_equal(learned.predicted, labels)
    of_words = Examples(vectors, np.repeat(labels, np.diff(vectors.bounds)))
    learned = classify_words(of_words, of_words, vectors, 2)
    np.testing.assert_array_equal(learned.predicted, of_words.labels)


def test_word2vec_uses_lower_case_for_unknown_words_or_else_zeros():
    vectors = KeyedVectors(2)
    vectors.add_vectors(["river", "Rome"], np.array([[1, 2], [3, 4]], np.float32))
    ((place, layers),) = Word2VecEmbedder(vectors).encode_each([["River", "Rome", "rome"]])
    assert place == 0
    np.testing.assert_array_equal(layers, [[[1, 2], [3, 4], [0, 0]]])


def test_window_mean_averages_the_neighbors():
    vectors = KeyedVectors(1)
    vectors.add_vectors(["a", "b", "c"], np.array([[1], [2], [6]], np.float32))
    ((_, layers),) = WindowMean(Word2VecEmbedder(vectors), 1).encode_each([["a", "b", "c"]])
    np.testing.assert_allclose(layers[0, :, 0], [1.5, 3, 4])


def test_word2vec_reads_the_training_sentences(tmp_path):
    corpus = prepare_corpus(small_parameters(tmp_path))
    cache = tmp_path / "vectors.bin"
    embedder = word2vec_of_corpus(corpus, 7, cache)
    ((_, layers),) = embedder.encode_each([["river", "nowhere"]])
    assert layers.shape == (1, 2, 7) and layers[0, 0].any() and not layers[0, 1].any()
    ((_, again),) = word2vec_of_corpus(corpus, 7, cache).encode_each([["river", "nowhere"]])
    np.testing.assert_array_equal(layers, again)


def test_an_untrained_elmo_is_the_same_for_the_same_seed():
    def vectors(seed):
        return dict(untrained_encoder(TINY, seed).encode_each([["the", "bank"]]))[0]

    assert vectors(1).shape == (3, 2, 6)
    np.testing.assert_array_equal(vectors(1), vectors(1))
    assert not np.allclose(vectors(1), vectors(2))


def test_a_missing_dataset_is_skipped_with_a_message(config):
    logged = []
    (config.data / "wsd/WiC_dataset.zip").unlink()
    rows, skipped = measure_all(tasks_named(["wic", "sts"], "en"), None, config, logged.append)
    assert [row.task for row in rows] == ["sentence similarity"]
    assert skipped == [
        f"skipped wic: there is no {config.data}/wsd/WiC_dataset.zip (see docs/evaluation.md)"
    ]
    assert logged[0] == skipped[0] and logged[1].startswith(
        "sentence similarity, STS benchmark, word overlap"
    )
    (config.wordnet / "index.adv").unlink()
    assert TASKS["senses"].missing(config) == [config.wordnet / "index.adv"]


def test_tasks_are_found_by_name_and_by_language():
    assert set(tasks_named(None, "ro")) == {"pos-rrt", "ro-sts", "laroseda"}
    assert {"pos-ewt", "senses"} <= set(tasks_named(None, "en"))
    with pytest.raises(ParameterError, match=r"^There is no task 'pos': choose from pos-ewt, "):
        tasks_named(["pos"], "en")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "elmo.h5"
    write_model(path, StoredModel(TINY, random_arrays(TINY), None, Tokenizer(), {"epochs": 1}))
    return path


def test_the_commands_write_results_tables_and_pictures(config, model, tmp_path, capsys):
    def measure(output: str, *arguments: str) -> None:
        sets = ["--data", str(config.data), "--wordnet", str(config.wordnet)]
        main([*sets, "--output", str(tmp_path / output), *arguments])

    elmo, simple = tmp_path / "elmo.json", tmp_path / "simple.json"
    measure("elmo.json", "--model", str(model), "--tasks", "wic,sts")
    measure("elmo.json", "--model", str(model), "--tasks", "sts,one-word", "--seed", "5")
    measure("simple.json", "--baseline", "simple", "--name", "no vectors")
    results = read_results(elmo)
    assert results.model == "elmo"
    assert results.parameters["training"] == {"epochs": 1}
    assert [run["sets"] for run in results.runs] == [
        ["word in context: WiC"],
        [
            "sentence similarity: STS benchmark",
            *(f"senses of one word: {w}" for w in one_word.WORDS),
        ],
    ]
    assert {(row.task, row.seed) for row in results.rows} == {
        ("word in context", 1),
        ("sentence similarity", 5),
        ("senses of one word", 5),
    }
    assert len(read_results(simple).skipped) == 2
    assert "skipped pos-wsj" in capsys.readouterr().out

    report([str(elmo), str(simple), "--output", str(tmp_path / "docs/results.md")])
    text = (tmp_path / "docs/results.md").read_text()
    row = next(row for row in results.rows if row.system == "layer 2")
    cell = f"{100 * row.value:.1f}"
    assert f"| elmo | layer 2 | {cell}" in text or f"| elmo | layer 2 | **{cell}**" in text
    assert "| no vectors | majority answer | 50.0" in text or "**50.0**" in text
    assert "- WiC: 20 pairs, 20 for training; seed 1." in text
    assert (tmp_path / "docs/pictures/word-in-context.png").stat().st_size > 10_000
    assert "no vectors: skipped pos-wsj: there is no " in text


@pytest.mark.slow
def test_the_command_measures_random_weights_word2vec_and_perplexity(config, tmp_path, capsys):
    parameters = small_parameters(tmp_path)
    corpus = prepare_corpus(parameters)
    path = tmp_path / "elmo.h5"
    arrays = random_arrays(TINY, len(corpus.vocabulary))
    write_model(path, StoredModel(TINY, arrays, corpus.vocabulary, Tokenizer(tokenized=True)))
    heldout = tmp_path / "heldout.txt"
    heldout.write_text("\n".join(made_up_sentences(300, seed=9)), encoding="utf-8")
    common = ["--data", str(config.data), "--output", str(tmp_path / "a.json"), "--model", path]
    main([*map(str, common), "--tasks", "none", "--heldout", str(heldout)])
    rows = read_results(tmp_path / "a.json").rows
    truth = perplexity(path, heldout)
    assert [row.value for row in rows] == pytest.approx([truth.forward, truth.backward])
    assert all(row.low < row.value < row.high for row in rows)
    assert rows[0].n == truth.n_targets
    main([*map(str, common), "--tasks", "sts", "--baseline", "random"])
    main(
        [*map(str, common), "--tasks", "sts", "--baseline", "word2vec"]
        + ["--corpus", str(parameters.corpus_path), "--name", "word2vec"]
    )
    assert "sentence similarity, STS benchmark, vector" in capsys.readouterr().out


def test_each_mistake_is_reported_in_one_sentence(config, model, tmp_path):
    data = ["--data", str(config.data), "--output", str(tmp_path / "a.json")]
    for arguments, message in [
        ([], "ParameterError: --model is missing"),
        (["--model", str(model), "--baseline", "word2vec"], "ParameterError: --corpus is missing"),
        (["--model", str(model), "--tasks", "pos"], "ParameterError: There is no task 'pos'"),
        (["--model", "nowhere.h5"], "WeightsError: "),
    ]:
        with pytest.raises(SystemExit) as caught:
            main([*data, *arguments])
        assert str(caught.value).startswith(message)
    with pytest.raises(WeightsError, match="has no softmax with its vocabulary"):
        perplexities.measure(read_model(model), [tmp_path / "text.txt"], 0)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "rows": [{"task": 1}]}', "{"])
def test_files_without_results_are_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ElmolibError, match=r"a\.json is not a results file: "):
        read_results(tmp_path / "a.json")
    with pytest.raises(SystemExit, match="none.json cannot be read: No such file"):
        report([str(tmp_path / "none.json"), "--output", str(tmp_path / "a.md")])


def test_results_of_another_format_are_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"format": 0}))
    with pytest.raises(
        ElmolibError, match=r"a\.json does not have the results format 1: measure again"
    ):
        read_results(tmp_path / "a.json")


def test_tags_that_do_not_occur_in_training_are_never_predicted():
    tagged = part_of_speech.TaggedSentence
    training = [tagged(("they", "fish"), ("PRON", "VERB"))] * 30
    test = [tagged(("they", "hm"), ("PRON", "INTJ"))]
    treebank = part_of_speech.Treebank(training, training, test)
    rows = part_of_speech.measure_on(PerfectEmbedder(1), treebank, "made up", 0)
    assert [row.value for row in rows] == [0.5]
