"""`options.json` of bilm-tf and AllenNLP: the architecture of a published model."""

import json
from collections.abc import Mapping
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

# The values that bilm-tf uses if a key is missing or null.
_DEFAULTS = {"n_highway": 0, "cell_clip": None, "proj_clip": None, "use_skip_connections": False}


def read_options(path: str | Path, source: str = "") -> Architecture:
    """Read an `options.json` of at most 1 MB; errors name `source`, by default the path.

    Raises:
        OptionsError: the file is missing, unreadable, not JSON, or does not describe a biLM.
    """
    text = read_limited(path, MAX_BYTES, OptionsError, source)
    return parse_options(text, source or str(path))


def parse_options(text: bytes, source: str) -> Architecture:
    """Parse an `options.json`; the errors are those of `read_options` and begin with `source`."""
    return architecture_from_options(parse_json(text, source), source)


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


def architecture_from_options(options: Mapping[str, Any], source: str = "options") -> Architecture:
    """Convert the parsed JSON of an `options.json`; errors begin with `source`.

    Keys that only matter for training (`dropout`, `n_tokens_vocab`, ...) are ignored.
    """
    try:
        values = {name: _value(options, name, path) for name, path in KEYS.items()}
        # For the same weights, bilm-tf's options have 261 for training and 262 for prediction.
        n_characters = options["char_cnn"].get("n_characters")
        if n_characters not in (None, N_BYTE_CHARACTERS, N_BYTE_CHARACTERS + 1):
            raise OptionsError(
                f"char_cnn.n_characters must be 261 or 262, not {n_characters!r:.60}: elmolib "
                "supports only models that read UTF-8 bytes."
            )
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


def _value(options: Any, name: str, path: str) -> Any:
    place, where = options, ""
    for section in path.split("."):
        if not isinstance(place, Mapping):
            raise OptionsError(f"{where or 'it'} must be a JSON object, not {place!r:.60}.")
        where = f"{where}.{section}" if where else section
        if where == path and name in _DEFAULTS and place.get(section) is None:
            return _DEFAULTS[name]
        if section not in place:
            raise OptionsError(f"the key {where} is missing: add it.")
        place = place[section]
    return place
