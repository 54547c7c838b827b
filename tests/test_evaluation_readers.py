"""Readers of evaluation datasets, tested on made-up files and on the known sizes of real ones."""

from __future__ import annotations

import pytest
from evaluation_sets import (
    LAND,
    MONEY,
    write_brown,
    write_entities,
    write_one_word,
    write_reviews,
    write_senses,
    write_sentiment,
    write_similarity,
    write_word_in_context,
    write_wordnet,
    write_wsj,
    write_zip,
)

from benchmarks.tasks import (
    entities,
    one_word,
    part_of_speech,
    senses,
    sentiment,
    similarity,
    word_in_context,
)
from benchmarks.tasks.archives import member, unescape_penn
from benchmarks.tasks.common import TaskConfig
from benchmarks.tasks.tasks import TASKS
from benchmarks.tasks.wordnet import first_senses, lemma_of
from elmolib.errors import TextError


def n_words(sentences) -> int:
    return sum(len(sentence.words) for sentence in sentences)


def test_trees_are_read_without_traces_and_escapes(tmp_path):
    write_wsj(tmp_path)
    treebank = part_of_speech.wsj_sample(tmp_path / "pos/treebank.zip")
    assert [len(part) for part in treebank] == [28, 4, 8]
    assert treebank.test[0].words == ("They", "fish", "(", "1/2", ".")
    assert treebank.test[0].tags == ("PRP", "VBP", "-LRB-", "CD", ".")
    assert treebank.test[1].words == ("the", "fish")


def test_marks_for_titles_and_negation_are_removed_from_brown_tags(tmp_path):
    write_brown(tmp_path)
    treebank = part_of_speech.brown_corpus(tmp_path / "pos/brown.zip")
    first = treebank.training[0]
    assert first.words == ("The", "City", "isn't", "and/or", "--", '"')
    assert first.tags == ("at", "nn", "bez", "cc", "-", "``")
    # Twenty files of sixteen sentences; every fourth sentence is used.
    assert [len(part) for part in treebank] == [56, 8, 16]


def test_semcor_senses_that_wordnet_lacks_are_ignored(tmp_path):
    write_senses(tmp_path)
    river, money, both = senses.read_semcor(tmp_path / senses.SEMCOR)
    assert river.words == ["The", "river", "bank", "."]
    assert river.tagged == [senses.SenseTagged(2, 3, ("bank", "n"), (LAND,))]
    assert money.tagged[0].senses == (MONEY,)
    assert both.words == ["money", "bank", '"']
    assert both.tagged == [senses.SenseTagged(0, 2, ("bank", "n"), (MONEY,))]


def test_every_right_sense_of_the_all_words_datasets_is_kept(tmp_path):
    write_senses(tmp_path)
    first, second = senses.read_all_words(tmp_path / senses.ALL_WORDS)
    assert first.words == ["The", "river", "bank", "bear"]
    assert first.tagged[1].senses == ("bear%1:05:00::", "bear%1:06:00::")
    assert second.tagged[0].identifier == "semeval2013.d000.s000.t000"


def test_sense_keys_of_first_senses_have_the_documented_form(tmp_path):
    write_wordnet(tmp_path / "wordnet")
    assert first_senses(tmp_path / "wordnet") == {
        ("bank", "n"): MONEY,
        ("bear", "n"): "bear%1:05:00::",
        ("depository", "n"): "depository%1:14:00::",
        ("dear", "a"): "dear%3:00:00::",
        ("pricey", "a"): "pricey%5:00:00:dear:00",
    }
    assert lemma_of("pricey%5:00:00:dear:00") == ("pricey", "a")


def test_one_word_examples_have_the_sentence_with_the_word(tmp_path):
    write_one_word(tmp_path)
    examples = one_word.read_examples(tmp_path / one_word.ARCHIVE, "hard")
    assert len(examples) == 40
    assert examples[1] == one_word.Example(["&", "blue", "hard", "."], 2, "B")


def test_word_in_context_pairs(tmp_path):
    write_word_in_context(tmp_path)
    pairs = word_in_context.read_pairs(tmp_path / word_in_context.ARCHIVE, "dev")
    assert len(pairs) == 20
    assert pairs[1] == (["river", "bank", "."], ["money", "bank", "."], (1, 1), False)


