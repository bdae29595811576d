from __future__ import annotations

from typing import Literal

import pytest

from pipeline.artifacts import Measurement, StageRecord, Verdict
from reports.facts import Facts
from reports.outcome import gate_measurement, outcome

GateStatus = Literal["passed", "failed", "missing"]


def facts_with(
    gates: list[GateStatus], *, stage: Literal["done", "failed"] = "done", exit_code: int | None = None
) -> Facts:
    verdicts = tuple(Verdict(f"gate-{k}", status, 1.0, 1.0, "") for k, status in enumerate(gates))
    stages = (StageRecord("train", stage, "", {}, {}, 1.0, "out of memory" if stage == "failed" else None),)
    return Facts({"exit_code": exit_code}, stages=stages, verdicts=verdicts)


@pytest.mark.parametrize(
    ("facts", "kind", "headline", "exit_code"),
    [
        (facts_with(["passed", "passed"]), "passed", "All gates passed", 0),
        (facts_with(["passed", "failed"]), "failed", "1 of 2 gates failed", 1),
        (facts_with(["passed", "failed", "missing"]), "incomplete", "Evidence incomplete", 3),
        (facts_with(["passed"], stage="failed"), "incomplete", "Evidence incomplete", 3),
        (facts_with([]), "unjudged", "No gates", 0),
        (facts_with(["passed"], exit_code=1), "incomplete", "Evidence incomplete", 1),
    ],
)
def test_the_verdict_follows_from_gates_and_stages(facts: Facts, kind: str, headline: str, exit_code: int) -> None:
    verdict = outcome(facts)
    assert (verdict.kind, verdict.headline.replace("\N{NO-BREAK SPACE}", " ")) == (kind, headline)
    assert verdict.exit_code == exit_code


def test_the_sentence_names_what_is_wrong() -> None:
    assert "gate-1" in outcome(facts_with(["passed", "failed"])).sentence
    said = outcome(facts_with(["failed", "missing"], stage="failed")).sentence
    assert [name in said for name in ("train", "gate-0", "gate-1")] == [True, True, True]


def test_a_gate_finds_its_own_measurement_and_a_relative_gate_finds_none() -> None:
    measured = [
        Measurement(metric, 0.9, "share", "fp16", ci95=ci95)
        for metric, ci95 in (("accuracy", (0.1, 0.2)), ("balanced_accuracy", (0.8, 1.0)))
    ]
    facts = Facts({}, measurements=tuple(measured))
    absolute = Verdict("fp16: balanced_accuracy ≥ 0.85", "passed", 0.9, 0.85, "")
    relative = Verdict("fp16: balanced_accuracy − fp32 ≥ -0.02", "passed", -0.01, -0.02, "")
    assert gate_measurement(absolute, facts) is measured[1]
    assert gate_measurement(relative, facts) is None
