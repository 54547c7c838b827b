"""The excerpt of Wikipedia that is the default text."""

from __future__ import annotations

import gzip
import logging

import pytest

from elmolib.corpus import wikipedia
from elmolib.corpus.sources import read_sentences
from elmolib.errors import TextError
from elmolib.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def text():
    return wikipedia.excerpt()


def test_the_excerpt_has_the_documented_counts(text):
    articles = [article.splitlines() for article in text.rstrip("\n").split("\n\n")]
    assert len(articles) == 101
    assert sum(map(len, articles)) == 4_849
    assert len(text.split()) == 388_217


def test_the_excerpt_is_prose(text):
    paragraphs = [line for line in text.split("\n") if line]
    assert paragraphs[0].startswith("Anarchism is a political philosophy that advocates")
    assert not any(mark in text for mark in ("{", "[[", "''", "<", "http://", "Category:"))
    assert all(len(paragraph.split()) >= 10 for paragraph in paragraphs)
    assert all(paragraph.rstrip("\"')")[-1] in ".!?" for paragraph in paragraphs)


@pytest.mark.shared
def test_the_excerpt_matches_the_reference_text(text, shared):
    with gzip.open(shared / "data/lm/wikipedia-en-gensim.txt.gz", "rt", encoding="utf-8") as file:
        assert text.rstrip("\n") == file.read().rstrip("\n")


def test_articles_have_titles_and_gensim_logs_nothing(caplog):
    caplog.set_level(logging.DEBUG)
    level = logging.getLogger("gensim").level
    title, paragraphs = next(wikipedia.articles())
    assert title == "Anarchism"
    assert len(paragraphs) > 10
    assert not caplog.records
    assert logging.getLogger("gensim").level == level


def test_sentences_of_the_excerpt_are_read_by_name():
    assert next(read_sentences("wikipedia", Tokenizer()))[:3] == ["Anarchism", "is", "a"]


def test_a_missing_gensim_is_named(monkeypatch):
    monkeypatch.setattr(wikipedia, "find_spec", lambda name: None)
    with pytest.raises(TextError, match="package gensim"):
        wikipedia.dump_path()
