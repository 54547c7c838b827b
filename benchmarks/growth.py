"""Measure how the cost of elmolib grows with vocabulary, batch, model and sentence length."""

from __future__ import annotations

import copy

from benchmarks import prediction, training, vocabulary
from benchmarks.models import MODELS
from benchmarks.workspace import Workspace

BATCH_OF_ALL_MODELS = 32
MAX_ROUNDS = 3


def measure(workspace: Workspace) -> dict:
    """Measure elmolib alone, in few rounds: a noisy measurement is visible as an uneven curve."""
    workspace = copy.copy(workspace)
    workspace.rounds = min(workspace.rounds, MAX_ROUNDS)
    quick = workspace.quick
    sizes = (200,) if quick else (10_000, 50_000, 200_000, 800_000)
    batches = (4,) if quick else (16, 32, 64, 128, 256)
    lengths = (5, 20) if quick else (5, 10, 20, 50, 100, 200)
    models = ("tiny", "small") if quick else tuple(MODELS)
    rows = batches[0] if quick else BATCH_OF_ALL_MODELS
    by_vocabulary = vocabulary.training_cost(workspace, sizes)["measured"]
    speeds: dict[str, float] = {}

    def tokens_per_second(model: str, batch_size: int) -> float:
        key = repr(workspace.parameters(model) | {"batch_size": batch_size})
        if key not in speeds:
            found = training.compare(workspace, model, with_peers=False, batch_size=batch_size)
            speeds[key] = found["programs"][training.OURS]["tokens_per_second"]
        return speeds[key]

    return {
        "vocabulary": {
            "words": list(sizes),
            "seconds_per_step": [step["seconds"] for step in by_vocabulary],
        },
        "batch": {
            "rows": list(batches),
            "tokens_per_second": [tokens_per_second("small", size) for size in batches],
        },
        "model": {
            "names": list(models),
            "batch_size": rows,
            "tokens_per_second": [tokens_per_second(model, rows) for model in models],
        },
        "sentence": {
            "words": list(lengths),
            "tokens_per_second": prediction.by_length(workspace, lengths, 200 if quick else 6400),
        },
    }
