"""Vocabularies, and the files from which they are read."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elmolib.errors import VocabularyError
from elmolib.text.vocabulary import BOS, EOS, UNK, Vocabulary, read_words

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture
def file(tmp_path):
    def write(content: str | bytes, name: str = "words.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_special_words_come_first_wherever_they_were():
    vocabulary = Vocabulary(["river", "<UNK>", "bank", "<S>"])
    assert vocabulary.words == ["<S>", "</S>", "<UNK>", "river", "bank"]
    assert [vocabulary[word] for word in ("<S>", "</S>", "<UNK>")] == [BOS, EOS, UNK]
    assert vocabulary["bank"] == 4
    assert vocabulary["unheard"] == UNK
    assert "bank" in vocabulary and "unheard" not in vocabulary
    assert len(vocabulary) == 5


def test_a_list_of_words_keeps_its_order(file):
    path = file("<S>\n</S>\n<UNK>\nthe\nrâu\n河\n")
    assert read_words(path) == ["<S>", "</S>", "<UNK>", "the", "râu", "河"]
    assert Vocabulary(read_words(path))["râu"] == 4


@pytest.mark.parametrize(
    "content",
    [
        "the\r\nbank\r\n",
        "the\nbank",
        "\N{BYTE ORDER MARK}the\nbank\n\n",
        b"\xef\xbb\xbfWord,Index\r\nbank,1\r\nthe,0\r\n",
    ],
)
def test_line_ends_and_byte_order_mark_do_not_matter(file, content):
    assert read_words(file(content)) == ["the", "bank"]


def test_words_may_hold_spaces_on_request(file):
    path = file("Hà Nội\nlà\n")
    assert read_words(path, spaces=True) == ["Hà Nội", "là"]
    vocabulary = Vocabulary(read_words(path, spaces=True))
    assert Vocabulary.parse(vocabulary.to_bytes("words"), "words") == vocabulary
    with pytest.raises(VocabularyError, match="line 1: 'Hà Nội' is not a word"):
        read_words(path)


def test_a_compressed_list_is_read(file):
    assert read_words(file(gzip.compress(b"the\nbank\n"), "vocab.txt.gz")) == ["the", "bank"]


def test_a_mapping_is_read_in_the_order_of_its_indices(file):
    path = file('Word,Index\n<UNK>,3\nbank,17\n"""",5\n<PAD>,0\n",",4\n<S>,1\n<EOS>,2\n')
    assert read_words(path) == ["<S>", "</S>", "<UNK>", ",", '"', "bank"]


@pytest.mark.parametrize(
    "content",
    [
        "word,index\nthe,1\nof,2\n",
        "INDEX,Word\r\n2,of\r\n1,the\r\n",
        '"Word","Index"\n"of",2\n"the",1\n',
        "Word;Index\nof;2\nthe;1\n",
        "Word\tIndex\nthe\t1\nof\t2\n",
        "the,1\nof,2\n",
        "of\t2\r\nthe\t1\r\n",
        "the;1\nof; 2",
        '{"of": 2, "the": 1}',
        '\N{BYTE ORDER MARK}{\n  "<PAD>": 0,\n  "the": 1,\n  "of": 2\n}\n',
    ],
)
def test_every_usual_form_of_a_mapping_is_read(file, content):
    assert read_words(file(content)) == ["the", "of"]


@pytest.mark.parametrize(
    "content", ['"\t4\n"x"\t5\na"\t6\n', '{"\\"": 4, "\\"x\\"": 5, "a\\u0022": 6}']
)
def test_quotation_marks_are_words_where_nothing_is_quoted(file, content):
    assert read_words(file(content)) == ['"', '"x"', 'a"']


