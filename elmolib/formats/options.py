"""`options.json` of bilm-tf and AllenNLP: the architecture of a published model."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from elmolib.errors import OptionsError, ParameterError
from elmolib.files import read_limited
from elmolib.settings.architecture import N_BYTE_CHARACTERS, Architecture

MAX_BYTES = 1_000_000

KEYS = {
    "max_characters": "char_cnn.max_characters_per_token",
    "char_embedding_dim": "char_cnn.embedding.dim",
    "filters": "char_cnn.filters",
    "n_highway": "char_cnn.n_highway",
    "activation": "char_cnn.activation",
    "lstm_dim": "lstm.dim",
    "projection_dim": "lstm.projection_dim",
    "n_layers": "lstm.n_layers",
    "cell_clip": "lstm.cell_clip",
    "proj_clip": "lstm.proj_clip",
    "use_skip_connections": "lstm.use_skip_connections",
}
"""For each key of `Architecture`, its path in `options.json`."""

Known = Callable[[], Mapping[str, Any]]
"""A function that returns what the shapes of a model's arrays tell about its architecture."""

Options = Callable[[Known], Architecture]
"""A function that parses options; its argument gives the values of keys that they lack."""

_fields = Architecture.model_fields.items()
USUAL = {name: field.default for name, field in _fields if not field.is_required()}
"""What shapes do not tell, with the values that all published models have."""

# The values that bilm-tf uses if a key is missing or null.
_DEFAULTS = {"n_highway": 0, "cell_clip": None, "proj_clip": None, "use_skip_connections": False}


def read_options(path: str | Path, source: str = "") -> Options:
    """Read an `options.json` of at most 1 MB, to be parsed later; `source` is the path in errors.

    Raises:
        OptionsError: the file is missing, unreadable, not JSON, or does not describe a biLM.
    """
    text = read_limited(path, MAX_BYTES, OptionsError, source)
    return partial(parse_options, text, source or str(path))


def options_in(folder: Path, source: str, weights: str = "") -> Options | None:
    """Return a function that parses the options file of a folder, or None if there is none.

    Its name contains "options". If several do, it is `options.json`, or like that of the weights.
    """
    names = sorted(path.name for path in folder.glob("[!.]*.json") if "options" in path.name)
    own = weights.rpartition("weights")[0] + "options.json"
    found = [name for name in ("options.json", own) if name in names][:1] or names
    if len(found) > 1:
        raise OptionsError(f"{source} holds several options files ({', '.join(found[:5])}).")
    return read_options(folder / found[0], f"{source}/{found[0]}") if found else None


def parse_options(text: bytes, source: str, known: Known = dict) -> Architecture:
    """Parse an `options.json`; the errors are those of `read_options` and begin with `source`."""
    return architecture_from_options(parse_json(text, source), source, known)


def parse_json(text: bytes, source: str) -> dict[str, Any]:
    """Parse the text of a JSON object, or raise an OptionsError that begins with `source`."""
    try:
        parsed = json.loads(text.decode("utf-8-sig"))
    except RecursionError:
        raise OptionsError(f"{source} is not valid JSON: it is nested too deeply.") from None
    except ValueError as error:
        raise OptionsError(f"{source} is not valid JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise OptionsError(f"{source} must be a JSON object, not {parsed!r:.60}.")
    return parsed


def architecture_from_options(
    options: Mapping[str, Any], source: str = "options", known: Known = dict
) -> Architecture:
    """Convert the parsed JSON of an `options.json`; errors begin with `source`.

    Keys that only matter for training (`dropout`, `n_tokens_vocab`, ...) are ignored. `known` gives
    the values of missing keys.
    """
    try:
        values = {name: _value(options, name, path, known) for name, path in KEYS.items()}
        # For the same weights, bilm-tf's options have 261 for training and 262 for prediction.
        n_characters = options.get("char_cnn", {}).get("n_characters")
        if n_characters not in (None, N_BYTE_CHARACTERS, N_BYTE_CHARACTERS + 1):
            problem = f"char_cnn.n_characters must be 261 or 262, not {n_characters!r:.60}"
            raise OptionsError(f"{problem}: elmolib supports only models that read UTF-8 bytes.")
        if options.get("bidirectional", True) is not True:
            raise OptionsError("bidirectional must be true: a biLM reads in both directions.")
        return Architecture(KEYS, **values)  # type: ignore[call-arg]
    except (OptionsError, ParameterError) as error:
        raise OptionsError(f"{source}: {error}") from None


def options_of(architecture: Architecture) -> dict[str, Any]:
    """Return the content of an `options.json` that AllenNLP and simple_elmo can use."""
    # Both programs add 1 to the character ids, because their id 0 is padding, so they expect 262.
    options: dict[str, Any] = {"char_cnn": {"n_characters": N_BYTE_CHARACTERS + 1}}
    values = architecture.to_json()
    for name, path in KEYS.items():
        *sections, last = path.split(".")
        place = options
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = values[name]
    return options


def _value(options: Any, name: str, path: str, known: Known) -> Any:
    place, where = options, ""
    for section in path.split("."):
        if not isinstance(place, Mapping):
            raise OptionsError(f"{where or 'it'} must be a JSON object, not {place!r:.60}.")
        where = f"{where}.{section}" if where else section
        if section not in place and name in (found := known()):
            return found[name]
        if where == path and name in _DEFAULTS and place.get(section) is None:
            return _DEFAULTS[name]
        if section not in place:
            raise OptionsError(f"the key {where} is missing: add it.")
        place = place[section]
    return place
