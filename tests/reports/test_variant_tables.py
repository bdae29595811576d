from __future__ import annotations

from small_run import small_record

from foundation.run_folder import RunFolder
from reports.facts import Facts, read_facts
from reports.saliency_tables import saliency_tables
from reports.variant_tables import accuracy_table, at_a_glance, latency_tables


def test_sizes_are_held_against_fp32(reported_run: RunFolder) -> None:
    rows = {row.name: row.cells for row in at_a_glance(read_facts(reported_run)).rows}
    assert rows["fp32"][1].text == "reference"
    assert rows["static-int8"][1].text == "0.28"  # 331,870 of 1,168,412 bytes


def test_latency_is_grouped_by_provider_and_threads(reported_run: RunFolder) -> None:
    first, second = latency_tables(read_facts(reported_run))
    assert [group for group, _ in first.groups + second.groups] == [
        "cpu, 1 thread",
        "cpu, 2 threads",
        "openvino, 1 thread",
    ]
    dynamic = next(row for row in second.rows if row.name == "dynamic-int8")
    assert dynamic.cells[0].reason == "OpenVINO does not support DynamicQuantizeLinear"
    fp16 = next(row for row in first.rows if row.name == "fp16")
    assert (fp16.cells[2].text, fp16.cells[2].remark) == ("0.894×", "no clear difference")


def test_a_run_without_measurements_has_no_saliency_and_no_latency() -> None:
    assert (
        saliency_tables(Facts(small_record()))
        == latency_tables(Facts(small_record()))
        == accuracy_table(Facts(small_record())).rows
        == ()
    )
