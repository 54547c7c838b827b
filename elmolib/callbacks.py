"""Reports on a model while it learns."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from elmolib import plots
from elmolib.corpus import PreparedCorpus
from elmolib.embedding import SentenceEncoder
from elmolib.errors import TrainingError
from elmolib.evaluation import (
    DIRECTIONS,
    accuracy,
    example_sentences,
    macro_scores,
    score_heldout,
    sentences_of,
    spread_sentences,
)
from elmolib.files import remove_unfinished, replacing
from elmolib.neighbours import ContextNeighbours
from elmolib.parameters import Parameters
from elmolib.prediction import Prediction, predict
from elmolib.progress import shows_dashboard

METRICS, PICTURES = "metrics", "pictures"

PICTURE_FILES = ("heatmap.png", "neighbours.png")


class DetailedMetrics(keras.callbacks.Callback):
    """Every few epochs, show and save what a biLM has learnt.

    The metrics are, per direction on held-out text: top-1 and top-5 accuracy over all targets;
    precision, recall and F1 of the first choice, as plain means over the frequent words (those
    with at least `min_targets` of the targets scored; sentence ends and `<UNK>` are no words); and
    what was predicted in a few sentences. The pictures are the heatmap of one sentence and a table
    of its words' nearest neighbours among the words of held-out sentences, in context, both by the
    top layer. Both go into `folder/epoch_005/` and so on:

        metrics.json, predictions.txt       every `metrics_every` epochs
        heatmap.png, neighbours.png,        every `pictures_every` epochs
        neighbours.csv

    When training ends with an epoch, or part of one, that is not due, a last report covers it.
    Without held-out text there is only the heatmap, and one printed sentence says so. The same
    weights give the same files.

    Args:
        corpus: the prepared text.
        folder: where the reports go.
        sentence: drawn in the pictures.
        metrics_every: epochs between metrics.
        pictures_every: epochs between pictures.
        n_targets: about how many held-out targets per direction are scored, from sentences spread
            evenly over the text; the neighbours are sought among the same sentences. The cost of
            a report grows with it, not with the corpus.
        min_targets: what makes a word frequent.
        n_examples: sentences whose predictions are shown.
        n_neighbours: neighbours shown for each word.
        show: print the metrics besides saving them.

    Example:
        >>> training.run([DetailedMetrics.of(corpus, parameters)])

        or in any Keras callback list whose model is a `BiLM`.
    """

    def __init__(
        self,
        corpus: PreparedCorpus,
        folder: str | Path,
        sentence: str,
        metrics_every: int = 5,
        pictures_every: int = 10,
        n_targets: int = 4096,
        min_targets: int = 10,
        n_examples: int = 3,
        n_neighbours: int = 5,
        show: bool = True,
    ) -> None:
        super().__init__()
        self.corpus = corpus
        self.folder = Path(folder)
        self.words = corpus.tokenizer.words(sentence)
        self.every = {METRICS: metrics_every, PICTURES: pictures_every}
        self.n_targets = n_targets
        self.min_targets = min_targets
        self.n_examples = n_examples
        self.n_neighbours = n_neighbours
        self.show = show
        self._epoch, self._epoch_is_finished = 0, True

    @classmethod
    def of(
        cls, corpus: PreparedCorpus, parameters: Parameters, show: bool = True
    ) -> DetailedMetrics:
        """Make the callback that the parameters ask for, with its reports in the run's folder.

        Args:
            corpus: the prepared text.
            parameters: of the run.
            show: print the metrics, unless `progress` is "none" or a dashboard has the place.
        """
        return cls(
            corpus,
            reports_folder(parameters),
            parameters.sentence,
            parameters.metrics_every,
            parameters.pictures_every,
            show=show and parameters.progress != "none" and not shows_dashboard(parameters),
        )

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Get ready to embed sentences."""
        self._encoder = SentenceEncoder(self.model)
        if self.corpus.heldout is None and self.show:
            print(
                "No text is held out, so reports hold no metrics and no neighbours: set "
                "heldout_text or heldout_fraction to have them.",
                flush=True,
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remember what the next report is about."""
        self._epoch, self._epoch_is_finished = epoch + 1, False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Report if it is time."""
        self._epoch, self._epoch_is_finished = epoch + 1, True
        self._report([kind for kind in self.every if self._is_due(kind)])

    def on_train_end(self, logs: dict | None = None) -> None:
        """Report on the last epoch unless that is done."""
        if self._epoch == 0 and logs:
            # Nothing was left to train, but a run killed after its last step lacks this report.
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
        # Of a report that a kill broke off, and that is now made again.
        remove_unfinished(folder)
        try:
            if METRICS in kinds and self.corpus.heldout is not None:
                self._report_metrics(folder)
            if PICTURES in kinds:
                self._draw(folder)
        except OSError as error:
            raise TrainingError(
                f"The report {folder} cannot be written ({error.strerror or error}): see to it and "
                "start again, the run goes on from its last checkpoint."
            ) from None
        # Figures refer to themselves and weigh megabytes; Python would let many pile up.
        gc.collect()
        if self.show:
            print(f"{' and '.join(kinds)} saved in {folder}", flush=True)

    def _report_metrics(self, folder: Path) -> None:
        metrics = self._metrics()
        examples = "\n\n".join(map(str, self._predictions()))
        _write(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        _write(folder / "predictions.txt", examples + "\n")
        if self.show:
            print(f"{metrics_text(metrics)}\n\n{examples}\n", flush=True)

    def _metrics(self) -> dict[str, Any]:
        scores = score_heldout(self.model, self.corpus, self.n_targets)
        every = self.every[METRICS]
        metrics: dict[str, Any] = {
            "epoch": self._epoch,
            "epoch_is_finished": self._epoch_is_finished,
            "covers_epochs": [(self._epoch - 1) // every * every + 1, self._epoch],
            "n_targets": scores.targets.shape[1],
            "vocabulary_size": len(self.corpus.vocabulary),
            "min_targets": self.min_targets,
        }
        for name, d in DIRECTIONS.items():
            macro = macro_scores(scores.targets[d], scores.best[d], self.min_targets)
            metrics[name] = {
                "top_1": accuracy(scores.ranks[d], 1),
                "top_5": accuracy(scores.ranks[d], 5),
                "macro_precision": _or_none(macro.precision),
                "macro_recall": _or_none(macro.recall),
                "macro_f1": _or_none(macro.f1),
                "n_frequent_words": macro.n_words,
            }
        return metrics

    def _predictions(self) -> list[Prediction]:
        sentences = example_sentences(self.corpus, self.n_examples)
        return predict(self.model, self.corpus.vocabulary, sentences, encoder=self._encoder)

    def _draw(self, folder: Path) -> None:
        (layers,) = self._encoder.encode([self.words])
        heatmap = plots.heatmap(self.words, layers[-1], title=f"top layer, epoch {self._epoch}")
        plots.save(heatmap.figure, folder / "heatmap.png")
        if self.corpus.heldout is None:
            return
        pool = spread_sentences(self.corpus.heldout, self.n_targets)
        neighbours = ContextNeighbours(self._encoder, sentences_of(pool, self.corpus)).nearest(
            self.words, self.n_neighbours
        )
        plots.save(plots.neighbours(self.words, neighbours).figure, folder / "neighbours.png")
        table = pd.DataFrame(
            {
                "position": i,
                "word": word,
                "neighbour": neighbour.word,
                "similarity": round(neighbour.similarity, 6),
                "context": " ".join(neighbour.sentence),
            }
            for i, (word, found) in enumerate(zip(self.words, neighbours, strict=True))
            for neighbour in found
        )
        _write(folder / "neighbours.csv", table.to_csv(index=False))


def reports_folder(parameters: Parameters) -> Path:
    """Return the folder in which a run's reports are."""
    return parameters.run_path / "reports"


def latest_report(parameters: Parameters) -> str:
    """Return the latest report's metrics and examples as text; empty where there is none."""
    files = reports_folder(parameters).glob("epoch_*/metrics.json")
    if not (path := max(files, key=_epoch_of, default=None)):
        return ""
    metrics = json.loads(path.read_text(encoding="utf-8"))
    examples = path.with_name("predictions.txt").read_text(encoding="utf-8")
    return f"{metrics_text(metrics)}\n\n{examples}"


def latest_pictures(parameters: Parameters) -> list[Path]:
    """Find the pictures of the latest report that has any: the heatmap, then the neighbours."""
    files = reports_folder(parameters).glob("epoch_*/heatmap.png")
    if not (heatmap := max(files, key=_epoch_of, default=None)):
        return []
    return [path for name in PICTURE_FILES if (path := heatmap.with_name(name)).exists()]


def _epoch_of(file: Path) -> int:
    return int(file.parent.name.removeprefix("epoch_"))


def metrics_text(metrics: dict[str, Any]) -> str:
    """Lay out what `metrics.json` holds for people."""
    first, last = metrics["covers_epochs"]
    epochs = f"epochs {first} to {last}" if first < last else f"epoch {last}"
    unfinished = "" if metrics["epoch_is_finished"] else ", unfinished"
    n_words = metrics["forward"]["n_frequent_words"]
    lines = [
        f"{epochs}{unfinished}: {metrics['n_targets']:,} held-out targets per direction; the last "
        f"three are means over the {n_words} words with {metrics['min_targets']} targets or more",
        f"{'':10}{'top-1':>8}{'top-5':>8}{'precision':>11}{'recall':>8}{'F1':>7}",
    ]
    for name in DIRECTIONS:
        values = metrics[name]
        macro = [values[f"macro_{part}"] for part in ("precision", "recall", "f1")]
        cells = ["-" if value is None else f"{value:.3f}" for value in macro]
        lines.append(
            f"{name:10}{values['top_1']:>8.1%}{values['top_5']:>8.1%}"
            f"{cells[0]:>11}{cells[1]:>8}{cells[2]:>7}"
        )
    return "\n".join(lines)


def _or_none(value: float) -> float | None:
    # JSON knows no NaN.
    return None if math.isnan(value) else value


def _write(path: Path, text: str) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
