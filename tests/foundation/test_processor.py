from __future__ import annotations

import pytest

from foundation.errors import UsageError
from foundation.processor import Cpu, CpuTarget, IntegerTypes, choose_integer_types, cpu_of, detect_cpu, parse_cpu

EPYC = """processor\t: 0
model name\t: AMD EPYC 7763
flags\t\t: fpu sse4_1 avx2 vaes

processor\t: 1
model name\t: AMD EPYC 7763
flags\t\t: fpu
"""
XEON = "model name : Intel(R) Xeon(R) Platinum 8480+\nflags : fpu avx2 avx512f avx512_vnni\n"
GRAVITON = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd asimddp i8mm\nCPU implementer\t: 0x41\n"
MAC = (
    "machdep.cpu.brand_string: Intel(R) Core(TM) i7\n"
    "machdep.cpu.features: FPU SSE4.2\nmachdep.cpu.leaf7_features: AVX2 BMI1\n"
)


@pytest.mark.parametrize(
    ("machine", "text", "target", "feature", "model"),
    [
        ("x86_64", EPYC, "x86-avx2", "vaes", "AMD EPYC 7763"),
        ("x86_64", XEON, "x86-vnni", "avx512_vnni", "Intel(R) Xeon(R) Platinum 8480+"),
        ("AMD64", "flags : avx_vnni", "x86-vnni", "avx_vnni", "AMD64"),
        ("aarch64", GRAVITON, "arm64", "asimddp", "aarch64"),
        ("x86_64", MAC, "x86-avx2", "avx2", "Intel(R) Core(TM) i7"),
        ("arm64", "machdep.cpu.brand_string: Apple M2\n", "arm64", None, "Apple M2"),
        ("AMD64", "", "x86-avx2", None, "AMD64"),
        ("riscv64", "isa : rv64imafdc\n", None, None, "riscv64"),
    ],
)
def test_a_processor_is_read_from_the_systems_description(
    machine: str, text: str, target: str | None, feature: str | None, model: str
) -> None:
    cpu = parse_cpu(machine, text, 2)
    assert (cpu.target, cpu.model) == (target, model)
    assert feature is None or feature in cpu.features


def test_every_core_has_the_features_of_the_first() -> None:
    assert parse_cpu("x86_64", EPYC, 2).features == ("avx2", "fpu", "sse4_1", "vaes")


def test_this_machine_has_a_target() -> None:
    cpu = detect_cpu()
    assert cpu.logical_cores >= 1
    assert cpu.target in ("x86-vnni", "x86-avx2", "arm64")


def cpu(target: CpuTarget | None) -> Cpu:
    return Cpu("some processor", 2, (), target)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("x86-vnni", IntegerTypes("uint8", "int8", False)),
        ("x86-avx2", IntegerTypes("uint8", "int8", True)),
        ("arm64", IntegerTypes("int8", "int8", False)),
        ("wasm", IntegerTypes("int8", "int8", False)),
        ("openvino", IntegerTypes("uint8", "int8", False)),
        ("qnn-htp", IntegerTypes("uint8", "int8", False, answers=True)),
    ],
)
def test_automatic_types_follow_the_processor(target: CpuTarget, expected: IntegerTypes) -> None:
    assert choose_integer_types(cpu(target), "auto", "auto", "auto") == expected


def test_sixteen_bits_never_saturate_by_eight() -> None:
    assert choose_integer_types(cpu("x86-avx2"), "uint16", "auto", "auto") == IntegerTypes("uint16", "int8", False)
    assert choose_integer_types(cpu("qnn-htp"), "uint16", "auto", "auto").answers is True


def test_seven_bits_only_where_eight_saturate() -> None:
    assert choose_integer_types(cpu("x86-avx2"), "uint8", "uint8", "auto").reduce_range is False
    assert choose_integer_types(cpu("x86-avx2"), "uint8", "int8", False).reduce_range is False
    assert choose_integer_types(cpu("x86-vnni"), "auto", "auto", True).reduce_range is True


def test_what_cannot_be_chosen_is_an_error() -> None:
    with pytest.raises(UsageError, match="found activation_type int8 with weight_type uint8"):
        choose_integer_types(cpu("arm64"), "auto", "uint8", "auto")
    with pytest.raises(UsageError, match="found 'some processor'"):
        choose_integer_types(cpu(None), "auto", "int8", False)
    assert choose_integer_types(cpu(None), "uint8", "int8", False) == IntegerTypes("uint8", "int8", False)


@pytest.mark.parametrize(
    ("target", "types"),
    [
        ("x86-vnni", IntegerTypes("uint8", "int8", False)),
        ("x86-avx2", IntegerTypes("uint8", "int8", True)),
        ("arm64", IntegerTypes("int8", "int8", False)),
    ],
)
def test_another_processor_can_be_compiled_for(target: CpuTarget, types: IntegerTypes) -> None:
    assert choose_integer_types(cpu_of(target), "auto", "auto", "auto") == types


def test_without_a_target_it_is_the_processor_at_hand() -> None:
    assert cpu_of("auto") == detect_cpu()
