"""Reports on a model while it trains: metrics, predictions and pictures, every few epochs."""

import gc
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import keras
import pandas as pd

from elmolib import plots
from elmolib.corpus import prepared
from elmolib.corpus.prepared import PreparedCorpus, sentences_of
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.keras_runtime import KerasRuntime
from elmolib.errors import TrainingError
from elmolib.explore.neighbours import Query, embedded_lines, find_neighbours
from elmolib.files import atomic_write, remove_partial_files, write_errors
from elmolib.scoring.heldout import DIRECTIONS, score_heldout
from elmolib.scoring.metrics import macro_scores
from elmolib.scoring.perplexity import Scorer
from elmolib.scoring.prediction import predict
from elmolib.scoring.softmax import softmax_of
from elmolib.settings.parameters import ReportSettings
from elmolib.settings.run_folder import REPORTS

METRICS, PICTURES = "metrics", "pictures"
N_NEIGHBOURS = 5  # number of neighbours of each word of the sentence
N_TARGETS = 4096  # about so many held-out targets per direction are scored, to limit the time
MIN_TARGETS = 10  # a word is frequent if it is a target at least so often


class DetailedMetrics(keras.callbacks.Callback):
    """Save and print what a `BiLM` has learned, every few epochs of any Keras training.

    Reports go into `folder/epoch_005/` and so on. Every `metrics_every` epochs, `metrics.json` has
    each direction's top-1 and top-5 accuracy on held-out text, and the precision, recall and F1 of
    its first choices, averaged over frequent words; `predictions.txt` shows examples. Every
    `pictures_every` epochs, `heatmap.png` shows the top layer's similarities in one sentence, and
    `neighbours.csv` lists the nearest neighbours of its words in held-out sentences. With `show`,
    the metrics are also printed.

    When training ends, a last report covers the epochs since the last regular report. Without
    held-out text there is only the heatmap. The same weights give the same files.
    """

    def __init__(
        self,
        corpus: PreparedCorpus,
        folder: str | Path,
        sentence: str,
        metrics_every: int = 5,
        pictures_every: int = 10,
        show: bool = True,
    ) -> None:
        super().__init__()
        self.corpus, self.folder, self.show = corpus, Path(folder), show
        self.words = corpus.tokenizer.words(sentence)
        self.every = {METRICS: metrics_every, PICTURES: pictures_every}
        self._epoch, self._epoch_is_finished = 0, True

    @classmethod
    def of(cls, corpus: PreparedCorpus, settings: ReportSettings, show: bool = True) -> Self:
        """Create the callback from a run's settings. With `progress: none`, it prints nothing."""
        every = settings.metrics_every, settings.pictures_every
        show = show and settings.progress != "none"
        return cls(corpus, settings.run_path / REPORTS, settings.sentence, *every, show)

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._encoder = SentenceEncoder(KerasRuntime(self.model))
        # Reuse the scorer of a `Training`, because this scorer is already compiled.
        self._scorer = (self.params or {}).get("scorer") or Scorer(self.model)
        if self.corpus.heldout is None and self.show:
            keys = "heldout_text or heldout_fraction"
            print(f"Reports have no metrics and no neighbours: set {keys} to get them.", flush=True)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch, self._epoch_is_finished = epoch + 1, False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch, self._epoch_is_finished = epoch + 1, True
        self._report([kind for kind in self.every if self._is_due(kind)])

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._epoch == 0 and logs:
            # An earlier process took all steps, but may have been killed before it wrote reports.
            self._epoch = math.ceil(logs["epoch"])
            self._epoch_is_finished = logs["epoch"] == self._epoch
        if self._epoch > 0:
            self._report([kind for kind in self.every if not self._is_due(kind)])

    def _is_due(self, kind: str) -> bool:
        return self._epoch_is_finished and self._epoch % self.every[kind] == 0

    def _report(self, kinds: Sequence[str]) -> None:
        if not kinds:
            return
        self._encoder.forget_words()
        folder = self.folder / f"epoch_{self._epoch:03d}"
        # There are partial files if an earlier process was killed while it wrote this report.
        remove_partial_files(folder)
        advice = "fix this and rerun to resume from the checkpoint"
        with write_errors(folder, TrainingError, advice):
            if METRICS in kinds and self.corpus.heldout is not None:
                self._report_metrics(folder)
            if PICTURES in kinds:
                self._report_pictures(folder)
        gc.collect()  # figures are large, and in reference cycles, which Python frees late
        if self.show:
            print(f"{' and '.join(kinds)} saved in {folder}", flush=True)

    def _report_metrics(self, folder: Path) -> None:
        scores = score_heldout(self._scorer, self.corpus, N_TARGETS)
        every = self.every[METRICS]
        metrics: dict[str, Any] = {
            "epoch": self._epoch,
            "epoch_is_finished": self._epoch_is_finished,
            "covers_epochs": [(self._epoch - 1) // every * every + 1, self._epoch],
            "n_targets": scores.targets.shape[1],
            "vocabulary_size": len(self.corpus.vocabulary),
            "min_targets": MIN_TARGETS,
        }
        for name, d in DIRECTIONS.items():
            macro = macro_scores(scores.targets[d], scores.best[d], MIN_TARGETS)
            values = {f"top_{k}": float((scores.ranks[d] < k).mean()) for k in (1, 5)}
            values |= {f"macro_{k}": getattr(macro, k) for k in ("precision", "recall", "f1")}
            # JSON has no NaN.
            values = {key: None if math.isnan(value) else value for key, value in values.items()}
            metrics[name] = values | {"n_frequent_words": macro.n_words}
        softmax = softmax_of(self.model, self.corpus.vocabulary)
        sentences = prepared.example_sentences(self.corpus)
        examples = "\n\n".join(map(str, predict(self._encoder, softmax, sentences)))
        _write(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        _write(folder / "predictions.txt", examples + "\n")
        if self.show:
            print(f"{Report(metrics, examples)}\n", flush=True)

    def _report_pictures(self, folder: Path) -> None:
        (layers,) = self._encoder.encode([self.words])
        heatmap = plots.heatmap(self.words, layers[-1], title=f"top layer, epoch {self._epoch}")
        plots.save(heatmap, folder / "heatmap.png")
        if self.corpus.heldout is None:
            return
        searched = prepared.spread_sentences(self.corpus.heldout, N_TARGETS)
        queries = [Query(self.words, i, vector) for i, vector in enumerate(layers[-1])]
        lines = embedded_lines(self._encoder, sentences_of(searched, self.corpus))
        neighbours = find_neighbours(queries, lines, N_NEIGHBOURS, different_words=True)
        rows = [
            (i, self.words[i], near.word, round(near.similarity, 6), " ".join(near.sentence))
            for i, found in enumerate(neighbours)
            for near in found
        ]
        columns = ["position", "word", "neighbour", "similarity", "context"]
        _write(folder / "neighbours.csv", pd.DataFrame(rows, columns=columns).to_csv(index=False))


class Report(NamedTuple):
    """Metrics and predictions. `print` shows text; a notebook shows HTML tables."""

    metrics: dict[str, Any]  # the content of metrics.json
    predictions: str  # the content of predictions.txt

    def __str__(self) -> str:
        about, table = _metrics_table(self.metrics)
        return f"{about}\n{table.to_string()}\n\n{self.predictions}"

    def _repr_html_(self) -> str:
        about, table = _metrics_table(self.metrics)
        blocks = self.predictions.strip("\n").split("\n\n")
        examples = [[re.split("  +", row) for row in block.splitlines()] for block in blocks]
        tables = [pd.DataFrame(rows).to_html(header=False, index=False) for rows in examples]
        return f"<p>{about}</p>{table.to_html()}<br>{'<br>'.join(tables)}"


def latest_report(settings: ReportSettings) -> Report | None:
    """Return the metrics and predictions of a run's latest report that has them."""
    if (path := latest_file(settings, "metrics.json")) is None:
        return None
    predictions = path.with_name("predictions.txt").read_text(encoding="utf-8")
    return Report(json.loads(path.read_text(encoding="utf-8")), predictions)


def latest_file(settings: ReportSettings, name: str) -> Path | None:
    """Return the path of the file `name` in the latest report that has this file, or None."""
    files = (settings.run_path / REPORTS).glob(f"epoch_*/{name}")
    return max(files, key=lambda file: int(file.parent.name.partition("_")[2]), default=None)


def _metrics_table(metrics: dict[str, Any]) -> tuple[str, pd.DataFrame]:
    first, last = metrics["covers_epochs"]
    epochs = f"epochs {first} to {last}" if first < last else f"epoch {last}"
    unfinished = "" if metrics["epoch_is_finished"] else ", unfinished"
    n_words = metrics["forward"]["n_frequent_words"]
    table = pd.DataFrame({name: metrics[name] for name in DIRECTIONS}, dtype=float).T
    shares = table[["top_1", "top_5"]].map("{:.1%}".format)
    means = table.filter(like="macro_").map("{:.3f}".format)
    return (
        f"{epochs}{unfinished}: {metrics['n_targets']:,} held-out targets per direction; the last "
        f"three are means over the {n_words} words with at least {metrics['min_targets']} targets"
    ), shares.join(means)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
