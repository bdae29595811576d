from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy
import pytest
from small_run import small_record

from foundation.processor import Cpu, parse_cpu
from foundation.record import Environment, read_record, write_record
from foundation.run_folder import RunFolder
from foundation.versions import installed_version
from pipeline.machine.environment import describe, processor_name, relevant_features, requirements


@pytest.fixture(scope="module")
def environment() -> Environment:
    return describe()


def test_environment_is_that_of_this_process(environment: Environment) -> None:
    assert environment.python == platform.python_version()
    assert environment.edgeproof == installed_version("edgeproof")
    assert environment.platform == platform.platform()


def test_a_record_with_it_survives_the_disk(environment: Environment, tmp_path: Path) -> None:
    record = small_record(environment=environment)
    write_record(RunFolder(tmp_path), record)
    assert read_record(RunFolder(tmp_path)) == record


def test_processor_is_this_machines(environment: Environment) -> None:
    cpu = environment.cpu
    assert cpu.logical_cores == os.cpu_count()
    if platform.machine() == "x86_64":
        assert cpu.target == ("x86-vnni" if {"avx512_vnni", "avx_vnni"} & set(cpu.features) else "x86-avx2")


def test_packages_carry_their_own_versions_and_no_test_tools(environment: Environment) -> None:
    packages = environment.packages
    assert packages["numpy"] == numpy.__version__
    assert {"torch", "onnx", "onnxruntime", "pydantic"} <= set(packages)
    assert "pytest" not in packages
    assert list(packages) == sorted(packages)


def test_the_cpu_provider_is_always_there(environment: Environment) -> None:
    assert "cpu" in environment.providers


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
