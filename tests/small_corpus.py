"""A made-up text and the smallest model that learns something from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from elmolib.lexicon import Lexicon
from elmolib.parameters import Parameters
from elmolib.vocabulary import SPECIAL_WORDS


def made_up_sentences(n: int, seed: int = 0) -> list[str]:
    """Sentences of a tiny grammar, words of very different frequency among them."""
    rng = np.random.default_rng(seed)

    def one_of(words: str) -> str:
        choices = words.split()
        p = 1.0 / np.arange(1, len(choices) + 1)
        return str(rng.choice(choices, p=p / p.sum()))

    sentences = []
    for _ in range(n):
        subject = f"{one_of('the a every')} {one_of('river bank bear money știucă 銀行')}"
        verb = one_of("was saw held passed flooded robbed")
        rest = one_of("steep deep green") if verb == "was" else f"the {one_of('bank boat house')}"
        where = f" {one_of('near in')} {one_of('Rome Paris Iași')}" if rng.random() < 0.5 else ""
        sentences.append(f"{subject} {verb} {rest}{where} {one_of('. !')}")
    return sentences


def small_parameters(folder: Path, **changes: object) -> Parameters:
    """Parameters of a run that takes a second; its text is written beside it."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text("\n".join(made_up_sentences(150)) + "\n", encoding="utf-8")
    values = {
        "run_dir": str(folder / "run"),
        "text": str(text),
        "heldout_fraction": 0.1,
        "tokenized": True,
        "min_count": 2,
        "max_characters": 12,
        "char_embedding_dim": 4,
        "filters": [[1, 4], [2, 6]],
        "n_highway": 1,
        "lstm_dim": 8,
        "projection_dim": 6,
        "n_layers": 1,
        "epochs": 2,
        "batch_size": 6,
        "unroll_steps": 3,
        "n_negatives": 8,
        "learning_rate": 0.5,
        "sentence": "the river bank was steep .",
        "progress": "none",
    }
    return Parameters(**{**values, **changes})


def split_of(sentences: Sequence[Sequence[int]]) -> SimpleNamespace:
    """What a corpus offers of its sentences, from lists of word ids."""
    lengths = [len(sentence) for sentence in sentences]
    return SimpleNamespace(
        ids=np.array([i for sentence in sentences for i in sentence], np.uint32),
        bounds=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        n_sentences=len(sentences),
        n_words=sum(lengths),
    )


def lexicon_of(words: Sequence[str]) -> Lexicon:
    """A lexicon of the special words and these, in the order given."""
    encoded = [word.encode() for word in (*SPECIAL_WORDS, *words)]
    return Lexicon(
        np.frombuffer(b"".join(encoded), np.uint8),
        np.concatenate([[0], np.cumsum([len(word) for word in encoded])]).astype(np.int64),
        np.ones(len(encoded), np.int64),
    )
