from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import numpy
import pytest

from foundation.processor import Cpu, parse_cpu
from foundation.versions import installed_version
from pipeline.machine.environment import describe, processor_name, relevant_features, requirements


@pytest.fixture(scope="module")
def environment() -> dict[str, object]:
    return describe()


def test_environment_has_the_keys_of_the_run_record(environment: dict[str, object]) -> None:
    assert list(environment) == [
        "edgeproof",
        "python",
        "platform",
        "cpu",
        "packages",
        "providers",
        "neural_compressor",
    ]
    assert json.loads(json.dumps(environment)) == environment
    assert environment["python"] == platform.python_version()
    assert environment["edgeproof"] == installed_version("edgeproof")


def test_processor_is_this_machines(environment: dict[str, object]) -> None:
    cpu = environment["cpu"]
    assert isinstance(cpu, dict)
    assert list(cpu) == ["model", "logical_cores", "features", "target"]
    assert cpu["logical_cores"] == os.cpu_count()
    if platform.machine() == "x86_64":
        assert cpu["target"] == ("x86-vnni" if {"avx512_vnni", "avx_vnni"} & set(cpu["features"]) else "x86-avx2")


def test_packages_carry_their_own_versions_and_no_test_tools(environment: dict[str, object]) -> None:
    packages = environment["packages"]
    assert isinstance(packages, dict)
    assert packages["numpy"] == numpy.__version__
    assert {"torch", "onnx", "onnxruntime", "pydantic"} <= set(packages)
    assert "pytest" not in packages
    assert list(packages) == sorted(packages)


def test_the_cpu_provider_is_always_there(environment: dict[str, object]) -> None:
    providers = environment["providers"]
    assert isinstance(providers, list)
    assert "cpu" in providers


def test_features_keep_what_matters_to_inference() -> None:
    xeon = parse_cpu("x86_64", "model name: Xeon\nflags: fpu avx2 avx512f sse4_1 avx512_vnni amx_int8\n", 8)
    assert relevant_features(xeon) == ("avx2", "avx512f", "avx512_vnni", "amx_int8")
    pi5 = parse_cpu("aarch64", "Features: fp asimd aes asimddp\n", 4)
    assert relevant_features(pi5) == ("asimd", "asimddp")


def test_a_board_gives_its_name_where_the_processor_has_none(tmp_path: Path) -> None:
    board = tmp_path / "model"
    board.write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    nameless = Cpu(platform.machine(), 4, (), "arm64")
    assert processor_name(nameless, board) == "Raspberry Pi 5 Model B Rev 1.0"
    assert processor_name(nameless, tmp_path / "none") == platform.machine()
    assert processor_name(Cpu("AMD EPYC", 2, (), "x86-avx2"), board) == "AMD EPYC"


def test_requirements_are_those_of_a_run() -> None:
    names = [requirement.name for requirement in requirements()]
    assert "torch" in names
    assert "hypothesis" not in names
    on_linux_x86 = platform.system() == "Linux" and platform.machine() == "x86_64"
    assert ("onnxruntime-ep-openvino" in names) == on_linux_x86


def test_a_distribution_that_is_not_installed() -> None:
    assert installed_version("no-such-distribution-of-edgeproof") is None
