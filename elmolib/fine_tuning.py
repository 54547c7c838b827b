"""Going on from a model that was trained before, ours or anybody's, on another text."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from elmolib.errors import ParameterError, WeightsError
from elmolib.parameters import Parameters
from elmolib.pretrained import PUBLISHED, SHIPPED, fetch
from elmolib.vocabulary import Vocabulary
from elmolib.weights import StoredModel, read_model

if TYPE_CHECKING:
    from elmolib.bilm import BiLM

KEEP_VOCABULARY = "pretrained"
"""The `vocabulary_file` that stands for the words of the pretrained model's softmax."""

SOFTMAX = ("softmax/W", "softmax/b")


class Beginning(NamedTuple):
    """What a model that is to be trained has from another one.

    Attributes:
        source: where the other one was read.
        n_kept: words whose softmax rows are the other one's.
        n_new: words whose softmax rows are those of a new model.
    """

    source: str
    n_kept: int
    n_new: int

    def __str__(self) -> str:
        return (
            f"going on from {self.source}: {self.n_kept:,} words of the softmax are kept, "
            f"{self.n_new:,} are new"
        )


def begin_from_pretrained(bilm: BiLM, vocabulary: Vocabulary, parameters: Parameters) -> Beginning:
    """Give a new model the weights of the one that the parameters name.

    Everything below the softmax is taken over. The softmax rows of words that both know are taken
    over by word, wherever they stand; those of other words stay as they are.

    Args:
        bilm: the new model, with a softmax.
        vocabulary: the words of its softmax.
        parameters: `pretrained` names the other model.

    Returns:
        what was taken over.

    Raises:
        WeightsError: the other model cannot be read.
        ParameterError: it has other dimensions than the parameters.

    Example:
        >>> str(begin_from_pretrained(bilm, corpus.vocabulary, parameters))
        'going on from runs/tiny/elmo.h5: 6,201 words of the softmax are kept, 940 are new'
    """
    stored = read_model(pretrained_path(parameters))
    _require_same_options(stored, parameters)
    variables = bilm.named_variables()
    for name, variable in variables.items():
        if name not in SOFTMAX:
            variable.assign(stored.arrays[name])
    new, old = _shared_rows(vocabulary, stored)
    for name in SOFTMAX if len(new) else ():
        rows = np.asarray(variables[name].value).copy()
        rows[new] = stored.arrays[name][old]
        variables[name].assign(rows)
    return Beginning(stored.source, len(new), len(vocabulary) - len(new))


def pretrained_words(parameters: Parameters) -> list[str]:
    """Read the words of the softmax of the model that the parameters name, in code-point order.

    Raises:
        WeightsError: it cannot be read, or has no softmax with a vocabulary.
    """
    path = pretrained_path(parameters)
    stored = read_model(path)
    if stored.vocabulary is None or SOFTMAX[0] not in stored.arrays:
        raise WeightsError(
            f"{path} has no softmax with its vocabulary, so vocabulary_file cannot be "
            f"{KEEP_VOCABULARY}: set it to null to count the words of the text."
        )
    return sorted(stored.vocabulary.words)


def pretrained_path(parameters: Parameters) -> Path:
    """Find the file or folder of the model that the parameters name, downloading it if need be."""
    name = parameters.pretrained
    return fetch(name) if is_published(name) else parameters.path(name)


def model_path(parameters: Parameters) -> Path:
    """Return the weights that a run has learnt or, where there are none yet, its pretrained ones.

    Args:
        parameters: those of the run.

    Raises:
        WeightsError: it is not trained yet, and `pretrained` names no model.
    """
    trained = parameters.run_path / "elmo.h5"
    if trained.is_file():
        return trained
    if parameters.pretrained is None:
        raise WeightsError(
            f"There is no {trained}: run notebooks/02_train.ipynb with these parameters first, or "
            "let pretrained name a model."
        )
    return pretrained_path(parameters)


def is_published(name: str) -> bool:
    """Whether a model is named by its published name or address, and not by its path."""
    return name in {*SHIPPED, *PUBLISHED} or urlsplit(name).scheme in ("http", "https")


def _require_same_options(stored: StoredModel, parameters: Parameters) -> None:
    theirs, ours = dataclasses.asdict(stored.options), dataclasses.asdict(parameters.options)
    changes = [f"{key} to {json.dumps(theirs[key])}" for key in ours if ours[key] != theirs[key]]
    if changes:
        raise ParameterError(
            f"{stored.source} is of other dimensions than the parameters: set {', '.join(changes)}."
        )


def _shared_rows(vocabulary: Vocabulary, stored: StoredModel) -> tuple[np.ndarray, np.ndarray]:
    """Find the words that both softmaxes know: their rows in the new one and in the old one."""
    if stored.vocabulary is None or SOFTMAX[0] not in stored.arrays:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    new = [row for row, word in enumerate(vocabulary.words) if word in stored.vocabulary]
    old = [stored.vocabulary[vocabulary.words[row]] for row in new]
    return np.array(new, np.int64), np.array(old, np.int64)
