"""The flat, validated parameters of a run: one YAML file drives every notebook.

Papermill only warns of a key it does not know and hands on whatever YAML made of a value, so
everything is checked here, and each mistake is one sentence that names the key.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import reprlib
from collections.abc import Hashable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from elmolib.errors import OptionsError, ParameterError, reason
from elmolib.files import refuse_pipe, replacing
from elmolib.options import BiLMOptions

_LARGEST_COUNT = 2**31 - 1
_LARGEST_FILE = 100_000


def _tuples(value: Any) -> Any:
    # YAML and notebooks give lists, which could be changed behind a frozen object's back.
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _distinct(paths: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(paths, tuple) and len(set(paths)) < len(paths):
        raise ValueError("the same path stands twice")
    return paths


Count = Annotated[int, Field(ge=1, le=_LARGEST_COUNT)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[^\x00]+$")]
Paths = Annotated[
    Name | Annotated[tuple[Name, ...], Field(min_length=1)],
    BeforeValidator(_tuples),
    AfterValidator(_distinct),
]
Filters = Annotated[tuple[tuple[Count, Count], ...], Field(min_length=1), BeforeValidator(_tuples)]


class Parameters(BaseModel):
    """Everything that decides a run, from the text to the pictures.

    Built from a YAML file, a mapping or a notebook's variables, never changed afterwards.
    Whole numbers pass where fractions are wanted; nothing else is converted.

    Raises:
        ParameterError: for an unknown or missing key, a value of the wrong type or out of bounds,
            or keys that contradict each other.

    Example:
        >>> parameters = Parameters.from_yaml("params/tiny.yaml", epochs=1)
        >>> parameters.options.projection_dim
        64

    References:
        The defaults are those of `bin/train_elmo.py` in https://github.com/allenai/bilm-tf, the
        recipe of "Deep contextualized word representations", https://arxiv.org/abs/1802.05365.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    run_dir: Name = Field(description="folder for everything the run writes")
    seed: int = Field(default=0, ge=0, le=_LARGEST_COUNT, description="decides every random choice")

    text: Paths = Field(description="wikipedia, or a path, a glob or a list of them")
    heldout_text: Paths | None = Field(
        default=None, description="the same for held-out text, or null"
    )
    heldout_fraction: float | None = Field(
        default=None, gt=0, lt=1, description="share of sentences held out of text, or null"
    )
    corpus_dir: Name | None = Field(
        default=None, description="prepared corpus; null puts it into run_dir"
    )
    tokenized: bool = Field(
        default=False, description="one sentence per line, words separated by spaces"
    )
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*$")] = Field(
        default="en", description="language code for splitting sentences and words"
    )
    strip_html: bool = Field(default=False, description="remove HTML tags")
    unicode_form: Literal["NFC", "NFKC"] | None = Field(
        default="NFC", description="Unicode normal form NFC or NFKC, or null"
    )
    romanian_commas: bool = Field(
        default=False, description="turn Romanian cedillas into commas below"
    )
    errors: Literal["strict", "replace"] = Field(
        default="strict", description="invalid UTF-8 stops the run (strict) or is replaced"
    )
    vocabulary_file: Name | None = Field(
        default=None,
        description="words the softmax knows, pretrained for that model's; null counts them",
    )
    vocabulary_size: int | None = Field(
        default=None,
        ge=4,
        le=_LARGEST_COUNT,
        description="most words counted, special ones included, or null",
    )
    min_count: Count = Field(default=1, description="rarer words are unknown to the softmax")

    pretrained: Name | None = Field(
        default=None, description="model to go on from: a path, a published name, or null"
    )
    max_characters: int = Field(
        default=50, ge=3, le=10_000, description="bytes of a word, its two marks included"
    )
    char_embedding_dim: Count = Field(description="features of a character")
    filters: Filters = Field(description="width and count of each convolution")
    n_highway: int = Field(ge=0, le=1000, description="highway layers after the convolutions")
    activation: Literal["relu", "tanh"] = Field(
        default="relu", description="relu or tanh after the convolutions"
    )
    lstm_dim: Count = Field(description="features of an LSTM cell")
    projection_dim: Count = Field(description="features of a word per direction")
    n_layers: Annotated[int, Field(ge=1, le=1000)] = Field(description="LSTM layers per direction")
    cell_clip: Positive | None = Field(default=3.0, description="bound on cell states, or null")
    proj_clip: Positive | None = Field(default=3.0, description="bound on LSTM outputs, or null")
    use_skip_connections: bool = Field(
        default=True, description="add a layer's input to its output from the second on"
    )

    dropout: Rate = Field(default=0.1, description="share of features dropped in training")
    timestep_dropout: Rate = Field(
        default=0.0, description="share of whole words dropped in training"
    )

    epochs: Count = Field(default=10, description="passes over the training text")
    batch_size: Count = Field(default=128, description="streams of text read side by side")
    unroll_steps: Count = Field(default=20, description="words per stream and step")
    n_negatives: Count | None = Field(
        default=8192, description="sampled words of the softmax; null takes all"
    )
    shuffle: bool = Field(default=True, description="sentences in random order, anew each epoch")
    learning_rate: Positive = Field(default=0.2, description="of Adagrad")
    learning_rate_decay: float = Field(
        default=0.0, ge=0, le=1, description="share of the run, its last, in which the rate falls"
    )
    initial_accumulator: Positive = Field(default=1.0, description="of Adagrad")
    clip_norm: Positive = Field(default=10.0, description="bound on the norm of the gradients")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of products in training: float32 or, faster, bfloat16"
    )
    max_steps: Count | None = Field(default=None, description="stop after so many steps, or null")

    checkpoint_minutes: Positive | None = Field(
        default=10.0, description="minutes between checkpoints, or null"
    )
    checkpoint_steps: Count | None = Field(
        default=None, description="steps between checkpoints, or null"
    )
    keep_checkpoints: Count = Field(default=2, description="checkpoints kept, the latest ones")

    metrics_every: Count = Field(default=5, description="epochs between detailed metrics")
    pictures_every: Count = Field(default=10, description="epochs between pictures")
    sentence: Annotated[str, Field(pattern=r"\S")] = Field(
        default="The river bank was steep .", description="drawn in the pictures"
    )
    progress: Literal["auto", "line", "none"] = Field(
        default="auto", description="auto, line (one per epoch) or none"
    )

    tagged_text: Name = Field(
        default="notebooks/data/tagged.conllu",
        description="CoNLL-U file for a tagger, its last fifth held out",
    )
    evaluation_data: Name | None = Field(
        default=None, description="folder of evaluation sets (docs/evaluation.md), or null"
    )

    def __init__(self, **values: Any) -> None:
        _refuse_unknown(values)
        _refuse_written_none(values)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ParameterError(_sentence(error, values)) from None
        for sentence in _contradictions(self):
            raise ParameterError(sentence)

    @classmethod
    def from_yaml(cls, path: str | Path, **overrides: Any) -> Parameters:
        """Read a YAML file of flat keys.

        Args:
            path: the file; a relative one is looked for in the working directory first, then in
                the project's root.
            **overrides: values that take the place of the file's.

        Returns:
            Parameters: the validated values.

        Raises:
            ParameterError: the file is missing, is not a flat YAML mapping, repeats a key, uses
                aliases or tags, or holds a bad value.
        """
        path = Path(path).expanduser()
        # Unlike Path.exists, which fails where a name is too long.
        if not os.path.exists(path):
            path = project_root() / path
        source = f"{path} with {', '.join(overrides)}" if overrides else str(path)
        return cls.from_mapping({**_read_yaml(path), **overrides}, source=source)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = "parameters") -> Parameters:
        """Check values that were read elsewhere.

        Args:
            values: value of every key that shall differ from its default.
            source: where they come from, to begin error messages with.

        Returns:
            Parameters: the validated values.

        Raises:
            ParameterError: a key or value is bad.
        """
        try:
            _refuse_unknown(values)
            return cls(**values)
        except ParameterError as error:
            raise ParameterError(f"{source}: {error}") from None

    @classmethod
    def from_notebook(cls, namespace: MutableMapping[str, Any]) -> Parameters:
        """Read the parameters from a notebook's variables.

        Belongs into the first code cell after the one tagged `parameters`, where every plain
        variable (text, number, list, ...) without a leading underscore came from that cell or
        from Papermill: one that is no parameter stops the run. When the cell is run again in the
        same kernel, only names assigned in the latest parameters cell are judged, so variables
        made further down do no harm.

        Args:
            namespace: the notebook's `globals()`. One private name is added to it.

        Returns:
            Parameters: the validated values.

        Raises:
            ParameterError: a name or value is bad.
        """
        history = namespace.get("In")
        if history and _READ_BEFORE in namespace:
            judged = _names_of_parameters_cell(history) | set(cls.model_fields)
        else:
            judged = set(namespace)
        namespace[_READ_BEFORE] = True
        given = {
            name: value
            for name, value in namespace.items()
            if name in judged and _is_plain(name, value)
        }
        return cls.from_mapping(given, source="parameters cell")

    @property
    def options(self) -> BiLMOptions:
        """The architecture alone."""
        names = BiLMOptions.__dataclass_fields__
        return BiLMOptions(**{name: getattr(self, name) for name in names})

    @property
    def run_path(self) -> Path:
        """The folder of the run."""
        return self.path(self.run_dir)

    @property
    def corpus_path(self) -> Path:
        """The folder of the prepared corpus."""
        return self.path(self.corpus_dir) if self.corpus_dir else self.run_path / "corpus"

    @property
    def tagged_path(self) -> Path:
        """The file of tagged sentences; the sample of this project is found from anywhere."""
        path = self.path(self.tagged_text)
        sample = Path(__file__).parents[1] / self.tagged_text
        return sample if sample.exists() and not path.exists() else path

    def path(self, relative: str | Path) -> Path:
        """Resolve a path of the parameter file from the project's root.

        Args:
            relative: a path; an absolute one stays as it is.

        Returns:
            Path: an absolute path.
        """
        return project_root() / Path(relative).expanduser()

    def to_json(self) -> dict[str, Any]:
        """Give every key with a value that JSON and YAML can hold."""
        return self.model_dump(mode="json")

    def to_yaml(self, path: str | Path) -> None:
        """Write a file that `from_yaml` reads back to equal parameters.

        Args:
            path: the file; one that exists is replaced in one step.
        """
        text = yaml.safe_dump(
            self.to_json(), sort_keys=False, allow_unicode=True, default_flow_style=None
        )
        with replacing(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def project_root() -> Path:
    """Find the folder that relative paths in parameters start from.

    Papermill runs a notebook in the caller's working directory and JupyterLab in the notebook's
    own, so neither will do.

    Returns:
        Path: the nearest folder, from the working directory upwards, that holds both `notebooks`
            and `params`; the working directory itself where there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    return here


def notebook_cell(parameters: Parameters) -> str:
    """Write the source of the cell that every notebook tags `parameters`.

    Papermill takes a key for unknown if its line holds a second equals sign, and injects its own
    cell below this one: hence one plain assignment to a line, and nothing derived.

    Args:
        parameters: the values to assign.

    Returns:
        str: Python source, one line per key with what it means.
    """
    lines = []
    for name, field in Parameters.model_fields.items():
        if name in _HEADINGS:
            lines += ["", f"# {_HEADINGS[name]}"]
        lines.append(f"{name} = {_python(getattr(parameters, name))}  # {field.description}")
    return "\n".join(lines).strip()


_READ_BEFORE = "_elmolib_parameters_read"

_HEADINGS = {
    "run_dir": "The run",
    "text": "The text",
    "pretrained": "The model",
    "dropout": "What training drops",
    "epochs": "Training",
    "checkpoint_minutes": "Checkpoints, besides one at the end of each epoch",
    "metrics_every": "What is reported",
    "tagged_text": "Tasks",
}

_NOT_THE_USERS = {"In", "Out", "PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}


def _python(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_python, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _is_plain(name: str, value: Any) -> bool:
    if name.startswith("_") or name in _NOT_THE_USERS:
        return False
    return value is None or isinstance(value, str | int | float | list | dict | tuple)


def _names_of_parameters_cell(history: list[str]) -> set[str]:
    """Names that the latest parameters cell, and what Papermill put below it, assign."""
    found: set[str] = set()
    open_cell = False
    for source in history:
        names = _assigned_names(source)
        if "run_dir" in names:
            # An injected cell usually repeats run_dir: it adds to the cell above it.
            found = found | names if open_cell else names
            open_cell = True
        elif "from_notebook" in source:
            open_cell = False
        elif open_cell:
            found |= names
    return found


def _assigned_names(source: str) -> set[str]:
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):
        return set()
    targets = []
    for statement in statements:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}


class _FlatLoader(yaml.SafeLoader):
    """Safe YAML without tags, without aliases, which can blow up, and without a key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem="anchors, aliases and tags are not allowed",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        known = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            # What cannot be a key is refused in the end.
            if not isinstance(key, Hashable):
                continue
            if key in known:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {_SHORT.repr(key)} stands there twice",
                    problem_mark=key_node.start_mark,
                )
            known.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict:
    try:
        refuse_pipe(path)
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        raise ParameterError(f"There is no parameter file {path}.") from None
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path} cannot be read: {reason(error)}.") from None
    if len(content) > _LARGEST_FILE:
        raise ParameterError(
            f"{path} is no parameter file: it is larger than {_LARGEST_FILE:,} bytes."
        )
    try:
        values = yaml.load(content.decode("utf-8-sig"), Loader=_FlatLoader)
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path} is not UTF-8: see byte {error.start}.") from None
    except RecursionError:
        raise ParameterError(f"{path} is no parameter file: it nests too deeply.") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ParameterError(f"{path}{line}: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        problem = " ".join(str(error).split())
        raise ParameterError(f"{path} is not valid YAML: {problem}.") from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path} holds no parameters: write one `key: value` per line.")
    return values


