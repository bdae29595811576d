"""Answers the questions of one folder where this runs: Python, numpy and a runtime are all it needs.

`python answer.py FOLDER`. `FOLDER/job.json` names the files to ask; `FOLDER/answer.json` is written anew after each
of them, so that what breaks on one leaves what was answered before. A line on stdout follows each query: who
waits can tell that this still works. `by_RUNTIME.py` beside it opens the files. See `protocol.py` for the keys.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np

FORMAT_VERSION = 1
WARM_UPS = 3

_CPUID = bytes.fromhex("5389f889f14989d00fa241890041895804418948084189500c5bc3")
"""push rbx; eax = leaf; ecx = subleaf; r8 = where to; cpuid; store eax, ebx, ecx, edx; pop rbx; ret (System V)."""

_BITS = {  # Intel's manual, volume 2A, CPUID: leaf, subleaf, register, bit
    "avx2": (7, 0, 1, 5),
    "avx512f": (7, 0, 1, 16),
    "avx512_vnni": (7, 0, 2, 11),
    "avx_vnni": (7, 1, 0, 4),
    "avx512_bf16": (7, 1, 0, 5),
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


def runtime_named(name: str) -> ModuleType:
    """Return the file beside this one that knows a runtime; nothing else of this folder can be imported."""
    spec = spec_from_file_location(f"by_{name}", Path(__file__).with_name(f"by_{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answered(folder: Path, question: dict, job: dict, runtime: ModuleType) -> dict:  # type: ignore[type-arg]
    """Ask one file all its inputs, batch by batch, and write what it answers; return what was written."""
    ask, placement = runtime.opened(folder / question["model"], question, job)
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
        found = ask(feed)
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
    return {"outputs": outputs, "placement": placement, "times_ms": times}


def main(folder: Path) -> None:
    """Answer every question, one after the other; one that fails says why and lets the others be asked."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    runtime = runtime_named(job.get("runtime", "onnxruntime"))
    versions = {**runtime.versions(job), "python": platform.python_version(), "numpy": np.__version__}
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
            found = answered(folder, question, job, runtime)
        except Exception as error:  # whatever a runtime raises is an answer: this file does not run here
            found = {"error": (str(error).strip().splitlines() or [type(error).__name__])[0][:1000]}
        files[question["name"]] = found
        half_written = folder / "answer.json.new"
        half_written.write_text(json.dumps(answer), encoding="utf-8")
        half_written.replace(folder / "answer.json")
        print(f"{question['name']} done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
