"""Answers the questions of one folder where this runs: Python, numpy and ONNX Runtime are all it needs.

`python answer.py FOLDER`. `FOLDER/job.json` names the files to ask; `FOLDER/answer.json` is written anew after each
of them, so that what breaks on one leaves what was answered before. A line on stdout follows each query: who
waits can tell that this still works. See `protocol.py` for the keys.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

FORMAT_VERSION = 1
WARM_UPS = 3

_CPUID = bytes.fromhex("5389f889f14989d00fa241890041895804418948084189500c5bc3")
"""push rbx; eax = leaf; ecx = subleaf; r8 = where to; cpuid; store eax, ebx, ecx, edx; pop rbx; ret (System V)."""

_BITS = {  # Intel's manual, volume 2A, CPUID: leaf, subleaf, register, bit
    "avx2": (7, 0, 1, 5),
    "avx512f": (7, 0, 1, 16),
    "avx512_vnni": (7, 0, 2, 11),
    "avx_vnni": (7, 1, 0, 4),
    "amx_bf16": (7, 0, 3, 22),
    "amx_int8": (7, 0, 3, 25),
}


def features() -> list[str] | None:
    """Return what the processor itself says it can, by its own instruction; None where nobody can ask it.

    The operating system's list is of no use under an emulator, which shows the one of its host.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or os.name == "nt":
        return None
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_CPUID)
        start = ctypes.c_char.from_buffer(page)
        of_words = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)
        ask, words = of_words(ctypes.addressof(start)), (ctypes.c_uint32 * 4)()
        found = []
        for name, (leaf, subleaf, register, bit) in _BITS.items():
            ask(0, 0, ctypes.addressof(words))
            if words[0] < leaf:
                continue
            ask(leaf, subleaf, ctypes.addressof(words))
            if words[register] >> bit & 1:
                found.append(name)
        del start
    return found


def session_of(path: Path, job: dict) -> onnxruntime.InferenceSession:  # type: ignore[type-arg]
    """Open a file as the job says: the processor's own provider, or a plug-in's with its options."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
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


def answered(folder: Path, question: dict, job: dict) -> dict:  # type: ignore[type-arg]
    """Ask one file all its inputs, batch by batch, and write what it answers; return what was written."""
    session = session_of(folder / question["model"], job)
    batch, n = question["batch"], question["inputs"][0]["shape"][0]
    arrays = {
        one["name"]: np.fromfile(folder / one["file"], one["type"]).reshape(one["shape"])
        for one in question["inputs"]
    }
    parts: list[list[np.ndarray]] = []
    took_ns = []
    for start in (*[0] * (WARM_UPS if job["timed"] else 0), *range(0, n, batch)):
        feed = {name: np.ascontiguousarray(values[start : start + batch]) for name, values in arrays.items()}
        before = time.perf_counter_ns()
        found = session.run(question["outputs"], feed)
        took_ns.append(time.perf_counter_ns() - before)
        parts.append(found)
        print(f"{question['name']} {min(start + batch, n)} {n}", flush=True)
    warm_ups = len(parts) - len(range(0, n, batch))
    outputs = []
    for index, name in enumerate(question["outputs"]):
        whole = np.concatenate([np.asarray(one[index]) for one in parts[warm_ups:]])
        file = f"{question['name']}.{index}.raw"
        (folder / file).write_bytes(np.ascontiguousarray(whole).tobytes())
        outputs.append({"name": name, "file": file, "type": whole.dtype.name, "shape": list(whole.shape)})
    times = [one / 1e6 for one in took_ns[warm_ups:]] if job["timed"] else None
    return {"outputs": outputs, "placement": placement(session), "times_ms": times}


def main(folder: Path) -> None:
    """Answer every question, one after the other; one that fails says why and lets the others be asked."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    versions = {"onnxruntime": onnxruntime.__version__, "python": platform.python_version()}
    versions["numpy"] = np.__version__
    if "plug_in" in job:
        from importlib.metadata import version

        versions[job["plug_in"]["package"]] = version(job["plug_in"]["package"])
    files: dict[str, dict] = {}  # type: ignore[type-arg]
    answer = {
        "format_version": FORMAT_VERSION,
        "versions": versions,
        "machine": platform.machine(),
        "features": features(),
        "files": files,
    }
    for question in job["files"]:
        try:
            found = answered(folder, question, job)
        except Exception as error:  # whatever a runtime raises is an answer: this file does not run here
            found = {"error": (str(error).strip().splitlines() or [type(error).__name__])[0]}
        files[question["name"]] = found
        half_written = folder / "answer.json.new"
        half_written.write_text(json.dumps(answer), encoding="utf-8")
        half_written.replace(folder / "answer.json")
        print(f"{question['name']} done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
