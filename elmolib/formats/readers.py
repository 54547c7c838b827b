"""Read a model from any of the file formats in which models are published."""

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from elmolib.errors import WeightsError, reason
from elmolib.files import require_regular_file
from elmolib.formats import allennlp, checkpoints, hub, many_langs
from elmolib.formats.archives import is_archive, unpacked
from elmolib.formats.assembly import Request, StoredModel, file_stamp
from elmolib.formats.hdf5 import open_hdf5
from elmolib.formats.names import SOFTMAX
from elmolib.formats.options import architecture_from_options, options_in, read_options
from elmolib.formats.published import NAMES, pretrained_path
from elmolib.formats.weights import read_weight_file
from elmolib.text.vocabulary import Vocabulary

OptionsSource = str | Path | Mapping[str, Any]
"""An options file, or its parsed JSON."""


def read_model(
    path: str | Path,
    options: OptionsSource | None = None,
    softmax: bool = True,
    slots: bool = False,
) -> StoredModel:
    """Read a biLM from any of the file formats in which models are published.

    Args:
        path: a name or URL that `fetch` accepts; a file written by `write_model`; a weight file of
            bilm-tf or AllenNLP, together with `options`; a training checkpoint of bilm-tf (its
            folder or its path), with `options.json` and `vocab.txt` beside it; a folder with one
            `*.hdf5` or `*.h5` file, and `options.json` (or one file with another name, such as
            `x_options.json`) and `vocab.txt[.gz]` if the weight file does not contain them; or a
            zip file or `.tar.gz` of such a folder.
        options: an options file, or its parsed JSON, that replaces the stored options. It may lack
            the keys that follow from the shapes of the weights.
        softmax: whether to read the output layer, which embedding does not need.
        slots: whether to read the accumulators of Adagrad, which checkpoints of bilm-tf hold.

    Returns:
        the model. If the file has no tokenizer, the model gets one that splits text at white space,
        because published models were trained on text with white space between all words.

    Raises:
        WeightsError: the file is missing, damaged or not a model, contradicts its options or its
            vocabulary, contains values that are not finite, or refers to data in other files.
        OptionsError, VocabularyError: the options or the vocabulary are malformed.

    Example:
        ```python
        model = read_model("elmo.h5")
        model.arrays["char_cnn/embedding"].shape  # (261, 16)
        ```

    References:
        bilm-tf, `bilm/training.py` (`dump_weights`), whose character embedding has 261 rows. Files
        with 262 rows are read too; their first row is the padding.
    """
    return _read(path, options, Request(layers=True, softmax=softmax, slots=slots))


def read_softmax(path: str | Path, options: OptionsSource | None = None) -> StoredModel:
    """Read a model's softmax and vocabulary. If one of them is missing, raise a WeightsError."""
    model = _read(path, options, Request(layers=False, softmax=True))
    model.require_softmax("it cannot predict words")
    return model


def read_vocabulary(path: str | Path, consequence: str = "its words are not known") -> Vocabulary:
    """Read the words of a model's softmax. If there are none, raise an error with `consequence`."""
    model = _read(path, None, Request(layers=False, softmax=False))
    model.require_softmax(consequence)
    return model.vocabulary


def _read(path: str | Path, options: OptionsSource | None, request: Request) -> StoredModel:
    path = pretrained_path(path, Path()) if isinstance(path, str) else path
    if isinstance(options, Mapping):
        request = request._replace(options=partial(architecture_from_options, options, "options"))
    elif options is not None:
        request = request._replace(options=read_options(options))
    try:
        if not checkpoints.recognizes(path):
            require_regular_file(path)
        read = next((read for recognizes, read in READERS if recognizes(path)), None)
    except (OSError, ValueError) as error:
        names = f": published names are {', '.join(NAMES)}" if not os.path.exists(path) else ""
        raise WeightsError(f"{path} cannot be read as a model ({reason(error)}){names}.") from None
    if read is None:
        advice = "name an HDF5 weight file, or a folder, zip file or .tar.gz that holds one"
        raise WeightsError(f"{path} is damaged or not a model: {advice}.")
    return read(path, request, str(path))


def _read_folder(folder: Path, request: Request, source: str) -> StoredModel:
    try:
        weights = sorted(filter(_is_weight_file, os.listdir(folder)))
    except OSError as error:
        raise WeightsError(f"{source} cannot be listed ({reason(error)}).") from None
    if len(weights) > 1:
        weights = [name for name in weights if not _is_word_cache(folder / name)] or weights
    if not weights:
        raise WeightsError(f"{source} holds no weight file: add a *.hdf5 or *.h5 file.")
    if len(weights) > 1:
        names = ", ".join(weights[:5])
        raise WeightsError(f"{source} holds several weight files ({names}): name one of them.")
    (file,) = weights
    options = None if request.options else options_in(folder, source, file)
    model = read_weight_file(folder / file, request, f"{source}/{file}", options, source)
    if model.unread_softmax or SOFTMAX[0] in model.arrays or not checkpoints.recognizes(folder):
        return model
    return _with_softmax(model, checkpoints.read(folder, request, source))


def _with_softmax(model: StoredModel, checkpoint: StoredModel) -> StoredModel:
    """Add the softmax of a checkpoint to the vectors of an HDF5 file in the same folder."""
    pairs = ((values, checkpoint.arrays.get(name)) for name, values in model.arrays.items())
    if not all(np.array_equal(ours, theirs) for ours, theirs in pairs):
        problem = f"{checkpoint.source} has other weights than {model.source}"
        warnings.warn(f"{problem}: only its softmax is used.", stacklevel=2)
    softmax = {name: checkpoint.arrays[name] for name in SOFTMAX if name in checkpoint.arrays}
    return replace(checkpoint, arrays=model.arrays | softmax, source=model.source, slots={})


def _read_archive(path: Path, request: Request, source: str) -> StoredModel:
    with unpacked(path) as folder:
        folders = [folder, *filter(Path.is_dir, sorted(folder.rglob("*")))]
        # Folders of these names are parts of a model.
        parts = {"variables", "saves"}
        homes = [each for each in folders if parts.isdisjoint(each.relative_to(folder).parts)]
        pairs = [(h, read) for recognizes, read in FOLDERS for h in homes if recognizes(h)]
        models = dict(reversed(pairs))  # of several readers, the first
        if len(models) != 1:
            raise WeightsError(f"{path} must contain exactly one model, not {len(models)}.")
        ((home, read),) = models.items()
        return replace(read(home, request, source), stamp=file_stamp(path))


def _holds_hdf5(folder: Path) -> bool:
    return folder.is_dir() and any(map(_is_weight_file, os.listdir(folder)))


def _is_weight_file(name: str) -> bool:
    return name.endswith((".hdf5", ".h5")) and not name.startswith(".")


def _is_word_cache(path: Path) -> bool:
    """Whether a file holds word vectors that bilm-tf has cached, but no LSTMs."""
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path, str(path)) as file:
        return "RNN_0" not in file


FOLDERS: list[tuple[Callable, Callable]] = [
    (_holds_hdf5, _read_folder),
    (hub.recognizes, hub.read),
    (many_langs.recognizes, many_langs.read),
    (allennlp.recognizes, allennlp.read),
    (checkpoints.recognizes, checkpoints.read),
]
READERS: list[tuple[Callable, Callable]] = [
    *FOLDERS,
    (Path.is_dir, _read_folder),
    (is_archive, _read_archive),
    (h5py.is_hdf5, read_weight_file),
]
"""Pairs of functions, one pair for each form of a model: a test of a path, and a reader."""
