"""The base class of settings, which reports a mistake in one sentence that names the key."""

import difflib
import json
import re
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from elmolib.errors import OptionsError, ParameterError


def key(meaning: str, default: Any = ..., may_change: bool = False, expected: str = "") -> Any:
    """Declare one key and its `meaning` in a few words. A key without default is required.

    `may_change` says whether the value may differ when a run resumes. `expected` describes the
    valid values in errors; if it is empty, errors describe the type.
    """
    extra: dict[str, Any] = {"may_change": may_change, "expected": expected}
    return Field(default, description=meaning, json_schema_extra=extra)


# A language code, changed to the spelling of BCP 47: DE, deu and ger to de, pt_br to pt-BR.
_CODE = Field(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*$")
# The library takes long to load, and the default needs no change.
_STANDARD = AfterValidator(
    lambda tag: tag if tag == "en" else import_module("langcodes").standardize_tag(tag)
)
_MEANING = "language code for splitting sentences and words"
Language = Annotated[str, _CODE, _STANDARD, key(_MEANING, expected="a language code such as en")]

_TOKENIZED = key("one sentence per line, words separated by spaces (true) or by tabs (tabs)")
Tokenized = Annotated[bool | Literal["tabs"], _TOKENIZED]


class Settings(BaseModel):
    """A group of validated values, which cannot be changed.

    A float may be given as a whole number; no other type is converted. `names` are the names of
    keys in error messages, if a file does not use elmolib's names.

    Raises:
        ParameterError: an unknown or missing key, a value of the wrong type or out of bounds, or
            keys that contradict each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, names: Mapping[str, str] | None = None, /, **values: Any) -> None:
        self.refuse_unknown(values)
        called = {name: name for name in type(self).model_fields} | dict(names or {})
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ParameterError(self._sentence(error, values, called)) from None
        for sentence in self.contradictions():
            raise ParameterError(sentence.format_map(called))

    def contradictions(self) -> Iterator[str]:
        """Yield one sentence per contradiction between keys, with the keys in braces: `{text}`."""
        yield from ()

    def to_json(self) -> dict[str, Any]:
        """Return the values of all keys, in types that JSON and YAML can hold."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, settings: Mapping[str, Any], source: str) -> Self:
        """Read what `to_json` returned, or raise an OptionsError that begins with `source`."""
        try:
            return cls(**settings)
        except ParameterError as error:
            raise OptionsError(f"{source}: {error}") from None

    @classmethod
    def may_change(cls) -> set[str]:
        """Return the keys that may have another value when a run resumes."""
        return {name for name in cls.model_fields if cls._extra(name, "may_change")}

    @classmethod
    def refuse_unknown(cls, values: Mapping[Any, Any]) -> None:
        """Raise a ParameterError for the text "None" or an unknown key; suggest the nearest key."""
        for name, value in values.items():
            if not isinstance(name, str):
                raise ParameterError(f"the key {_repr(name)} is not text: put it in quotes.")
            if name not in cls.model_fields:
                nearest = difflib.get_close_matches(name, cls.model_fields, n=1, cutoff=0.5)
                advice = f"the nearest known one is {nearest[0]!r}" if nearest else "remove it"
                raise ParameterError(f"unknown parameter {_repr(name)}: {advice}.")
            if value == "None":
                raise ParameterError(f"{name} is the text 'None': write null in YAML.")

    @classmethod
    def by_type(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Convert text such as "null", "true" and "1e-3" if its key accepts the converted value.

        YAML reads 1e-3 as text, and Papermill's `-p` reads null, true and false as text. Text such
        as `["a.txt", "b.txt"]` becomes a list if its key takes lists.
        """
        schemas = cls.model_json_schema()["properties"]
        texts = {n: v for n, v in values.items() if isinstance(v, str) and n in schemas}
        return {**values} | {n: _from_text(_types(schemas[n]), text) for n, text in texts.items()}

    @classmethod
    def _sentence(cls, error: ValidationError, values: dict, called: dict[str, str]) -> str:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "missing":
            meaning = cls.model_fields[name].description
            return f"the key {called[name]} is missing: add it ({meaning})."
        schema = cls.model_json_schema()["properties"][name]
        kinds = schema.get("anyOf", [schema])
        expected, hint = cls._extra(name, "expected") or " or ".join(map(_expected_type, kinds)), ""
        if isinstance(values[name], int | float) and "string" in _types(schema):
            hint = (
                " (YAML and Papermill's -p read 007 as a number and True as a truth value: put it "
                f"in quotes in YAML, or give it with -r {name} on the command line)"
            )
        return f"{called[name]} must be {expected}, not {_repr(values[name])}{hint}."

    @classmethod
    def _extra(cls, name: str, what: str) -> Any:
        return cls.model_fields[name].json_schema_extra[what]  # type: ignore[index,call-overload]


def _types(schema: dict[str, Any]) -> set[str]:
    return {kind.get("type", "") for kind in schema.get("anyOf", [schema])}


def _expected_type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(schema["enum"])
    if "const" in schema:
        return schema["const"]
    names = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    expected = (names | {"string": "text", "null": "null"})[schema["type"]]
    if "maximum" in schema and "minimum" in schema:
        return f"{expected} from {schema['minimum']} to {schema['maximum']}"
    phrases = {"minimum": "of at least", "exclusiveMinimum": "above"}
    phrases |= {"exclusiveMaximum": "below", "maximum": "at most"}
    bounds = [f"{phrase} {schema[k]:g}" for k, phrase in phrases.items() if k in schema]
    return f"{expected} {' and '.join(bounds)}".strip()


def _from_text(types: set[str], text: str) -> Any:
    word = text.lower()
    if "null" in types and word in ("null", "none"):
        return None
    if "boolean" in types and word in ("true", "false"):
        return word == "true"
    if types & {"integer", "number"} and _NUMBER.fullmatch(text):
        number = float(text)
        return int(number) if "integer" in types and number.is_integer() else number
    if "array" in types and text.startswith("["):
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    return text


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def _repr(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else _SHORT.repr(value)


class _Repr(reprlib.Repr):
    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to convert a number with thousands of digits to text.
        is_short = value.bit_length() <= 1000
        return super().repr_int(value, level) if is_short else "a number with hundreds of digits"


_SHORT = _Repr()
_SHORT.maxstring = _SHORT.maxother = 80
