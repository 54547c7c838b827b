"""What all measurements share: the scale, the text, the models and the recipe of training."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from benchmarks import peers
from benchmarks.models import MODELS
from benchmarks.texts import write_sentences
from elmolib.corpus import PreparedCorpus, prepare_corpus
from elmolib.options import BiLMOptions
from elmolib.parameters import Parameters

BATCHES = {"tiny": {"batch_size": 64, "n_negatives": 2048}}
USUAL_BATCH = {"batch_size": 128, "n_negatives": 8192}


class Steps(NamedTuple):
    """Training steps in one round, and before the first."""

    ours: int
    theirs: int
    warm: int


STEPS = {
    "tiny": Steps(60, 20, 30),
    "small": Steps(4, 2, 3),
    "medium": Steps(2, 1, 2),
    "original": Steps(1, 1, 1),
}


# The first steps find new shapes of batches, for which TensorFlow compiles anew.
QUICK_STEPS = Steps(1, 1, 4)


@dataclass
class Setting:
    """The scale of a run and where it works.

    Args:
        work: folder for everything that is not a result.
        data: folder with real text, or None.
        quick: measure next to nothing, to see that the benchmark itself works.
    """

    work: Path
    data: Path | None
    quick: bool = False
    peers_missing: list[str] = field(default_factory=peers.missing)

    def __post_init__(self) -> None:
        self.rounds = 1 if self.quick else 5
        self.warm_rounds = 0 if self.quick else 1
        self.product_seconds = 0.1 if self.quick else 1.0
        self.models: dict[str, BiLMOptions] = (
            dict.fromkeys(MODELS, MODELS["tiny"]) if self.quick else MODELS
        )
        self.work.mkdir(parents=True, exist_ok=True)
        self.text = self.work / "text.txt"
        self.text_name = write_sentences(self.text, self.data, 500 if self.quick else None)

    def steps(self, model: str) -> Steps:
        """Steps of a model that take some seconds."""
        return QUICK_STEPS if self.quick else STEPS[model]

    def n_embedded(self, model: str) -> int:
        """Sentences to embed in one round."""
        return 40 if self.quick else 160 if model == "original" else 640

    def folder(self, name: str) -> Path:
        """A folder of its own for one measurement."""
        folder = self.work / name
        folder.mkdir(exist_ok=True)
        return folder

    def new_folder(self) -> str:
        """The path of a folder that nobody has used."""
        return tempfile.mkdtemp(dir=self.work)

    def recipe(self, model: str) -> dict:
        """The parameters with which a model is trained."""
        options = self.models[model]
        batch = BATCHES.get(model, USUAL_BATCH)
        if self.quick:
            batch = {"batch_size": 4, "n_negatives": 64}
        return {
            "run_dir": str(self.work / "unused"),
            "corpus_dir": str(self.work / "corpus"),
            "text": str(self.text),
            "tokenized": True,
            "unicode_form": None,
            **{name: getattr(options, name) for name in BiLMOptions.__dataclass_fields__},
            "dropout": 0.1,
            "epochs": 10,
            "unroll_steps": 20,
            "learning_rate": 0.2,
            "initial_accumulator": 1.0,
            "clip_norm": 10.0,
            "progress": "none",
            **batch,
        }

    @cached_property
    def corpus(self) -> PreparedCorpus:
        return prepare_corpus(Parameters.from_mapping(self.recipe("tiny")))

    @property
    def vocabulary(self) -> Path:
        """The words of the softmax, one per line."""
        return self.corpus.path / "vocabulary.txt"

    @property
    def vocabulary_size(self) -> int:
        return len(self.corpus.vocabulary)

    @property
    def n_targets(self) -> int:
        return self.corpus.train.n_words + self.corpus.train.n_sentences
