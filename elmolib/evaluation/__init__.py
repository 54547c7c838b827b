"""What a model makes of held-out text, and what its vectors are worth for other tasks.

`language_model` scores held-out text, in more detail than one perplexity, and `sentences` says how
sure that is. The other modules, each to be imported on its own, hold one task each.
"""

from elmolib.evaluation.language_model import (
    DIRECTIONS,
    EXAMPLE_WORDS,
    MacroScores,
    Run,
    accuracy,
    accuracy_table,
    example_sentences,
    heldout_sentence,
    load_run,
    macro_scores,
    perplexity_table,
    require_heldout,
    score_heldout,
    sentences_of,
    spread_sentences,
)
from elmolib.evaluation.sentences import loss_by_frequency

__all__ = [
    "DIRECTIONS",
    "EXAMPLE_WORDS",
    "MacroScores",
    "Run",
    "accuracy",
    "accuracy_table",
    "example_sentences",
    "heldout_sentence",
    "load_run",
    "loss_by_frequency",
    "macro_scores",
    "perplexity_table",
    "require_heldout",
    "score_heldout",
    "sentences_of",
    "spread_sentences",
]
