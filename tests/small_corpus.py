"""A made-up text and the smallest model that learns something from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from elmolib.corpus.prepared import Lexicon, Split
from elmolib.settings.parameters import Parameters, TrainingSettings
from elmolib.text.vocabulary import SPECIAL_WORDS


def made_up_sentences(n: int, seed: int = 0) -> list[str]:
    """Draw sentences from a tiny grammar, with words of very different frequencies."""
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
    """Write a text into the folder, and return parameters for a run of one second on this text."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text("\n".join(made_up_sentences(150)) + "\n", encoding="utf-8")
    values = {
        "run_dir": str(folder / "run"),
        "seed": 0,
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
        "recipe": "bilm-tf",
        "learning_rate": 0.5,
        "sentence": "the river bank was steep .",
        "progress": "none",
    }
    return Parameters(**{**values, **changes})


def training_settings(**values: object) -> TrainingSettings:
    """Return the settings of a run that writes nothing."""
    return TrainingSettings(run_dir="unused", **values)


def split_of(sentences: Sequence[Sequence[int]]) -> Split:
    """A `Split` of sentences that are given as lists of word ids."""
    return Split(
        np.array([i for sentence in sentences for i in sentence], np.uint32),
        np.cumsum([0, *map(len, sentences)]),
    )


def lexicon_of(words: Sequence[str]) -> Lexicon:
    """A lexicon of the special words and the given words, in this order."""
    encoded = [word.encode() for word in (*SPECIAL_WORDS, *words)]
    return Lexicon(
        np.frombuffer(b"".join(encoded), np.uint8),
        np.concatenate([[0], np.cumsum([len(word) for word in encoded])]).astype(np.int64),
        np.ones(len(encoded), np.int64),
    )
