"""Ray and Spark give every line the vectors of `embed`, also if a process is killed meanwhile."""

from __future__ import annotations

import gzip
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from click.testing import CliRunner
from small_models import TINY, random_arrays

from elmolib.cli import main
from elmolib.elmo import ElmoEmbedder
from elmolib.embedding import map_batches
from elmolib.embedding.map_batches import EmbedBatches, embed_dataset, share
from elmolib.errors import CorpusError, ParameterError, TextError
from elmolib.formats.weights import StoredModel, write_model
from elmolib.text.tokenizer import Tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.clusters]

DIM = 2 * TINY.projection_dim
SMALL_PIECES = 2000 * DIM * 4  # bytes of vectors; such a piece has 12,000 bytes of text
ODD = "\ufeffa\u2028b c\r\n\r\n  \t\rd\x0be f\x85g\r\nlast"
LINES_OF_ODD = ["a\u2028b c", "", "  \t", "d\x0be f\x85g", "last"]
DRIVER = """
import sys
from elmolib.embedding import map_batches

map_batches.BYTES_OF_VECTORS = int(sys.argv[4])
map_batches.embed_dataset(*sys.argv[1:4], address=sys.argv[5])
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray of four processors, to which this process is connected."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    logs = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    for attempt in range(4):
        try:
            context = ray.init("local", num_cpus=4, object_store_memory=300_000_000, **logs)
            break
        except Exception:  # Ray gives up if its own processes need more than 15 seconds to start.
            ray.shutdown()
            if attempt == 3:
                raise
    session = Path(context.address_info["session_dir"])
    yield context.address_info["gcs_address"]
    ray.shutdown()
    deadline = time.monotonic() + 30
    while (left := processes(session.name)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        os.kill(process, signal.SIGKILL)
    shutil.rmtree(session, ignore_errors=True)
    assert not left


def processes(name: str) -> list[int]:
    """The ids of the processes with this text in their command."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if name in command.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.append(int(command.parent.name))
        except OSError:  # The process has ended.
            continue
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "elmo.h5"
    write_model(path, StoredModel(TINY, random_arrays(TINY), None, Tokenizer()))
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files of lines of different lengths, and the lines that they have by our rule."""
    folder, rng = tmp_path_factory.mktemp("texts"), random.Random(0)
    paths = [folder / name for name in ("one.txt", "odd.txt", "two.txt.gz")]
    for path in paths[::2]:
        lines = [
            " ".join(rng.choices(["the", "river", "bank", "銀行", "Iași"], k=k % 40))
            for k in range(600)
        ]
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "wt", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    paths[1].write_bytes(ODD.encode())
    return paths


def lines_of(path: Path) -> list[str]:
    if path.name == "odd.txt":
        return LINES_OF_ODD
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        return file.read().split("\n")[:-1]


def require_all_lines(out: Path, weights: Path, texts: list[Path], dtype: str) -> None:
    """Require the folder to have each line once, in order, with the vectors of `embed`."""
    import pyarrow as pa
    from pyarrow import parquet

    lines = [
        (str(path), number, line) for path in texts for number, line in enumerate(lines_of(path))
    ]
    embedder = ElmoEmbedder(weights)
    expected = embedder.embed([line for *_, line in lines])
    files = sorted(out.glob("*.parquet"))
    table = pa.concat_tables([parquet.read_table(file) for file in files])
    number = {"float32": pa.float32(), "float16": pa.float16()}[dtype]
    assert table.schema.field("vectors").type == pa.list_(pa.list_(number, DIM))
    assert table.schema.field("words").type == pa.list_(pa.string())
    assert table["row"].to_pylist() == list(range(len(lines)))
    assert table["file"].to_pylist() == [file for file, *_ in lines]
    assert table["line"].to_pylist() == [number for _, number, _ in lines]
    assert table["words"].to_pylist() == [embedder.words(line) for *_, line in lines]
    tolerance = 1e-6 * max(np.abs(each).max(initial=0) for each in expected)
    for found, vectors in zip(table["vectors"], expected, strict=True):
        flat = np.asarray(found.values.flatten()) if len(vectors) else np.empty(0, dtype)
        vectors = vectors.astype(dtype).reshape(-1)
        if dtype == "float16":
            tolerance = np.spacing(np.abs(vectors))  # another last bit, if rounding differed before
        assert (np.abs(flat.astype(np.float32) - vectors) <= tolerance).all()


@pytest.fixture(scope="module")
def folders(cluster, weights, texts, tmp_path_factory) -> dict[str, Path]:
    """Folders of vectors by dtype: one of many small pieces, and one that the command made."""
    folder = tmp_path_factory.mktemp("vectors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(map_batches, "BYTES_OF_VECTORS", SMALL_PIECES)
        small = embed_dataset(texts, folder / "small.parquet", weights)
    out = folder / "out.parquet"
    command = ["embed", weights, *texts, out, "--engine", "ray", "--dtype", "float16"]
    done = CliRunner().invoke(main, [*map(str, command)])
    assert (done.exit_code, done.stdout) == (0, f"The vectors are in {out}.\n")
    assert sorted(folder.iterdir()) == [out, small]
    return {"float32": small, "float16": out}


@pytest.mark.parametrize(("dtype", "n_files"), [("float32", 13), ("float16", 3)])
def test_every_line_is_a_row_with_the_vectors_of_embed(folders, weights, texts, dtype, n_files):
    assert len(list(folders[dtype].glob("*.parquet"))) == n_files
    require_all_lines(folders[dtype], weights, texts, dtype)


def test_a_finished_folder_is_kept_and_another_one_is_refused(folders, weights, texts):
    out = folders["float32"]
    assert embed_dataset(texts, out, weights) == out
    with pytest.raises(CorpusError, match="was made with another layers"):
        embed_dataset(texts, out, weights, layers=0)
    with pytest.raises(CorpusError, match="was made with another text"):
        embed_dataset(texts[:1], out, weights)
    with pytest.raises(CorpusError, match="was not made by embed_dataset"):
        embed_dataset(texts, out.parent, weights)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_files_are_read_by_the_usual_programs(folders, weights, texts, dtype):
    import duckdb
    import pandas as pd
    import polars as pl

    lines = [line for path in texts for line in lines_of(path)]
    expected = ElmoEmbedder(weights).embed(lines[7])
    files = f"{folders[dtype]}/*.parquet"
    tables = {
        "pandas": pd.read_parquet(folders[dtype])["vectors"].tolist(),
        "Polars": pl.read_parquet(files)["vectors"].to_list(),
        "DuckDB": [row for (row,) in duckdb.sql(f"SELECT vectors FROM '{files}'").fetchall()],
    }
    for name, found in tables.items():
        assert len(found) == len(lines), name
        np.testing.assert_allclose(np.stack(found[7]), expected, atol=0.02, err_msg=name)


def is_ours(process: int) -> bool:
    """Whether this process or a child of it has started the process."""
    while process > 1 and process != os.getpid():
        try:
            process = int(
                re.search(r"PPid:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]
            )
        except OSError:
            return False
    return process == os.getpid()


def killed(name: str, begun: Callable[[], bool]) -> list[int]:
    """Kill the first process with this text in its command, once the work has begun."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if begun() and (found := [*filter(is_ours, processes(name))]):
            os.kill(found[0], signal.SIGKILL)
            return found[:1]
        time.sleep(0.02)
    return []


