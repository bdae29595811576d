from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from foundation.errors import ExitCode
from foundation.processor import detect_cpu
from pipeline.machine import reference
from pipeline.machine.doctor import diagnose_deeply, exit_code
from pipeline.machine.reference import answers_here, as_known, check_reference

KNOWN = json.loads(Path(reference.__file__).with_name("known_answers.json").read_text(encoding="utf-8"))["known"]


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: row["target"])
def test_the_stored_answers_are_near_those_of_here(row: dict, tmp_path: Path) -> None:
    if row["target"] == "x86-vnni" != detect_cpu().target:
        pytest.skip("this processor's sums of uint8 by int8 saturate")
    found = dict(answers_here(tmp_path, row["target"]))
    assert set(found) == {"float", "static", "dynamic"}
    for variant, logits in found.items():
        expected = np.array(row["answers"][variant]["logits"])
        assert np.abs(logits - expected).max() <= 0.02 * np.abs(expected).max()


def test_integers_of_the_reference_are_no_copy_of_the_float_answers(tmp_path: Path) -> None:
    found = dict(answers_here(tmp_path, "x86-vnni"))
    error = np.abs(found["static"] - found["float"]).max()
    assert 1e-4 < error < 0.1 * np.abs(found["float"]).max()


def test_two_compilations_answer_alike(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        digests.append({key: as_known(value)["sha256"] for key, value in answers_here(tmp_path / name, "x86-avx2")})
    assert digests[0] == digests[1]


def test_one_changed_layer_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx
    from onnx import numpy_helper

    whole = reference._proto

    def changed() -> onnx.ModelProto:
        proto = whole()
        weight = next(one for one in proto.graph.initializer if one.name == "pointwise")
        values = numpy_helper.to_array(weight).copy()
        values[0] *= 1.5
        weight.CopyFrom(numpy_helper.from_array(values, "pointwise"))
        return proto

    monkeypatch.setattr(reference, "_proto", changed)
    assert {one.outcome for one in check_reference(tmp_path)} == {"different"}
    checks = diagnose_deeply()
    assert exit_code(checks) == ExitCode.GATE_FAILED
    assert all("Something below the model changed" in check.mend for check in checks)


def test_a_runtime_without_stored_answers_is_held_against_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "installed_version", lambda _: "9.9.9")
    found = check_reference(tmp_path)
    assert {one.outcome for one in found} <= {"close"}
    assert all("of the largest logit" in one.found for one in found)


def test_an_architecture_that_nobody_knows_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    unknown = replace(detect_cpu(), target=None)
    monkeypatch.setattr(reference, "detect_cpu", lambda: unknown)
    (answer,) = check_reference(tmp_path)
    assert answer.outcome == "unable"
