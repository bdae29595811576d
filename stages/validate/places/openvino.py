"""OpenVINO's own runtime on this machine's processor, in the precision of the files or in bfloat16."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Literal

from foundation.processor import detect_cpu
from stages.validate.places.place import Place, folder_of, there, why_not_installed

Precision = Literal["f32", "bf16"]

PACKAGES = ("openvino==2026.4.1", "numpy==2.4.6")
_NAME = "openvino"
_HAS_BF16 = frozenset({"avx512_bf16", "amx_bf16"})
_NEEDS = {
    "f32": "Linux on x86-64",
    "bf16": f"a processor with AVX512_BF16 or AMX, and what `edgeproof places --install {_NAME}` installs",
}
_MEANINGS = {
    "Model can't be parsed": "OpenVINO cannot parse it; is it whole?",
}


def _steps(folder: Path) -> list[list[str]]:
    # Without its dependencies: openvino-telemetry would ask whether it may send, and numpy is all that answers need.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    return [[*pip, "--target", str(folder / "site"), *PACKAGES]]


def _why_not() -> str | None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        found = f"{platform.system()} on {platform.machine()}"
        return f"openvino: expected Linux on x86-64, found {found}. Ask this place on such a machine."
    return why_not_installed(_NAME, _steps)


def _why_no_bf16() -> str | None:
    if not _HAS_BF16 & set(detect_cpu().features):
        return (
            "openvino-bf16: expected a processor with AVX512_BF16 or AMX, found one without, where bfloat16 is "
            "emulated and slow. Ask this place on such a machine."
        )
    return _why_not()


def _command(job: Path) -> list[str]:
    # -S: nothing of this Python's own packages, so that what answers is what was installed.
    return [sys.executable, "-P", "-S", str(there("answer.py")), str(job)]


def _place(precision: Precision) -> Place:
    return Place(
        kind="real",
        what=f"OpenVINO on this machine's processor, one thread{', in bfloat16' if precision == 'bf16' else ''}",
        why_not=_why_not if precision == "f32" else _why_no_bf16,
        command=_command,
        steps=_steps if precision == "f32" else lambda folder: [],
        needs=_NEEDS[precision],
        environment=lambda: {"PYTHONPATH": str(folder_of(_NAME) / "site")},
        meanings=_MEANINGS,
        job={"runtime": "openvino", "properties": {"NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": precision}},
    )


PLACE, PLACE_BF16 = _place("f32"), _place("bf16")
