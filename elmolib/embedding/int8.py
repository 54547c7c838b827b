"""Compute the scales of 8-bit products once from a text, and store them beside the model.

If each call computed its own scales, the vectors of a sentence would depend on its batch.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from elmolib.embedding.companions import read_companion, write_companion
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.numpy_runtime import NumpyRuntime
from elmolib.embedding.runtime import Scales
from elmolib.embedding.sentences import Sentence, words_of
from elmolib.errors import ParameterError
from elmolib.formats.weights import StoredModel

SUFFIX = "int8.json"
# Other texts have larger values than the calibration text, above all in features with small values.
# The limit of a feature is HEADROOM * m * sqrt(M / m), where m is the largest value of this feature
# and M is the largest value of all features.
HEADROOM = 1.1
LISTED_SENTENCES, LISTED_WORDS = 128, 16  # the size of a text made from a vocabulary's words


def scales_of(model: StoredModel, calibrate: Iterable[Sentence] | Scales | None = None) -> Scales:
    """Return the stored scales of a model; compute and store them if there are none.

    Args:
        model: the model with its arrays.
        calibrate: sentences for new scales, or ready-made `Scales`. None means the stored scales,
            or else the sample of held-out text or the vocabulary in the model's file.

    Raises:
        ParameterError: there are no scales and no sentences.
        WeightsError: the stored scales are damaged, or the new ones cannot be stored.
    """
    if isinstance(calibrate, Scales):
        return calibrate
    if calibrate is None and (stored := stored_scales(model)):
        return stored
    given = _own_sentences(model) if calibrate is None else calibrate
    sentences = list(filter(None, words_of(given, model.tokenizer)))
    if not sentences:
        raise ParameterError(
            f"{model.source} contains no text from which precision='int8' can find the range of "
            "the model's values: give calibrate=, a list of a few hundred sentences."
        )
    scales = compute_scales(
        NumpyRuntime(model.architecture, model.arrays, model.spelling), sentences
    )
    text = json.dumps(scales._asdict(), default=lambda steps: [float(str(step)) for step in steps])
    write_companion(model, SUFFIX, text.encode())
    return scales


def stored_scales(model: StoredModel) -> Scales | None:
    """Return the scales that are stored for this model, or None."""
    content = read_companion(model, SUFFIX)
    if content is None:
        return None
    stored = json.loads(content)
    steps = {name: np.array(values, np.float32) for name, values in stored["steps"].items()}
    return Scales(steps, stored["clipped"])


def compute_scales(runtime: NumpyRuntime, sentences: Sequence[list[str]]) -> Scales:
    """Compute scales from every second sentence, and the clipped shares from the others."""
    largest: dict[str, np.ndarray] = {}
    for name, values in _inputs(runtime, sentences[::2]):
        largest[name] = np.maximum(largest.get(name, 1e-6), np.abs(values).max(axis=0))
    steps = {
        name: HEADROOM / _n_steps(runtime, name) * np.sqrt(found * found.max())
        for name, found in largest.items()
    }
    return Scales(steps, clipped_shares(runtime, sentences[1::2] or sentences, steps))


def clipped_shares(
    runtime: NumpyRuntime, sentences: Sequence[list[str]], steps: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Compute the share of clipped values in the inputs of each product, as in `Scales.clipped`."""
    counts = {name: np.zeros(2) for name in steps}
    for name, values in _inputs(runtime, sentences):
        clipped = np.abs(values) > (_n_steps(runtime, name) + 0.5) * steps[name]
        counts[name] += np.count_nonzero(clipped), clipped.size
    return {name: float(clipped / n) for name, (clipped, n) in counts.items()}


def _n_steps(runtime: NumpyRuntime, name: str) -> int:
    """Return the number of 8-bit steps above zero; after a ReLU, no steps below zero are needed."""
    is_positive = name.startswith("char_cnn") and runtime.architecture.activation == "relu"
    return 255 if is_positive else 127


def _inputs(
    runtime: NumpyRuntime, sentences: Sequence[list[str]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield, for each product, its name and some of its inputs, float32 (n, features)."""
    a, seen = runtime.architecture, list[tuple[str, np.ndarray]]()
    runtime.watch = lambda name, values: seen.append((name, values.copy()))
    encoder = SentenceEncoder(runtime)
    for first in range(0, len(sentences), 256):
        for layers in encoder.encode(sentences[first : first + 256], boundaries=True):
            halves = np.split(layers, 2, axis=2)
            for direction, half in zip(("forward", "backward"), halves, strict=True):
                for layer, (x, h) in enumerate(zip(half, half[1:], strict=False)):
                    h = h - x if layer > 0 and a.use_skip_connections else h
                    yield f"{direction}_{layer}", np.concatenate([x, h], axis=1)
        yield from seen
        seen.clear()


def _own_sentences(model: StoredModel) -> list[list[str]]:
    """Return the held-out sample in the model's file, or else lists of words of its vocabulary."""
    sample = (model.training_record or {}).get("sample")
    if sample or model.vocabulary is None:
        return sample or []
    words = [word for word in model.vocabulary if word.split() == [word]]
    words = words[:: max(1, len(words) // (LISTED_SENTENCES * LISTED_WORDS))]
    return [words[k : k + LISTED_WORDS] for k in range(0, len(words), LISTED_WORDS)]
