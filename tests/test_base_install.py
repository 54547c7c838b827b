"""Without extras, every feature either works or names the extra that it needs."""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_corpus import made_up_sentences, small_parameters
from small_models import TINY, random_arrays

import elmolib
from elmolib import ElmoEmbedder
from elmolib.cli import main
from elmolib.formats.weights import StoredModel, write_model
from elmolib.settings.run_folder import PROGRESS
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import SPECIAL_WORDS, Vocabulary

MOST_MEGABYTES = 250  # of a virtual environment with the base alone, including pip

# The base installation must not contain these packages. The list has their import names.
EXTRAS = [
    "IPython",
    "cycler",
    "gensim",
    "ipywidgets",
    "jupyterlab",
    "keras",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "pandas",
    "papermill",
    "pyarrow",
    "ray",
    "scipy",
    "seaborn",
    "sklearn",
    "spacy",
    "tensorflow",
    "torch",
]

# Only these modules and subpackages may need an extra.
MAY_NEED_AN_EXTRA = {
    "corpus": {"overview"},
    "embedding": {"keras_layer", "keras_runtime", "onnx_file", "onnx_graphs", "onnx_runtime"},
    "explore": {"occurrences", "tagging", "word2vec"},
    "scoring": {"heldout", "metrics", "perplexity", "runs"},
}
SUBPACKAGES = {"integrations", "live", "model", "plots", "training"}

USE = r"""
import json, sys
from importlib import import_module
from pathlib import Path

for name in sys.argv[2].split():
    sys.modules[name] = None  # as if it were not installed

import numpy as np
import elmolib
from elmolib.embedding.map_batches import embed_dataset
from elmolib.embedding.vector_file import EmbeddedCorpus

folder = Path(sys.argv[1])
text = folder / "text.txt"
settings = {"text": str(text), "run_dir": str(folder / "run"), "heldout_fraction": 0.1}
settings |= {"min_count": 1, "progress": "none"}
embedder = elmolib.ElmoEmbedder("en-tiny")
seen, too, tool = "I saw him .", "She saw nothing .", "He cut the wood with a saw ."
small = elmolib.ElmoEmbedder(folder / "elmo.h5")
prediction = small.predict("the river bank .", top_k=3)
corpus = elmolib.prepare_corpus(elmolib.Parameters.from_yaml("tiny", **settings))
file = embedder.embed_corpus(text, folder / "vectors.h5", layers="top", progress=False)
nearest = embedder.nearest("bank", "the bank was steep .", file, k=3)
same = embedder.nearest("bank", "the bank was steep .", text.read_text("utf-8").splitlines(), k=3)
with EmbeddedCorpus(file) as embedded:
    n_lines = len(embedded)
embedder.to_projector(folder / "projector", [seen])
np.savez(folder / "vectors.npz", layers=np.stack(embedder.get_elmo("A cat sat .")))

def says(action):
    try:
        action()
    except elmolib.errors.ElmolibError as error:
        return str(error)
    return None

elmo = elmolib.ELMo(params="tiny", **settings)
wikipedia = elmolib.Parameters.from_yaml("tiny", **settings | {"text": "wikipedia"})
print(json.dumps({
    "runtime": embedder.encoder.runtime.name,
    "similarities": [
        embedder.similarity(seen, other, words=("saw", "saw"), layers=2) for other in (too, tool)
    ],
    "forward": prediction.forward.words,
    "log_probability": small.sentence_log_prob("the river bank .").mean,
    "nearest": [each.sentence for each in nearest.in_context],
    "same": [each.sentence for each in same.in_context],
    "printed": str(nearest).splitlines()[0],
    "sentences": [len(corpus), n_lines],
    "loaded": [name for name in sys.modules if sys.modules[name] is not None],
    "says": {
        "plots": [
            says(lambda: embedder.heatmap(seen)),
            says(lambda: embedder.to_frame(seen)),
            says(prediction.table),
            says(nearest.table),
            says(lambda: import_module("elmolib.plots")),
        ],
        "train": [
            says(elmo.train),
            says(lambda: elmolib.ElmoEmbedder("en-tiny", runtime="tensorflow")),
            *(
                says(lambda: getattr(elmolib, name))
                for name in ("ElmoEmbedding", "ElmoVectorizer", "Training", "perplexity")
            ),
        ],
        "fast": [
            says(lambda: elmolib.ElmoEmbedder("en-tiny", runtime="onnx")),
            says(lambda: import_module("elmolib.embedding.onnx_file")),
        ],
        "ray": [says(lambda: embed_dataset(text, folder / "vectors.parquet"))],
        "notebooks": [
            says(lambda: elmolib.prepare_corpus(wikipedia)),
            says(lambda: import_module("elmolib.explore.word2vec")),
        ],
    },
}))
"""

IMPORT = r"""
import json, sys
from importlib import import_module

for name in sys.argv[1].split():
    sys.modules[name] = None
failed = []
for name in sys.argv[2].split():
    try:
        import_module(name)
    except ImportError:
        failed.append(name)
print(json.dumps(failed))
"""


