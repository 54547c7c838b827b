"""Parameters: which values are accepted, and that other values give an error of one sentence."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from papermill.cli import papermill as papermill_cli
from papermill.inspection import inspect_notebook

from elmolib.errors import ParameterError
from elmolib.settings.parameters import Parameters, project_root
from notebooks.write_parameters import EXPLAINED, shared_cell

REQUIRED = {
    "run_dir": "runs/test",
    "text": "wikipedia",
    "char_embedding_dim": 4,
    "filters": [[1, 4], [2, 8]],
    "n_highway": 1,
    "lstm_dim": 8,
    "projection_dim": 4,
    "n_layers": 2,
}


def sentence_for(values: dict) -> str:
    with pytest.raises(ParameterError) as caught:
        Parameters.from_mapping(values, source="given")
    return str(caught.value)


def is_one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and ". " not in text


def test_shipped_files_hold_only_what_differs_from_the_defaults(root: Path) -> None:
    paths = sorted((root / "params").glob("*.yaml"))
    assert {"tiny", "small", "full"} <= {path.stem for path in paths}
    for path in paths:
        parameters = Parameters.from_yaml(path)
        for key in yaml.safe_load(path.read_text()):
            field = Parameters.model_fields[key]
            # small.yaml sets min_count to its default, only to explain the key in a comment.
            if (path.stem, key) != ("small", "min_count"):
                assert field.is_required() or getattr(parameters, key) != field.default, key
    assert len((root / "params/tiny.yaml").read_text().splitlines()) <= 25


def test_published_dimensions(root: Path) -> None:
    small = Parameters.from_yaml(root / "params/small.yaml")
    full = Parameters.from_yaml(root / "params/full.yaml")
    # Models with these sizes: 2x1024_128_2048cnn_1xhighway and 2x4096_512_2048cnn_2xhighway.
    for found, dimensions in ((small, (2, 1024, 128, 2048, 1)), (full, (2, 4096, 512, 2048, 2))):
        assert dimensions == (
            found.n_layers,
            found.lstm_dim,
            found.projection_dim,
            found.n_filters,
            found.n_highway,
        )


def test_a_key_that_is_null_has_the_value_of_the_recipe() -> None:
    elmolib, bilm_tf = (Parameters(**REQUIRED, recipe=name) for name in ("elmolib", "bilm-tf"))
    assert elmolib == Parameters(**REQUIRED)
    # The constant rate of the authors of bilm-tf.
    assert bilm_tf.of_recipe("learning_rate") == 0.2
    assert bilm_tf.of_recipe("learning_rate_decay") == 0.0
    assert bilm_tf.of_recipe("learning_rate_warmup") == 0.0
    assert elmolib.of_recipe("learning_rate_decay") > 0.5
    own = Parameters(**REQUIRED, learning_rate=0.125, learning_rate_decay=0)
    assert (own.of_recipe("learning_rate"), own.of_recipe("learning_rate_decay")) == (0.125, 0.0)
    with pytest.raises(ParameterError, match="initial_accumulator .* set recipe to bilm-tf"):
        Parameters(**REQUIRED, initial_accumulator=0.01)


def test_a_list_cannot_change_behind_frozen_parameters() -> None:
    filters = [[1, 4], [2, 8]]
    parameters = Parameters.from_mapping(REQUIRED | {"filters": filters})
    filters[0][1] = 99
    assert parameters.filters == ((1, 4), (2, 8))
    with pytest.raises(ValueError, match="frozen"):
        parameters.seed = 3


def test_whole_numbers_pass_for_fractions() -> None:
    assert Parameters.from_mapping(REQUIRED | {"learning_rate": 1}).learning_rate == 1.0


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("learning_rat", 0.1, ["unknown", "'learning_rat'", "'learning_rate'"]),
        ("batchsize", 8, ["unknown", "'batch_size'"]),
        ("n_negative", 8, ["unknown", "'n_negatives'"]),
        ("zzz", 8, ["unknown", "'zzz'"]),
        ("learning_rate", "fast", ["learning_rate", "a number above 0", "'fast'"]),
        ("recipe", "adam", ["recipe", "elmolib or bilm-tf", "'adam'"]),
        ("epochs", "2.5", ["epochs", "whole number", "2.5"]),
        ("run_dir", 20261129, ["text", "not 20261129", "quotes in YAML", "-r run_dir"]),
        ("run_dir", "None", ["run_dir", "'None'"]),
        ("text", 7, ["path", "not 7", "-r text"]),
        ("vocabulary_file", True, ["text or null", "not true", "-r vocabulary_file"]),
        ("min_count", "null", ["min_count", "not 'null'"]),
        ("epochs", 2.0, ["epochs", "whole number", "2.0"]),
        ("epochs", True, ["epochs", "whole number", "true"]),
        ("epochs", 0, ["epochs", "from 1", "0"]),
        ("language", False, ["language", "quotes"]),
        ("tokenized", "yes", ["tokenized", "true or false", "'yes'"]),
        ("min_count", None, ["min_count", "not null"]),
        ("seed", -1, ["seed", "-1"]),
        ("dropout", 1.0, ["dropout", "below 1"]),
        ("timestep_dropout", -0.1, ["timestep_dropout", "at least 0"]),
        ("learning_rate", float("nan"), ["learning_rate", "nan"]),
        ("clip_norm", float("inf"), ["clip_norm", "inf"]),
        ("cell_clip", 0, ["cell_clip", "above 0"]),
        ("proj_clip", -3.0, ["proj_clip", "above 0"]),
        ("filters", [], ["filters", "[width, count]"]),
        ("filters", [[1, 2, 3]], ["filters", "[width, count]"]),
        ("filters", [[1, "2"]], ["filters", "[width, count]"]),
        ("activation", "gelu", ["activation", "relu or tanh", "'gelu'"]),
        ("unicode_form", "nfc", ["unicode_form", "NFC or NFKC or null"]),
        ("text", [], ["text", "path"]),
        ("text", ["a.txt", "a.txt"], ["text", "different paths"]),
        ("run_dir", "a\0b", ["run_dir"]),
        ("max_characters", 2, ["max_characters", "from 3"]),
        ("vocabulary_size", 3, ["vocabulary_size", "from 4"]),
        ("sentence", "  ", ["sentence"]),
    ],
)
def test_a_bad_value_is_one_sentence_naming_the_key(key: str, value: object, parts: list) -> None:
    sentence = sentence_for(REQUIRED | {key: value})
    assert is_one_sentence(sentence)
    assert all(part in sentence for part in ["given:", *parts])


@pytest.mark.parametrize(
    "values",
    [
        {"heldout_text": "a.txt", "heldout_fraction": 0.1},
        {"text": ["a.txt", "b.txt"], "heldout_text": "b.txt"},
        {"text": "wikipedia", "tokenized": True},
        {"vocabulary_file": "words.csv", "vocabulary_size": 9000},
        {"vocabulary_file": "words.csv", "min_count": 2},
        {"vocabulary_file": "pretrained", "pretrained": None},
        {"max_characters": 3, "filters": [[4, 8]]},
        {"lstm_dim": 8, "projection_dim": 9},
        {"lstm_dim": 65_536, "projection_dim": 65_536, "n_layers": 64},
    ],
)
def test_keys_that_contradict_each_other_are_both_named(values: dict) -> None:
    sentence = sentence_for(REQUIRED | values)
    assert is_one_sentence(sentence)
    assert all(key in sentence for key in values)


@pytest.mark.parametrize("key", ["char_embedding_dim", "lstm_dim", "n_layers", "n_highway"])
def test_dimensions_that_no_model_may_have_are_refused_before_any_work(key: str) -> None:
    sentence = sentence_for(REQUIRED | {key: 65_537 if key.endswith("dim") else 1000})
    assert is_one_sentence(sentence) and f"given: {key} must be a whole number" in sentence


@pytest.mark.parametrize("key", REQUIRED)
def test_what_has_no_standard_value_must_be_given(key: str) -> None:
    sentence = sentence_for({name: value for name, value in REQUIRED.items() if name != key})
    assert f"the key {key} is missing" in sentence


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("pretrained", "null", None),
        ("pretrained", "None", None),
        ("heldout_text", "null", None),
        ("unicode_form", "null", None),
        ("cell_clip", "null", None),
        ("n_negatives", "None", None),
        ("strip_html", "false", False),
        ("strip_html", "True", True),
        ("learning_rate", "1e-3", 0.001),
        ("cell_clip", "+2", 2.0),
        ("max_steps", "1e3", 1000),
        # "null" stays text if the key takes text, or if the key must not be null.
        ("run_dir", "null", "null"),
        ("sentence", "1e-3", "1e-3"),
        ("progress", "none", "none"),
        ("run_dir", "false", "false"),
    ],
)
def test_the_type_of_a_key_decides_how_text_is_read(
    tmp_path: Path, key: str, text: str, value: object
) -> None:
    path = tmp_path / "texts.yaml"
    path.write_text(yaml.safe_dump(REQUIRED | {key: text}))
    for parameters in (
        Parameters.from_mapping(REQUIRED | {key: text}),
        Parameters.from_notebook(REQUIRED | {key: text}),
        Parameters.from_yaml(path),
    ):
        assert getattr(parameters, key) == value
        assert type(getattr(parameters, key)) is type(value)


@given(st.from_regex(r"[-+]?[0-9]{1,9}(\.[0-9]{0,9})?([eE][-+]?[0-9]{1,2})?", fullmatch=True))
def test_a_number_that_yaml_takes_for_text_is_read_as_python_reads_it(text: str) -> None:
    if float(text) > 0:
        read = Parameters.from_mapping(REQUIRED | {"learning_rate": text})
        assert read.learning_rate == float(text)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("seed: 1\nepochs: 2\nseed: 3\n", ["line 3", "'seed'", "twice"]),
        ("text: &it x\nrun_dir: *it\n", ["line 1", "tags"]),
        ("text: x\nrun_dir: *it\n", ["line 2", "aliases"]),
        ("text: !!python/object/apply:os.getcwd []\n", ["line 1", "tags"]),
        ("<<: {seed: 1}\n", ["line 1"]),
        ("text: [a, b\nseed: 1\n", ["line 2"]),
        ("- seed\n", ["key: value"]),
        ("", ["key: value"]),
        ("no: 3\n", ["false", "quotes"]),
        ("seed: 2026-13-45\n", ["month"]),
        ("seed: " + "9" * 5000, ["digits"]),
        ("? 0x" + "F" * 50_000 + "\n: 1", ["digits", "quotes"]),
        ("seed: " + ":".join(["1"] * 9999) + ".5", ["too large"]),
        ("[" * 5000, ["nested"]),
        ("# \x01", ["#x0001"]),
        ("#" * 200_000, ["larger"]),
        (b"\xff\xfe\xfa", ["UTF-8", "byte 0"]),
    ],
)
def test_a_bad_file_is_one_sentence_naming_it(
    tmp_path: Path, content: str | bytes, parts: list[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ParameterError) as caught:
        Parameters.from_yaml(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert all(part in sentence for part in ["bad.yaml", *parts])


@pytest.mark.parametrize("key", ["seed", "learning_rate", "text", "filters"])
@pytest.mark.parametrize("number", ["0x" + "F" * 50_000, ":".join(["1"] * 9999)])
def test_a_number_longer_than_python_writes_is_one_sentence(
    tmp_path: Path, key: str, number: str
) -> None:
    path = tmp_path / "bad.yaml"
    rest = yaml.safe_dump({name: value for name, value in REQUIRED.items() if name != key})
    path.write_text(
        f"{rest}{key}: [[1, {number}]]" if key == "filters" else f"{rest}{key}: {number}"
    )
    with pytest.raises(ParameterError, match=rf"bad\.yaml: {key} must be .* number with hundreds"):
        Parameters.from_yaml(path)


def test_a_file_of_many_keys_takes_no_longer_than_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Duplicate keys are found by hash, so the time is proportional to the number of keys."""
    path = tmp_path / "many.yaml"
    path.write_text("".join(f"k{number}:\n" for number in range(2000)))
    compared = 0

    class Key(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    monkeypatch.setattr(
        "elmolib.settings.yaml_file._FlatLoader.construct_scalar",
        lambda self, node: Key(node.value),
    )
    with pytest.raises(ParameterError, match="unknown parameter 'k0'"):
        Parameters.from_yaml(path)
    assert compared < 20_000


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"nowhere\.yaml cannot be read: No such file"):
        Parameters.from_yaml(tmp_path / "nowhere.yaml")
    with pytest.raises(ParameterError, match=tmp_path.name):
        Parameters.from_yaml(tmp_path)


