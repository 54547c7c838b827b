"""The parameters of a run. One flat YAML file sets them for all notebooks."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field

from elmolib.errors import ParameterError
from elmolib.files import atomic_write, write_errors
from elmolib.settings.architecture import Architecture, as_tuples
from elmolib.settings.base import Language, Settings, Tokenized, key
from elmolib.settings.cell import notebook_values
from elmolib.settings.run_folder import CORPUS
from elmolib.settings.yaml_file import read_yaml

_MAX_COUNT = 2**31 - 1

# The folders of the notebooks and parameter files: in an installed wheel, in the project.
_SHIPPED = (Path(__file__).parents[1], Path(__file__).parents[2])


def _distinct(paths: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(paths, tuple) and len(set(paths)) < len(paths):
        raise ValueError("a path is given twice")
    return paths


Count = Annotated[int, Field(ge=1, le=_MAX_COUNT)]
Seed = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[^\x00]+$")]
Share = Annotated[float, Field(ge=0, le=1)]
Several = Annotated[tuple[Name, ...], Field(min_length=1)]
Paths = Annotated[Name | Several, BeforeValidator(as_tuples), AfterValidator(_distinct)]


SCHEDULE = ("learning_rate", "learning_rate_warmup", "learning_rate_decay")
RECIPES = {
    name: dict(zip(SCHEDULE, values, strict=True))
    for name, values in {"elmolib": (0.01, 0.02, 0.98), "bilm-tf": (0.2, 0.0, 0.0)}.items()
}
"""The values of each recipe for keys that are null."""


class RunSettings(Settings):
    """The folder of a run, its seed, and the model that it starts from."""

    run_dir: Name = key("folder for everything the run writes", may_change=True)
    seed: Seed = key("seed of every random choice", 1)
    # The paths of the model and the text may change when a run resumes; their content may not.
    pretrained: Name | None = key(
        "model to fine-tune: a path, a published name, or null", None, True
    )

    @property
    def run_path(self) -> Path:
        """The folder of the run."""
        return self.path(self.run_dir)

    def path(self, relative: str | Path) -> Path:
        """Resolve a path of the parameter file from the project root, unless it is absolute."""
        return project_root() / Path(relative).expanduser()


class TextSettings(RunSettings):
    """The text, how it is split into words, and the vocabulary."""

    text: Paths = key(
        "wikipedia, or a path, a glob, or a list of them",
        may_change=True,
        expected="wikipedia, a path, or a list of different paths",
    )
    heldout_text: Paths | None = key(
        "held-out text, given like text, or null",
        None,
        may_change=True,
        expected="wikipedia, a path, a list of different paths, or null",
    )
    heldout_fraction: Annotated[float, Field(gt=0, lt=1)] | None = key(
        "fraction of the sentences of text to hold out, or null", None
    )
    heldout_seed: Seed = key("seed that chooses the held-out sentences", 1)
    corpus_dir: Name | None = key("folder of the prepared corpus; null for run_dir", None, True)
    tokenized: Tokenized = False
    language: Language = "en"
    strip_html: bool = key("remove HTML tags", False)
    unicode_form: Literal["NFC", "NFKC"] | None = key("Unicode normal form, or null", "NFC")
    romanian_commas: bool = key("turn Romanian cedillas into commas below", False)
    errors: Literal["strict", "replace"] = key("stop at invalid UTF-8, or replace it", "strict")
    # The file "pretrained" is the vocabulary of that model; null counts the words of `text`.
    vocabulary_file: Name | None = key("a file, pretrained, or null to count words", None, True)
    vocabulary_size: Annotated[int, Field(ge=4, le=_MAX_COUNT)] | None = key(
        "maximum vocabulary size incl. special tokens; null for no limit", None
    )
    min_count: Count = key("words that occur less often are <UNK> in the softmax", 1)

    @property
    def corpus_path(self) -> Path:
        """The folder of the prepared corpus."""
        return self.path(self.corpus_dir) if self.corpus_dir else self.run_path / CORPUS

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        text, heldout = as_paths(self.text), as_paths(self.heldout_text)
        if heldout and self.heldout_fraction is not None:
            yield "{heldout_text} and {heldout_fraction} exclude each other: set one to null."
        if set(text) & set(heldout):
            yield "{text} and {heldout_text} share a file: held-out text must not be trained on."
        if self.tokenized and "wikipedia" in text + heldout:
            yield "{tokenized} must be false if {text} is 'wikipedia', which is not tokenized."
        if self.vocabulary_file == "pretrained" and self.pretrained is None:
            yield "{vocabulary_file} is 'pretrained', so {pretrained} must name that model."
        if self.vocabulary_file is not None and self.vocabulary_size is not None:
            yield "{vocabulary_file} and {vocabulary_size} exclude each other: set one to null."
        if self.vocabulary_file is not None and self.min_count > 1:
            yield "{min_count} must be 1 with {vocabulary_file}, which lists the words itself."


class TrainingSettings(RunSettings):
    """How the model is trained."""

    dropout: Rate = key("fraction of features dropped in training", 0.1)
    timestep_dropout: Rate = key("fraction of whole words dropped in training", 0.0)
    epochs: Count = key("passes over the training text", 10, may_change=True)
    batch_size: Count = key("streams of text read in parallel", 128)
    unroll_steps: Count = key("words per stream and step", 20)
    n_negatives: Count | None = key("words sampled for the softmax; null for all", 8192)
    shuffle: bool = key("shuffle the sentences each epoch", True)
    recipe: Literal["elmolib", "bilm-tf"] = key(
        "how to update weights: elmolib (Muon and Adam), or bilm-tf (Adagrad)", "elmolib"
    )
    # The value of these three keys is the recipe's if it is null.
    learning_rate: Positive | None = key("highest learning rate, or null", None)
    learning_rate_warmup: Share | None = key(
        "first fraction of training, in which the rate rises, or null", None
    )
    learning_rate_decay: Share | None = key(
        "last fraction of training, in which the rate falls to 0, or null", None
    )
    initial_accumulator: Positive = key("initial accumulator of Adagrad", 1.0)
    clip_norm: Positive = key("bound on the norm of all gradients", 10.0)
    precision: Literal["float32", "bfloat16"] = key(
        "matmul precision in training: float32, or bfloat16 (faster)", "float32"
    )
    max_steps: Count | None = key("stop after this many steps, or null", None, may_change=True)
    checkpoint_minutes: Positive | None = key("minutes between checkpoints, or null", 10.0, True)
    checkpoint_steps: Count | None = key("steps between checkpoints, or null", None, True)
    keep_checkpoints: Count = key("number of checkpoints to keep", 2, may_change=True)

    def of_recipe(self, name: str) -> float:
        """Return the value of a key in `RECIPES`, or the recipe's value if the key is null."""
        value = getattr(self, name)
        return RECIPES[self.recipe][name] if value is None else value

    def contradictions(self) -> Iterator[str]:
        yield from super().contradictions()
        if self.recipe != "bilm-tf" and self.initial_accumulator != 1.0:
            yield "{initial_accumulator} is a setting of Adagrad: set {recipe} to bilm-tf."


