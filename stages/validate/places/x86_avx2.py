"""x86-64 with AVX2 and without VNNI, where U8S8 saturates: this Python and its ONNX Runtime under qemu."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

from foundation.errors import NotMeasuredError
from stages.validate.places.place import Place, there
from stages.validate.places.protocol import PlaceAnswer

_EMULATORS = ("qemu-x86_64-static", "qemu-x86_64")
_CPU = "Haswell"
_INSTALL = "apt-get install qemu-user-static"
_MUST_LACK = ("avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


def _why_not() -> str | None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        found = f"{platform.system()} on {platform.machine()}"
        return f"x86-avx2: expected Linux on x86-64, found {found}. Ask this place on such a machine."
    if _emulator() is None:
        return f"x86-avx2: expected {_EMULATORS[0]}, found none. Install it with `{_INSTALL}`."
    return None


def _emulator() -> str | None:
    return next((found for name in _EMULATORS if (found := shutil.which(name))), None)


def command_on(cpu: str, job: Path) -> list[str]:
    """Return the command that answers a job on one of qemu's processors."""
    return [_emulator() or _EMULATORS[0], "-cpu", cpu, sys.executable, "-P", str(there("answer.py")), str(job)]


def refuse_other_processors(answer: PlaceAnswer) -> None:
    """Accept answers of a processor with AVX2 and without anything that adds four products exactly.

    Raises:
        NotMeasuredError: it was another one, or cannot be asked what it is.
    """
    features = set(answer.features or ())
    if answer.machine != "x86_64" or "avx2" not in features or features & set(_MUST_LACK):
        raise NotMeasuredError(
            f"x86-avx2: expected an x86-64 processor with AVX2 and without {', '.join(_MUST_LACK)}, found "
            f"{answer.machine} with {', '.join(sorted(features)) or 'none of them'}. Use qemu 7.2 or newer, whose "
            f"`-cpu {_CPU}` is one."
        )


PLACE = Place(
    kind="emulated",
    what="x86-64 with AVX2 and without VNNI (qemu's Haswell)",
    why_not=_why_not,
    command=lambda job: command_on(_CPU, job),
    needs=f"qemu's user mode: `{_INSTALL}`",
    check=refuse_other_processors,
)