def test_entities_are_read_with_their_iob_tags(tmp_path):
    write_entities(tmp_path)
    sentences = entities.read_part(tmp_path / entities.ARCHIVE, "eng.testb")
    assert len(sentences) == 60
    assert sentences[0] == (("Ann", "Bob", "laughs"), ("I-PER", "B-PER", "O"))


def test_sentiment_of_whole_sentences_is_read(tmp_path):
    write_sentiment(tmp_path)
    fine = sentiment.read_sst(tmp_path, binary=False)
    binary = sentiment.read_sst(tmp_path, binary=True)
    assert [len(part) for part in fine] == [60, 60, 60]
    assert [len(part) for part in binary] == [48, 48, 48]
    assert fine.test[3] == (["(", "good"], 3)
    assert [opinion.label for opinion in binary.test[:4]] == [0, 0, 1, 1]


def test_test_reviews_are_not_used_for_training(tmp_path):
    write_reviews(tmp_path)
    opinions = sentiment.read_laroseda(tmp_path, seed=0)
    assert [len(part) for part in opinions] == [54, 6, 20]
    assert opinions.test[0] == (["bun", ".", "Foarte", "."], 1)


@pytest.mark.parametrize("name", similarity.SETS)
def test_pairs_with_scores_are_read(tmp_path, name):
    write_similarity(tmp_path)
    pairs = similarity.read_pairs(tmp_path, name)
    assert len(pairs) == 20
    assert pairs[1] == (["A", "man", "plays", "."], ["A", "man", "sleeps", "."], 4.0)


def test_penn_treebank_escapes_are_undone():
    words = ["``", "''", "-LRB-", "-RCB-", "1\\/2", "\\*", "-LRB", "plain"]
    assert [unescape_penn(w) for w in words] == ['"', '"', "(", "}", "1/2", "*", "-LRB", "plain"]


def test_errors_name_the_damaged_file(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"x/y.txt": "é"}, "latin-1")
    with pytest.raises(TextError, match=r"a\.zip has no file \*\.xml: see docs/evaluation\.md\.$"):
        member(archive, "*.xml")
    with pytest.raises(TextError, match=r"a\.zip: x/y\.txt is not utf-8 at byte 0\.$"):
        member(archive, "*.txt")
    (tmp_path / "b.zip").write_text("not a zip")
    with pytest.raises(TextError, match=r"b\.zip cannot be read: "):
        member(tmp_path / "b.zip", "*")
    with pytest.raises(TextError, match=r"index\.noun cannot be read as a file of WordNet 3\.0"):
        write_wordnet(tmp_path / "wordnet")
        (tmp_path / "wordnet/index.noun").unlink()
        first_senses(tmp_path / "wordnet")


@pytest.mark.parametrize(
    ("name", "files", "read", "message"),
    [
        (
            word_in_context.ARCHIVE,
            {"w/dev/dev.data.txt": "bank\tN\t1\ta\tb", "w/dev/dev.gold.txt": "T"},
            lambda path: word_in_context.read_pairs(path, "dev"),
            "dev.data.txt, line 1 is not a pair of WiC.",
        ),
        (
            entities.ARCHIVE,
            {"c/eng.train": "Ann X Y O\nBob O\n"},
            lambda path: entities.read_part(path, "eng.train"),
            "eng.train, line 2 does not have four columns.",
        ),
        (
            senses.ALL_WORDS,
            {"E/ALL/ALL.data.xml": "<corpus>", "E/ALL/ALL.gold.key.txt": ""},
            senses.read_all_words,
            "ALL.data.xml is damaged: ",
        ),
    ],
)
def test_errors_name_the_line(tmp_path, name, files, read, message):
    with pytest.raises(TextError) as caught:
        read(write_zip(tmp_path / name, files))
    assert message in str(caught.value)


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_treebanks_have_the_documented_sizes(shared):
    sizes = {}
    for name, source in part_of_speech.SETS.items():
        treebank = source.read(*(shared / "data" / file for file in source.files))
        sizes[name] = [n_words(part) for part in treebank]
    assert sizes[part_of_speech.EWT] == [204_577, 25_147, 25_094]
    assert sum(sizes[part_of_speech.WSJ]) == 94_084
    assert sum(sizes[part_of_speech.RRT][:2]) == 17_073
    assert sizes[part_of_speech.RRT][2] == 16_324


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_sense_datasets_have_the_documented_sizes(shared):
    semcor = senses.read_semcor(shared / "data" / senses.SEMCOR)
    # Raganato et al. 2017, table 1, has the same number of annotations, 226,036.
    assert len(semcor) == 37_176
    assert sum(len(sentence.tagged) for sentence in semcor) == 226_036
    everything = senses.read_all_words(shared / "data" / senses.ALL_WORDS)
    assert len(everything) == 1_173
    assert sum(len(sentence.tagged) for sentence in everything) == 7_253
    archive = shared / "data" / one_word.ARCHIVE
    sizes = [len(one_word.read_examples(archive, word)) for word in one_word.WORDS]
    assert sizes == [4_146, 4_333, 4_378, 2_368]
    pairs = [
        word_in_context.read_pairs(shared / "data" / word_in_context.ARCHIVE, part)
        for part in ("train", "dev", "test")
    ]
    assert [len(part) for part in pairs] == [5_428, 638, 1_400]


