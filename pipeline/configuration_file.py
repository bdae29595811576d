"""One YAML file → a configuration; every mistake in it gets one sentence that mends it, all of them at once."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from foundation.errors import UsageError
from pipeline.configuration import Configuration

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MAX_BYTES = 1_000_000
_PLAIN_TAGS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")
_MOST_MISTAKES = 20
_FIRST_OF_NUMBER = "-+.0123456789"


def read_configuration(path: Path) -> Configuration:
    """Read a YAML configuration; relative paths in it are relative to its own folder.

    Raises:
        UsageError: the file is missing, no YAML, or says something that the settings refuse.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: expected a configuration below {MAX_BYTES} bytes. Is it the right file?")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file. `edgeproof init {path}` writes one to start from.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: expected a readable text file ({error}). Is it the right file?") from error
    try:
        values = yaml.load(text, Loader=_PlainLoader)
    except Exception as error:  # its own, and what its constructors raise on a value that does not fit its tag
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or (
            f"a value that cannot be read ({error})"
            if isinstance(error, ValueError | LookupError)
            else "nested too deeply, or no text"
        )
        raise UsageError(f"{path}: expected YAML, found a mistake{where}: {problem}. Mend that line.") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected keys and values, found {type(values).__name__}. See `edgeproof init`.")
    return parse_configuration(values, path.name, path.resolve().parent)


def parse_configuration(values: Mapping[str, Any], where: str, folder: Path) -> Configuration:
    """Return the configuration of values read from YAML.

    Args:
        values: keys and values.
        where: name of their source, for the messages.
        folder: what relative paths are relative to.

    Raises:
        UsageError: a key is unknown, a value has the wrong type or is out of bounds.
    """
    try:
        text = json.dumps(dict(values), default=_refuse)
        return Configuration.model_validate_json(text, context={"folder": folder})
    except ValidationError as error:
        raise UsageError(f"{where}: {_explain(error, 'train' in values)}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: expected text, numbers, lists and keys, found {error}.") from error


class _PlainLoader(yaml.SafeLoader):
    """A SafeLoader without the surprises: no key twice, no aliases, numbers as YAML 1.2 reads them.

    PyYAML would keep the last of two equal keys, let nine lines of aliases stand for a thousand million values, and
    read 1:30 as 90, 010 as 8 and 1e-3 as text.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 # the name that PyYAML looks for
        first: [(tag, pattern) for tag, pattern in rules if tag in _PLAIN_TAGS]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node, which is no alias."""
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"found the alias '*{event.anchor}'; write out what it stands for",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> Any:
        """Return a scalar, which commands no terminal that it is shown on."""
        if not str(node.value).replace("\n", " ").isprintable():
            raise yaml.MarkedYAMLError(
                problem=f"found {node.value!a}, which holds a character that cannot be shown",
                problem_mark=node.start_mark,
            )
        return super().construct_scalar(node)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping without repeated keys."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), list(_FIRST_OF_NUMBER)
)
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list(_FIRST_OF_NUMBER),
)


def _refuse(value: object) -> None:
    raise TypeError(f"a {type(value).__name__} ({value})")


def _explain(error: ValidationError, short: bool) -> str:
    """Return a sentence on each mistake; one alone stands in the line, several stand in a list."""
    sentences = [sentence for mistake in error.errors() for sentence in _sentences(mistake, short)]
    if len(sentences) == 1:
        return sentences[0]
    shown = [f"  - {sentence}" for sentence in sentences[:_MOST_MISTAKES]]
    more = len(sentences) - len(shown)
    return "\n".join([f"{len(sentences)} mistakes:", *shown, *([f"  … and {more} more."] if more else [])])


def _sentences(mistake: ErrorDetails, short: bool) -> list[str]:
    parts = [str(part) for part in mistake["loc"]]
    if short and parts[:2] == ["model", "train"]:
        parts = parts[1:]
    key = ".".join(parts)
    if mistake["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(parts[-1], _known_keys(), n=1, cutoff=0.0)
        mend = f"did you mean `{nearest[0]}`? `edgeproof init` writes every key with its meaning."
        return [f"`{key}` is no key of the configuration; {mend}"]
    if mistake["type"] == "missing":
        return [f"`{key}` is missing; add it (see `edgeproof init`)."]
    found = (
        "" if mistake["type"] == "value_error" and isinstance(mistake["input"], dict) else _shown(mistake["input"])
    )
    messages = mistake["msg"].removeprefix("Value error, ").splitlines()
    where = f"`{key}`: " if key else ""
    return [f"{where}{message[:1].lower()}{message[1:]}{found}." for message in messages]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f", found {text if len(text) <= 60 else text[:57] + '…'}"


def _known_keys() -> set[str]:
    schema = Configuration.model_json_schema()
    return {key for part in (schema, *schema["$defs"].values()) for key in part.get("properties", {})}