@given(
    st.sets(st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1)),
    st.sampled_from([",", ";", "json"]),
    st.booleans(),
)
def test_any_mapping_that_python_wrote_is_read(tmp_path_factory, words, form, has_header):
    words = sorted(words - {"<PAD>", "<EOS>"} | {"one"})
    path = tmp_path_factory.mktemp("mapping") / "word2idx.csv"
    mapping = {word: number * 2 for number, word in enumerate(words)}
    with path.open("w", encoding="utf-8", newline="") as stream:
        if form == "json":
            json.dump(mapping, stream, ensure_ascii=has_header)
        else:
            writer = csv.writer(stream, delimiter=form)
            writer.writerows([["Word", "Index"]] * has_header)
            writer.writerows(mapping.items())
    assert read_words(path) == words


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "lists no words"),
        ("\n\n", "lists no words"),
        ("<S>\n</S>\n<UNK>\n", "lists no words"),
        ("Word,Index\n", "lists no words"),
        ("Word,Index\n<PAD>,0\n<EOS>,1\n", "lists no words"),
        ("a\nb\na\n", "line 3: the word 'a' was already given in line 1"),
        ("a\n\nb\n", "line 2: '' is not a word"),
        ("a\nNew York\n", "line 2: 'New York' is not a word"),
        ("the 1234\n", "line 1: 'the 1234' is not a word"),
        ("a\nb\0\n", "line 2: 'b\\\\x00' is not a word"),
        (b"a\nb\n\xff\n", "line 3: the text is not valid UTF-8"),
        ("Word,Index\na,0\nb,1\na,2\n", "line 4: the word 'a' was already given in line 2"),
        ("Word,Index\na,1\nb,2\na,0\n", "line 4: the word 'a' was already given in line 2"),
        ("Word,Index\na,0\nb,0\n", "line 3: the index 0 was already given in line 2"),
        ("Word,Index\n</S>,0\n<EOS>,1\n", "line 3: the word '</S>' was already given in line 2"),
        ("Word,Index\na,zero\n", "line 2: the index 'zero' is not a whole number"),
        ("Word,Index\na,1.0\n", "line 2: the index '1.0' is not a whole number"),
        ("Word,Index\na,-1\n", "line 2: the index '-1' is not a whole number"),
        ("Word,Index\na,\n", "line 2: the index '' is not a whole number"),
        ("Word,Index\na," + "9" * 5000, "line 2: the index '9999"),
        ("Word,Index\na,0\nb\n", "line 3: expected a word and an index, found 1 columns"),
        ("Word,Index\na,0\n\nb,1\n", "line 3: expected a word and an index, found 0 columns"),
        ("Word,Index\na,0,1\n", "line 2: expected a word and an index, found 3 columns"),
        ("Word,Index\n,0\n", "line 2: '' is not a word"),
        ('Word,Index\n"a,0\n', "line 2: "),
        ("Token,Number\na,0\nb,1\nc,2\n", "line 1: the index 'Number' is not a whole number"),
        ("a,0\nb,1\nc\nd,3\n", "line 3: expected a word and an index, found 1 columns"),
        (",Word,Index\n0,a,0\n", "line 2: expected a word and an index, found 3 columns"),
        ('{"a": 0,\n"b": "x"}', "line 2: the index '\"x\"' is not a whole number"),
        ('{"a": 0,\n"a": 1}', "line 2: the word 'a' was already given in line 1"),
        ('{"a": 0,\n"b": [1]}', 'line 1: expected "word": index, not'),
        ('{"a": 0,\n"\\x": 1}', 'line 2: expected "word": index, not'),
        ('{"a": 0', 'line 1: expected "word": index, not'),
        ('{"a": 0,}', 'line 1: expected "word": index, not'),
        ("Word,Index\n" + "a" * 200_000 + ",0\n", "line 2: field larger than field limit"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_line(file, content, complaint):
    path = file(content)
    with pytest.raises(VocabularyError, match=complaint) as caught:
        read_words(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"not gzip", gzip.compress(b"the\n" * 99)[:-4]], ids=["other", "cut off"]
)
def test_a_damaged_compressed_file_is_refused(file, content):
    with pytest.raises(VocabularyError, match="cannot be read"):
        read_words(file(content, "vocab.txt.gz"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(VocabularyError, match="No such file"):
        Vocabulary(read_words(tmp_path / "nowhere.txt"))


@pytest.mark.shared
def test_a_published_word_list_is_read_whole():
    vocabulary = Vocabulary(read_words(SHARED / "reference" / "wt2" / "vocab.txt"))
    assert len(vocabulary) == 33_279


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a" * 70_000_000, "it is larger than 64,000,000 bytes"),
        (b"{" + b'"a":1,' * 5_000_000, "lists more than 4,000,000 words"),
        (b"\n" * 5_000_000, "lists more than 4,000,000 words"),
    ],
)
def test_a_small_file_that_unpacks_to_a_huge_one_is_refused(file, content, complaint):
    path = file(gzip.compress(content), "words.txt.gz")
    with pytest.raises(VocabularyError, match=complaint):
        read_words(path)
