"""Turn a training run into the small file that lies in the package.

    python -m recipes.ship runs/en-tiny/elmo.h5 elmolib/models/en-tiny.h5

The softmax is left out, the weights become float16; what the run was stays inside as its record.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from elmolib.weights import read_model, write_model


def ship(trained: Path, shipped: Path) -> None:
    """Write the part of a trained model that embeds.

    Args:
        trained: the `elmo.h5` of a run.
        shipped: the file to write.
    """
    model = read_model(trained, softmax=False)
    write_model(
        shipped,
        model.options,
        model.arrays,
        None,
        model.tokenizer,
        record=model.record,
        dtype=np.float16,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trained", type=Path)
    parser.add_argument("shipped", type=Path)
    given = parser.parse_args()
    ship(given.trained, given.shipped)
    print(f"{given.shipped}: {given.shipped.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
