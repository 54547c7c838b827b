"""The architecture of a biLM: its dimensions and switches, checked in one place."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from elmolib.settings.base import Settings, key

# Number of character ids: 256 bytes, begin and end of a sentence and of a word, and padding.
N_BYTE_CHARACTERS = 261
# These bounds keep an untrusted options file from using up all memory. The largest published model
# has 94 million parameters and an `lstm_dim` of 4,096.
MAX_PARAMETERS, _MAX_DIM = 4_000_000_000, 65_536


def as_tuples(value: Any) -> Any:
    """Turn lists, also nested ones, into tuples, so that settings cannot be changed later."""
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


Dim = Annotated[int, Field(ge=1, le=_MAX_DIM)]
Width = Annotated[int, Field(ge=1, le=1000)]
Clip = Annotated[float, Field(gt=0, le=1e6)]
Filters = Annotated[
    tuple[tuple[Width, Dim], ...], Field(min_length=1, max_length=64), BeforeValidator(as_tuples)
]


class Architecture(Settings):
    """Dimensions and switches of one biLM; see Peters et al. 2018, arXiv:1802.05365, section 3.4.

    Raises:
        ParameterError: a value has the wrong type or is out of bounds, or two values contradict
            each other. The message names the key.
    """

    # A word needs at least 3: one byte, and a mark at each end.
    max_characters: Annotated[int, Field(ge=3, le=1000)] = key(
        "maximum bytes of a word, including a mark at each end", 50
    )
    char_embedding_dim: Dim = key("features of a character")
    filters: Filters = key(
        "width and count of each convolution",
        expected="a list of [width, count] pairs of whole numbers of at least 1",
    )
    n_highway: Annotated[int, Field(ge=0, le=16)] = key("highway layers after the convolutions")
    activation: Literal["relu", "tanh"] = key("activation after the convolutions", "relu")
    lstm_dim: Dim = key("features of an LSTM's cell state")
    projection_dim: Dim = key("features of a word per direction")
    n_layers: Annotated[int, Field(ge=1, le=64)] = key("LSTM layers per direction")
    cell_clip: Clip | None = key("bound on cell states, or null", 3.0)
    proj_clip: Clip | None = key("bound on LSTM outputs, or null", 3.0)
    use_skip_connections: bool = key(
        "add each LSTM layer's input to its output, from the second layer on", True
    )

    @property
    def widest_filter(self) -> int:
        """The width of the widest filter, in characters."""
        return max(width for width, _ in self.filters)

    @property
    def n_filters(self) -> int:
        """The total number of filters; each filter computes one feature of a word."""
        return sum(count for _, count in self.filters)

    @property
    def architecture(self) -> "Architecture":
        """An `Architecture` without the additional keys of a subclass such as `Parameters`."""
        return Architecture(**{name: getattr(self, name) for name in Architecture.model_fields})

    def n_parameters(self) -> int:
        """Count the weights of the model, not including its softmax."""
        dim, n = self.projection_dim, self.n_filters
        count = N_BYTE_CHARACTERS * self.char_embedding_dim
        count += sum((width * self.char_embedding_dim + 1) * k for width, k in self.filters)
        count += self.n_highway * 2 * (n + 1) * n
        count += (n + 1) * dim if n != dim else 0
        cell = (2 * dim + 1) * 4 * self.lstm_dim
        cell += self.lstm_dim * dim if self.lstm_dim != dim else 0
        return count + 2 * self.n_layers * cell

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        if self.widest_filter > self.max_characters:
            yield (
                f"{{filters}} must not be wider than {{max_characters}}, but {self.widest_filter} "
                f"is more than {self.max_characters}."
            )
        if self.projection_dim > self.lstm_dim:
            sizes = self.projection_dim, self.lstm_dim
            yield "{{projection_dim}} ({}) must not exceed {{lstm_dim}} ({}).".format(*sizes)
        if (n := self.n_parameters()) > MAX_PARAMETERS:
            yield (
                f"these dimensions make {n:,} parameters, but at most {MAX_PARAMETERS:,} are "
                "allowed: lower {lstm_dim}, {projection_dim}, {n_layers} or {filters}."
            )
