"""OpenVINO's provider on this machine, in the precision of the files or in bfloat16 where the processor has AMX."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

from foundation.errors import NotMeasuredError
from foundation.files import JSON
from foundation.processor import detect_cpu
from onnx_files.sessions import why_unavailable
from stages.validate.places.place import Place, there

Precision = Literal["f32", "bf16"]


def _why_not() -> str | None:
    return why_unavailable("openvino")


def _why_no_bf16() -> str | None:
    if not {"amx_bf16", "amx_tile"} <= set(detect_cpu().features):
        return (
            "openvino-bf16: expected a processor with AMX, found one without, where bfloat16 is emulated and slow. "
            "Ask this place on such a machine."
        )
    return _why_not()


def _command(job: Path) -> list[str]:
    return [sys.executable, "-P", str(there("answer.py")), str(job)]


def _job(precision: Precision) -> dict[str, JSON]:
    # `num_of_threads` is ignored by the plug-in; the device's own property is what counts.
    properties = {"CPU": {"INFERENCE_NUM_THREADS": "1", "INFERENCE_PRECISION_HINT": precision}}
    return {
        "plug_in": {
            "module": "onnxruntime_ep_openvino",
            "package": "onnxruntime-ep-openvino",
            "registration": "edgeproof-openvino",
            "options": {"load_config": json.dumps(properties)},
        }
    }


def refuse_unavailable() -> None:
    """Do nothing where OpenVINO can be asked.

    Raises:
        NotMeasuredError: it cannot.
    """
    why_not = _why_not()
    if why_not is not None:
        raise NotMeasuredError(why_not)


def _place(precision: Precision) -> Place:
    return Place(
        kind="real",
        what=f"OpenVINO on this machine's processor, one thread{', in bfloat16' if precision == 'bf16' else ''}",
        why_not=_why_not if precision == "f32" else _why_no_bf16,
        command=_command,
        needs="an Intel processor and `pip install 'edgeproof[openvino]'`",
        job=_job(precision),
    )


PLACE, PLACE_BF16 = _place("f32"), _place("bf16")
