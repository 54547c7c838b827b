"""Fine-tuning: load the weights of a trained model before training."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elmolib.errors import ParameterError
from elmolib.formats.names import SOFTMAX
from elmolib.formats.readers import read_model
from elmolib.model.bilm import BiLM
from elmolib.text.vocabulary import Vocabulary


class Transfer(NamedTuple):
    """A record of what was copied from a pretrained model into a new model."""

    source: str  # path of the pretrained model
    n_kept: int  # number of words whose softmax rows are copied
    n_new: int  # number of words whose softmax rows are newly initialized


def load_pretrained(bilm: BiLM, vocabulary: Vocabulary, path: Path) -> Transfer:
    """Load the weights of the pretrained model in `path` into a new model, `bilm`.

    This copies all weights below the softmax, and the softmax row of each word that both models
    have. The rows of the other words in `vocabulary`, the new model's words, do not change.

    Raises:
        WeightsError: the pretrained model cannot be read.
        ParameterError: the pretrained model has another architecture.
    """
    stored = read_model(path)
    theirs, ours = stored.architecture.to_json(), bilm.architecture.to_json()
    changes = [f"{key} to {json.dumps(theirs[key])}" for key in ours if ours[key] != theirs[key]]
    if changes:
        problem = f"{stored.source} has another architecture than the parameters"
        raise ParameterError(f"{problem}: set {', '.join(changes)}.")
    variables = bilm.weights_by_name()
    for name, variable in variables.items():
        if name not in SOFTMAX:
            variable.assign(stored.arrays[name])
    shared = [word for word in vocabulary if stored.has_softmax and word in stored.vocabulary]
    new, old = ([words[word] for word in shared] for words in (vocabulary, stored.vocabulary))
    for name in SOFTMAX if shared else ():
        rows = np.asarray(variables[name].value).copy()
        rows[new] = stored.arrays[name][old]
        variables[name].assign(rows)
    return Transfer(stored.source, len(shared), len(vocabulary) - len(shared))
