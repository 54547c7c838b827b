"""After one epoch of WikiText-2, the perplexity is not higher than that of bilm-tf."""

from __future__ import annotations

import json
import math
from pathlib import Path

import keras
import pandas as pd
import pytest
from wikitext import wikitext

from elmolib.corpus.prepare import prepare_corpus
from elmolib.settings.parameters import Parameters
from elmolib.training.loop import Training

pytestmark = [pytest.mark.shared, pytest.mark.slow]


class Curve(keras.callbacks.Callback):
    """Callback that prints, every 100 steps, the sampled perplexity of elmolib and of bilm-tf."""

    def __init__(self, trace: Path) -> None:
        super().__init__()
        self.theirs = pd.read_csv(trace, index_col="batch")["train_perplexity_sampled"]

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        step = batch + 1
        if step in self.theirs.index:
            ours = math.exp((logs["loss_forward"] + logs["loss_backward"]) / 2)
            print(f"step {step:5,}: {ours:6.1f}, bilm-tf {self.theirs[step]:6.1f}", flush=True)


def test_one_epoch_from_scratch(shared, tmp_path):
    """With two seeds, bilm-tf reached mean held-out perplexities of 316.9 and 319.4."""
    for split in ("train", "valid"):
        (tmp_path / f"{split}.txt").write_text(wikitext(shared, split), encoding="utf-8")
    reference = shared / "reference" / "wt2"
    options = json.loads((reference / "options.json").read_text())
    parameters = Parameters(
        run_dir=str(tmp_path / "run"),
        seed=1,
        text=str(tmp_path / "train.txt"),
        heldout_text=str(tmp_path / "valid.txt"),
        tokenized=True,
        unicode_form=None,
        vocabulary_file=str(reference / "vocab.txt"),
        char_embedding_dim=options["char_cnn"]["embedding"]["dim"],
        filters=options["char_cnn"]["filters"],
        n_highway=options["char_cnn"]["n_highway"],
        lstm_dim=options["lstm"]["dim"],
        projection_dim=options["lstm"]["projection_dim"],
        n_layers=options["lstm"]["n_layers"],
        dropout=options["dropout"],
        batch_size=options["batch_size"],
        unroll_steps=options["unroll_steps"],
        n_negatives=options["n_negative_samples_batch"],
        epochs=1,
        recipe="bilm-tf",
    )
    with pytest.warns(UserWarning, match="105 of 8,057 sentences"):
        corpus = prepare_corpus(parameters)
    training = Training(parameters, corpus)
    training.run([Curve(reference / "train_trace_seed1.csv")])
    assert training.batches.n_targets == 2_083_837
    assert training.history[-1]["vocabulary_size"] == 33_279
    assert training.history[-1]["heldout_mean"] <= 320
