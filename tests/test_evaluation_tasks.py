"""Tasks on made-up sets, whose answers are known, and the commands around them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from evaluation_sets import (
    LAND,
    MONEY,
    Knowing,
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

from elmolib.corpus import prepare_corpus
from elmolib.errors import ElmolibError, ParameterError, WeightsError
from elmolib.evaluation import entities, part_of_speech, perplexities, reader, senses
from elmolib.evaluation.__main__ import main
from elmolib.evaluation.baselines import (
    Surroundings,
    Word2VecEmbedder,
    untrained,
    word2vec_of_corpus,
)
from elmolib.evaluation.probe import Labelled, linear_probe
from elmolib.evaluation.reader import Examples, read_sentences, read_words, split_vectors
from elmolib.evaluation.report import main as report
from elmolib.evaluation.results import above_layer_below, read_results
from elmolib.evaluation.setting import Setting
from elmolib.evaluation.similarity import pearson
from elmolib.evaluation.tasks import TASKS, measure_all, tasks_named
from elmolib.evaluation.vectors import layer_below, sentence_vectors, word_vectors
from elmolib.evaluation.word_in_context import best_threshold
from elmolib.scoring import perplexity
from elmolib.text import Tokenizer
from elmolib.weights import read_model, write_model


@pytest.fixture
def setting(tmp_path) -> Setting:
    """All sets but the WSJ sample, Brown and the Romanian treebank."""
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
    return Setting(data, tmp_path / "wordnet", seed=3)


def values(rows, data: str | None = None) -> dict[str, float]:
    return {row.system: row.value for row in rows if data in (None, row.data)}


def test_a_word_has_one_part_of_speech_without_its_neighbours(setting):
    rows = TASKS["pos-ewt"].measure(Knowing(), setting)
    found = values(rows)
    # Half of the words are "fish" and "book", nouns as often as verbs.
    assert found["layer 0"] == pytest.approx(0.75, abs=0.01)
    assert found["layer 1"] == found["mix"] == 1.0
    mix = rows[-1].notes["layer weights"]
    assert sum(mix) == pytest.approx(1, abs=2e-3) and mix[1] > mix[0]
    assert (rows[0].n, rows[0].drawn, rows[0].n_training, rows[0].seed) == (24, 12, 96, 3)
    (baseline,) = TASKS["pos-ewt"].measure(None, setting)
    assert (baseline.system, baseline.value) == ("commonest tag", 0.75)


def test_senses_are_those_of_the_nearest_vectors(setting):
    rows = TASKS["senses"].measure(Knowing(), setting)
    # "bear" is not in SemCor and falls back to its first sense, which is right.
    found = values(rows, "ALL")
    assert found["layer 0"] == 0.75
    assert found["layer 1"] == found["average"] == found["layer 1, whitened"] == 1.0
    assert values(rows, "senseval2")["layer 1"] == 1.0
    sets = {row.data for row in rows}
    assert sets == {"ALL", "ALL but semeval2007", "senseval2", "semeval2013"}
    baseline = values(TASKS["senses"].measure(None, setting), "ALL")
    assert baseline == {"first sense": 0.75}


def test_a_sense_is_the_mean_of_its_words(setting):
    embedder = Knowing(n_layers=1)
    sentences = senses.read_semcor(setting.data / senses.SEMCOR)
    learnt = senses.learn_senses(embedder, sentences)
    vectors = learnt.vectors["bank", "n"]
    assert learnt.senses == {("bank", "n"): [MONEY, LAND]}
    assert learnt.counts == {MONEY: 2, LAND: 1}
    layers = dict(embedder.encode_each([["bank", "money"]]))[0]
    bank, money = layers[0]
    np.testing.assert_allclose(vectors[0, 0], (bank + (money + bank) / 2) / 2, rtol=1e-6)
    np.testing.assert_allclose(vectors[1, 0], bank, rtol=1e-6)
    every = np.stack([bank, bank, (money + bank) / 2])
    np.testing.assert_allclose(learnt.mean[0], every.mean(axis=0), rtol=1e-6)
    expected = np.cov(every.T, bias=True)
    np.testing.assert_allclose(learnt.covariance[0], expected, rtol=1e-4, atol=1e-6)


def test_frequency_decides_where_vectors_cannot_and_development_words_tell_how_much():
    seen = [("m", MONEY)] * 9 + [("l", LAND)]
    lemma = ("bank", "n")
    tag = senses.SenseTagged
    semcor = [senses.SenseSentence([w], [tag(0, 1, lemma, (key,))]) for w, key in seen]
    learnt = senses.learn_senses(Knowing(1), semcor)
    between = sum(dict(Knowing(1).encode_each([["m"], ["l"]])).values())[:, 0]
    vectors = np.stack([between + 0.01 * dict(Knowing(1).encode_each([["l"]]))[0][:, 0]] * 2)

    def chosen(sense: str) -> senses.Choices:
        names = "semeval2007.d0", "senseval2.d0"
        test = [tag(0, 1, lemma, (sense,), name) for name in names]
        found = senses.whitened_choices(test, vectors.reshape(2, 1, -1), learnt, {})
        assert found["vector, whitened"] == senses.Choices([LAND, LAND])
        return found["vector, whitened, with frequency"]

    assert chosen(LAND) == senses.Choices([LAND, LAND], 0.0)
    assert chosen(MONEY).senses == [MONEY, MONEY]
    assert chosen(MONEY).weight > 0


def test_the_word_before_tells_the_sense_of_one_word(setting):
    rows = TASKS["one-word"].measure(Knowing(), setting)
    assert {row.value for row in rows if row.system == "layer 1"} == {1.0}
    assert {row.n_training for row in rows} == {20}
    assert all(row.value < 0.8 for row in rows if row.system == "layer 0")
    assert len(TASKS["one-word"].measure(None, setting)) == 4


def test_pairs_in_context_need_context(setting):
    found = values(TASKS["wic"].measure(Knowing(), setting))
    assert found["layer 0"] == 0.5
    assert found["layer 1"] == 1.0
    assert values(TASKS["wic"].measure(None, setting)) == {"commonest answer": 0.5}


def test_layers_are_compared_with_the_one_below():
    right = {"layer 1": np.array([[1, 2], [2, 2]]), "layer 2": np.array([[2, 2], [2, 2]])}
    note = above_layer_below("layer 2", right, seed=0)
    assert list(note) == ["above layer 1"] and note["above layer 1"][0] == 0.25
    assert above_layer_below("layer 1", right, seed=0) == {}
    assert layer_below("layer 12, whitened") == "layer 11, whitened"
    assert [layer_below(name) for name in ("layer 0", "layer 1", "mix")] == [None] * 3


@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_is_that_of_trying_all(seed):
    generator = np.random.default_rng(seed)
    numbers = generator.normal(size=30).round(1)
    truth = generator.random(30) < 0.6
    tried = [*numbers, math.inf]
    most = max(np.sum((numbers >= threshold) == truth) for threshold in tried)
    assert np.sum((numbers >= best_threshold(numbers, truth)) == truth) == most


@pytest.mark.slow
def test_entities_are_found_where_the_word_before_tells_them(setting):
    found = values(TASKS["entities"].measure(Knowing(), setting))
    assert found["layer 1"] == found["mix"] == found["LSTM reader"] == 1.0
    assert found["layer 0"] < 1.0
    # "York" is a place and a person within other names, and "Bo" is part of one.
    known = values(TASKS["entities"].measure(None, setting))
    assert known == {"known entities": 1.0}


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
def test_spans_are_those_of_conlleval(tags, expected):
    assert entities.spans(tags.split()) == expected
    assert entities.spans(entities.as_iob2(tags.split())) == expected


def test_entity_f1_by_hand():
    true = ["B-PER", "I-PER", "O", "B-LOC", "O"]
    given = ["B-PER", "O", "O", "B-LOC", "B-ORG"]
    counts = entities.span_counts(given, true)
    assert counts == (1, 3, 2)
    assert entities.f1(np.array([[counts, (1, 1, 1)]])) == pytest.approx([2 * 2 / (4 + 3)])


@pytest.mark.slow
def test_sentiment_is_read_off_words(setting, monkeypatch):
    monkeypatch.setattr(reader, "BATCH_SIZE", 4)
    fine = values(TASKS["sst5"].measure(Knowing(), setting))
    assert fine["layer 0"] == fine["LSTM reader"] == 1.0
    assert values(TASKS["sst2"].measure(Knowing(1), setting)) == {"vector": 1.0, "LSTM reader": 1.0}
    assert values(TASKS["sst5"].measure(None, setting)) == {"commonest class": 0.2}
    rows = TASKS["laroseda"].measure(Knowing(1), setting)
    assert {(row.value, row.n, row.parts) for row in rows} == {(1.0, 20, "reviews")}


def test_likeness_of_sentences_follows_the_words_they_share(setting):
    for name in ("sts", "ro-sts"):
        rows = TASKS[name].measure(Knowing(), setting)
        assert values(rows)["layer 0"] > 0.9
        assert values(TASKS[name].measure(None, setting))["shared words"] > 0.9


class Shouting:
    """Vectors that say how often each letter occurs, beneath one huge direction of no meaning."""

    def encode_each(self, sentences):
        for place, words in enumerate(sentences):
            vectors = np.zeros((1, len(words), 27), np.float32)
            for k, word in enumerate(words):
                for letter in filter(str.isalpha, word.lower()):
                    vectors[0, k, ord(letter) - ord("a")] += 1
                vectors[0, k, 26] = 200 * np.sin(len(words) * 7.0 + ord(words[0][0]))
            yield place, vectors


def test_whitening_lets_a_loud_direction_count_no_more_than_others(setting):
    found = values(TASKS["sts"].measure(Shouting(), setting))
    assert found["vector"] < found["vector, whitened"] - 0.1 and found["vector, whitened"] > 0.8


def test_pearson_is_numpys():
    drawn = np.random.default_rng(0).normal(size=(6, 30, 2))
    drawn[..., 1] += drawn[..., 0]
    expected = [np.corrcoef(sample.T)[0, 1] for sample in drawn]
    np.testing.assert_allclose(pearson(drawn), expected, rtol=1e-12)


def test_word_vectors_come_back_in_order_whatever_the_embedder_does():
    sentences = [["a", "b"], [], ["b"]]
    vectors = word_vectors(Knowing(), sentences)
    assert vectors.values.shape == (3, 2, 64) and vectors.bounds.tolist() == [0, 2, 2, 3]
    np.testing.assert_array_equal(vectors.values[1, 0], vectors.values[2, 0])
    means = sentence_vectors(Knowing(), sentences)
    np.testing.assert_allclose(means[0], vectors.values[:2].astype(np.float32).mean(0), atol=2e-3)
    assert not means[1].any()
    first, rest = split_vectors(vectors, [1, 2])
    assert (len(first.values), len(rest.values), rest.bounds.tolist()) == (2, 1, [0, 0, 1])


@pytest.mark.slow
def test_a_probe_separates_what_a_plane_separates_and_nothing_else():
    generator = np.random.default_rng(0)
    vectors = (100 + 5 * generator.normal(size=(600, 1, 4))).astype(np.float16)
    plane = (vectors[:, 0, 0] > vectors[:, 0, 1]).astype(np.int32)
    circle = (((vectors[:, 0] - 100) ** 2).sum(axis=1) > 84).astype(np.int32)
    for labels, low, high in ((plane, 0.93, 1.0), (circle, 0.3, 0.7)):
        parts = [Labelled(vectors[a:b], labels[a:b]) for a, b in ((0, 400), (400, 500))]
        learnt = linear_probe(*parts, vectors[500:], 2)
        assert low <= np.mean(learnt.predicted == labels[500:]) <= high
        again = linear_probe(*parts, vectors[500:], 2)
        np.testing.assert_array_equal(learnt.predicted, again.predicted)


@pytest.mark.slow
def test_a_reader_sees_order_where_a_mean_cannot():
    embedder = Knowing(n_layers=1)
    sentences = [["a", "b"], ["b", "a"], ["a", "a", "b"], ["b", "a", "a"]] * 25
    labels = np.array([0, 1, 0, 1] * 25)
    vectors = word_vectors(embedder, sentences)
    of_sentences = Examples(vectors, labels)
    learnt = read_sentences(of_sentences, of_sentences, vectors, 2)
    np.testing.assert_array_equal(learnt.predicted, labels)
    of_words = Examples(vectors, np.repeat(labels, np.diff(vectors.bounds)))
    learnt = read_words(of_words, of_words, vectors, 2)
    np.testing.assert_array_equal(learnt.predicted, of_words.labels)


def test_word2vec_takes_lower_case_for_unknown_words_and_zeros_for_others():
    vectors = KeyedVectors(2)
    vectors.add_vectors(["river", "Rome"], np.array([[1, 2], [3, 4]], np.float32))
    ((place, layers),) = Word2VecEmbedder(vectors).encode_each([["River", "Rome", "rome"]])
    assert place == 0
    np.testing.assert_array_equal(layers, [[[1, 2], [3, 4], [0, 0]]])


def test_surroundings_are_means_of_neighbours():
    vectors = KeyedVectors(1)
    vectors.add_vectors(["a", "b", "c"], np.array([[1], [2], [6]], np.float32))
    ((_, layers),) = Surroundings(Word2VecEmbedder(vectors), 1).encode_each([["a", "b", "c"]])
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
        return dict(untrained(TINY, seed).encode_each([["the", "bank"]]))[0]

    assert vectors(1).shape == (3, 2, 6)
    np.testing.assert_array_equal(vectors(1), vectors(1))
    assert not np.allclose(vectors(1), vectors(2))


def test_a_set_that_is_missing_is_skipped_with_a_line(setting):
    told = []
    (setting.data / "wsd/WiC_dataset.zip").unlink()
    rows, skipped = measure_all(tasks_named(["wic", "sts"], "en"), None, setting, told.append)
    assert [row.task for row in rows] == ["sentence similarity"]
    assert skipped == [
        f"skipped wic: there is no {setting.data}/wsd/WiC_dataset.zip (see docs/evaluation.md)"
    ]
    assert told[0] == skipped[0] and told[1].startswith(
        "sentence similarity, STS benchmark, shared"
    )
    (setting.wordnet / "index.adv").unlink()
    assert TASKS["senses"].missing(setting) == [setting.wordnet / "index.adv"]


def test_tasks_by_name_and_by_language():
    assert set(tasks_named(None, "ro")) == {"pos-rrt", "ro-sts", "laroseda"}
    assert {"pos-ewt", "senses"} <= set(tasks_named(None, "en"))
    with pytest.raises(ParameterError, match=r"^There is no task 'pos': choose from pos-ewt, "):
        tasks_named(["pos"], "en")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "elmo.h5"
    write_model(path, TINY, random_arrays(TINY), None, Tokenizer(), {"epochs": 1})
    return path


def test_the_commands_measure_and_draw(setting, model, tmp_path, capsys):
    def measure(output: str, *arguments: str) -> None:
        sets = ["--data", str(setting.data), "--wordnet", str(setting.wordnet)]
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
        ["sentence similarity: STS benchmark", *(f"senses of one word: {w}" for w in senses.WORDS)],
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
    assert "| no vectors | commonest answer | 50.0" in text or "**50.0**" in text
    assert "- WiC: 20 pairs, learnt from 20; seed 1." in text
    assert (tmp_path / "docs/pictures/word-in-context.png").stat().st_size > 10_000
    assert "no vectors: skipped pos-wsj: there is no " in text


@pytest.mark.slow
def test_random_weights_and_a_language_model_by_command(setting, tmp_path, capsys):
    parameters = small_parameters(tmp_path)
    corpus = prepare_corpus(parameters)
    path = tmp_path / "elmo.h5"
    arrays = random_arrays(TINY, len(corpus.vocabulary))
    write_model(path, TINY, arrays, corpus.vocabulary, Tokenizer(tokenized=True))
    heldout = tmp_path / "heldout.txt"
    heldout.write_text("\n".join(made_up_sentences(300, seed=9)), encoding="utf-8")
    common = ["--data", str(setting.data), "--output", str(tmp_path / "a.json"), "--model", path]
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


def test_mistakes_are_one_sentence(setting, model, tmp_path):
    data = ["--data", str(setting.data), "--output", str(tmp_path / "a.json")]
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
def test_foreign_results_are_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ElmolibError, match=r"a\.json holds no results: "):
        read_results(tmp_path / "a.json")
    with pytest.raises(SystemExit, match="none.json cannot be read: No such file"):
        report([str(tmp_path / "none.json"), "--output", str(tmp_path / "a.md")])


def test_results_of_another_format_are_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"format": 0}))
    with pytest.raises(ElmolibError, match=r"a\.json is of another format than 1: measure again"):
        read_results(tmp_path / "a.json")


def test_tags_that_training_lacks_are_always_missed():
    tagged = part_of_speech.TaggedSentence
    training = [tagged(("they", "fish"), ("PRON", "VERB"))] * 30
    test = [tagged(("they", "hm"), ("PRON", "INTJ"))]
    treebank = part_of_speech.Treebank(training, training, test)
    rows = part_of_speech.measure_on(Knowing(1), treebank, "made up", 0)
    assert [row.value for row in rows] == [0.5]
