"""Read a flat YAML file safely; every mistake in it gives an error of one sentence."""

import reprlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from elmolib.errors import ParameterError
from elmolib.files import read_limited


class _FlatLoader(yaml.SafeLoader):
    """Refuse repeated keys, tags and aliases. Aliases could expand to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem="anchors, aliases and tags are not allowed", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        known = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # PyYAML itself refuses this key
            if key in known:
                problem = f"the key {reprlib.repr(key)} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            known.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one flat mapping from a YAML file of at most 100,000 bytes; `.gz` is decompressed.

    Raises:
        ParameterError: the file is missing or unreadable, is not valid YAML, repeats a key, uses
            aliases or tags, or holds something other than a mapping.
    """
    content = read_limited(path, 100_000, ParameterError)
    try:
        values = yaml.load(content.decode("utf-8-sig"), Loader=_FlatLoader)
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path} is not UTF-8: correct byte {error.start}.") from None
    except RecursionError:
        raise ParameterError(f"{path} is not a parameter file: it is nested too deeply.") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ParameterError(f"{path}{line}: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise ParameterError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path} holds no parameters: write one `key: value` per line.")
    return values