@given(data=st.data())
def test_no_damage_to_a_file_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(yaml.safe_dump(REQUIRED).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 9))] = data.draw(
            st.sampled_from([b"!!int ", b"&a ", b"*a", b"[", b"{", b"? ", b"=", b"<<: ", b"'"])
            | st.binary(max_size=9)
        )
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(content)
    try:
        parameters = Parameters.from_yaml(path)
    except ParameterError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(parameters.architecture.n_filters, int)


@given(
    sentence=st.text(st.characters(codec="utf-8")).filter(str.strip),
    learning_rate=st.floats(1e-300, 1e300),
    n_negatives=st.none() | st.integers(1, 2**31 - 1),
    text=st.lists(st.sampled_from(["null", "1e-3", "no", "a: b", "# x", "ж", "2026-01-01"]))
    .filter(bool)
    .map(lambda paths: list(dict.fromkeys(paths))),
)
def test_written_files_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, **values: object
) -> None:
    if values["sentence"] == "None":
        return
    parameters = Parameters.from_mapping(REQUIRED | values)
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    parameters.to_yaml(path)
    assert Parameters.from_yaml(path) == parameters
    assert Parameters.from_mapping(json.loads(json.dumps(parameters.to_json()))) == parameters


def test_overrides_take_the_place_of_the_files_values(root: Path) -> None:
    path = root / "params/tiny.yaml"
    assert Parameters.from_yaml(path, epochs=77).epochs == 77
    with pytest.raises(ParameterError, match="epoch'.*'epochs'"):
        Parameters.from_yaml(path, epoch=77)


