"""The architecture of a biLM, as `options.json` of bilm-tf and AllenNLP describes it."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elmolib.errors import OptionsError, reason
from elmolib.files import refuse_pipe

N_CHARACTERS = 261
"""Rows of the character embedding: 256 bytes, then begin and end of sentence, begin and end of
word, and padding."""

ACTIVATIONS = ("relu", "tanh")

# The largest published model has an LSTM of 4,096 and 94 million parameters, so these bounds are
# far from any real model; they are here because an options file may come from a stranger and must
# not be able to ask for more memory than a machine has.
_MAX_DIM = 65_536
_MAX_LAYERS = 64
_MAX_HIGHWAY = 16
_MAX_FILTERS = 64
_MAX_CHARACTERS = 1_000
_MAX_PARAMETERS = 4_000_000_000
_MAX_CLIP = 1e6
_MAX_FILE_BYTES = 1_000_000


@dataclass(frozen=True)
class BiLMOptions:
    """Dimensions and switches of one biLM.

    Args:
        char_embedding_dim: features of one character.
        filters: `(width, count)` of each convolution over characters.
        n_highway: highway layers after the convolutions.
        activation: `"relu"` or `"tanh"`, after the convolutions.
        max_characters: characters of one word, the two word marks included.
        lstm_dim: features of an LSTM's cell state.
        projection_dim: features of a word vector and of an LSTM's output, per direction; at most
            `lstm_dim`.
        n_layers: LSTM layers per direction.
        cell_clip: bound on the absolute value of cell states, or None.
        proj_clip: bound on the absolute value of projected outputs, or None.
        use_skip_connections: add each LSTM layer's input to its output, from the second layer on.

    Raises:
        OptionsError: a value has the wrong type or is out of bounds; the message names it by its
            key in `options.json`, for example `lstm.dim`.

    Example:
        ```python
        options = read_options("options.json")
        options.weight_shapes()["char_embed"]  # (261, 16)
        ```

    References:
        Peters et al. 2018, arXiv:1802.05365, section 3.4; the option files of bilm-tf.
    """

    char_embedding_dim: int
    filters: tuple[tuple[int, int], ...]
    n_highway: int
    activation: str
    max_characters: int
    lstm_dim: int
    projection_dim: int
    n_layers: int
    cell_clip: float | None
    proj_clip: float | None
    use_skip_connections: bool

    def __post_init__(self) -> None:
        _check_whole("char_cnn.embedding.dim", self.char_embedding_dim, 1, _MAX_DIM)
        # A word keeps at least one byte beside its two marks.
        _check_whole("char_cnn.max_characters_per_token", self.max_characters, 3, _MAX_CHARACTERS)
        # Lists are what JSON and YAML give; tuples keep the options hashable.
        object.__setattr__(self, "filters", _checked_filters(self.filters, self.max_characters))
        _check_whole("char_cnn.n_highway", self.n_highway, 0, _MAX_HIGHWAY)
        if self.activation not in ACTIVATIONS:
            raise OptionsError(
                f"char_cnn.activation must be one of {', '.join(ACTIVATIONS)}, "
                f"not {_short(self.activation)}."
            )
        _check_whole("lstm.dim", self.lstm_dim, 1, _MAX_DIM)
        _check_whole("lstm.projection_dim", self.projection_dim, 1, _MAX_DIM)
        if self.projection_dim > self.lstm_dim:
            raise OptionsError(
                f"lstm.projection_dim ({self.projection_dim}) must not exceed lstm.dim "
                f"({self.lstm_dim})."
            )
        _check_whole("lstm.n_layers", self.n_layers, 1, _MAX_LAYERS)
        object.__setattr__(self, "cell_clip", _checked_clip("lstm.cell_clip", self.cell_clip))
        object.__setattr__(self, "proj_clip", _checked_clip("lstm.proj_clip", self.proj_clip))
        if not isinstance(self.use_skip_connections, bool):
            raise OptionsError(
                "lstm.use_skip_connections must be true or false, "
                f"not {_short(self.use_skip_connections)}."
            )
        n_parameters = sum(math.prod(shape) for shape in self.weight_shapes().values())
        if n_parameters > _MAX_PARAMETERS:
            raise OptionsError(
                f"these dimensions make {n_parameters:,} parameters, more than the "
                f"{_MAX_PARAMETERS:,} that are allowed; lower lstm.dim, lstm.projection_dim, "
                "lstm.n_layers or char_cnn.filters."
            )

    @property
    def widest_filter(self) -> int:
        """Characters in the widest convolution."""
        return max(width for width, _ in self.filters)

    @property
    def n_filters(self) -> int:
        """Features of a word after the convolutions."""
        return sum(count for _, count in self.filters)

    @classmethod
    def from_json(cls, options: Mapping[str, Any], source: str = "options") -> BiLMOptions:
        """Read the dictionary stored in an `options.json`.

        Keys that only matter to training (`dropout`, `n_tokens_vocab`, ...) are ignored, and it
        makes no difference whether 261 or 262 characters are declared.

        Args:
            options: the parsed JSON.
            source: what error messages call it, usually the file's name.

        Returns:
            The options.

        Raises:
            OptionsError: a key is missing, or its value malformed or out of bounds.
        """
        try:
            characters = _section(options, "char_cnn")
            lstm = _section(options, "lstm")
            embedding = _section(characters, "embedding", "char_cnn.embedding")
            _check_characters(characters.get("n_characters"))
            if options.get("bidirectional", True) is not True:
                raise OptionsError("bidirectional must be true: a biLM reads in both directions.")
            return cls(
                char_embedding_dim=_required(embedding, "dim", "char_cnn.embedding"),
                filters=_required(characters, "filters", "char_cnn"),
                n_highway=_optional(characters, "n_highway", 0),
                activation=_required(characters, "activation", "char_cnn"),
                max_characters=_required(characters, "max_characters_per_token", "char_cnn"),
                lstm_dim=_required(lstm, "dim", "lstm"),
                projection_dim=_required(lstm, "projection_dim", "lstm"),
                n_layers=_required(lstm, "n_layers", "lstm"),
                cell_clip=lstm.get("cell_clip"),
                proj_clip=lstm.get("proj_clip"),
                use_skip_connections=_optional(lstm, "use_skip_connections", False),
            )
        except OptionsError as error:
            raise OptionsError(f"{source}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """Give the options in the form that AllenNLP and simple_elmo read for prediction.

        Returns:
            A dictionary ready for `json.dumps`, which `from_json` reads back equal.
        """
        return {
            "lstm": {
                "use_skip_connections": self.use_skip_connections,
                "projection_dim": self.projection_dim,
                "cell_clip": self.cell_clip,
                "proj_clip": self.proj_clip,
                "dim": self.lstm_dim,
                "n_layers": self.n_layers,
            },
            "char_cnn": {
                "activation": self.activation,
                "filters": [list(width_and_count) for width_and_count in self.filters],
                "n_highway": self.n_highway,
                "embedding": {"dim": self.char_embedding_dim},
                # At prediction ids are shifted by one, so that 0 can be the padding of sentences.
                "n_characters": N_CHARACTERS + 1,
                "max_characters_per_token": self.max_characters,
            },
        }

    def weight_shapes(self, vocabulary_size: int | None = None) -> dict[str, tuple[int, ...]]:
        """List the arrays of a weight file.

        Args:
            vocabulary_size: words of the softmax, or None for a file without one.

        Returns:
            The shape on disk of each array by its name. An array that the dimensions make
            superfluous, as bilm-tf leaves it out, is not among them.

        References:
            bilm-tf, `bilm/training.py`: no projection after the convolutions when they already
            have `projection_dim` features, none in the LSTM when `lstm_dim` is `projection_dim`.
        """
        shapes: dict[str, tuple[int, ...]] = {"char_embed": (N_CHARACTERS, self.char_embedding_dim)}
        for i, (width, count) in enumerate(self.filters):
            shapes[f"CNN/W_cnn_{i}"] = (1, width, self.char_embedding_dim, count)
            shapes[f"CNN/b_cnn_{i}"] = (count,)
        for i in range(self.n_highway):
            for gate in ("carry", "transform"):
                shapes[f"CNN_high_{i}/W_{gate}"] = (self.n_filters, self.n_filters)
                shapes[f"CNN_high_{i}/b_{gate}"] = (self.n_filters,)
        if self.n_filters != self.projection_dim:
            shapes["CNN_proj/W_proj"] = (self.n_filters, self.projection_dim)
            shapes["CNN_proj/b_proj"] = (self.projection_dim,)
        for direction in range(2):
            for layer in range(self.n_layers):
                cell = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
                shapes[f"{cell}/W_0"] = (2 * self.projection_dim, 4 * self.lstm_dim)
                shapes[f"{cell}/B"] = (4 * self.lstm_dim,)
                if self.lstm_dim != self.projection_dim:
                    shapes[f"{cell}/W_P_0"] = (self.lstm_dim, self.projection_dim)
        if vocabulary_size is not None:
            shapes["softmax/W"] = (vocabulary_size, self.projection_dim)
            shapes["softmax/b"] = (vocabulary_size,)
        return shapes


def read_options(path: str | Path) -> BiLMOptions:
    """Read an `options.json`.

    Args:
        path: the file, at most 1 MB of UTF-8.

    Returns:
        The options.

    Raises:
        OptionsError: the file is missing, unreadable, no JSON, or describes no biLM.

    Example:
        ```python
        options = read_options("elmo_2x1024_128_2048cnn_1xhighway_options.json")
        ```
    """
    try:
        refuse_pipe(path)
        with open(path, "rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise OptionsError(f"{path} cannot be read as options ({reason(error)}).") from None
    return parse_options(text, source=str(path))


def parse_options(text: bytes, source: str) -> BiLMOptions:
    """Parse the bytes of an `options.json`.

    Args:
        text: JSON in UTF-8, at most 1 MB.
        source: what error messages call it.

    Returns:
        The options.

    Raises:
        OptionsError: as `read_options`.
    """
    if len(text) > _MAX_FILE_BYTES:
        raise OptionsError(f"{source} is larger than 1 MB and cannot be the options of a biLM.")
    try:
        parsed = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise OptionsError(f"{source} is not UTF-8: see its byte {error.start}.") from None
    except RecursionError:
        raise OptionsError(f"{source} is nested too deep to be the options of a biLM.") from None
    except ValueError as error:
        raise OptionsError(f"{source} is no valid JSON: {error}.") from None
    return BiLMOptions.from_json(parsed, source)


def _short(value: object) -> str:
    return reprlib.repr(value)


def _section(options: object, key: str, path: str | None = None) -> Mapping[str, Any]:
    path = path or key
    if not isinstance(options, Mapping):
        raise OptionsError(f"expected a JSON object with the key {path}, not {_short(options)}.")
    if key not in options:
        raise OptionsError(f"the key {path} is missing.")
    section = options[key]
    if not isinstance(section, Mapping):
        raise OptionsError(f"{path} must be a JSON object, not {_short(section)}.")
    return section


def _required(section: Mapping[str, Any], key: str, path: str) -> Any:
    if key not in section:
        raise OptionsError(f"the key {path}.{key} is missing.")
    return section[key]


def _optional(section: Mapping[str, Any], key: str, otherwise: Any) -> Any:
    # bilm-tf reads a key that is null as if it were absent.
    value = section.get(key)
    return otherwise if value is None else value


def _check_whole(key: str, value: object, low: int, high: int) -> None:
    # A boolean is an int to Python.
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise OptionsError(
            f"{key} must be a whole number from {low} to {high:,}, not {_short(value)}."
        )


def _check_characters(n_characters: object) -> None:
    # Training files of bilm-tf say 261, prediction files 262, for the very same weights.
    known = (None, N_CHARACTERS, N_CHARACTERS + 1)
    if isinstance(n_characters, bool) or n_characters not in known:
        raise OptionsError(
            f"char_cnn.n_characters must be 261 or 262, not {_short(n_characters)}: "
            "only models over UTF-8 bytes can be read."
        )


def _checked_filters(filters: object, max_characters: int) -> tuple[tuple[int, int], ...]:
    if not isinstance(filters, (list, tuple)) or not 1 <= len(filters) <= _MAX_FILTERS:
        raise OptionsError(
            f"char_cnn.filters must be a list of 1 to {_MAX_FILTERS} pairs [width, count], "
            f"not {_short(filters)}."
        )
    for i, pair in enumerate(filters):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise OptionsError(
                f"char_cnn.filters[{i}] must be a pair [width, count], not {_short(pair)}."
            )
        _check_whole(f"the width in char_cnn.filters[{i}]", pair[0], 1, max_characters)
        _check_whole(f"the count in char_cnn.filters[{i}]", pair[1], 1, _MAX_DIM)
    return tuple((width, count) for width, count in filters)


def _checked_clip(key: str, value: object) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Not a number fails both comparisons. Zero is refused because the peers disagree on it.
    if not is_number or not 0 < value <= _MAX_CLIP:  # type: ignore[operator]
        raise OptionsError(
            f"{key} must be a number above 0 and at most {_MAX_CLIP:,.0f}, or null for no "
            f"clipping, not {_short(value)}."
        )
    return float(value)  # type: ignore[arg-type]
