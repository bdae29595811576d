"""OpenVINO's own runtime on the processor, as `answer.py` asks it: it reads the ONNX file itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import openvino

_NO_RULE = "No conversion rule found for operations: "
_SAYS_NOTHING = ("Exception from ", "Check ", "FrontEnd API failed", "Model wasn't fully converted", "Summary:")
"""How those lines of its errors begin that tell where in its own code it stopped, not what stopped it."""


def versions(job: dict) -> dict[str, str]:  # type: ignore[type-arg]
    """Return what runs here, name → version."""
    return {"openvino": openvino.__version__}


def opened(path: Path, question: dict, job: dict) -> tuple[Callable[..., list[np.ndarray]], dict | None]:  # type: ignore[type-arg]
    """Return what answers a query, from inputs by name to the wanted outputs in their order, and where nodes run.

    The batch that a file leaves open is fixed to the one that is asked, as OpenVINO's manual has it: faster, and its
    compiler breaks on less.
    """
    try:
        model = openvino.Core().read_model(path)
        if question["inputs"][0]["shape"][0] % question["batch"] == 0:
            model.reshape({one["name"]: [question["batch"], *one["shape"][1:]] for one in question["inputs"]})
        properties = {**job["properties"], "INFERENCE_NUM_THREADS": job["threads"]}
        compiled = openvino.Core().compile_model(model, "CPU", properties)
    except RuntimeError as error:
        raise RuntimeError(_what_stopped_it(str(error))) from error
    wanted = job["properties"]["INFERENCE_PRECISION_HINT"]
    found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if found != wanted:
        raise RuntimeError(f"expected OpenVINO to compute in {wanted}, found that it computes in {found} here")
    request = compiled.create_infer_request()

    def ask(feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        request.infer(dict(feed))
        return [request.get_tensor(name).data.copy() for name in question["outputs"]]

    return ask, _placement(compiled)


def _placement(compiled: openvino.CompiledModel) -> dict[str, dict[str, int]]:
    """Return the type that is computed in → operator → how many, after OpenVINO's fusions; constants left out."""
    found: dict[str, dict[str, int]] = {}
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        operator, computed_in = (info[key].astype(str) for key in ("layerType", "runtimePrecision"))
        if operator not in ("Const", "Input", "Output"):
            of_type = found.setdefault(f"OpenVINO in {computed_in}", {})
            of_type[operator] = of_type.get(operator, 0) + 1
    return found


def _what_stopped_it(error: str) -> str:
    lines = [line.strip(" -") for line in error.splitlines()]
    unread = [line.removeprefix(_NO_RULE) for line in lines if line.startswith(_NO_RULE)]
    if unread:
        return f"OpenVINO has no rule for the operator {', '.join(unread)}"
    telling = [line for line in lines if line and not line.startswith(_SAYS_NOTHING)]
    return " ".join(telling or lines[:1])
