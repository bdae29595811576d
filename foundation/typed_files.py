"""JSON files that can come from anywhere, read into types: a damaged one is a sentence, whatever is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ConfigDict

from foundation.errors import UsageError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

MAX_BYTES = 100_000_000
"""Far more than a record of ours takes, and little enough to be read at once."""

CLOSED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""How the dataclasses of a record are parsed: no unknown key, no value of another type, no NaN."""


def read_typed(path: Path, adapter: TypeAdapter[T], what: str, mend: str, format_versions: Collection[int] = ()) -> T:
    """Read a JSON file into a type.

    Args:
        path: the file.
        adapter: of the type.
        what: the file should be, with its article, for the message.
        mend: what to do about a file that is something else, as a sentence.
        format_versions: the "format_version" of its object must be one of these; empty where it has none.

    Raises:
        UsageError: the file is missing, larger than `MAX_BYTES`, no JSON, or not of the type.
    """
    from pydantic import ValidationError
    from pydantic_core import from_json

    content = _content(path, what, mend)
    try:
        plain = from_json(content, allow_inf_nan=False)
        json.dumps(plain, allow_nan=False)  # 1e999 is JSON, and infinite
        if format_versions:
            _require_version(plain, format_versions)
        return adapter.validate_json(content)
    except ValidationError as error:
        raise _refusal(path, what, _first_mistake(error), mend) from error
    except (ValueError, RecursionError) as error:
        raise _refusal(path, what, str(error), mend) from error


def _content(path: Path, what: str, mend: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise _refusal(path, what, "no file", mend)
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _refusal(path, what, f"{size} bytes, more than the {MAX_BYTES} that are read", mend)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"{path}: expected a file, found nothing. Run the stage that writes it first.") from error
    except OSError as error:
        raise _refusal(path, what, f"what cannot be read ({error.strerror})", mend) from error


def _require_version(plain: object, expected: Collection[int]) -> None:
    found = plain.get("format_version") if isinstance(plain, dict) else type(plain).__name__
    if found not in expected or isinstance(found, bool):
        raise ValueError(f"{'format_version ' if isinstance(plain, dict) else ''}{str(found)[:40]}")


def _first_mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"])[:80]
    return f"another shape ({f'{key}: ' if key else ''}{first['msg'][0].lower()}{first['msg'][1:]})"


def _refusal(path: Path, what: str, found: str, mend: str) -> UsageError:
    return UsageError(f"{path}: expected {what}, found {found}. {mend}")
