"""Fine-tuning: load the weights of a trained model before training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from elmolib.errors import ParameterError
from elmolib.formats.names import SOFTMAX
from elmolib.formats.readers import read_model
from elmolib.model.bilm import BiLM
from elmolib.text.spelling import BYTES
from elmolib.text.vocabulary import Vocabulary


class Transfer(NamedTuple):
    """A record of what was copied from a pretrained model into a new model."""

    source: str  # path of the pretrained model
    n_kept: int  # number of words whose softmax rows are copied
    n_new: int  # number of words whose softmax rows are newly initialized
    optimizer: str = ""  # what became of the stored state of the optimizer, if there is one


def load_pretrained(
    bilm: BiLM, vocabulary: Vocabulary, path: Path, accumulators: Mapping[str, Any]
) -> Transfer:
    """Load the weights of the pretrained model in `path` into a new model, `bilm`.

    This copies all weights below the softmax, and the softmax row of each word that both models
    have. The rows of the other words in `vocabulary`, the new model's words, do not change. If a
    checkpoint of bilm-tf has Adagrad's state, the new optimizer's `accumulators` get it in the same
    way; they are empty if it is not Adagrad.

    Raises:
        WeightsError: the pretrained model cannot be read.
        ParameterError: the pretrained model has another architecture.
    """
    stored = read_model(path, slots=True)
    if stored.spelling != BYTES:
        raise ParameterError(
            f"{stored.source} cannot be trained further, because it does not spell words by their "
            "bytes: choose another pretrained model."
        )
    theirs, ours = stored.architecture.to_json(), bilm.architecture.to_json()
    changes = [f"{key} to {json.dumps(theirs[key])}" for key in ours if ours[key] != theirs[key]]
    if changes:
        problem = f"{stored.source} has another architecture than the parameters"
        raise ParameterError(f"{problem}: set {', '.join(changes)}.")
    shared = [word for word in vocabulary if stored.has_softmax and word in stored.vocabulary]
    new, old = ([words[word] for word in shared] for words in (vocabulary, stored.vocabulary))
    for variables, arrays in (bilm.weights_by_name(), stored.arrays), (accumulators, stored.slots):
        for name in variables.keys() & arrays.keys():
            values = arrays[name]
            if name in SOFTMAX:
                values = variables[name].numpy().copy()
                values[new] = arrays[name][old]
            variables[name].assign(values)
    state = "Adagrad goes on from its state" if accumulators else "with a new optimizer state"
    note = state if stored.slots else ""
    return Transfer(stored.source, len(shared), len(vocabulary) - len(shared), note)
