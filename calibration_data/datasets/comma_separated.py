"""Tables in comma-separated text and lists of names, such as data sets come with."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from foundation.errors import UsageError

MAX_BYTES = 200_000_000
"""ChestX-ray14's table has 9 MB."""
_LONGEST_NAME = 200


def listed_names(path: Path) -> list[str]:
    """Return the names in a text with white space between them, in their order.

    Raises:
        UsageError: the file is too large, no text in UTF-8, or holds what is no name of a file.
    """
    _check_size(path)
    try:
        names = path.read_text(encoding="utf-8").split()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: expected a list of names in UTF-8, found other bytes. Get it again.") from error
    for name in names:
        if not name.isprintable() or len(name.encode()) > _LONGEST_NAME:
            raise UsageError(f"{path}: expected names of files, found {name[:100]!a}. Get the authors' list again.")
    return names


def numbered_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each line that is not empty.

    Raises:
        UsageError: the file is too large, or no comma-separated text in UTF-8.
    """
    _check_size(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader: Iterable[list[str]] = csv.reader(stream, strict=True)
            yield from ((line, row) for line, row in enumerate(reader, start=1) if any(row))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: expected comma-separated text, found something else ({error}).") from error


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UsageError(f"{path}: expected at most {MAX_BYTES} bytes, found {size}. Is it the right file?")