def test_a_killed_actor_costs_no_line(cluster, weights, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(map_batches, "BYTES_OF_VECTORS", SMALL_PIECES // 3)
    out, victims = tmp_path / "out.parquet", []
    rows = tmp_path / "out.parquet.part" / "rows"

    def kill() -> None:
        victims.extend(
            killed("ray::MapWorker(MapBatches(EmbedBatches))", lambda: any(rows.glob("*.parquet")))
        )

    killer = Thread(target=kill)
    killer.start()
    embed_dataset(texts, out, weights)
    killer.join()
    assert victims
    require_all_lines(out, weights, texts, "float32")


def test_after_the_driver_is_killed_the_next_call_does_the_rest(
    cluster, weights, texts, tmp_path, monkeypatch, root
):
    text, out = tmp_path / "long.txt", tmp_path / "out.parquet"
    text.write_text(texts[0].read_text(encoding="utf-8") * 3, encoding="utf-8")
    part, size = tmp_path / "out.parquet.part", SMALL_PIECES // 2
    monkeypatch.setattr(map_batches, "BYTES_OF_VECTORS", size)
    arguments = [sys.executable, "-c", DRIVER, text, out, weights, size, cluster]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    driver = subprocess.Popen([*map(str, arguments)], env=environment, start_new_session=True)
    try:
        while len(committed := list(part.glob("checkpoint/*_0*[0-9].parquet"))) < 3:
            assert driver.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert not out.exists()
    with pytest.raises(CorpusError, match="was made with another dtype"):
        embed_dataset(text, out, weights, dtype="float16")
    done = {rows.stat().st_ino for each in committed for rows in part.glob(f"rows/{each.stem}*")}
    assert len(done) == len(committed)
    embed_dataset(text, out, weights)
    assert done <= {file.stat().st_ino for file in out.glob("*.parquet")}  # they were not redone
    require_all_lines(out, weights, [text], "float32")
    assert not part.exists()


def test_actors_must_leave_processors_for_reading(cluster, weights, texts, tmp_path):
    assert share([4], None, None) == (1, 2)
    assert share([2], None, None) == (1, 0.5)  # Ray also has room for a fraction of a processor
    assert share([16, 16, 2], None, None) == (16, 2)
    assert share([16, 16, 2], None, 8) == (4, 8)
    assert share([8], 6, 1) == (6, 1)
    for nodes, actors, cpus in (([8], 7, 1), ([1], None, None), ([4, 4], 1, 6), ([], None, None)):
        with pytest.raises(ParameterError, match=r"there is no room for \d actors"):
            share(nodes, actors, cpus)
    with pytest.raises(
        ParameterError, match="Ray has 4 processors, .* no room for 2 actors with 2"
    ):
        embed_dataset(texts, tmp_path / "out.parquet", weights, actors=2)


def test_mistakes_are_one_sentence(cluster, texts, tmp_path):
    arrays = random_arrays(TINY)
    arrays["char_cnn/projection_bias"] += np.float32(1e5)
    large, out = tmp_path / "large.h5", tmp_path / "out.parquet"
    write_model(large, StoredModel(TINY, arrays, None, Tokenizer()))
    with pytest.raises(
        CorpusError, match=r"^A vector of the line '.* does not fit into float16: [^.]*\.$"
    ):
        embed_dataset(texts, out, large, layers=0, dtype="float16")
    with pytest.raises(ParameterError, match="needs a single layer"):
        embed_dataset(texts, out, large, layers="all")
    (tmp_path / "long.txt").write_text("a\n" + "a " * 2000 + "\n")
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(TextError, match="long.txt, line 2 is too long"),
    ):
        patch.setattr(map_batches, "BYTES_OF_VECTORS", 1)
        embed_dataset(tmp_path / "long.txt", tmp_path / "other.parquet", large)


def test_a_pickle_has_no_weights_and_gives_the_same_vectors(weights):
    embed = EmbedBatches(weights, layers="top")
    words, vectors = embed.vectors(["The river bank", "", "a"])
    assert words == [["The", "river", "bank"], [], ["a"]]
    assert [each.shape for each in vectors] == [(3, DIM), (0, DIM), (1, DIM)]
    pickled = pickle.dumps(embed)
    assert len(pickled) < 1000
    again = pickle.loads(pickled).vectors(["The river bank"])[1][0]
    np.testing.assert_array_equal(again, vectors[0])


def test_the_recipe_for_spark_gives_the_vectors_of_embed(weights, texts, tmp_path, root):
    from pyarrow import parquet

    page = (root / "docs" / "clusters.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"```python\n(from pyspark.*?)```", page, re.DOTALL)
    (tmp_path / "texts").mkdir()
    for path in texts[:2]:
        shutil.copy(path, tmp_path / "texts")
    recipe = recipe.replace('"en-tiny"', repr(str(weights)))
    environment = {**os.environ, "PYTHONPATH": str(root), "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(
        [sys.executable, "-c", recipe],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = parquet.read_table(tmp_path / "vectors.parquet").to_pylist()
    found = {(Path(row["file"]).name, row["line"]): row for row in found}
    embedder = ElmoEmbedder(weights)
    lines = {(path.name, n): line for path in texts[:2] for n, line in enumerate(lines_of(path))}
    assert found.keys() == lines.keys()
    for key, line in lines.items():
        assert found[key]["words"] == embedder.words(line)
        expected = embedder.embed(line, layers="top")
        vectors = np.array(found[key]["vectors"], np.float32).reshape(-1, DIM)
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
