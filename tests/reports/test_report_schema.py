"""The published schema of `report.json`: it is that of the types, and it refuses what the types do not promise."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from small_run import small_record

from foundation.run_folder import RunFolder
from reports import report_json
from reports.facts import Facts

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "report.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def report(reported_run: RunFolder) -> dict[str, Any]:
    return json.loads((reported_run.report / "report.json").read_text(encoding="utf-8"))


def mistakes(report: Any) -> list[str]:
    return ["/".join(map(str, error.absolute_path)) for error in Draft202012Validator(SCHEMA).iter_errors(report)]


def test_the_published_schema_is_that_of_the_types() -> None:
    assert json.loads(json.dumps(report_json.json_schema())) == SCHEMA, "write docs/report.schema.json anew"
    Draft202012Validator.check_schema(SCHEMA)


def test_every_format_has_its_line_in_the_history() -> None:
    told = re.findall(r"^- (\d+): ", report_json.__doc__ or "", re.MULTILINE)
    assert [int(number) for number in told] == list(range(1, report_json.FORMAT_VERSION + 1))


@pytest.mark.parametrize("sample", ["reported_run", "labelled_run"])
def test_a_whole_report_is_valid(sample: str, request: pytest.FixtureRequest) -> None:
    run: RunFolder = request.getfixturevalue(sample)
    assert mistakes(json.loads((run.report / "report.json").read_text(encoding="utf-8"))) == []


def test_a_run_that_has_only_begun_is_valid() -> None:
    report = json.loads(report_json.render(Facts(small_record())))
    assert mistakes(report) == []
    assert (report["run"]["exit_code"], report["measurements"]) == (None, [])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format_version",), 2),
        (("run", "exit_code"), 4),
        (("measurements", 0, "value"), "0.9"),
        (("measurements", 0, "ci95"), [0.1]),
        (("measurements", 0, "sample"), 3),
        (("verdicts", 0, "status"), "green"),
        (("stages", 0, "seconds"), "1 s"),
        (("environment", "cpu", "logical_cores"), 1.5),
    ],
    ids=lambda value: "/".join(map(str, value)) if isinstance(value, tuple) else repr(value),
)
def test_what_is_not_promised_is_refused(report: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    changed = copy.deepcopy(report)
    at: Any = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert mistakes(changed)


def test_what_was_not_measured_is_null_and_never_left_out(report: dict[str, Any]) -> None:
    absent = [one for one in report["measurements"] if one["value"] is None]
    assert absent
    assert all(set(one) == set(report["measurements"][0]) for one in report["measurements"])
    for key in report["measurements"][0]:
        one = copy.deepcopy(report)
        del one["measurements"][0][key]
        assert mistakes(one) == ["measurements/0"]