class ReportSettings(RunSettings):
    """What is reported during and after training."""

    metrics_every: Count = key("epochs between detailed metrics", 5, may_change=True)
    pictures_every: Count = key("epochs between pictures", 10, may_change=True)
    sentence: Annotated[str, Field(pattern=r"\S")] = key(
        "sentence drawn in the pictures", "The river bank was steep .", may_change=True
    )
    progress: Literal["auto", "line", "none"] = key("auto, line (of text) or none", "auto", True)
    tagged_text: Name = key(
        "CoNLL-U file; its last fifth is held out", "notebooks/data/tagged.conllu", may_change=True
    )
    model: Name | None = key(
        "model for notebooks 03 to 06: a path, a published name, or null for the run's own",
        None,
        may_change=True,
    )

    @property
    def tagged_path(self) -> Path:
        """The path of `tagged_text`, or of the copy in this package if that file is missing."""
        paths = [self.path(self.tagged_text), *(folder / self.tagged_text for folder in _SHIPPED)]
        return next(filter(os.path.exists, paths), paths[0])


class Parameters(ReportSettings, TrainingSettings, Architecture, TextSettings):
    """All parameters of a run, from the text to the pictures.

    Build it from a YAML file, a mapping or a notebook's variables. It is also an instance of each
    of its groups, such as `TextSettings`.

    Raises:
        ParameterError: an unknown or missing key, a value of the wrong type or out of bounds, or
            keys that contradict each other.

    Example:
        >>> parameters = Parameters.from_yaml("params/tiny.yaml", epochs=1)
        >>> parameters.projection_dim
        64

    References:
        With `recipe: bilm-tf`, the defaults are those of `bin/train_elmo.py` in
        https://github.com/allenai/bilm-tf, which trained the models of arXiv:1802.05365.
    """

    @classmethod
    def from_yaml(cls, path: str | Path, /, **overrides: Any) -> Self:
        """Read a YAML file of flat keys; `overrides` replace values in the file.

        `path` may be the name of a file that comes with this package, such as "tiny". A relative
        path is searched in the working directory, then in the project root.

        Raises:
            ParameterError: the file cannot be read (see `read_yaml`) or holds an invalid value.
        """
        path = Path(path).expanduser()
        if not os.path.exists(path):  # Path.exists would raise an error if the name is too long
            named = [folder / "params" / f"{path}.yaml" for folder in _SHIPPED]
            path = next(filter(os.path.exists, named), project_root() / path)
        source = f"{path} with {', '.join(overrides)}" if overrides else str(path)
        return cls.from_mapping({**read_yaml(path), **overrides}, source)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = "parameters") -> Self:
        """Check values, and convert text such as `"1e-3"` and `"null"` to the type of its key.

        If a key or value is invalid, raise a ParameterError whose message begins with `source`.
        """
        try:
            values = cls.by_type(values)
            cls.refuse_unknown(values)
            return cls(**values)
        except ParameterError as error:
            raise ParameterError(f"{source}: {error}") from None

    @classmethod
    def from_notebook(cls, namespace: dict[str, Any]) -> Self:
        """Read the parameters from a notebook's `globals()`, to which one private name is added.

        Call this method in the first code cell after the cell tagged `parameters`. Every plain
        variable (text, number, list, ...) is a parameter, unless its name begins with an
        underscore. If this call runs again in the same kernel, only the names in the latest
        parameters cell are checked, because other cells have set more variables. If Papermill gets
        a complete configuration (`-f full.yaml`), keys that are not in the file have their
        defaults, not the values of the parameters cell. If a name or value is invalid, raise a
        ParameterError.
        """
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        given = notebook_values(namespace, set(cls.model_fields), required)
        return cls.from_mapping(given, "parameters cell")

    def without_folders(self) -> dict[str, Any]:
        """Return all keys except folders and `model`, with file names instead of paths."""
        values = self.to_json()
        for name in ("text", "heldout_text", "vocabulary_file", "pretrained", "tagged_text"):
            names = [PurePath(path).name for path in as_paths(values[name])]
            values[name] = names if isinstance(values[name], list) else next(iter(names), None)
        del values["run_dir"], values["corpus_dir"], values["model"]
        return values

    def identity(self) -> dict[str, Any]:
        """Return the keys that must be the same when a run resumes, with their values."""
        kept = {k: v for k, v in self.to_json().items() if k not in self.may_change()}
        if self.of_recipe("learning_rate_warmup") or self.of_recipe("learning_rate_decay"):
            # The learning rate of a step depends on the number of steps.
            kept |= {"epochs": self.epochs, "max_steps": self.max_steps}
        return kept

    def to_yaml(self, path: str | Path) -> None:
        """Write all keys to a file atomically, or raise a ParameterError. `from_yaml` reads it."""
        advice = "choose another place"
        with write_errors(path, ParameterError, advice), atomic_write(path) as unfinished:
            unfinished.write_text(self.as_yaml(), encoding="utf-8")

    def as_yaml(self) -> str:
        """Return all keys as YAML."""
        look: dict[str, Any] = {"sort_keys": False, "default_flow_style": None}
        return yaml.safe_dump(self.to_json(), allow_unicode=True, **look)


def as_paths(paths: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Turn the value of a key (one path, several paths or None) into a tuple of paths."""
    return (paths,) if isinstance(paths, str) else paths or ()


def project_root() -> Path:
    """Return the folder that relative paths in parameters start from.

    This is the nearest folder, from the working directory upwards, that holds both `notebooks` and
    `params`, or else the working directory: JupyterLab runs a notebook in the notebook's folder.
    """
    here, needed = Path.cwd(), ("notebooks", "params")
    folders = (here, *here.parents)
    return next((f for f in folders if all((f / name).is_dir() for name in needed)), here)
