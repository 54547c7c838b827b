"""Perplexity of text files with a confidence interval for each direction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from elmolib.bilm import BiLM
from elmolib.corpus import read_sentences
from elmolib.errors import WeightsError
from elmolib.evaluation.confidence import bootstrap, ratio
from elmolib.evaluation.language_model import DIRECTIONS
from elmolib.evaluation.results import Row, row
from elmolib.scoring import score, windows_of_sentences
from elmolib.weights import StoredModel

TASK = "language model"


def measure(stored: StoredModel, texts: Sequence[Path], seed: int) -> list[Row]:
    """Score each text with the full softmax, the state carried from sentence to sentence.

    Args:
        stored: the model, with its softmax.
        texts: UTF-8 files, cut into words as the model's own training text was.
        seed: of the bootstrap, which draws windows of 512 words.

    Returns:
        perplexity per text and direction. Those of other vocabularies cannot be compared.

    Raises:
        WeightsError: the model has no softmax or no vocabulary.
        TextError: a text cannot be read.
    """
    if stored.vocabulary is None or "softmax/W" not in stored.arrays:
        raise WeightsError(
            f"{stored.source} has no softmax with its vocabulary, so its words cannot be scored: "
            "use a file that holds the whole language model."
        )
    bilm = BiLM.from_arrays(stored.options, stored.arrays)
    rows = []
    for text in texts:
        sentences = read_sentences(str(text), stored.tokenizer)
        windows = windows_of_sentences(sentences, stored.vocabulary, stored.options)
        losses = np.array(
            [
                (*part.losses.sum(axis=1, dtype=np.float64), part.losses.shape[1])
                for part in score(bilm, windows)
            ]
        )
        for direction, number in DIRECTIONS.items():
            rows.append(
                row(
                    TASK,
                    text.name,
                    direction,
                    "perplexity",
                    bootstrap(losses[:, [number, 2]], _perplexity, seed=seed),
                    "windows",
                    seed,
                    n=int(losses[:, 2].sum()),
                    examples="words and sentence ends",
                    vocabulary=len(stored.vocabulary),
                )
            )
    return rows


def _perplexity(drawn: np.ndarray) -> np.ndarray:
    return np.exp(ratio(drawn))
