"""Convert the model of a training run to the small file that comes with the package.

    python -m recipes.ship runs/en-tiny/elmo.h5 elmolib/models/en-tiny.h5

The file has no softmax, the weights in float16, and the training record.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from elmolib.formats.readers import read_model
from elmolib.formats.weights import write_model


def ship(trained: Path, shipped: Path) -> None:
    """Write a trained model to `shipped`, without the softmax, which embedding does not need."""
    model = read_model(trained, softmax=False)
    write_model(shipped, replace(model, vocabulary=None), dtype=np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trained", type=Path)
    parser.add_argument("shipped", type=Path)
    given = parser.parse_args()
    ship(given.trained, given.shipped)
    print(f"{given.shipped}: {given.shipped.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
