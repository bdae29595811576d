"""Which integer types suit a processor, from what the operating system says of it.

ONNX Runtime multiplies uint8 activations by int8 weights (U8S8) with the instructions that a processor has:

- x86 with VNNI adds four products in 32 bits: exact.
- x86 without VNNI adds pairs of products in 16 bits (`VPMADDUBSW`) and saturates: 2 · 255 · 127 is twice what fits.
  Weights of seven bits (`reduce_range`, −64…64) cannot saturate, since 2 · 255 · 64 = 32,640 < 32,768; nor can U8U8,
  which takes a slower route. Measured on an AMD EPYC with AVX2 (one thread, interleaved rounds, medians; per-channel,
  minmax; logits SQNR against float; random weights):

  | | float | U8S8, 8 bits | U8S8, 7 bits | U8U8 |
  | --- | --- | --- | --- | --- |
  | ResNet-18's form, 112 px | 18.3 ms | 9.0 ms, 30.4 dB | 9.1 ms (2.0×), 31.8 dB | 11.8 ms (1.6×), 37.6 dB |
  | 90,000 weights, 32 px | 0.40 ms | 0.28 ms, 24.5 dB | 0.29 ms (1.4×), 30.9 dB | 0.39 ms (1.0×), 33.1 dB |

  So U8S8 with seven bits is the default there: it never saturates and it is fast. U8U8 stays a setting for whoever
  prefers the last bit to the speed.
- ARM's kernels want both signed (S8S8). So does the browser's WebAssembly where all convolutions are plain: 1.22 ms
  of processor time for a query of `cnn-medium`, to 1.38 unsigned and 1.89 float. Many depthwise ones turn that round:
  75 ms for EfficientNet-Lite0, to 65 unsigned and 61 float. A file for the browser is to be asked there.
- Qualcomm's NPU computes what lies between QuantizeLinear and DequantizeLinear, the last layer's answers among it,
  and takes activations of 16 bits as well (A16W8). It is given no SpaceToDepth, which QNN 2.7 answers otherwise:
  logits 8 dB worse than nothing, where the same file without it agrees to 35 dB.
- OpenVINO fuses unsigned activations with signed weights of eight bits.

What is true of a target that is not at hand is checked by the place of its name, see `stages.validate.places`.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from foundation.errors import UsageError
from foundation.typed_files import CLOSED

CpuTarget = Literal["x86-vnni", "x86-avx2", "arm64", "wasm", "openvino", "qnn-htp"]
IntegerType = Literal["uint8", "int8", "uint16"]

_VNNI_FEATURES = frozenset({"avx512_vnni", "avx512vnni", "avx_vnni"})
_X86_MACHINES = frozenset({"x86_64", "amd64", "i386", "i686", "x86"})
_ARM_MACHINES = frozenset({"aarch64", "arm64"})


@dataclass(frozen=True)
class IntegerTypes:
    """How activations and weights are stored.

    Attributes:
        activation: type of every activation.
        weight: type of every weight; signed weights are symmetric about zero.
        reduce_range: weights take seven of their eight bits.
        answers: whether the last layer's output is integers too, for what runs no layer half in float.
    """

    activation: IntegerType
    weight: IntegerType
    reduce_range: bool
    answers: bool = False


INTEGER_TYPES: Mapping[CpuTarget, IntegerTypes] = {
    "x86-vnni": IntegerTypes("uint8", "int8", reduce_range=False),
    "x86-avx2": IntegerTypes("uint8", "int8", reduce_range=True),
    "arm64": IntegerTypes("int8", "int8", reduce_range=False),
    "wasm": IntegerTypes("int8", "int8", reduce_range=False),
    "openvino": IntegerTypes("uint8", "int8", reduce_range=False),
    "qnn-htp": IntegerTypes("uint8", "int8", reduce_range=False, answers=True),
}
"""What suits a file in QDQ form, which ONNX Runtime fuses into integer operators on each of them; QOperator files
with both types signed are slow on x86."""


@dataclass(frozen=True)
class Cpu:
    """The processor at hand.

    Attributes:
        model: its trade name, or the architecture where it has none.
        logical_cores: how many this machine shows.
        features: instruction set names, sorted, in lower case.
        target: its row of `INTEGER_TYPES`; None on an architecture that has none.
    """

    model: str
    logical_cores: int
    features: tuple[str, ...]
    target: CpuTarget | None

    __pydantic_config__ = CLOSED


def parse_cpu(machine: str, text: str, logical_cores: int) -> Cpu:
    """Read a processor out of the operating system's own description.

    Args:
        machine: the architecture, as `platform.machine()` names it.
        text: contents of /proc/cpuinfo (Linux) or output of `sysctl machdep.cpu` (macOS); "" where unknown.
        logical_cores: how many cores the machine shows.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip().lower(), value.strip())
    listed = " ".join(
        fields.get(key, "") for key in ("flags", "features", "machdep.cpu.features", "machdep.cpu.leaf7_features")
    )
    features = tuple(sorted(set(re.split(r"\s+", listed.lower().strip())) - {""}))
    name = fields.get("model name") or fields.get("machdep.cpu.brand_string") or machine or "unknown"
    return Cpu(name, logical_cores, features, _target(machine.lower(), frozenset(features)))


