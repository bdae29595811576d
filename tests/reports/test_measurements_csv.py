"""The table of measurements: one row each, every place a column, read back to the last digit."""

from __future__ import annotations

import csv
import io
from dataclasses import fields

import pandas
import pytest
from small_run import small_record

from foundation.measurements import Measurement, PairedDifference, Where, read_measurements
from foundation.run_folder import RunFolder
from reports import measurements_csv
from reports.facts import Facts


def rows_of(*measurements: Measurement) -> list[dict[str, str]]:
    text = measurements_csv.render(Facts(small_record(), measurements))
    return list(csv.DictReader(io.StringIO(text)))


def test_every_measurement_is_a_row_that_reads_back(reported_run: RunFolder) -> None:
    frame = pandas.read_csv(reported_run.report / "measurements.csv", dtype={"value": str})
    written = read_measurements(reported_run.measurements)
    assert len(frame) == len(written)
    expected = [one.value for one in written]
    assert [None if pandas.isna(value) else float(value) for value in frame["value"]] == expected
    assert {field.name for field in fields(Where)} < set(frame.columns)
    timed = frame[frame["metric"] == "latency_p50_ms"]
    assert sorted(timed["threads"].dropna().unique()) == [1, 2]


def test_the_class_stands_beside_its_metric_and_an_absence_beside_its_reason() -> None:
    one, other = rows_of(
        Measurement(
            "sensitivity/a/b", 0.5, "share", "v", Where("cpu", "test", subgroup="sex: female"), 8, (0.1, 0.9)
        ),
        Measurement("latency_p50_ms", None, "ms", "v", Where(threads=2), remarks={"reason": "no such provider"}),
    )
    assert (one["metric"], one["of_class"], one["subgroup"]) == ("sensitivity", "a/b", "sex: female")
    assert (one["low"], one["high"], one["n"]) == ("0.1", "0.9", "8")
    assert (other["value"], other["threads"], other["reason"]) == ("", "2", "no such provider")


def test_a_difference_keeps_its_sign_and_its_interval() -> None:
    moved = PairedDifference(-0.02, (-0.05, 0.01), "tango", 200, 100)
    (row,) = rows_of(Measurement("accuracy", 0.9, "share", "v", n=210, difference=moved))
    assert [row[name] for name in ("difference", "difference_low", "difference_high", "difference_n")] == [
        "-0.02", "-0.05", "0.01", "200"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\x1b[31m"])
def test_a_hostile_name_is_no_formula_and_no_command(name: str) -> None:
    where = Where(provider=name, subgroup=name)
    (row,) = rows_of(Measurement(f"auroc/{name}", None, name, name, where, remarks={"reason": name}))
    for column in ("of_class", "variant", "provider", "subgroup", "unit", "reason"):
        assert not row[column].startswith(("=", "+", "-", "@", "\t"))
        assert "\x1b" not in row[column]
