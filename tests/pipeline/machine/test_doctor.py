from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy
import pytest
from packaging.requirements import Requirement
from rich.console import Console

from foundation.errors import ExitCode
from foundation.processor import Cpu
from pipeline.machine.doctor import (
    Check,
    check_disk,
    check_integer_types,
    check_requirement,
    checks_table,
    diagnose,
    exit_code,
)
from stages.quantize.neural_compressor.environment import OVERRIDE


@pytest.mark.parametrize(
    ("requirement", "status", "found"),
    [
        ("numpy>=2.0", "ok", numpy.__version__),
        ("numpy>=99,<100", "warning", f"{numpy.__version__}, expected <100,>=99"),
        ("no-such-package-xyz>=1", "missing", "not installed, expected >=1"),
        ("no-such-package-xyz>=1; extra == 'openvino'", "warning", "not installed, expected >=1"),
        ("no-such-package-xyz", "missing", "not installed, expected any version"),
        # The declared range of torch must take its local build names.
        ("torch>=2.11,<3", "ok", ""),
    ],
)
def test_a_package_is_judged_by_its_declared_range(requirement: str, status: str, found: str) -> None:
    check = check_requirement(Requirement(requirement))
    assert check.status == status
    assert found in check.found
    assert bool(check.mend) == (status != "ok")


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("x86-vnni", "uint8 activations × int8 weights"),
        ("x86-avx2", "uint8 activations × int8 weights, weights in 7 bits (reduce_range): full range saturates here"),
        ("arm64", "int8 activations × int8 weights"),
    ],
)
def test_the_right_int8_types_of_each_target(target: str, found: str) -> None:
    assert check_integer_types(Cpu("any", 2, (), target)) == Check("int8 types", "ok", found)  # type: ignore[arg-type]


def test_an_unknown_architecture_is_a_warning() -> None:
    assert check_integer_types(Cpu("riscv64", 2, (), None)).status == "warning"


def test_disk_of_a_folder_that_does_not_exist_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(tmp_path) in check_disk(tmp_path / "runs" / "new").found
    monkeypatch.setattr("pipeline.machine.doctor.FREE_BYTES_WANTED", 2**62)
    assert check_disk(tmp_path).status == "warning"


def test_diagnosis_of_this_machine(tmp_path: Path) -> None:
    checks = diagnose(tmp_path)
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {"python", "torch", "processor", "int8 types", "cores", "provider cpu", "disk"} <= set(names)
    by_name = {check.name: check for check in checks}
    assert by_name["provider cpu"].status == "ok"
    assert all(check.mend for check in checks if check.status != "ok")
    assert json.loads(json.dumps([dataclasses.asdict(check) for check in checks]))[0]["name"] == "python"


def test_a_worker_that_is_not_there_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, str(tmp_path / "python"))
    (check,) = (check for check in diagnose(tmp_path) if check.name == "neural-compressor environment")
    assert check.status == "missing"
    assert OVERRIDE in check.mend
    assert exit_code([check]) == ExitCode.INCOMPLETE


def test_warnings_alone_are_no_failure() -> None:
    assert exit_code([Check("a", "ok", ""), Check("b", "warning", "", "do")]) == ExitCode.PASSED


def test_the_table_fits_80_columns(tmp_path: Path) -> None:
    console = Console(width=80, no_color=True)
    checks = (*diagnose(tmp_path), Check("x" * 30, "missing", "y" * 200, "z" * 200))
    with console.capture() as capture:
        console.print(checks_table(checks))
    text = capture.get()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.replace("\n", "").replace(" ", "").count("z") >= 200
