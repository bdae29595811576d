"""The summary fits a pull request's comment, however much went wrong, and says the decision first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_run import small_record

from foundation.errors import ExitCode
from foundation.record import StageRecord, Verdict
from foundation.run_folder import RunFolder
from reports import summary
from reports.facts import Facts, read_facts


def bare(**changes: object) -> Facts:
    return Facts(small_record(**changes))


def test_the_decision_comes_first(reported_run: RunFolder) -> None:
    lines = summary.render(read_facts(reported_run)).splitlines()
    assert lines[0] == "## Reject: 2 of 6\N{NO-BREAK SPACE}gates failed"
    assert lines[2].startswith("Outside its limit: ")


@pytest.mark.parametrize("text", ["x", "\x1b", "|", "<b>", "日本"])
def test_a_thousand_failures_fit_a_comment(text: str) -> None:
    long = text * 5_000
    facts = bare(
        verdicts=tuple(Verdict(f"{number} {long}", "failed", 1.0, 2.0, long) for number in range(1_000)),
        stages=tuple(StageRecord(long, None, "failed", "k", {}, {}, 1.0, long) for _ in range(1_000)),
        exit_code=ExitCode.INCOMPLETE,
        name=long,
    )
    text = summary.render(facts)
    assert len(text) < 65_536
    assert "and 980 more" in text


def test_what_does_not_fit_is_said_to_stand_elsewhere(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    variant = facts.record.variants[1]
    many = tuple(replace(variant, variant=f"v{number:04d}-{'x' * 50}") for number in range(1_200))
    text = summary.render(replace(facts, record=replace(facts.record, variants=many)))
    assert len(text) < 65_536
    assert text.endswith("More stands in report/index.html.\n")
    assert text.startswith("## Reject: 2 of 6\N{NO-BREAK SPACE}gates failed\n")