@pytest.mark.shared
@pytest.mark.wordnet
def test_the_first_sense_baseline_has_the_published_accuracy(shared):
    rows = senses.measure(None, TaskConfig(shared / "data"))
    found = {row.data: round(100 * row.value, 1) for row in rows}
    # These values are in Raganato et al. 2017, table 2, row "WN 1st sense".
    published = {"senseval2": 66.8, "senseval3": 66.2, "semeval2007": 55.2}
    published |= {"semeval2013": 63.0, "semeval2015": 67.8, "ALL": 65.2}
    assert {name: found[name] for name in published} == published


@pytest.mark.shared
def test_the_other_real_datasets_have_the_documented_sizes(shared):
    data = shared / "data"
    parts = [entities.read_part(data / entities.ARCHIVE, part) for part in entities.PARTS]
    assert [n_words(part) for part in parts] == [203_621, 51_362, 46_435]
    found = [sum(len(entities.spans(s.tags)) for s in part) for part in parts]
    assert found == [23_499, 5_942, 5_648]
    fine, binary = (sentiment.read_sst(data, which) for which in (False, True))
    assert [len(part) for part in fine] == [8_544, 1_101, 2_210]
    assert [len(part) for part in binary] == [6_920, 872, 1_821]
    assert n_words(fine.training) == 163_563
    assert [len(similarity.read_pairs(data, name)) for name in similarity.SETS] == [1_379, 1_379]
    assert len(sentiment.read_laroseda(data, 0).test) == 3_000


@pytest.mark.shared
def test_every_task_finds_its_files(shared):
    config = TaskConfig(shared / "data")
    tasks = [task._replace(wordnet=False) for task in TASKS.values()]
    assert [task.missing(config) for task in tasks] == [[]] * len(TASKS)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_ends_at_line_feeds_and_carriage_returns_alone(tmp_path, mark, end):
    """`str.splitlines` would also end lines at these marks, which texts from the web contain."""

    def write(path, name, *lines):
        return write_zip(tmp_path / path, {name: "".join(line + end for line in lines)})

    pair = f"4.5\tOne man{mark}plays.\tOne man sings."
    write("similarity/RO-STS.zip", "x/text-similarity/RO-STS.test.tsv", pair, pair)
    assert len(similarity.read_pairs(tmp_path, "RO-STS")) == 2
    path = write("sst.zip", "t/dev.txt", f"(3 (2 a{mark}b) (3 c))", "(1 (1 d))")
    assert [opinion.label for opinion in sentiment._trees(path, "dev")] == [3, 1]
    path = write("ner.zip", "eng.testa", "Ann X Y I-PER", f"likes X{mark}Y O", "", "Bob X Y I-PER")
    assert [len(sentence.words) for sentence in entities.read_part(path, "eng.testa")] == [2, 1]
    path = write_zip(
        tmp_path / "wic.zip",
        {
            "w/dev.data.txt": f"bank\tN\t1-0\ta bank{mark}.\tbank .{end}" * 2,
            "w/dev.gold.txt": f"T{end}F{end}",
        },
    )
    assert [pair.same for pair in word_in_context.read_pairs(path, "dev")] == [True, False]
    sentences = part_of_speech._slash_tagged(f"a/at{mark}man/nn{end}he/pps{end}")
    assert [sentence.words for sentence in sentences] == [("a", "man"), ("he",)]