def detect_cpu() -> Cpu:
    """Return the processor of this machine."""
    return parse_cpu(platform.machine(), _description(), os.cpu_count() or 1)


def usable_cores() -> int:
    """Return how many logical cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_of(target: Literal["auto"] | CpuTarget) -> Cpu:
    """Return a processor to compile for: the one at hand for "auto", else one of which nothing else is known."""
    return detect_cpu() if target == "auto" else Cpu(target, 0, (), target)


def choose_integer_types(
    cpu: Cpu,
    activation: Literal["auto", "uint8", "int8", "uint16"],
    weight: Literal["auto", "uint8", "int8"],
    reduce_range: Literal["auto"] | bool,
) -> IntegerTypes:
    """Fill what is left to "auto" with what suits a processor.

    `reduce_range` stays off by itself where both types are unsigned or both signed: those never saturate.

    Raises:
        UsageError: something is "auto" and the processor is of an unknown architecture, or signed activations meet
            unsigned weights, which ONNX Runtime has no kernels for.
    """
    if cpu.target is None and "auto" in (activation, weight, reduce_range):
        raise UsageError(
            f"expected an x86-64 or ARM processor, found {cpu.model!r}, for which no integer types are known. "
            "Set activation_type, weight_type and reduce_range instead of auto."
        )
    best = INTEGER_TYPES[cpu.target or "x86-vnni"]
    chosen_activation = best.activation if activation == "auto" else activation
    chosen_weight = best.weight if weight == "auto" else weight
    if (chosen_activation, chosen_weight) == ("int8", "uint8"):
        raise UsageError(
            "expected weights that are signed where the activations are, found activation_type int8 with weight_type "
            "uint8. Set weight_type to int8, or activation_type to uint8."
        )
    saturates = (chosen_activation, chosen_weight) == ("uint8", "int8")
    reduced = best.reduce_range and saturates if reduce_range == "auto" else reduce_range
    return IntegerTypes(chosen_activation, chosen_weight, reduced, best.answers)


def _target(machine: str, features: frozenset[str]) -> CpuTarget | None:
    if machine in _ARM_MACHINES:
        return "arm64"
    if machine in _X86_MACHINES:
        # Where nothing is known of the features, the cautious choice: right on both, slower on none.
        return "x86-vnni" if features & _VNNI_FEATURES else "x86-avx2"
    return None


def _description() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        return cpuinfo.read_text(encoding="utf-8", errors="replace")
    if platform.system() == "Darwin":
        command = ["sysctl", "machdep.cpu"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    return ""
