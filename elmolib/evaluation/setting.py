"""Where a task finds its data, and the random seed it is measured with."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

WORDNET = Path("/usr/share/wordnet")
"""Where Debian's and Ubuntu's package `wordnet-base` puts WordNet 3.0."""


class Setting(NamedTuple):
    """What a task needs besides an embedder.

    Attributes:
        data: folder with the evaluation sets, laid out as docs/evaluation.md says.
        wordnet: folder with WordNet 3.0's `index.*` and `data.*`.
        seed: of everything random.
    """

    data: Path
    wordnet: Path = WORDNET
    seed: int = 0
