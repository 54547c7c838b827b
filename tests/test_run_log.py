"""The log of a run, and watching a run by its files."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_corpus import small_parameters

import elmolib
from elmolib.corpus.prepare import prepare_corpus
from elmolib.corpus.prepared import PreparedCorpus, sentences_of
from elmolib.embedder import ElmoEmbedder
from elmolib.errors import TrainingError
from elmolib.live import run_log
from elmolib.live.page import Watcher
from elmolib.live.progress import COLUMNS, Progress, read_progress, read_steps, request_stop
from elmolib.live.run_log import RunLog
from elmolib.live.throttle import Throttle
from elmolib.training.loop import Training


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> PreparedCorpus:
    return prepare_corpus(small_parameters(tmp_path_factory.mktemp("log")))


@pytest.fixture
def new(corpus, tmp_path, monkeypatch):
    """A function that makes a run, always in the same folder, with a row for every step."""
    monkeypatch.setattr(run_log, "ROW_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(run_log, "WRITE_SECONDS", 0.05)
    parameters = small_parameters(
        corpus.path.parent.parent, run_dir=str(tmp_path / "run"), corpus_dir=str(corpus.path)
    )
    return lambda **changes: Training(parameters.model_copy(update=changes), corpus)


class Steps(keras.callbacks.Callback):
    """Record the losses of all steps, and call a function after one of them."""

    def __init__(self, step=-1, act=lambda: None) -> None:
        super().__init__()
        self.step, self.act, self.losses = step, act, []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append((logs["loss_forward"], logs["loss_backward"]))
        if batch + 1 == self.step:
            self.act()


def events(folder: Path) -> list[tf.compat.v1.Event]:
    files = sorted((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return [e for file in files for e in tf.compat.v1.train.summary_iterator(str(file))]


def stopped(training: Training, step: int) -> RunLog:
    log = RunLog(training)
    training.run([log, Steps(step, lambda: setattr(training.bilm, "stop_training", True))])
    return log


def test_rows_are_the_losses_and_scores_of_the_run(new, monkeypatch):
    training, steps = new(), Steps()
    turns = iter(range(10**6))
    monkeypatch.setattr(Throttle, "is_due", lambda self: next(turns) % 10 == 0)
    training.run([RunLog(training), steps])
    rows, history = read_steps(training.folder), training.history_frame()
    assert rows["step"].tolist() == list(range(1, training.last_step + 1))
    np.testing.assert_allclose(rows["epoch"], rows["step"] / training.steps_per_epoch, rtol=1e-6)
    np.testing.assert_allclose(rows[["loss_forward", "loss_backward"]], steps.losses, rtol=1e-6)
    scored = rows[rows["train_text_mean"].notna()]
    assert len(scored) > 10
    assert scored["heldout_mean"].notna().all()
    at_the_ends = rows[rows["step"].isin(history["step"])]
    for name in ("heldout_mean", "train_text_forward", "train_text_mean"):
        # The text is so short that the sample contains all of it.
        np.testing.assert_allclose(at_the_ends[name], history[name], rtol=1e-6)
    values = {
        (e.step, v.tag): v.simple_value for e in events(training.folder) for v in e.summary.value
    }
    for row in rows.to_dict("records"):
        for name in COLUMNS[2:]:
            expected = values.get((row["step"], name), np.nan)
            np.testing.assert_allclose(row[name], expected, rtol=1e-5, equal_nan=True)


def test_a_row_is_the_mean_of_the_steps_since_the_row_before(new, monkeypatch):
    training, steps = new(), Steps()
    monkeypatch.setattr(run_log, "ROW_SECONDS", (0.02, 0.02))
    training.run([RunLog(training), steps])
    rows, before = read_steps(training.folder), 0
    assert len(rows) < training.last_step
    for row in rows.itertuples():
        means = np.mean(steps.losses[before : row.step], axis=0)
        np.testing.assert_allclose((row.loss_forward, row.loss_backward), means, rtol=1e-6)
        before = row.step
    assert before == training.last_step


def test_the_training_line_is_the_full_softmax_over_a_sample_of_the_training_text(new, tmp_path):
    training = new(epochs=1)
    training.run()
    sample = training.samples["train_text"]
    assert 1000 < sample.n_words + sample.n_sentences < 2500
    text = tmp_path / "sample.txt"
    lines = (" ".join(words) for words in sentences_of(sample, training.corpus))
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = elmolib.perplexity(training.weights_path, text)
    (line,) = training.history
    for part in ("forward", "backward", "mean"):
        assert line[f"train_text_{part}"] == pytest.approx(getattr(found, part), rel=1e-5)


def test_a_resumed_run_continues_the_rows_up_to_its_checkpoint(new):
    first = stopped(new(), 20)
    path = first.folder / "steps.csv"
    before = path.read_text()
    # The process took more steps after the checkpoint and was killed while it wrote a row.
    path.write_text(before + before.splitlines()[-1].replace("20,", "25,", 1) + "\n26,0.4")
    training = new()
    training.run([RunLog(training)])
    after = path.read_text()
    assert after.startswith(before)
    steps = read_steps(first.folder)["step"]
    assert steps.is_monotonic_increasing
    assert steps.unique().tolist() == list(range(1, training.last_step + 1))
    starts = [e.step for e in events(first.folder) if e.HasField("session_log")]
    assert starts == [1, 21]
    assert len(list((first.folder / "tensorboard").iterdir())) == 2


@pytest.mark.parametrize("text", ["", "step\n", "a,b\n1,2\n", ",".join(COLUMNS) + "\nx,y\n"])
def test_damaged_rows_are_left_out(new, text):
    training = new(max_steps=3)
    training.folder.mkdir()
    (training.folder / "steps.csv").write_text(text)
    training.run([RunLog(training)])
    assert read_steps(training.folder)["step"].tolist() == [1, 2, 3]


def test_a_stopped_run_ends_with_its_score(new):
    log = stopped(new(), 7)
    training = log.training
    score = training.perplexity_of(training.samples["heldout"])
    progress = read_progress(log.folder)
    assert (progress.state, progress.step, progress.heldout_is_sample) == ("stopped", 7, True)
    assert progress.heldout_mean == pytest.approx(score.mean)
    assert read_steps(log.folder)["heldout_mean"].iloc[-1] == pytest.approx(score.mean, rel=1e-6)
    assert training.history == []


def test_a_request_stops_the_run_once(new, monkeypatch):
    training, now = new(), [0.0]
    request_stop_at = Steps(5, lambda: request_stop(training.folder))
    training.folder.mkdir()
    request_stop(training.folder)  # an old request
    monkeypatch.setattr(run_log.time, "monotonic", lambda: now.append(0) or 0.3 * len(now))
    training.run([RunLog(training), request_stop_at])
    assert 5 < training.step < 15
    assert read_progress(training.folder).state == "stopped"
    assert not (training.folder / "stop").exists()
    training.run([RunLog(training)])
    assert read_progress(training.folder).state == "finished"


def test_an_error_in_training_is_told(new):
    def fail():
        raise MemoryError

    training = new()
    with pytest.raises(MemoryError):
        training.run([RunLog(training), Steps(5, fail)])
    deadline = time.monotonic() + 30
    while read_progress(training.folder).state == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert str(read_progress(training.folder)).startswith("Failed after")


def test_a_run_that_follows_an_error_at_once_keeps_its_log(new, monkeypatch):
    def fail():
        raise MemoryError

    monkeypatch.setattr(run_log, "WRITE_SECONDS", 0.7)
    training = new()
    with pytest.raises(MemoryError):
        training.run([RunLog(training), Steps(30, fail)])
    again = new()
    again.run([RunLog(again), Steps(2, lambda: time.sleep(1.0))])
    assert read_progress(again.folder).state == "finished"
    assert read_steps(again.folder)["step"].tolist() == list(range(1, again.last_step + 1))


def test_files_that_cannot_be_written_do_not_end_training(new):
    training = new(max_steps=5)
    for name in ("steps.csv", "progress.json"):
        (training.folder / name).mkdir(parents=True)
    (training.folder / "tensorboard").write_text("")
    with pytest.warns(UserWarning, match="cannot be written .*; training goes on") as warned:
        training.run([RunLog(training)])
    assert len([w for w in warned if "log of the run" in str(w.message)]) == 1
    assert training.step == 5


def test_files_are_written_at_least_every_30_seconds():
    assert run_log.WRITE_SECONDS + run_log.ROW_SECONDS[1] <= 30


def heatmap_of(watcher) -> tuple[str, list[float]]:
    """The title and the values of the heatmap, which has two digits."""
    html = watcher.page.box.picture.value
    values = re.findall(r'data-value=".*?  (-?[01]\.\d\d)"', html)
    return re.search('aria-label="(.*?)"', html)[1], list(map(float, values))


def test_a_watcher_shows_the_run_and_stops_it(new, monkeypatch):
    training, log = new(checkpoint_steps=5), None
    seen: dict[str, object] = {}

    def watch():
        log._write()
        watcher = Watcher(training.folder)
        watcher.page.wait()
        seen.update(watcher=watcher, status=watcher.page.status.value)
        seen["heatmap"] = heatmap_of(watcher)[0]
        assert not watcher.page.stop.disabled
        watcher.page.stop.click()
        assert watcher.page.stop.description == "Stopping"
        log._looked_at = 0.0

    log = RunLog(training)
    training.run([log, Steps(13, watch)])
    assert training.step == 14
    assert seen["heatmap"] == "layer 1, after 10 steps"
    assert seen["status"].startswith(f"epoch 1 of 2 (22%) | step 13 of {training.last_step} | loss")
    watcher = seen["watcher"]
    watcher.update()
    watcher.page.wait()
    assert watcher.page.stop.disabled
    assert watcher.page.status.value.startswith("Stopped after 14 steps")
    assert watcher.page.advice.value == "Start the training again to resume it."
    # The heatmap shows the saved model.
    title, shown = heatmap_of(watcher)
    assert title == "layer 1, after 14 steps"
    saved = ElmoEmbedder(training.weights_path).heatmap(training.parameters.sentence, 1)
    expected = np.asarray(saved.axes[0].collections[0].get_array()).ravel()
    np.testing.assert_allclose(shown, expected, atol=0.00501)
    history, steps, progress = watcher.page.lines
    assert len(history) == 0
    assert steps["step"].unique().tolist() == list(range(1, 15))
    assert isinstance(progress, Progress)


def test_outside_a_notebook_a_run_is_watched_as_lines(new, capsys, monkeypatch):
    with pytest.raises(TrainingError, match=r"no|start the training first"):
        elmolib.watch(new().folder)
    monkeypatch.setattr("elmolib.live.watch.LOOK_SECONDS", 0.0)
    log = stopped(new(), 3)
    path = log.folder / "progress.json"
    end = path.read_text()
    running = json.loads(end) | {"state": "running", "written": time.time()}
    path.write_text(json.dumps(running))
    monkeypatch.setattr("elmolib.live.watch.time.sleep", lambda _: path.write_text(end))
    elmolib.watch(str(log.folder))
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1 of 2 (5%) | step 3 of")
    assert last == str(read_progress(log.folder))
