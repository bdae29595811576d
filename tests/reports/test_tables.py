from __future__ import annotations

from foundation.measurements import Measurement, Where
from reports import markdown
from reports.tables import Cell, Column, Row, Table, absent, cell, speedup_cell


def test_footnotes_are_numbered_in_reading_order_and_shared() -> None:
    first, second = absent("no mask"), absent("no provider")
    table = Table(
        "t", "c", "v", (Column("x"), Column("y")), (Row("a", (first, second)), Row("b", (Cell("1"), first)))
    )
    assert table.notes == (("a", "no mask"), ("b", "no provider"))
    assert table.letter(second) == "b"


def test_a_latency_that_is_mostly_the_cpus_says_so() -> None:
    def p50(provider: str, share: float) -> Cell:
        where, remarks = Where(provider, threads=1), {"nodes_on_provider": share}
        return cell(Measurement("latency_p50_ms", 2.0, "ms", "fp16", where, remarks=remarks))

    shared = p50("cuda", 0.12)
    said = "12.0\N{NARROW NO-BREAK SPACE}% of the nodes ran on cuda, the rest on cpu"
    table = Table("t", "c", "v", (Column("p50"),), (Row("fp16", (shared,)),))
    assert (shared.text, table.notes, table.letter(shared)) == ("2.00\N{NO-BREAK SPACE}ms", (("a", said),), "a")
    assert "(a)" in markdown.table(table)
    assert [p50(*of).footnote for of in (("cuda", 0.5), ("cpu", 0.0), ("openvino", 1.0))] == ["", "", ""]
    speedup = Measurement(
        "latency_speedup", 2.0, "×", "x", Where("cuda"), ci95=(1.9, 2.1), remarks={"nodes_on_provider": 0.1}
    )
    assert (speedup_cell(speedup).remark, speedup_cell(speedup).footnote[:4]) == ("faster", "10.0")


def test_letters_go_on_after_z() -> None:
    rows = tuple(Row(str(k), (absent(f"reason {k}"),)) for k in range(28))
    assert [letter for letter, _ in Table("t", "c", "v", (Column("x"),), rows).notes][24:] == ["y", "z", "aa", "ab"]


def test_grouped_columns_share_a_heading() -> None:
    columns = tuple(Column(heading, group) for group in ("cpu", "gpu") for heading in ("p50", "p90"))
    table = Table("t", "c", "v", columns, ())
    assert table.groups == (("cpu", 2), ("gpu", 2))
    assert [table.starts_group(index) for index in range(4)] == [True, False, True, False]


def test_a_cell_shows_value_interval_and_what_may_be_said() -> None:
    faster = speedup_cell(Measurement("latency_speedup", 1.78, "×", "x", ci95=(1.66, 1.9)))
    assert (faster.text, faster.interval, faster.remark) == ("1.78×", "1.66–1.90×", "faster")
    missing = cell(Measurement("ece", None, "share", "x", remarks={"reason": "no labels"}))
    assert (missing.text, missing.reason) == ("not measured", "no labels")
