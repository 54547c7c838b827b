"""Speed and memory of embedding a corpus with Ray Data on this machine, beside `embed_corpus`."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from itertools import accumulate
from pathlib import Path
from threading import Event, Thread

from benchmarks import machine
from benchmarks.program import Requests, run
from benchmarks.texts import sentences_to_embed
from benchmarks.workspace import Workspace

ACTOR = b"ray::MapWorker(MapBatches(EmbedBatches))"


def measure(workspace: Workspace) -> dict:
    """Measure words per second, without the start, and the memory of an actor and an embedder.

    The first call embeds one line: this is the start of all processes. The time of a second call
    with one line is subtracted from that of the whole text.
    """
    folder, wanted = workspace.folder("clusters"), 2_000 if workspace.quick else 1_000_000
    sentences = sentences_to_embed(workspace.text, wanted)
    ends = list(accumulate(map(len, sentences)))
    lines = [" ".join(words) for words in sentences[: bisect_left(ends, wanted) + 1]]
    n_words = ends[len(lines) - 1]
    tasks = {}
    for task in ("embed_corpus", "embed_dataset"):
        with workspace.program("clusters", task) as program:
            answers = []
            for name, some in (("start", lines[:1]), ("line", lines[:1]), ("whole", lines)):
                text = folder / f"{name}.txt"
                text.write_text("\n".join(some) + "\n", encoding="utf-8")
                answers.append(program.ask(text=str(text), out=str(folder / f"{task}.{name}")))
        start, line, whole = (answer["seconds"] for answer in answers)
        tasks[task] = {
            "words_per_second": n_words / (whole - line),
            "start_seconds": start,
            "peak_memory": answers[-1]["peak_memory"],
        }
    speeds = [tasks[task]["words_per_second"] for task in tasks]
    return {"words": n_words, "ratio": speeds[1] / speeds[0], "tasks": tasks}


def embed_corpus(settings: dict, requests: Requests) -> None:
    """Answer each request with the time of `embed_corpus` and the memory of this process."""
    from elmolib import ElmoEmbedder

    embedder = ElmoEmbedder("en-tiny")
    while True:
        request = requests.next()
        started = time.perf_counter()
        embedder.embed_corpus(request["text"], request["out"], progress=False)
        seconds = time.perf_counter() - started
        os.remove(request["out"])
        requests.answer(seconds=seconds, peak_memory=machine.peak_memory())


def embed_dataset(settings: dict, requests: Requests) -> None:
    """Answer each request with the time of `embed_dataset`, without Ray's start, and the memory."""
    import ray

    from elmolib.embedding import map_batches

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    while True:
        request = requests.next()
        done, largest = Event(), [0]
        watcher = Thread(target=_watch_actors, args=(done, largest))
        watcher.start()
        started = time.perf_counter()
        map_batches.embed_dataset(request["text"], request["out"])
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
        requests.answer(seconds=seconds, peak_memory=largest[0])


def _watch_actors(done: Event, largest: list[int]) -> None:
    """Note the most bytes of memory that an actor has used, shared memory included."""
    while not done.wait(0.5):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if ACTOR in (process / "cmdline").read_bytes():
                    largest[0] = max(largest[0], machine.peak_memory(process))
            except OSError:  # The process has ended.
                continue


if __name__ == "__main__":
    run(embed_corpus, embed_dataset, preload=("elmolib.embedder",))
