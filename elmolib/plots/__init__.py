"""Pictures as plain functions: data in, Axes or Figure out."""

from elmolib.plots.corpus import characters, coverage, sentence_lengths, word_lengths, zipf
from elmolib.plots.exploring import (
    concordance,
    expected_words,
    neighbours,
    occurrence_maps,
    self_similarity,
)
from elmolib.plots.figure import (
    BACKWARD_COLOUR,
    FORWARD_COLOUR,
    MEAN_COLOUR,
    Picture,
    png,
    png_if_wanted,
    save,
)
from elmolib.plots.fonts import BOX
from elmolib.plots.heatmaps import (
    SIMILARITY_COLOURS,
    heatmap,
    layer_heatmaps,
    layer_name,
)
from elmolib.plots.scores import (
    layer_weights,
    loss_by_frequency,
    loss_by_length,
    perplexities,
    reliability,
    runs,
)
from elmolib.plots.tasks import task_figures
from elmolib.plots.training import learning_curve
from elmolib.similarity import cosine_similarities

__all__ = [
    "BACKWARD_COLOUR",
    "BOX",
    "FORWARD_COLOUR",
    "MEAN_COLOUR",
    "Picture",
    "SIMILARITY_COLOURS",
    "characters",
    "concordance",
    "cosine_similarities",
    "coverage",
    "expected_words",
    "heatmap",
    "layer_heatmaps",
    "layer_name",
    "layer_weights",
    "learning_curve",
    "loss_by_frequency",
    "loss_by_length",
    "neighbours",
    "occurrence_maps",
    "perplexities",
    "png",
    "png_if_wanted",
    "reliability",
    "runs",
    "save",
    "self_similarity",
    "sentence_lengths",
    "task_figures",
    "word_lengths",
    "zipf",
]
