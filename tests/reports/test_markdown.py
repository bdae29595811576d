from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reports import markdown
from reports.tables import Cell, Column, Row, Table, absent


@given(st.text())
def test_text_stays_text(text: str) -> None:
    rendered = MarkdownIt("gfm-like", {"linkify": False}).enable("table").render(f"a {markdown.escape(text)} z")
    inside = rendered.removeprefix("<p>").removesuffix("</p>\n")
    assert "<" not in inside


def test_a_table_keeps_its_columns_whatever_its_cells_say() -> None:
    rows = (Row("a|b\n# c", (Cell("1 %", "0–2 %", "faster"), absent("x|y\n\n| z |"))),)
    text = markdown.table(Table("key", "caption", "Variant", (Column("p50", "cpu"), Column("p90")), rows))
    lines = text.splitlines()
    assert lines[0] == "| Variant | cpu: p50 | p90 |"
    assert lines[2] == r"| a\|b \# c | 1 % (0–2 %), faster | not measured (a) |"
    assert lines[4:] == [r"(a) x\|y \| z \|"]
