from __future__ import annotations

import pytest
from scipy.stats import binomtest

from pipeline.artifacts import RunFolder
from reports.class_tables import class_tables, subgroup_table, wilson_interval
from reports.facts import Facts, read_facts


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (8, 10), (10, 10), (47, 50), (1, 29)])
def test_wilson_interval_agrees_with_scipy(successes: int, n: int) -> None:
    reference = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_each_class_has_a_row_and_each_variant_a_column(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    sensitivity, specificity = class_tables(facts)
    assert [row.name for row in sensitivity.rows] == list(facts.classes)
    assert tuple(column.heading for column in sensitivity.columns) == facts.variant_names
    assert sensitivity.rows[0].detail == "6\N{NO-BREAK SPACE}images"
    assert specificity.rows[0].detail == "42\N{NO-BREAK SPACE}images of others"


def test_subgroup_accuracies_average_to_the_accuracy(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    table = subgroup_table(facts)
    assert table is not None
    assert [row.detail.split("\N{NO-BREAK SPACE}")[0] for row in table.rows] == ["16", "32"]
    shown = [float(row.cells[0].text.split("\N{NARROW NO-BREAK SPACE}")[0]) for row in table.rows]
    correct = (facts.predictions["fp32"].top1 == facts.predictions["fp32"].labels).sum()
    assert round(shown[0] * 0.16) + round(shown[1] * 0.32) == correct


def test_without_data_there_are_no_subgroups() -> None:
    assert subgroup_table(Facts({})) is None
