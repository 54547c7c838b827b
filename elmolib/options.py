"""The architecture of a biLM, as `options.json` of bilm-tf and AllenNLP describes it."""

from __future__ import annotations

from dataclasses import dataclass

from elmolib.errors import OptionsError

N_CHARACTERS = 261
"""Rows of the character embedding: 256 bytes, then begin and end of sentence, begin and end of
word, and padding."""


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
        projection_dim: features of a word vector and of an LSTM's output, per direction.
        n_layers: LSTM layers per direction.
        cell_clip: bound on the absolute value of cell states, or None.
        proj_clip: bound on the absolute value of projected outputs, or None.
        use_skip_connections: add each LSTM layer's input to its output, from the second layer on.
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

    @property
    def n_filters(self) -> int:
        """Features of a word after the convolutions."""
        return sum(count for _, count in self.filters)

    @classmethod
    def from_json(cls, options: dict, source: str = "options") -> BiLMOptions:
        """Read the dictionary stored in an `options.json`."""
        try:
            characters, lstm = options["char_cnn"], options["lstm"]
            return cls(
                char_embedding_dim=characters["embedding"]["dim"],
                filters=tuple((width, count) for width, count in characters["filters"]),
                n_highway=characters.get("n_highway", 0),
                activation=characters["activation"],
                max_characters=characters["max_characters_per_token"],
                lstm_dim=lstm["dim"],
                projection_dim=lstm["projection_dim"],
                n_layers=lstm["n_layers"],
                cell_clip=lstm.get("cell_clip"),
                proj_clip=lstm.get("proj_clip"),
                use_skip_connections=lstm.get("use_skip_connections", False),
            )
        except KeyError as error:
            raise OptionsError(f"{source} lacks the key {error}.") from None
