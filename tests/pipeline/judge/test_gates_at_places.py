"""Gates that name a place hold there, and no other gate looks elsewhere."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from foundation.measurements import Measurement, Where
from pipeline.judge.gate import Gate
from pipeline.judge.gates import judge

ROWS = [
    Measurement("accuracy", 0.9, "share", "fp32", Where("cpu", "test"), 100),
    Measurement("accuracy", 0.4, "share", "fp32", Where(split="test", place="x86-avx2"), 100),
    Measurement("place_agreement", 0.97, "share", "fp32", Where(split="test", place="arm64"), 100),
]


def verdict(**gate: object) -> str:
    (found,) = judge([Gate.model_validate({"variant": "fp32", **gate})], ROWS)
    return found.status


def test_a_gate_without_a_place_holds_here_alone() -> None:
    assert verdict(metric="accuracy", at_least=0.85) == "passed"


def test_a_gate_with_a_place_holds_there() -> None:
    assert verdict(metric="accuracy", at_least=0.85, place="x86-avx2") == "failed"
    assert verdict(metric="place_agreement", at_least=0.95, place="arm64") == "passed"
    assert verdict(metric="place_agreement", at_least=0.995, place="wasm") == "missing"


def test_a_comparison_of_places_names_one() -> None:
    with pytest.raises(ValidationError, match="place_agreement holds a place against here; name the place"):
        Gate(metric="place_agreement", variant="fp32", at_least=0.9)


def test_a_place_is_no_part_of_the_identity_of_gates_without_one() -> None:
    assert "place" not in Gate(metric="accuracy", variant="fp32", at_least=0.9).identity
    assert Gate(metric="accuracy", variant="fp32", at_least=0.9, place="arm64").identity["place"] == "arm64"
