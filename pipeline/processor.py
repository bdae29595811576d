"""Which integer instructions a processor has, and so which integer types suit it."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Literal

Target = Literal["x86-vnni", "x86-avx2", "arm64"]
"""A family of integer kernels: x86 with VNNI multiplies bytes exactly; x86 without it saturates unsigned × signed
products in 16 bits; arm64 is exact and fastest where both are signed."""

RELEVANT_FEATURES = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm"
)  # fmt: skip
"""Instruction sets that decide the speed or the exactness of inference, as Linux names them."""


def features_in(cpuinfo: str) -> tuple[str, ...]:
    """Return the relevant instruction sets named in the text of /proc/cpuinfo, in the order of the table."""
    words: set[str] = set()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            words.update(value.split())
    return tuple(feature for feature in RELEVANT_FEATURES if feature in words)


def features_of_this_machine() -> tuple[str, ...]:
    """Return the relevant instruction sets of this machine; empty where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    return features_in(cpuinfo.read_text(encoding="utf-8", errors="replace")) if cpuinfo.exists() else ()


def target_for(machine: str, features: tuple[str, ...]) -> Target:
    """Return the target for a machine name (as `platform.machine()` gives it) and its instruction sets.

    An x86 processor that does not tell is taken for one without VNNI: what is exact there is exact everywhere.
    """
    if machine.lower() in ("arm64", "aarch64"):
        return "arm64"
    return "x86-vnni" if {"avx512_vnni", "avx_vnni"} & set(features) else "x86-avx2"


def target_of_this_machine() -> Target:
    """Return the target of the machine this runs on."""
    return target_for(platform.machine(), features_of_this_machine())
