"""A candidate's speed at the place that the search compiles for, where that is a real one and installed here.

The provider of ONNX Runtime on this machine says little of what OpenVINO or a browser makes of the same file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.errors import StageError
from foundation.note_parts import Estimate
from stages.validate.places import PLACES
from stages.validate.places.questions import ask_model
from stages.validate.places.turns import measure_times, time_in_turns

_PLACE_OF: Mapping[str, str] = {"openvino": "openvino", "wasm": "wasm"}
"""Target → the place whose processor and runtime it is; the others are emulated, or are this machine's own."""


def place_for(target: str) -> str | None:
    """Return the installed place that a target's files are timed at; None where they are timed in this process."""
    name = _PLACE_OF.get(target)
    return name if name is not None and PLACES[name].why_not() is None else None


def speedup_at(name: str, reference: Path, candidate: Path, image: NDArray[np.uint8]) -> Estimate:
    """Return the float file's latency at a place over a candidate's, both in fresh processes that take turns.

    Args:
        name: of the place.
        reference: the float file.
        candidate: another file of the same input.
        image: uint8 [channels, height, width].

    Raises:
        StageError: the place cannot run one of them.
        NotMeasuredError: it is not installed.
    """
    questions = [
        ask_model(key, path, image[None], 1).question for key, path in (("fp32", reference), ("it", candidate))
    ]
    timed = time_in_turns(name, PLACES[name], questions)
    for one in timed.values():
        if one.durations_ms is None:
            raise StageError(f"{name}: {one.reason}")
    rows = measure_times(name, timed, {question.name: question.batch for question in questions})
    (found,) = (row for row in rows if (row.variant, row.metric) == ("it", "latency_speedup"))
    assert found.value is not None
    assert found.n is not None
    return Estimate(value=found.value, ci95=found.ci95, n=found.n)
