"""ONNX Runtime, as `answer.py` asks it: the processor's own provider, or a plug-in's."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime


def versions(job: dict) -> dict[str, str]:  # type: ignore[type-arg]
    """Return what runs here, name → version."""
    found = {"onnxruntime": onnxruntime.__version__}
    if "plug_in" in job:
        from importlib.metadata import version

        found[job["plug_in"]["package"]] = version(job["plug_in"]["package"])
    return found


def opened(path: Path, question: dict, job: dict) -> tuple[Callable[..., list[np.ndarray]], dict | None]:  # type: ignore[type-arg]
    """Return what answers a query, from inputs by name to the wanted outputs in their order, and where nodes run."""
    session = session_of(path, job)

    def ask(feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return [np.asarray(one) for one in session.run(question["outputs"], dict(feed))]

    return ask, placement(session)


def session_of(path: Path, job: dict) -> onnxruntime.InferenceSession:  # type: ignore[type-arg]
    """Open a file as the job says: the processor's own provider, or a plug-in's with its options."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not job.get("optimized", True):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for key, value in job.get("session", {}).items():
        options.add_session_config_entry(key, value)
    if job.get("fixed_batch"):
        fix_dimensions(path, options)
    plug_in = job.get("plug_in")
    if plug_in is None:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    devices = [one for one in devices_of(plug_in) if one.device.type == onnxruntime.OrtHardwareDeviceType.CPU]
    if not devices:
        raise RuntimeError(f"{plug_in['module']} offers no device on this machine ({platform.machine()})")
    options.add_provider_for_devices(devices, plug_in["options"])
    return onnxruntime.InferenceSession(path, options, enable_fallback=0)


def fix_dimensions(path: Path, options: onnxruntime.SessionOptions) -> None:
    """Have one image a query where the file leaves that open: a compiler of fixed graphs takes no other."""
    opened = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for name in {one.shape[0] for one in opened.get_inputs() if one.shape and isinstance(one.shape[0], str)}:
        options.add_free_dimension_override_by_name(name, 1)


def devices_of(plug_in: dict) -> list:  # type: ignore[type-arg]
    """Register a plug-in, once, and return the devices that it offers under its own plain name."""
    from importlib import import_module

    module = import_module(plug_in["module"])
    name = plug_in["registration"]
    known = {one.ep_name for one in onnxruntime.get_ep_devices()}
    if not known & {name, module.get_ep_name()}:
        onnxruntime.register_execution_provider_library(name, module.get_library_path())
    if "backend" in plug_in:
        plug_in["options"]["backend_path"] = getattr(module, plug_in["backend"])()
    return [one for one in onnxruntime.get_ep_devices() if one.ep_name in (name, module.get_ep_name())]


def placement(session: onnxruntime.InferenceSession) -> dict | None:  # type: ignore[type-arg]
    """Return provider → operator → how many nodes ran there; None where this runtime does not tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    found: dict[str, dict[str, int]] = {}
    for part in session.get_provider_graph_assignment_info():
        of_provider = found.setdefault(part.ep_name, {})
        for node in part.get_nodes():
            of_provider[node.op_type] = of_provider.get(node.op_type, 0) + 1
    return found
