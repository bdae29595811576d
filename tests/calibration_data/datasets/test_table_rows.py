"""CSV files as people export them: what is read, and the line that a mistake is in."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from calibration_data.datasets import table_rows
from calibration_data.datasets.table_rows import read_rows
from foundation.errors import UsageError

COLUMNS = {"path": "path", "label": "label"}


@pytest.fixture
def table(tmp_path):
    """Return a function that writes a table and reads two columns of it."""

    def read(content: str | bytes):
        path = tmp_path / "table.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return list(read_rows(path, COLUMNS))

    return read


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_delimiters_line_ends_and_byte_order_marks_are_found_out(table, delimiter, newline, mark):
    rows = (("label", " path "), ("mass, large; round", "ü.png"), ("", "b.png"))
    text = newline.join(
        delimiter.join(f'"{cell}"' if "," in cell else cell for cell in row) for row in (*rows, ("", ""), ("c", "d"))
    )
    assert table(mark + text) == [
        (2, {"path": "ü.png", "label": "mass, large; round"}),
        (3, {"path": "b.png", "label": ""}),
        (5, {"path": "d", "label": "c"}),
    ]


def test_a_delimiter_inside_a_quoted_column_name_does_not_count(table):
    assert table('\npath;label;"size, in mm, of, all"\na;b;3\n') == [(3, {"path": "a", "label": "b"})]


def test_lines_are_those_of_the_file_also_after_cells_of_several_lines(table):
    with pytest.raises(UsageError, match=r"table\.csv, line 5: expected 3 cells.* found 2\."):
        table('\npath,label,note\na,b,"one\ntwo"\nc,d\n')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"table\.csv: expected a row per image, found an empty table"),
        ("\n ,\n", "found an empty table"),
        ("path,label\n\n", "found only the names of the columns"),
        ("Path,label\na,b", r"expected a column 'path' \(`source\.path`\), found Path, label; did you mean 'Path'\?"),
        ("x,label\na,b", r"expected a column 'path' \(`source\.path`\), found x, label\. Set"),
        ("path,label,path\na,b,c", "expected one column 'path', found 2 of that name"),
        ("path,label\na,b\nc,d,e", r"line 3: expected 2 cells, as many as there are columns, found 3\."),
        (
            'path,label\na,b\n"c,d\n',
            r"line 3: expected comma-separated text, found a mistake \(unexpected end",
        ),
        ("path,label\na,\x1b[31mb", r"line 2: expected text in one line that can be shown, found '\\x1b\[31mb'"),
        ('path,label\na,"b\nc"', r"line 2: expected text in one line that can be shown, found 'b\\nc'"),
        ("path,label\na,b\nc,ü".encode("latin-1"), r"line 3: expected text in UTF-8, found other bytes"),
        ("path,label\na,b".encode("utf-16"), "expected a table in plain text, found text in UTF-16"),
        (b"PK\x03\x04rest", "found a spreadsheet or another zip archive. Save it as CSV"),
        (b"\xd0\xcf\x11\xe0rest", "found an old Excel spreadsheet"),
        (b"path,label\n\0", "found a binary file"),
        (gzip.compress(b"path,label\na,b", mtime=0), "found a binary file|expected text in UTF-8"),
    ],
)
def test_what_is_no_such_table_is_refused_in_one_sentence(table, content, message):
    with pytest.raises(UsageError, match=message):
        table(content)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"expected a table \(CSV\), found a folder"):
        list(read_rows(tmp_path, COLUMNS))
    with pytest.raises(UsageError, match=r"no\.csv: expected a table \(CSV\), found nothing"):
        list(read_rows(tmp_path / "no.csv", COLUMNS))


def test_a_table_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "table.csv"
    with path.open("wb") as stream:
        stream.truncate(200_000_001)
    with pytest.raises(UsageError, match="expected at most 200000000 bytes, found 200000001"):
        list(read_rows(path, COLUMNS))


def test_too_many_rows_are_refused(table, monkeypatch):
    assert table_rows.MAX_ROWS == 2_000_000
    monkeypatch.setattr(table_rows, "MAX_ROWS", 3)
    assert len(table("path,label\n" + "a,b\n" * 3)) == 3
    with pytest.raises(UsageError, match="expected at most 3 rows, found more"):
        table("path,label\n" + "a,b\n" * 4)


def test_a_cell_without_end_is_refused(table):
    with pytest.raises(UsageError, match=r"line 2: expected comma-separated text.*field larger than field limit"):
        table("path,label\na," + "b" * 200_000)


def test_no_row_is_read_before_it_is_asked_for(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("path,label\na,b\nc\n")
    assert next(read_rows(path, COLUMNS)) == (2, {"path": "a", "label": "b"})
