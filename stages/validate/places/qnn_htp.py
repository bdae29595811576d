"""Qualcomm's NPU: its compiler and its emulation of the Hexagon processor, as a plug-in for onnxruntime."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from stages.validate.places.place import Place, folder_of, there, why_not_installed

PACKAGE = "onnxruntime-qnn==2.7.0"


def _steps(folder: Path) -> list[list[str]]:
    # Without its dependencies: the plug-in itself needs onnxruntime alone, which is here.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    return [[*pip, "--target", str(folder / "site"), PACKAGE]]


def _why_not() -> str | None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        found = f"{platform.system()} on {platform.machine()}"
        return f"qnn-htp: expected Linux on x86-64, found {found}. Ask this place on such a machine."
    return why_not_installed("qnn-htp", _steps)


PLACE = Place(
    kind="emulated",
    what="Qualcomm's HTP, emulated by QNN: evidence to hold against a device, no proof of one",
    why_not=_why_not,
    command=lambda job: [sys.executable, "-P", str(there("answer.py")), str(job)],
    steps=_steps,
    needs="Linux on x86-64",
    environment=lambda: {"PYTHONPATH": str(folder_of("qnn-htp") / "site")},
    meanings={
        "fallback to CPU EP has been explicitly disabled": "QNN does not take every node of it, and nothing may fall "
        "back to the processor here; compile it with target: qnn-htp",
        "was not selected by that EP": "QNN does not take every operator of it",
        "Failed to finalize QNN graph": "QNN's compiler does not take it",
    },
    job={
        "fixed_batch": True,
        # Nothing may be computed elsewhere under its name.
        "session": {"session.disable_cpu_ep_fallback": "1"},
        "plug_in": {
            "module": "onnxruntime_qnn",
            "package": "onnxruntime-qnn",
            "registration": "edgeproof-qnn",
            "backend": "get_qnn_htp_path",
            "options": {},
        },
    },
)
