"""Tables in comma-separated text, such as data sets come with, read line by line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from foundation.errors import UsageError


def numbered_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each line that is not empty.

    Raises:
        UsageError: the file is no comma-separated text in UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader: Iterable[list[str]] = csv.reader(stream, strict=True)
            yield from ((line, row) for line, row in enumerate(reader, start=1) if any(row))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: expected comma-separated text, found something else ({error}).") from error
