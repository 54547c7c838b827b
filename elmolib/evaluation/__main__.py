"""Measure what the vectors of a model, or of a baseline, are worth.

    python -m elmolib.evaluation --data DIR --model elmo.h5 --output results/en-tiny.json
    python -m elmolib.evaluation --data DIR --model elmo.h5 --baseline random --output ...
    python -m elmolib.evaluation --data DIR --model elmo.h5 --baseline word2vec --corpus ...
    python -m elmolib.evaluation --data DIR --baseline simple --output results/simple.json

The files in DIR, and where to get them, stand in docs/evaluation.md. A set that is missing is
skipped with a line that says so. An output that exists keeps its figures of other tasks.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

from elmolib.errors import ElmolibError, ParameterError
from elmolib.evaluation.results import (
    Results,
    circumstances,
    current_commit,
    merged,
    read_results,
    write_results,
)
from elmolib.evaluation.setting import WORDNET, Setting
from elmolib.evaluation.vectors import Embedder
from elmolib.weights import StoredModel, read_model

BASELINES = ("random", "word2vec", "word2vec-window", "simple")


def main(arguments: list[str] | None = None) -> None:
    """Run the command; see the module."""
    given = _parser().parse_args(arguments)
    try:
        _measure(given)
    except ElmolibError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _measure(given: argparse.Namespace) -> None:
    from elmolib.evaluation import perplexities
    from elmolib.evaluation.tasks import measure_all, tasks_named

    began, commit = time.perf_counter(), current_commit()
    if given.model is None and given.baseline != "simple":
        raise ParameterError(
            "--model is missing: name the elmo.h5 to measure, or be compared with."
        )
    tasks = tasks_named(given.tasks, given.language) if given.tasks != [] else {}
    stored = None
    if given.model is not None:
        stored = read_model(given.model, given.options, softmax=bool(given.heldout))
    rows = perplexities.measure(stored, given.heldout, given.seed) if given.heldout else []
    for each in rows:
        print(f"{each.data}, {each.system}: {each.metric} {each.value:.2f}", flush=True)
    setting = Setting(given.data, given.wordnet, given.seed)
    measured, skipped = measure_all(
        tasks, _embedder(given, stored), setting, lambda line: print(line, flush=True)
    )
    results = Results(
        given.name or given.baseline or Path(given.model).stem,
        [circumstances(given.seed, commit, time.perf_counter() - began, rows + measured)],
        _parameters(given, stored),
        rows + measured,
        skipped,
    )
    if given.output.exists():
        results = merged(read_results(given.output), results)
    write_results(given.output, results)
    print(f"{len(results.rows)} figures in {given.output}")


def _embedder(given: argparse.Namespace, stored: StoredModel | None) -> Embedder | None:
    """Make what gives the vectors; None for the baselines that need none."""
    if given.baseline == "simple":
        return None
    if given.baseline in ("word2vec", "word2vec-window"):
        from elmolib.corpus import PreparedCorpus
        from elmolib.evaluation.baselines import Surroundings, word2vec_of_corpus

        if given.corpus is None:
            raise ParameterError("--corpus is missing: name the prepared text word2vec is to read.")
        dim = 2 * stored.options.projection_dim
        corpus = PreparedCorpus(given.corpus)
        words = word2vec_of_corpus(corpus, dim, given.cache, given.seed, given.threads)
        return words if given.baseline == "word2vec" else Surroundings(words)
    if given.baseline == "random":
        from elmolib.evaluation.baselines import untrained

        return untrained(stored.options, given.seed)
    from elmolib.bilm import BiLM
    from elmolib.embedding import SentenceEncoder

    return SentenceEncoder(BiLM.from_arrays(stored.options, stored.arrays))


def _parameters(given: argparse.Namespace, stored: StoredModel | None) -> dict:
    """Tell what the vectors come from, as far as the model's file knows."""
    if stored is None:
        return {}
    if given.baseline in ("word2vec", "word2vec-window"):
        from elmolib.evaluation.baselines import EPOCHS, RADIUS
        from elmolib.word2vec import MIN_COUNT

        return {
            "kind": "skip-gram",
            "dim": 2 * stored.options.projection_dim,
            "epochs": EPOCHS,
            "min_count": MIN_COUNT,
            "threads": given.threads,
            "averaged to either side": RADIUS if given.baseline == "word2vec-window" else 0,
        }
    return {
        "kind": "random weights" if given.baseline else "trained",
        "options": asdict(stored.options),
        "training": {} if given.baseline else stored.record or {},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m elmolib.evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", help="an elmo.h5, a weight file with --options, a folder or a zip")
    add("--options", help="the options.json of a weight file that does not hold its own")
    add("--baseline", choices=BASELINES, help="measure this in place of the model")
    add("--corpus", type=Path, help="prepared text of the model, for word2vec to be trained on")
    add("--cache", type=Path, help="file to keep word2vec's vectors in, or to find them")
    add("--threads", type=int, default=1, help="of word2vec's training; one gives the same again")
    add("--data", type=Path, required=True, help="folder of the evaluation sets")
    add("--wordnet", type=Path, default=WORDNET, help="folder of WordNet 3.0")
    add("--tasks", type=_names, help="names separated by commas, or none; all by default")
    add("--language", choices=("en", "ro"), default="en", help="whose tasks are the default")
    add("--heldout", type=Path, nargs="+", default=[], help="texts to give the perplexity of")
    add("--name", help="the model's name in tables")
    add("--seed", type=int, default=1, help="of everything random")
    add("--output", type=Path, required=True, help="JSON file of the figures")
    return parser


def _names(text: str) -> list[str]:
    return [] if text == "none" else [name.strip() for name in text.split(",")]


if __name__ == "__main__":
    main()
