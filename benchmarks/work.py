"""Floating-point operations of a training step, computed from the dimensions of model and batch.

Only matrix products and convolutions are counted: a multiplication and the addition that follows it
are two operations. Gates, softmax and optimizer take time but are not counted, so the true rate of
operations is higher than the rate computed from this count.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from elmolib.settings.architecture import Architecture


@dataclass(frozen=True)
class Work:
    """Operations of one step, forward and backward, for each part of the model.

    The backward pass has two products for each product of the forward pass: one for the gradient
    of the input, one for the gradient of the weights. Convolutions need fewer operations, because
    the maximum over positions passes the gradient of a filter to one position of a word only.
    """

    convolutions: float
    highway: float
    lstms: float
    softmax: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def work_of_step(
    architecture: Architecture, n_words: float, columns: float, n_slots: int, n_negatives: int
) -> Work:
    """Count the operations of one training step.

    Args:
        architecture: the model's dimensions.
        n_words: words that go through the character CNN.
        columns: characters of each word, including padding.
        n_slots: positions that the forward direction reads, plus positions that the backward reads.
        n_negatives: words sampled for the softmax of each direction.
    """
    dim, projected = architecture.lstm_dim, architecture.projection_dim
    forward = backward = 0.0
    for width, count in architecture.filters:
        window = 2 * width * architecture.char_embedding_dim * count
        forward += n_words * (columns - width + 1) * window
        backward += 2 * n_words * window
    features = architecture.n_filters
    highway = n_words * (architecture.n_highway * 2 * features**2 + features * projected)
    lstms = n_slots * architecture.n_layers * (2 * projected * 4 * dim + dim * projected)
    softmax = n_slots * (n_negatives + 1) * projected
    return Work(forward + backward, *(3 * 2.0 * part for part in (highway, lstms, softmax)))
