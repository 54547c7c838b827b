"""Parameters: what is accepted, and the one sentence for everything that is not."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from papermill.inspection import inspect_notebook

from elmolib.errors import ParameterError
from elmolib.parameters import Parameters, notebook_cell, project_root

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


@pytest.mark.parametrize("name", ["tiny", "small", "full"])
def test_shipped_files_are_valid_and_complete(root: Path, name: str) -> None:
    path = root / "params" / f"{name}.yaml"
    assert list(yaml.safe_load(path.read_text())) == list(Parameters.model_fields)
    Parameters.from_yaml(path)


def test_published_dimensions(root: Path) -> None:
    small = Parameters.from_yaml(root / "params/small.yaml").options
    full = Parameters.from_yaml(root / "params/full.yaml").options
    # From the names of the published folders: 2x1024_128_2048cnn_1xhighway and its elder sister.
    for options, dimensions in ((small, (2, 1024, 128, 2048, 1)), (full, (2, 4096, 512, 2048, 2))):
        assert dimensions == (
            options.n_layers,
            options.lstm_dim,
            options.projection_dim,
            options.n_filters,
            options.n_highway,
        )


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
        ("learning_rate", "1e-3", ["learning_rate", "text", "write 1.0e-3"]),
        ("epochs", "8e3", ["epochs", "text", "write 8000"]),
        ("epochs", 2.0, ["epochs", "whole number", "2.0"]),
        ("epochs", True, ["epochs", "whole number", "true"]),
        ("epochs", 0, ["epochs", "from 1", "0"]),
        ("language", False, ["language", "quotes"]),
        ("tokenized", "yes", ["tokenized", "true or false", "'yes'"]),
        ("n_negatives", "None", ["n_negatives", "null"]),
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
        {"n_negatives": 64, "vocabulary_size": 64},
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


@given(
    digits=st.integers(1, 999),
    fraction=st.sampled_from(["", ".", ".5", ".25"]),
    exponent=st.integers(-9, 9),
    sign=st.sampled_from(["", "+"]),
)
def test_yaml_takes_the_advised_spelling_for_the_same_number(
    digits: int, fraction: str, exponent: int, sign: str
) -> None:
    text = f"{digits}{fraction}e{sign if exponent >= 0 else ''}{exponent}"
    sentence = sentence_for(REQUIRED | {"learning_rate": text})
    advised = sentence.rpartition("write ")[2].rstrip(".").rstrip(")")
    number = yaml.safe_load(advised)
    assert type(number) in (int, float)
    assert number == pytest.approx(float(text))


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
        ("no: 3\n", ["False", "quotes"]),
        ("seed: 2026-13-45\n", ["month"]),
        ("seed: " + "9" * 5000, ["digits"]),
        ("? 0x" + "F" * 50_000 + "\n: 1", ["digits", "quotes"]),
        ("seed: " + ":".join(["1"] * 9999) + ".5", ["too large"]),
        ("[" * 5000, ["nests"]),
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
    with pytest.raises(ParameterError, match=rf"bad\.yaml: {key} must be .* number of hundreds"):
        Parameters.from_yaml(path)


def test_a_file_of_many_keys_takes_no_longer_than_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are compared by their hash, not each with all before it."""
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
        "elmolib.parameters._FlatLoader.construct_scalar", lambda self, node: Key(node.value)
    )
    with pytest.raises(ParameterError, match="unknown parameter 'k0'"):
        Parameters.from_yaml(path)
    assert compared < 20_000


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"no parameter file .*nowhere\.yaml"):
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
        assert isinstance(parameters.options.n_filters, int)


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


def test_the_sample_is_found_from_anywhere_and_one_s_own_file_comes_first(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parameters = Parameters.from_yaml(root / "params/tiny.yaml")
    assert parameters.tagged_path == root / parameters.tagged_text
    own = tmp_path / parameters.tagged_text
    own.parent.mkdir(parents=True)
    own.touch()
    assert parameters.tagged_path == own
    missing = parameters.model_copy(update={"tagged_text": "none.conllu"})
    assert missing.tagged_path == tmp_path / "none.conllu"


@pytest.fixture
def cell(root: Path) -> str:
    return notebook_cell(Parameters.from_yaml(root / "params/tiny.yaml"))


@pytest.fixture
def notebook(tmp_path: Path, cell: str) -> Path:
    new = nbformat.v4
    content = new.new_notebook(
        cells=[
            new.new_code_cell(cell, metadata={"tags": ["parameters"]}),
            new.new_code_cell(
                "from elmolib import Parameters\n"
                "parameters = Parameters.from_notebook(globals())\n"
                "print(parameters.epochs)"
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
        assert code[0].source == cell, f"{path.name}: print it with python -m elmolib.parameters"
        assert code[0].metadata.tags == ["parameters"]
        assert "Parameters.from_notebook(globals())" in code[1].source


def test_the_cell_says_what_the_file_says(root: Path, cell: str) -> None:
    namespace: dict = {}
    exec(cell, namespace)
    assert Parameters.from_notebook(namespace) == Parameters.from_yaml(root / "params/tiny.yaml")
    assert max(map(len, cell.splitlines())) <= 100


def test_papermill_knows_every_key(notebook: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        inferred = inspect_notebook(notebook)
    assert list(inferred) == list(Parameters.model_fields)
    assert all(key["help"] for key in inferred.values())
    assert not caplog.records


def test_a_run_by_papermill(root: Path, notebook: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = yaml.safe_load((root / "params/full.yaml").read_text())
    with caplog.at_level(logging.WARNING, logger="papermill"):
        done = papermill.execute_notebook(
            notebook, notebook, values | {"epochs": 7}, progress_bar=False, start_timeout=600
        )
    assert done.cells[-1].outputs[0].text == "7\n"
    assert "unknown parameter" not in caplog.text.lower()


def test_papermill_fails_on_a_misspelt_key(notebook: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            notebook, notebook, {"learning_rat": 0.1}, progress_bar=False, start_timeout=600
        )
    assert caught.value.ename == "ParameterError"
    assert "'learning_rat': the nearest known one is 'learning_rate'" in caught.value.evalue


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    # IPython's shell in this process stands in for the kernel, which adds nothing to the variables.
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
    # Reading once more without mending the cell must not let it pass.
    assert not kernel.run_cell(READ, store_history=True).success
    for source in (cell.replace("seed = 1", "seed = 3"), READ):
        kernel.run_cell(source, store_history=True).raise_error()
    assert kernel.user_ns["parameters"].seed == 3


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
