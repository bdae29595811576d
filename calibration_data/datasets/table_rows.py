"""Rows of a CSV file that people export from anywhere: delimiter found out, line numbers kept, doubts refused."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from foundation.errors import UsageError

MAX_BYTES = 200_000_000
MAX_ROWS = 2_000_000
_DELIMITERS = ",;\t"
_NAMED = 30
_HEAD_BYTES = 8192
_OTHER_FILES = (
    (b"PK\x03\x04", "a spreadsheet or another zip archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel spreadsheet"),
    (b"\xff\xfe", "text in UTF-16"),
    (b"\xfe\xff", "text in UTF-16"),
)
"""First bytes → what such a file is."""


def read_rows(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row that is not empty: the line that it begins in, counted from 1, and its cells.

    Fields are separated by commas, semicolons or tabs, whichever stands most often in the header; cells are
    stripped. The text is UTF-8, with or without a byte order mark.

    Args:
        path: the table; its first line names the columns.
        columns: the setting that names a column, which keys the cells → the column's name.

    Raises:
        UsageError: no file, too large, no CSV in UTF-8, a column that is not there or there twice, a row of another
            length than the header, a cell that cannot be shown, too many rows or none.
    """
    _check_file(path)
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            delimiter = _delimiter(next((text for text in stream if text.strip()), ""))
            stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            header: list[str] | None = None
            index: Mapping[str, int] = {}
            count = 0
            for cells in reader:
                first, line = line, reader.line_num + 1  # a quoted cell may hold several lines
                if not any(cell.strip() for cell in cells):
                    continue
                if header is None:
                    header = [cell.strip() for cell in cells]
                    index = _indices(path, header, columns)
                    continue
                count += 1
                if count > MAX_ROWS:
                    raise UsageError(f"{path}: expected at most {MAX_ROWS} rows, found more. Divide the table.")
                _check_length(path, first, cells, header)
                yield first, {key: _shown(path, first, cells[at].strip()) for key, at in index.items()}
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}, line {_line_of_other_text(path)}: expected text in UTF-8, found other bytes. "
            "Save the table as CSV in UTF-8."
        ) from error
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {line}: expected comma-separated text, found a mistake ({error}). Mend that line."
        ) from error
    if not count:
        found = "only the names of the columns" if header else "an empty table"
        raise UsageError(f"{path}: expected a row per image, found {found}. Export the table again.")


def read_header(path: Path) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        UsageError: no file, too large, or no CSV in UTF-8.
    """
    _check_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first = next((text for text in stream if text.strip()), "")
        return [cell.strip() for cell in next(csv.reader([first], delimiter=_delimiter(first)), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"{path}: expected names of columns in UTF-8 in its first line, found a mistake ({error}). "
            "Save the table as CSV in UTF-8."
        ) from error


def closest(name: str, names: Sequence[str]) -> str:
    """Return "; did you mean …?" with the name that is most alike, whatever its case, or nothing."""
    lower = {other.lower(): other for other in names}
    nearest = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"; did you mean {lower[nearest[0]]!r}?" if nearest else ""


def _check_file(path: Path) -> None:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise UsageError(f"{path}: expected a table (CSV), found {found}. Set `source.table` to the file.")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UsageError(f"{path}: expected at most {MAX_BYTES} bytes, found {size}. Is it the right file?")
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    binary = "a binary file" if b"\0" in head else None
    found_other = next((what for magic, what in _OTHER_FILES if head.startswith(magic)), binary)
    if found_other is not None:
        raise UsageError(f"{path}: expected a table in plain text, found {found_other}. Save it as CSV in UTF-8.")


def _delimiter(header: str) -> str:
    unquoted = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=unquoted.count)


def _indices(path: Path, header: Sequence[str], columns: Mapping[str, str]) -> Mapping[str, int]:
    """Return setting → index of its column."""
    for key, name in columns.items():
        times = header.count(name)
        if times == 0:
            more = "…" if len(header) > _NAMED else ""
            raise UsageError(
                f"{path}: expected a column {name!r} (`source.{key}`), found {', '.join(header[:_NAMED])}{more}"
                f"{closest(name, header) or '.'} Set `source.{key}` to one of these."
            )
        if times > 1:
            raise UsageError(f"{path}: expected one column {name!r}, found {times} of that name. Rename the others.")
    return {key: header.index(name) for key, name in columns.items()}


def _check_length(path: Path, line: int, cells: Sequence[str], header: Sequence[str]) -> None:
    if len(cells) != len(header):
        raise UsageError(
            f"{path}, line {line}: expected {len(header)} cells, as many as there are columns, found {len(cells)}. "
            "Put a cell that holds the delimiter in double quotes."
        )


def _shown(path: Path, line: int, cell: str) -> str:
    if not cell.isprintable():
        raise UsageError(
            f"{path}, line {line}: expected text in one line that can be shown, found {cell[:100]!a}. Mend that cell."
        )
    return cell


def _line_of_other_text(path: Path) -> int:
    with path.open("rb") as stream:
        for line, content in enumerate(stream, start=1):
            try:
                content.decode()
            except UnicodeDecodeError:
                return line
    return 1
