from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st
from small_run import small_record

from foundation.record import StageRecord, Verdict
from reports import junit
from reports.facts import Facts


@given(st.text(), st.lists(st.sampled_from(["passed", "failed", "missing"]), max_size=6))
def test_counts_are_right_and_any_text_parses(text: str, statuses: list[str]) -> None:
    verdicts = tuple(Verdict(text, status, None, 0.5, text) for status in statuses)  # type: ignore[arg-type]
    stages = (
        StageRecord(text, None, "failed", "", {}, {}, None, text),
        StageRecord("train", None, "reused", "", {}, {}, 1.5, None),
    )
    root = ElementTree.fromstring(junit.render(Facts(small_record(name=text, stages=stages, verdicts=verdicts))))
    gates, stage_suite = root.findall("testsuite")
    assert len(gates.findall("testcase")) == int(gates.attrib["tests"]) == len(statuses)
    assert len(gates.findall("testcase/failure")) == int(gates.attrib["failures"]) == statuses.count("failed")
    assert len(gates.findall("testcase/error")) == int(gates.attrib["errors"]) == statuses.count("missing")
    assert (stage_suite.attrib["tests"], stage_suite.attrib["errors"]) == ("2", "1")
    assert int(root.attrib["errors"]) == statuses.count("missing") + 1
    assert stage_suite[1].attrib["time"] == "1.500"
