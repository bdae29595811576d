"""ARM, 64 bits: the distribution's own arm64 Python, unpacked without root, under qemu's user mode."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

from foundation.errors import NotMeasuredError
from stages.validate.places.place import Place, folder_of, there, why_not_installed
from stages.validate.places.protocol import PlaceAnswer

_EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
_CPU = "cortex-a72"
# ONNX Runtime 1.31 and 1.32 crash under qemu 7.2; this is the newest that does not.
_PACKAGES = ("onnxruntime==1.24.4", "numpy==2.4.6")
_INSTALL = "apt-get install qemu-user-static"


def _why_not() -> str | None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        found = f"{platform.system()} on {platform.machine()}"
        return f"arm64: expected Linux on x86-64, found {found}. Ask this place on such a machine."
    if _emulator() is None:
        return f"arm64: expected {_EMULATORS[0]}, found none. Install it with `{_INSTALL}`."
    return why_not_installed("arm64", _steps)


def _emulator() -> str | None:
    return next((found for name in _EMULATORS if (found := shutil.which(name))), None)


def _steps(folder: Path) -> list[list[str]]:
    return [[sys.executable, "-P", str(Path(__file__).with_name("unpack_arm64.py")), str(folder), *_PACKAGES]]


def _command(job: Path) -> list[str]:
    root = folder_of("arm64") / "root"
    pythons = sorted((root / "usr" / "bin").glob("python3.[0-9]*"))
    python = str(pythons[0]) if pythons else "python3"
    emulator = [_emulator() or _EMULATORS[0], "-cpu", _CPU, "-L", str(root)]
    return [*emulator, python, "-P", str(there("answer.py")), str(job)]


def _refuse_others(answer: PlaceAnswer) -> None:
    if answer.machine != "aarch64":
        raise NotMeasuredError(f"arm64: expected an aarch64 processor, found {answer.machine}. Install it anew.")


PLACE = Place(
    kind="emulated",
    what="ARM, 64 bits (qemu's Cortex-A72)",
    why_not=_why_not,
    command=_command,
    steps=_steps,
    needs=f"qemu's user mode: `{_INSTALL}`, and apt-get with dpkg to unpack an arm64 Python (about 110 MB)",
    check=_refuse_others,
    environment=lambda: {"PYTHONPATH": str(folder_of("arm64") / "site"), "PYTHONNOUSERSITE": "1"},
)
