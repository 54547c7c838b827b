"""The scale, text, models and training settings that all measurements share."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from benchmarks import peers
from benchmarks.models import MODELS
from benchmarks.program import ForkServer, Program
from benchmarks.texts import write_sentences
from elmolib.corpus.prepare import prepare_corpus
from elmolib.corpus.prepared import PreparedCorpus
from elmolib.settings.parameters import Parameters

BATCHES = {"tiny": {"batch_size": 64, "n_negatives": 2048}}
DEFAULT_BATCH = {"batch_size": 128, "n_negatives": 8192}


class Steps(NamedTuple):
    """Training steps in a round of elmolib, in a round of bilm-tf, and for warming up."""

    ours: int
    theirs: int
    warmup: int


STEPS = {
    "tiny": Steps(60, 20, 30),
    "small": Steps(4, 2, 3),
    "medium": Steps(2, 1, 2),
    "original": Steps(1, 1, 1),
}

QUICK_STEPS = Steps(1, 1, 1)
# Unroll only a few time steps, because bilm-tf needs seconds to build the graph of 20 time steps.
QUICK_BATCH = {"batch_size": 4, "n_negatives": 64, "unroll_steps": 4}


class Workspace:
    """The scale of the measurements and a folder to work in; use it in a `with` block.

    Args:
        work: the folder for everything that is not a result.
        data: a folder with real text, or None.
        quick: measure as little as possible, to check that the benchmark itself works.

    Attributes:
        peers_missing: packages of the extra `peers` that are not installed.
        text: a file with one sentence per line.
        text_name: the name of the text.
        models: the architectures by name; with `quick`, every name means the tiny model.
        step_differences: the results of `training.check_step`, by the options of bilm-tf.
    """

    def __init__(self, work: Path, data: Path | None, quick: bool = False) -> None:
        self.work = work
        self.quick = quick
        self.peers_missing = peers.missing()
        self.rounds = 1 if quick else 5
        self.warmup_rounds = 0 if quick else 1
        self.models = dict.fromkeys(MODELS, MODELS["tiny"]) if quick else MODELS
        work.mkdir(parents=True, exist_ok=True)
        self.text = work / "text.txt"
        self.text_name = write_sentences(self.text, data, 500 if quick else None)
        self.step_differences: dict[str, float] = {}
        self._opened = ExitStack()
        self._servers: dict[str, ForkServer] = {}

    def __enter__(self) -> Workspace:
        if self.quick:
            for module in ("ours",) if self.peers_missing else ("ours", "peers"):
                server = ForkServer(module, self.work / f"{module}.log")
                self._servers[module] = self._opened.enter_context(server)
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()

    def program(self, module: str, task: str, settings: dict | None = None) -> Program:
        """Start a program; see `Program`."""
        log = self.work / f"{module}_{task}.log"
        return Program(module, task, settings or {}, log, self._servers.get(module))

    def matmul_rate(self) -> float:
        """Measure the operations per second of one large matrix product."""
        scale = {"seconds": 0.05, "dim": 512} if self.quick else {"seconds": 1.0, "dim": 4096}
        return self._matmul.ask(**scale)["rate"]

    @cached_property
    def _matmul(self) -> Program:
        return self._opened.enter_context(self.program("ours", "matmul"))

    def steps(self, model: str) -> Steps:
        """Return the number of training steps to measure, so that a round takes some seconds."""
        return QUICK_STEPS if self.quick else STEPS[model]

    def n_embedded(self, model: str) -> int:
        """Return how many sentences to embed in one round."""
        return 40 if self.quick else 160 if model == "original" else 640

    def folder(self, name: str) -> Path:
        """Create and return a folder for one measurement."""
        folder = self.work / name
        folder.mkdir(exist_ok=True)
        return folder

    def new_folder(self) -> str:
        """Return the path of a new, empty folder."""
        return tempfile.mkdtemp(dir=self.work)

    def write_json(self, name: str, value: object) -> str:
        """Write a value for a program to read, and return the path of the file."""
        path = self.work / f"{name}.json"
        path.write_text(json.dumps(value))
        return str(path)

    def parameters(self, model: str) -> dict:
        """Return the parameters with which a model is trained."""
        batch = QUICK_BATCH if self.quick else BATCHES.get(model, DEFAULT_BATCH)
        return {
            "run_dir": str(self.work / "unused"),
            "corpus_dir": str(self.work / "corpus"),
            "text": str(self.text),
            "tokenized": True,
            "unicode_form": None,
            **self.models[model].to_json(),
            "dropout": 0.1,
            "epochs": 10,
            "unroll_steps": 20,
            "recipe": "bilm-tf",
            "learning_rate": 0.2,
            "initial_accumulator": 1.0,
            "clip_norm": 10.0,
            "progress": "none",
            **batch,
        }

    @cached_property
    def corpus(self) -> PreparedCorpus:
        """The corpus prepared from the text."""
        return prepare_corpus(Parameters.from_mapping(self.parameters("tiny")))

    @property
    def n_targets(self) -> int:
        """Number of words and sentence ends that each direction predicts in an epoch."""
        return self.corpus.train.n_words + self.corpus.train.n_sentences
