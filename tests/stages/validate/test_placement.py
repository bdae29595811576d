"""Where nodes run and what that says, from profiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_models import build_model

from foundation.placement import NodesOfAKind, read_placements, write_placements
from stages.validate.placement import kinds_of, measure_placement, notes_on

CPU, OPENVINO = "CPUExecutionProvider", "OpenVINOExecutionProvider"


def event(name: str, operator: str, duration: int, provider: str = CPU, kind: str = "float") -> dict[str, object]:
    told = {"provider": provider, "op_name": operator, "input_type_shape": [{kind: [1]}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": duration, "args": told}


def test_kinds_are_counted_by_node_and_weighed_by_their_medians() -> None:
    events = [event("a", "Conv", 30), event("b", "Conv", 30), event("c", "Gemm", 40), event("c", "Gemm", 4000)] * 4
    kinds, unsigned = kinds_of([*events, {"cat": "Session", "name": "load"}])
    assert [(kind.operator, kind.nodes) for kind in kinds] == [("Gemm", 1), ("Conv", 2)]
    assert sum(kind.share for kind in kinds) == pytest.approx(1.0, abs=1e-3)
    assert not unsigned


def test_unsigned_activations_of_integer_layers_are_seen() -> None:
    assert kinds_of([event("a", "QLinearConv", 1, kind="uint8")] * 5)[1]
    assert not kinds_of([event("a", "QLinearConv", 1, kind="int8")] * 5)[1]
    assert not kinds_of([event("a", "Cast", 1, kind="uint8")] * 5)[1]


def test_what_costs_time_is_named_with_what_to_change() -> None:
    kinds = (
        NodesOfAKind(CPU, "QLinearConv", 35, 0.44),
        NodesOfAKind(CPU, "Conv", 14, 0.35),
        NodesOfAKind(CPU, "DequantizeLinear", 69, 0.08),
        NodesOfAKind(CPU, "QuantizeLinear", 33, 0.05),
        NodesOfAKind(CPU, "Transpose", 30, 0.04),
    )
    told = notes_on("cpu", kinds, False, "x86-vnni")
    assert told[0].startswith("14 nodes still compute in float and took 35% of the time: Conv × 14")
    assert told[1].startswith("102 nodes go between float and integers and took 13% of the time")
    assert (
        told[2] == "its layers take signed activations, for which x86-vnni has fewer kernels; use target: x86-vnni."
    )
    assert len(told) == 3
    assert notes_on("cpu", kinds[:1], True, "arm64")[-1].endswith("use target: arm64.")


def test_a_float_file_is_told_nothing_of_integers() -> None:
    assert notes_on("cpu", (NodesOfAKind(CPU, "Conv", 9, 1.0),), False, "arm64") == ()


def test_what_a_provider_left_to_the_processor_is_named() -> None:
    kinds = (NodesOfAKind(OPENVINO, "OpenVINO_1", 1, 0.6), NodesOfAKind(CPU, "Gemm", 2, 0.4))
    (told,) = notes_on("openvino", kinds, False, "x86-vnni")
    assert told.startswith("2 nodes ran on CPUExecutionProvider in place of OpenVINOExecutionProvider and took 40%")


def test_a_real_file_is_profiled_and_kept(tmp_path: Path) -> None:
    model = build_model(tmp_path / "small.onnx")
    image = np.zeros((1, 1, 8, 8), np.uint8)
    found = measure_placement("fp32", model.path, "cpu", image, None)
    assert {"Gemm", "GlobalAveragePool"} <= {kind.operator for kind in found.kinds}
    assert sum(kind.share for kind in found.kinds) == pytest.approx(1.0, abs=0.01)
    write_placements(tmp_path / "placement.json", [found])
    assert read_placements(tmp_path / "placement.json") == (found,)


def test_a_provider_that_is_not_there_says_why(tmp_path: Path) -> None:
    model = build_model(tmp_path / "small.onnx")
    found = measure_placement("fp32", model.path, "cuda", np.zeros((1, 1, 8, 8), np.uint8), None)
    assert found.kinds == ()
    assert found.reason is not None
    assert "expected an onnxruntime with CUDA" in found.reason
