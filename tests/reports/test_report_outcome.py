from __future__ import annotations

from typing import Literal

import pytest
from small_run import small_record

from foundation.errors import ExitCode
from foundation.measurements import Measurement
from foundation.record import StageRecord, Verdict
from pipeline.judge.gate import Gate
from pipeline.judge.gates import judge
from reports.decision import judged_as_it_stands, outcome
from reports.facts import Facts

GateStatus = Literal["passed", "failed", "missing"]


def facts_with(
    gates: list[GateStatus],
    *,
    exit_code: int | None,
    stage: Literal["done", "failed"] = "done",
    configured: int | None = None,
) -> Facts:
    verdicts = tuple(Verdict(f"gate-{k}", status, 1.0, 1.0, "") for k, status in enumerate(gates))
    stages = (StageRecord("train", None, stage, "", {}, {}, 1.0, "out of memory" if stage == "failed" else None),)
    configuration = {"gates": [{}] * (len(gates) if configured is None else configured)}
    code = None if exit_code is None else ExitCode(exit_code)
    return Facts(small_record(exit_code=code, configuration=configuration, stages=stages, verdicts=verdicts))


@pytest.mark.parametrize(
    ("facts", "kind", "headline", "exit_code"),
    [
        (facts_with(["passed", "passed"], exit_code=0), "passed", "All gates passed", 0),
        (facts_with(["passed", "failed"], exit_code=1), "failed", "1 of 2 gates failed", 1),
        (facts_with(["passed", "failed", "missing"], exit_code=3), "incomplete", "Evidence incomplete", 3),
        (facts_with(["passed"], stage="failed", exit_code=3), "incomplete", "Evidence incomplete", 3),
        (facts_with([], exit_code=0), "unjudged", "No gates", 0),
        (facts_with(["passed"], exit_code=1), "incomplete", "Evidence incomplete", 1),
        # Killed, or only `edgeproof train`, `quantize` or `validate`: nothing was concluded yet.
        (facts_with([], exit_code=None), "incomplete", "Evidence incomplete", 3),
        (facts_with(["passed"], exit_code=None), "incomplete", "Evidence incomplete", 3),
        (facts_with([], exit_code=3, configured=2), "incomplete", "Evidence incomplete", 3),
        (facts_with([], exit_code=0, configured=2), "incomplete", "Evidence incomplete", 0),
    ],
)
def test_the_verdict_follows_from_gates_and_stages(facts: Facts, kind: str, headline: str, exit_code: int) -> None:
    verdict = outcome(facts)
    assert (verdict.kind, verdict.headline.replace("\N{NO-BREAK SPACE}", " ")) == (kind, headline)
    assert verdict.exit_code == exit_code


def test_the_sentence_names_what_is_wrong() -> None:
    assert "gate-1" in outcome(facts_with(["passed", "failed"], exit_code=1)).sentence
    said = outcome(facts_with(["failed", "missing"], stage="failed", exit_code=3)).sentence
    assert [name in said for name in ("train", "gate-0", "gate-1")] == [True, True, True]
    killed = outcome(facts_with([], exit_code=None, configured=2)).sentence.replace("\N{NO-BREAK SPACE}", " ")
    assert killed.startswith("The run did not end")
    assert "2 gates of the configuration were not judged." in killed


@pytest.mark.parametrize("relation", [None, "difference", "ratio"])
def test_a_relative_gate_borrows_nothing_even_where_its_value_is_the_measurements(relation: str | None) -> None:
    """fp32's accuracy is 1, so the ratio 0.9 equals the accuracy; the interval of a ratio is another one."""
    measured = Measurement("accuracy", 0.9, "share", "fp16", ci95=(0.8, 0.95))
    fp32 = Measurement("accuracy", 1.0, "share", "fp32")
    gate = Gate(metric="accuracy", variant="fp16", at_least=-0.5, relative_to_fp32=relation)
    (verdict,) = judge([gate], [fp32, measured])
    assert judged_as_it_stands(verdict) is (measured if relation is None else None)


def test_a_gate_without_a_number_shows_none() -> None:
    absent = Measurement("accuracy", None, "share", "fp16", remarks={"reason": "no labels"})
    (verdict,) = judge([Gate(metric="accuracy", variant="fp16", at_least=0.5)], [absent])
    assert verdict.measurement is absent
    assert judged_as_it_stands(verdict) is None