def test_paths_start_from_the_root_wherever_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("notebooks/deep", "params"):
        (tmp_path / folder).mkdir(parents=True)
    parameters = Parameters.from_mapping(REQUIRED)
    for folder in (tmp_path, tmp_path / "params", tmp_path / "notebooks/deep"):
        monkeypatch.chdir(folder)
        assert project_root() == tmp_path
        assert parameters.run_path == tmp_path / "runs/test"
        assert parameters.corpus_path == tmp_path / "runs/test/corpus"
    assert parameters.path("/elsewhere/text") == Path("/elsewhere/text")
    elsewhere = Parameters.from_mapping(REQUIRED | {"corpus_dir": "corpora/x"})
    assert elsewhere.corpus_path == tmp_path / "corpora/x"


def test_a_folder_of_no_project_is_its_own_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert project_root() == tmp_path


@pytest.fixture
def cell() -> str:
    return shared_cell()


@pytest.fixture
def notebook(tmp_path: Path, cell: str) -> Path:
    new = nbformat.v4
    content = new.new_notebook(
        cells=[
            new.new_code_cell(cell, metadata={"tags": ["parameters"]}),
            new.new_code_cell(
                "from elmolib import Parameters\n"
                "parameters = Parameters.from_notebook(globals())\n"
                "import json\n"
                "print(json.dumps(parameters.to_json()))"
            ),
        ],
        metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "-"}},
    )
    path = tmp_path / "notebook.ipynb"
    nbformat.write(content, path)
    return path