def run(*command: str | Path, **options) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_files(folder: Path) -> None:
    """Write a text, a small model with a softmax, and parameters and progress of a run."""
    (folder / "text.txt").write_text("\n".join(made_up_sentences(150)) + "\n", encoding="utf-8")
    vocabulary = Vocabulary([*SPECIAL_WORDS, "the", "river", "bank", ".", "steep", "house"])
    arrays = random_arrays(TINY, len(vocabulary))
    stored = StoredModel(TINY, arrays, vocabulary, Tokenizer(tokenized=True))
    write_model(folder / "elmo.h5", stored)
    parameters = small_parameters(folder, run_dir=str(folder / "run"))
    (folder / "params.yaml").write_text(parameters.as_yaml(), encoding="utf-8")
    (folder / "run").mkdir()
    progress = {"state": "finished", "step": 1, "last_step": 1, "steps_per_epoch": 1}
    progress |= {"vocabulary_size": 9, "written": 0}
    (folder / "run" / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")


def require_what_the_base_can(python: Path | str, folder: Path, missing: list[str]) -> None:
    """Use elmolib in a fresh process, in which the packages `missing` cannot be imported."""
    write_files(folder)
    found = json.loads(run(python, "-c", USE, folder, " ".join(missing)).splitlines()[-1])
    here, small = (
        ElmoEmbedder(model, runtime="numpy") for model in ("en-tiny", folder / "elmo.h5")
    )
    with np.load(folder / "vectors.npz") as vectors:
        expected = np.stack(here.get_elmo("A cat sat ."))
        np.testing.assert_allclose(vectors["layers"], expected, rtol=0, atol=1e-5)
    assert found["runtime"] == "numpy"
    assert [round(each, 2) for each in found["similarities"]] == [0.84, 0.60]  # as README says
    assert found["forward"] == small.predict("the river bank .", top_k=3).forward.words
    log_probability = small.sentence_log_prob("the river bank .").mean
    assert found["log_probability"] == pytest.approx(log_probability, abs=1e-3)
    assert found["nearest"] == found["same"]
    assert len(found["nearest"]) == 3
    assert all("bank" in sentence for sentence in found["nearest"])
    assert found["printed"] == "bank by word2vec: (needs pip install 'elmolib[notebooks]')"
    assert 100 < found["sentences"][0] < found["sentences"][1] == 150
    assert not {name.partition(".")[0] for name in found["loaded"]} & set(EXTRAS)
    for extra, sentences in found["says"].items():
        for sentence in sentences:
            assert f"pip install 'elmolib[{extra}]'" in str(sentence)
            assert sentence.count(". ") == 0
            assert len(sentence) < 200


def test_without_the_extras_the_base_works_and_the_rest_names_its_extra(tmp_path: Path) -> None:
    require_what_the_base_can(sys.executable, tmp_path, EXTRAS)


def test_only_these_modules_need_an_extra() -> None:
    walked = pkgutil.walk_packages(elmolib.__path__, "elmolib.", onerror=lambda name: None)
    modules = [module.name for module in walked if not module.name.endswith("__main__")]
    failed = json.loads(run(sys.executable, "-c", IMPORT, " ".join(EXTRAS), " ".join(modules)))
    assert "elmolib.training.loop" in failed
    for module in failed:
        _, home, *name = module.split(".")
        assert home in SUBPACKAGES or name[0] in MAY_NEED_AN_EXTRA[home], module


# The arguments of each command, and the extra that it needs (None if it needs no extra).
COMMANDS = {
    "prepare": ("-f params.yaml --no-timing", None),
    "train": ("-f params.yaml", "train"),
    "watch": ("run", "plots"),
    "evaluate": ("elmo.h5 text.txt", "train"),
    "embed": ("elmo.h5 text.txt by-command.h5", None),
    "predict": ("elmo.h5 river", None),
    "heatmap": ("elmo.h5 river", "plots"),
    "convert": ("elmo.h5 published", None),
    "info": ("en-tiny", None),
    "notebooks": ("copied", None),
}

COMMAND = """
import sys

for name in sys.argv.pop(1).split():
    sys.modules[name] = None
from elmolib.cli import main

main(prog_name="elmolib")
"""


def require_that_commands_work_or_name_their_extra(
    python: Path | str, folder: Path, missing: list[str]
) -> None:
    """Run each command in a fresh process, in which the packages `missing` cannot be imported."""
    write_files(folder)
    assert set(COMMANDS) == set(main.commands)
    for name, (arguments, extra) in COMMANDS.items():
        command = [python, "-c", COMMAND, " ".join(missing), name, *arguments.split()]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if extra is None:
            assert done.returncode == 0, done.stderr
        else:
            assert done.returncode == 1, name
            sentence = (
                rf"Error: This needs the package \w+, .* pip install 'elmolib\[{extra}\]'\.\n"
            )
            assert re.fullmatch(sentence, done.stderr), name


def test_without_the_extras_commands_work_or_name_their_extra(tmp_path: Path) -> None:
    require_that_commands_work_or_name_their_extra(sys.executable, tmp_path, EXTRAS)


def megabytes(folder: Path) -> float:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()) / 1e6


@pytest.fixture(scope="module")
def base(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel of elmolib and its base alone."""
    folder = tmp_path_factory.mktemp("base")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, root)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "venv")
    pip = folder / "venv/bin/python", "-m", "pip", "--disable-pip-version-check"
    run(*pip, "install", "--quiet", wheel)
    return folder / "venv"


@pytest.mark.slow
def test_an_environment_with_the_base_alone_is_small(base: Path) -> None:
    size = megabytes(base)
    print(f"\nA virtual environment with the base alone has {size:.0f} MB.")
    assert size <= MOST_MEGABYTES


@pytest.mark.slow
@pytest.mark.parametrize(
    "require", [require_what_the_base_can, require_that_commands_work_or_name_their_extra]
)
def test_the_base_alone_works_and_the_rest_names_its_extra(
    require: Callable[[Path, Path, list[str]], None],
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    require(base / "bin/python", tmp_path, [])
