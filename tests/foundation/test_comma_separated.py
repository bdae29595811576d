"""Tables for other programs: read back as they were, and nothing in them is computed."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.comma_separated import csv_text

FORMULAS = ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "  =1", '=HYPERLINK("http://x","y")']


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_would_be_computed_gets_an_apostrophe(text: str) -> None:
    ((found,),) = read(csv_text([text], []))
    assert found.startswith("'")


def test_numbers_are_numbers_negative_ones_too() -> None:
    rows = read(csv_text(["a", "b", "c", "d"], [(-0.02, 0.1 + 0.2, None, 3), (True, False, "x", 'a,b"c')]))
    assert rows[1:] == [["-0.02", "0.30000000000000004", "", "3"], ["true", "false", "x", 'a,b"c']]
    assert float(rows[1][1]) == 0.1 + 0.2


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_a_row_stays_a_line_and_no_cell_begins_a_formula(texts: list[str]) -> None:
    text = csv_text([str(number) for number in range(len(texts))], [texts])
    assert len(text.splitlines()) == 2
    (_, row) = read(text)
    assert len(row) == len(texts)
    assert not any(cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in row)


def test_a_name_cannot_command_the_terminal() -> None:
    assert csv_text(["\x1b[31mred"], []) == "\\x1b[31mred\n"