def test_every_notebook_begins_with_the_same_cell(root: Path, cell: str) -> None:
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        code = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        assert code[0].source == cell, f"{path.name}: run python notebooks/write_parameters.py"
        assert code[0].metadata.tags == ["parameters"]
        assert "Parameters.from_notebook(globals())" in code[1].source


def test_the_cell_says_what_the_file_says(root: Path, cell: str) -> None:
    namespace: dict = {}
    exec(cell, namespace)
    assert Parameters.from_notebook(namespace) == Parameters.from_yaml(root / "params/tiny.yaml")
    lines = cell.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 100


def test_papermill_knows_every_key_of_the_shipped_files(
    root: Path, notebook: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        inferred = inspect_notebook(notebook)
    used = {
        k for path in (root / "params").glob("*.yaml") for k in yaml.safe_load(path.read_text())
    }
    assert set(inferred) == used | EXPLAINED
    assert all(key["help"] for key in inferred.values())
    assert not caplog.records


def run_notebook(notebook: Path, parameters: dict) -> str:
    done = papermill.execute_notebook(
        notebook, notebook, parameters, progress_bar=False, start_timeout=600
    )
    return done.cells[-1].outputs[0].text


def test_a_complete_file_by_papermill_leaves_the_rest_at_its_defaults(
    root: Path, notebook: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = root / "params/small.yaml"
    values = yaml.safe_load(path.read_text())
    with caplog.at_level(logging.WARNING, logger="papermill"):
        printed = run_notebook(notebook, values | {"epochs": 7})
    assert "unknown parameter" not in caplog.text.lower()
    assert json.loads(printed) == Parameters.from_yaml(path, epochs=7).to_json()


def test_single_values_by_papermill_change_the_cell_alone(root: Path, notebook: Path) -> None:
    # The cell does not contain `seed`, so Papermill warns, but the given seed is used.
    printed = run_notebook(notebook, {"epochs": 7, "seed": 5})
    tiny = Parameters.from_yaml(root / "params/tiny.yaml", epochs=7, seed=5)
    assert json.loads(printed) == tiny.to_json()


def test_papermills_command_line_means_what_it_says(notebook: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "more.yaml", tmp_path / "out.ipynb"
    file.write_text("learning_rate: 1e-3\n")
    asked = ["-f", str(file), "-r", "run_dir", "007", "-p", "pretrained", "null"]
    asked += ["-p", "cell_clip", "None", "-p", "tokenized", "false", "-p", "clip_norm", "1e-3"]
    done = CliRunner().invoke(papermill_cli, [str(notebook), str(out), *asked])
    assert done.exit_code == 0, done.output
    read = json.loads(nbformat.read(out, as_version=4).cells[-1].outputs[0].text)
    wanted = {"run_dir": "007", "pretrained": None, "cell_clip": None, "tokenized": False}
    assert {**wanted, "clip_norm": 0.001, "learning_rate": 0.001}.items() <= read.items()


def test_papermill_fails_on_a_misspelt_key(notebook: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            notebook, notebook, {"learning_rat": 0.1}, progress_bar=False, start_timeout=600
        )
    assert caught.value.ename == "ParameterError"
    assert "'learning_rat': the nearest known one is 'learning_rate'" in caught.value.evalue


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    # Instead of a kernel, use IPython's shell in this process: it has the same variables.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return InteractiveShell()


READ = "from elmolib import Parameters\nparameters = Parameters.from_notebook(globals())"


def test_scratch_variables_do_not_hinder_a_second_reading(
    kernel: InteractiveShell, cell: str
) -> None:
    for source in (cell, READ, "epoch = 3\nsentences = ['a']\nwords = 3", READ, cell, READ):
        kernel.run_cell(source, store_history=True).raise_error()


def test_a_second_reading_judges_the_changed_cell(kernel: InteractiveShell, cell: str) -> None:
    for source in (cell, READ, "epoch = 3", cell + "\nsead = 3"):
        kernel.run_cell(source, store_history=True).raise_error()
    failed = kernel.run_cell(READ, store_history=True)
    assert "'sead': the nearest known one is 'seed'" in str(failed.error_in_exec)
    # Reading the parameters again must fail again, because the cell was not corrected.
    assert not kernel.run_cell(READ, store_history=True).success
    for source in (cell.replace("epochs = 5", "epochs = 3"), READ):
        kernel.run_cell(source, store_history=True).raise_error()
    assert kernel.user_ns["parameters"].epochs == 3


def test_a_mended_cell_needs_no_new_kernel(kernel: InteractiveShell, cell: str) -> None:
    kernel.run_cell(cell + "\nsead = 3", store_history=True).raise_error()
    assert not kernel.run_cell(READ, store_history=True).success
    assert not kernel.run_cell(READ, store_history=True).success
    for source in (cell, READ):
        kernel.run_cell(source, store_history=True).raise_error()


def test_an_injected_cell_is_judged_again(kernel: InteractiveShell, cell: str) -> None:
    for source in (cell, "sead = 3"):
        kernel.run_cell(source, store_history=True).raise_error()
    for _ in range(2):
        assert not kernel.run_cell(READ, store_history=True).success
