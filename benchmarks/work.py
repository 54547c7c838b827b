"""Floating-point operations of a training step, counted from its dimensions.

Only matrix products and convolutions are counted, two operations for each multiplication with its
addition. What is left out (gates, softmax, optimizer) costs time but no work, so that the share of
the machine's rate is a lower bound.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from elmolib.options import BiLMOptions


@dataclass(frozen=True)
class Work:
    """Operations of one step, forward and backward, by part.

    The backward pass makes two products for each one forward, for the gradients of input and
    weights. But each filter's maximum passes a gradient to one position of a word only.
    """

    convolutions: float
    highway: float
    lstms: float
    softmax: float

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


def work_of_step(
    options: BiLMOptions, n_words: float, columns: float, n_slots: int, n_negatives: int
) -> Work:
    """Count the work of one training step.

    Args:
        options: the model's dimensions.
        n_words: words that go through the character CNN.
        columns: characters of each, padding that goes along included.
        n_slots: words that both directions read together.
        n_negatives: sampled words of the softmax in each direction.
    """
    dim, projected = options.lstm_dim, options.projection_dim
    forward = backward = 0.0
    for width, count in options.filters:
        window = 2 * width * options.char_embedding_dim * count
        forward += n_words * (columns - width + 1) * window
        backward += 2 * n_words * window
    features = options.n_filters
    highway = n_words * (options.n_highway * 2 * features**2 + features * projected)
    lstms = n_slots * options.n_layers * (2 * projected * 4 * dim + dim * projected)
    softmax = n_slots * (n_negatives + 1) * projected
    return Work(forward + backward, *(3 * 2.0 * part for part in (highway, lstms, softmax)))
