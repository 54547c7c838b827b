"""How the cost of elmolib grows with vocabulary, batch, model and sentence."""

from __future__ import annotations

import copy

from benchmarks import prediction, training, vocabulary
from benchmarks.models import MODELS
from benchmarks.setting import Setting

BATCH_OF_ALL_MODELS = 32
MOST_ROUNDS = 3


def measure(setting: Setting) -> dict:
    """Measure one thing after the other, elmolib alone, in few rounds: a curve shows its noise."""
    setting = copy.copy(setting)
    setting.rounds = min(setting.rounds, MOST_ROUNDS)
    quick = setting.quick
    sizes = (200, 400) if quick else (10_000, 50_000, 200_000, 800_000)
    batches = (4, 8) if quick else (16, 32, 64, 128, 256)
    lengths = (5, 20) if quick else (5, 10, 20, 50, 100, 200)
    models = ("tiny", "small") if quick else tuple(MODELS)
    by_vocabulary = vocabulary.training_cost(setting, sizes)["measured"]
    return {
        "vocabulary": {
            "words": list(sizes),
            "seconds_per_step": [step["seconds"] for step in by_vocabulary],
        },
        "batch": {
            "rows": list(batches),
            "tokens_per_second": [_training(setting, "small", rows) for rows in batches],
        },
        "model": {
            "names": list(models),
            "batch_size": 4 if quick else BATCH_OF_ALL_MODELS,
            "tokens_per_second": [
                _training(setting, model, 4 if quick else BATCH_OF_ALL_MODELS) for model in models
            ],
        },
        "sentence": {
            "words": list(lengths),
            "tokens_per_second": [
                found["tokens_per_second"]
                for found in prediction.by_length(setting, lengths, 200 if quick else 6400)
            ],
        },
    }


def _training(setting: Setting, model: str, rows: int) -> float:
    found = training.compare(setting, model, with_peers=False, batch_size=rows)
    return found["programs"][training.OURS]["tokens_per_second"]
