"""Measure the perplexity of text files, with a confidence interval for each direction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.tasks.results import Row
from elmolib.corpus.sources import read_sentences
from elmolib.formats.weights import StoredModel
from elmolib.model.bilm import BiLM
from elmolib.scoring.confidence import bootstrap, ratio
from elmolib.scoring.heldout import DIRECTIONS
from elmolib.scoring.perplexity import WINDOW, Scorer, windows_of_sentences

TASK = "language model"


def measure(stored: StoredModel, texts: Sequence[Path], seed: int) -> list[Row]:
    """Score each text with the full softmax, carrying the LSTM state through the text.

    Args:
        stored: the model, including its softmax.
        texts: UTF-8 files, split into words by the model's tokenizer.
        seed: the random seed of the bootstrap, which resamples windows of 512 words.

    Returns:
        perplexity for each text and direction; compare it only with models of the same vocabulary.

    Raises:
        WeightsError: the model has no softmax or no vocabulary.
        TextError: a text cannot be read.
    """
    stored.require_softmax("its words cannot be scored")
    scorer = Scorer(BiLM.from_arrays(stored.architecture, stored.arrays))
    rows = []
    for text in texts:
        sentences = read_sentences(str(text), stored.tokenizer)
        windows = windows_of_sentences(sentences, stored.vocabulary, stored.architecture)
        scored = scorer.score(windows).losses
        parts = np.split(scored, range(WINDOW, scored.shape[1], WINDOW), axis=1)
        losses = np.array(
            [(*part.sum(axis=1, dtype=np.float64), part.shape[1]) for part in parts]
        )  # (windows, 3): forward, backward, number of targets
        for direction, number in DIRECTIONS.items():
            interval = bootstrap(losses[:, [number, 2]], _perplexity, seed=seed)
            row = Row.of(
                *(TASK, text.name, direction, "perplexity", interval, "windows", seed),
                n=int(losses[:, 2].sum()),
                examples="words and sentence ends",
                vocabulary=len(stored.vocabulary),
            )
            rows.append(row)
    return rows


def _perplexity(drawn: np.ndarray) -> np.ndarray:
    return np.exp(ratio(drawn))
