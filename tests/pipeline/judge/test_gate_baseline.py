"""What a gate relative to fp32 is held against."""

from __future__ import annotations

import pytest

from foundation.measurements import Measurement, Where
from pipeline.judge.gate import Gate
from pipeline.judge.gates import judge


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("other", [{"provider": "cuda"}, {"threads": 2}, {"batch_size": 8}])
def test_a_relative_gate_takes_fp32_of_its_own_provider_threads_and_batch(
    other: dict[str, object], order: int
) -> None:
    """Held against the other place's fp32, 4 of 2 ms, the gate would fail."""
    here: dict[str, object] = {"provider": "cpu", "threads": 1, "batch_size": 1}

    def p50(value: float, variant: str, place: dict[str, object]) -> Measurement:
        return Measurement("latency_p50_ms", value, "ms", variant, Where(split="test", **place))  # type: ignore[arg-type]

    rows = [p50(2.0, "fp32", {**here, **other}), p50(8.0, "fp32", here), p50(4.0, "int8", here)][::order]
    gate = Gate(metric="latency_p50_ms", variant="int8", at_most=0.5, relative_to_fp32="ratio")
    verdict = judge((gate,), rows)[0]
    assert (verdict.status, verdict.value) == ("passed", 0.5)
    only_other = [row for row in rows if row.value != 8.0]
    assert judge((gate,), only_other)[0].status == "missing"
