"""Measure a model, or a baseline, on the downstream tasks.

    python -m benchmarks.tasks --data DIR --model elmo.h5 --output results/en-tiny.json
    python -m benchmarks.tasks --data DIR --model elmo.h5 --baseline random --output ...
    python -m benchmarks.tasks --data DIR --model elmo.h5 --baseline word2vec --corpus ...
    python -m benchmarks.tasks --data DIR --baseline simple --output results/simple.json

docs/evaluation.md lists the files in DIR and where to get them. A missing dataset is skipped with
a message. If the output file exists, the new figures replace only those of the same tasks.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.tasks.common import RADIUS, WORDNET, TaskConfig, WindowMean
from benchmarks.tasks.results import (
    Results,
    current_commit,
    describe_run,
    merge,
    read_results,
    write_results,
)
from benchmarks.tasks.vectors import Embedder
from elmolib.errors import ElmolibError, ParameterError
from elmolib.formats.readers import read_model
from elmolib.formats.weights import StoredModel

WORD2VEC = ("word2vec", "word2vec-window")
BASELINES = ("random", *WORD2VEC, "simple")


def main(arguments: list[str] | None = None) -> None:
    """Run the command; see the module."""
    given = _parser().parse_args(arguments)
    try:
        _measure(given)
    except ElmolibError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _measure(given: argparse.Namespace) -> None:
    from benchmarks.tasks import perplexities
    from benchmarks.tasks.tasks import measure_all, tasks_named

    began, commit = time.perf_counter(), current_commit()
    if given.model is None and given.baseline != "simple":
        raise ParameterError(
            "--model is missing: name the elmo.h5 to measure, or to compare the baseline with."
        )
    tasks = tasks_named(given.tasks, given.language) if given.tasks != [] else {}
    stored = None
    if given.model is not None:
        stored = read_model(given.model, given.options, softmax=bool(given.heldout))
    rows = perplexities.measure(stored, given.heldout, given.seed) if given.heldout else []
    for row in rows:
        print(f"{row.data}, {row.system}: {row.metric} {row.value:.2f}", flush=True)
    config = TaskConfig(given.data, given.wordnet, given.seed)
    embedder = _embedder(given, stored)
    measured, skipped = measure_all(tasks, embedder, config, lambda line: print(line, flush=True))
    rows += measured
    results = Results(
        given.name or given.baseline or Path(given.model).stem,
        [describe_run(given.seed, commit, time.perf_counter() - began, rows)],
        _parameters(given, stored),
        rows,
        skipped,
    )
    if given.output.exists():
        results = merge(read_results(given.output), results)
    write_results(given.output, results)
    print(f"{given.output} now has {len(results.rows)} figures.")


def _embedder(given: argparse.Namespace, stored: StoredModel | None) -> Embedder | None:
    """Create the embedder to measure, or return None for the baselines that need no vectors."""
    if given.baseline == "simple":
        return None
    if given.baseline in WORD2VEC:
        from benchmarks.tasks.baselines import word2vec_of_corpus
        from elmolib.corpus.prepared import PreparedCorpus

        if given.corpus is None:
            raise ParameterError("--corpus is missing: name the prepared text for word2vec.")
        dim = 2 * stored.architecture.projection_dim
        corpus = PreparedCorpus(given.corpus)
        words = word2vec_of_corpus(corpus, dim, given.cache, given.seed, given.threads)
        return words if given.baseline == "word2vec" else WindowMean(words)
    if given.baseline == "random":
        from benchmarks.tasks.baselines import untrained_encoder

        return untrained_encoder(stored.architecture, given.seed)
    from elmolib.embedding.encoder import SentenceEncoder

    if given.precision != "float32":
        from elmolib.embedding.runtimes import make_runtime

        return SentenceEncoder(make_runtime(stored, precision=given.precision))
    from elmolib.embedding.keras_runtime import KerasRuntime
    from elmolib.model.bilm import BiLM

    return SentenceEncoder(KerasRuntime(BiLM.from_arrays(stored.architecture, stored.arrays)))


def _parameters(given: argparse.Namespace, stored: StoredModel | None) -> dict:
    """Return the facts about the model or the word vectors that the results file stores."""
    if stored is None:
        return {}
    if given.baseline in WORD2VEC:
        from benchmarks.tasks.baselines import CORPUS_EPOCHS
        from elmolib.explore.word2vec import MIN_COUNT

        return {
            "kind": "skip-gram",
            "dim": 2 * stored.architecture.projection_dim,
            "epochs": CORPUS_EPOCHS,
            "min_count": MIN_COUNT,
            "threads": given.threads,
            "mean over words on each side": RADIUS if given.baseline == "word2vec-window" else 0,
        }
    record = {} if given.baseline else stored.training_record or {}
    return {
        "kind": "random weights" if given.baseline else "trained",
        "options": stored.architecture.to_json(),
        "training": {k: v for k, v in record.items() if k != "sample"},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tasks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", help="an elmo.h5, a weight file with --options, a folder or a zip")
    add("--options", help="the options.json of a weight file without its own")
    add("--baseline", choices=BASELINES, help="measure this baseline, not the model")
    add(
        "--precision", choices=["float32", "int8"], default="float32", help="of the matrix products"
    )
    add("--corpus", type=Path, help="the model's prepared text, to train word2vec on")
    add("--cache", type=Path, help="file for the vectors of word2vec, read if it exists")
    add("--threads", type=int, default=1, help="threads of word2vec; results repeat with 1 only")
    add("--data", type=Path, required=True, help="folder with the datasets")
    add("--wordnet", type=Path, default=WORDNET, help="folder with WordNet 3.0")
    add("--tasks", type=_names, help="names separated by commas, or none; default: all")
    add("--language", choices=("en", "ro"), default="en", help="measure all tasks in this language")
    add("--heldout", type=Path, nargs="+", default=[], help="texts whose perplexity to measure")
    add("--name", help="name of the model in tables")
    add("--seed", type=int, default=1, help="seed of every random choice")
    add("--output", type=Path, required=True, help="JSON file for the figures")
    return parser


def _names(text: str) -> list[str]:
    return [] if text == "none" else [name.strip() for name in text.split(",")]


if __name__ == "__main__":
    main()
