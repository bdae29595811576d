from __future__ import annotations

from collections.abc import Callable

import pytest
from small_run import small_record

from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS, Definition, Metric, TableName
from foundation.record import VariantRecord
from foundation.run_folder import RunFolder
from reports.facts import Facts, read_facts
from reports.saliency_tables import saliency_tables
from reports.tables import Table
from reports.variant_tables import accuracy_table, at_a_glance, latency_tables


def test_sizes_are_held_against_fp32(reported_run: RunFolder) -> None:
    rows = {row.name: row.cells for row in at_a_glance(read_facts(reported_run)).rows}
    assert rows["fp32"][1].text == "reference"
    assert rows["static-int8"][1].text == "0.284"  # 331,870 of 1,168,412 bytes


def test_latency_is_grouped_by_provider_and_threads(reported_run: RunFolder) -> None:
    first, second, third = latency_tables(read_facts(reported_run))
    assert [group for group, _ in first.groups + second.groups + third.groups] == [
        "cpu, 1 thread",
        "cpu, 2 threads",
        "openvino, 1 thread",
    ]
    dynamic = next(row for row in third.rows if row.name == "dynamic-int8")
    assert dynamic.cells[0].reason == "OpenVINO does not support DynamicQuantizeLinear"
    fp16 = next(row for row in first.rows if row.name == "fp16")
    assert (fp16.cells[3].text, fp16.cells[3].remark) == ("0.894×", "not distinguishable")


def test_a_run_without_measurements_has_no_saliency_and_no_latency() -> None:
    assert (
        saliency_tables(Facts(small_record()))
        == latency_tables(Facts(small_record()))
        == accuracy_table(Facts(small_record())).rows
        == ()
    )


@pytest.mark.parametrize(
    ("table", "of", "unit"), [("answers", accuracy_table, "share"), ("latency", latency_tables, "ms")]
)
def test_a_new_metric_is_a_column_by_its_row(
    table: TableName, of: Callable[[Facts], object], unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heading, unit and legend come from the row, and fp32 is the reference of what compares with it."""
    definition = Definition("as new as can be", "Novelty: how new.")
    row = Metric(unit, True, "labels", table, "Novelty", {"multi_class": definition}, "dB", against_fp32=True)
    monkeypatch.setitem(METRICS, "novelty", row)
    where = Where("cpu", "test", threads=1 if table == "latency" else None)
    variants = tuple(VariantRecord(name, name, "", "", 5, None, {}, {}) for name in ("fp32", "fp16"))
    measured = (Measurement("novelty", 0.5, unit, "fp16", where),)
    made = of(Facts(small_record(variants=variants), measurements=measured))
    shown = made if isinstance(made, Table) else made[0]
    assert [column.heading for column in shown.columns][-1] == "Novelty"
    assert [one.cells[-1].text for one in shown.rows] == ["reference", "0.5\N{NO-BREAK SPACE}dB"]
    assert "Novelty: how new." in shown.legend


def test_a_metric_that_the_run_does_not_list_is_no_column() -> None:
    measured = (Measurement("ece", 0.1, "share", "fp32"),)
    listed = accuracy_table(Facts(small_record(), measurements=measured))
    assert [column.heading for column in listed.columns] == ["Size", "Size, × fp32", "ECE"]
    assert len(accuracy_table(Facts(small_record())).columns) == 10