def _refuse_unknown(values: Mapping[Any, Any]) -> None:
    for key in values:
        if key in Parameters.model_fields:
            continue
        if not isinstance(key, str):
            raise ParameterError(f"the key {_SHORT.repr(key)} is not a word: put it in quotes.")
        nearest = difflib.get_close_matches(key, Parameters.model_fields, n=1, cutoff=0.5)
        advice = f"the nearest known one is {nearest[0]!r}" if nearest else "remove or rename it"
        raise ParameterError(f"unknown parameter {_short(key)}: {advice}.")


def _refuse_written_none(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if value == "None":
            raise ParameterError(f"{key} is the text 'None': YAML writes nothing as null.")


def _contradictions(given: Parameters) -> Iterator[str]:
    """Give one sentence for every pair of keys that cannot both hold."""
    if given.heldout_text is not None and given.heldout_fraction is not None:
        yield "heldout_text and heldout_fraction exclude each other: set one of them to null."
    if set(_each(given.text)) & set(_each(given.heldout_text)):
        yield "text and heldout_text name the same file: held-out text must not be trained on."
    if given.tokenized and "wikipedia" in _each(given.text) + _each(given.heldout_text):
        yield "tokenized must be false where text is wikipedia, which comes as raw paragraphs."
    if given.vocabulary_file is not None and given.vocabulary_size is not None:
        yield "vocabulary_file and vocabulary_size exclude each other: set one of them to null."
    if given.vocabulary_file is not None and given.min_count > 1:
        yield "min_count must be 1 beside vocabulary_file, which itself says what words count."
    if given.vocabulary_file == "pretrained" and given.pretrained is None:
        yield "vocabulary_file is pretrained, so pretrained must name the model to go on from."
    widest = max(width for width, _ in given.filters)
    if widest > given.max_characters:
        yield (
            f"filters must not be wider than max_characters, but {widest} is more than "
            f"{given.max_characters}."
        )
    if (given.n_negatives or 0) >= (given.vocabulary_size or _LARGEST_COUNT):
        yield (
            f"n_negatives must be below vocabulary_size, but {given.n_negatives} is not below "
            f"{given.vocabulary_size}: use fewer, or null for the full softmax."
        )
    try:
        _ = given.options
    except OptionsError as error:
        yield _in_our_keys(str(error))


def _in_our_keys(sentence: str) -> str:
    """Name flat keys where a sentence names those of options.json."""
    for theirs, ours in _KEYS_OF_OPTIONS.items():
        sentence = sentence.replace(theirs, ours)
    return sentence


_KEYS_OF_OPTIONS = {
    "char_cnn.embedding.dim": "char_embedding_dim",
    "char_cnn.max_characters_per_token": "max_characters",
    "char_cnn.": "",
    "lstm.dim": "lstm_dim",
    "lstm.": "",
}


def _each(paths: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if paths is None:
        return ()
    return (paths,) if isinstance(paths, str) else paths


def _sentence(error: ValidationError, values: Mapping[str, Any]) -> str:
    """Tell the first thing that pydantic found, in one sentence."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0])
    if first["type"] == "missing":
        meaning = Parameters.model_fields[key].description
        return f"the key {key} is missing: add it ({meaning})."
    return f"{key} must be {_wanted(key)}, not {_short(values[key])}{_hint(key, values[key])}."


_WANTED = {
    "text": "wikipedia, a path, or a list of different paths",
    "heldout_text": "wikipedia, a path, a list of different paths, or null",
    "filters": "a list of [width, count] pairs of whole numbers of at least 1",
    "language": "a language code such as en",
}


def _wanted(key: str) -> str:
    return _WANTED.get(key) or " or ".join(_wanted_type(kind) for kind in _kinds(key))


def _wanted_type(schema: dict) -> str:
    if "enum" in schema:
        return " or ".join(schema["enum"])
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "null": "null",
    }[schema["type"]]
    if "maximum" in schema:
        return f"{words} from {schema['minimum']} to {schema['maximum']}"
    bounds = [
        f"{phrase} {schema[bound]:g}"
        for bound, phrase in (
            ("minimum", "of at least"),
            ("exclusiveMinimum", "above"),
            ("exclusiveMaximum", "below"),
        )
        if bound in schema
    ]
    return f"{words} {' and '.join(bounds)}".strip()


def _kinds(key: str) -> list[dict]:
    schema = Parameters.model_json_schema()["properties"][key]
    return schema.get("anyOf", [schema])


def _hint(key: str, value: Any) -> str:
    types = {kind.get("type") for kind in _kinds(key)}
    if isinstance(value, bool) and "boolean" not in types:
        return " (YAML reads no, off, yes and on so: put text in quotes)"
    if isinstance(value, str) and types & {"integer", "number"} and _NUMBER.fullmatch(value):
        return f" (YAML reads {value} as text: write {_as_number(value)})"
    return ""


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def _as_number(text: str) -> str:
    """Spell a number so that YAML takes it for one: a dot and a sign before an exponent."""
    mantissa, mark, exponent = text.lower().partition("e")
    if not mark:
        return mantissa
    if float(text).is_integer():
        return f"{float(text):.0f}"
    if "." not in mantissa:
        mantissa += ".0"
    return f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"


def _short(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _SHORT.repr(value)


class _Repr(reprlib.Repr):
    def repr_int(self, value: int, level: int) -> str:
        """Write a number out unless it has thousands of digits, which Python refuses to."""
        if value.bit_length() > 1000:
            return "a number of hundreds of digits"
        return super().repr_int(value, level)


_SHORT = _Repr()
_SHORT.maxstring = _SHORT.maxother = 80


if __name__ == "__main__":
    print(notebook_cell(Parameters.from_yaml("params/tiny.yaml")))
