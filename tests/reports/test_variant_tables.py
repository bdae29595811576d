from __future__ import annotations

from pipeline.artifacts import Measurement, RunFolder
from reports.facts import Facts, read_facts
from reports.variant_tables import accuracy_table, at_a_glance, latency_tables, saliency_tables


def test_sizes_are_held_against_fp32(reported_run: RunFolder) -> None:
    rows = {row.name: row.cells for row in at_a_glance(read_facts(reported_run)).rows}
    assert rows["fp32"][1].text == "reference"
    assert rows["static-int8"][1].text == "0.28"  # 331,870 of 1,168,412 bytes


def test_every_variant_has_a_row_and_the_random_map_the_last(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    (table,) = saliency_tables(facts)
    assert [row.name for row in table.rows] == [*facts.variant_names, "random map"]
    assert table.caption == "Saliency by occlusion, 48\N{NO-BREAK SPACE}images"


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


def test_each_saliency_method_has_its_own_table_with_the_variants_it_was_measured_on() -> None:
    measured = [
        Measurement("saliency_ssim", 0.5, "similarity", variant, settings={"method": method})
        for method, variants in (("occlusion", ("fp16", "pact-int8")), ("gradient", ("pact-int8",)))
        for variant in variants
    ]
    first, second = saliency_tables(Facts({}, measurements=tuple(measured)))
    assert [row.name for row in first.rows] == ["fp16", "pact-int8"]
    assert [row.name for row in second.rows] == ["pact-int8"]


def test_a_run_without_measurements_has_no_saliency_and_no_latency() -> None:
    assert saliency_tables(Facts({})) == latency_tables(Facts({})) == accuracy_table(Facts({})).rows == ()
