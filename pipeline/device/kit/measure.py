"""Check the kit, answer its golden images, time its model, and write `device.json`.

Python, numpy and onnxruntime are all it needs. Exit codes: 0 the answers and maps are the reviewed ones, 1 they are
not, 2 the kit was changed or the arguments are wrong, 3 something is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .files import FACTS, Kit, KitError, checked, own_kit

NAME = r"[a-z0-9][a-z0-9_.-]{0,39}"
SAME, DIFFERENT, REFUSED, MISSING = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None, kit: Kit | None = None) -> int:
    """Run the command line and return its exit code."""
    kit = kit or own_kit(__file__)
    if list(arguments if arguments is not None else sys.argv[1:]) == ["worker"]:
        from .timing import work

        work(kit)
        return SAME
    given = _parser().parse_args(arguments)
    try:
        return _measured(kit, given)
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED


def _measured(kit: Kit, given: argparse.Namespace) -> int:
    files = checked(kit)
    print(f"{len(files)} files are the ones that were bundled (sha256).")
    missing = [name for name in ("numpy", "onnxruntime") if find_spec(name) is None]
    if missing:
        print(
            f"error: expected {' and '.join(missing)}, found none. `pip install numpy onnxruntime`.", file=sys.stderr
        )
        return MISSING
    from .answers import answer_golden, expected, map_distances, rank_correlations, told

    facts = kit.facts()
    print(f"{facts['variant']} of the run {facts['run']}, {len(facts['golden'])} golden images")
    wanted = expected(kit, facts)
    legs, same = [], True
    for threads in given.threads:
        found = answer_golden(kit, facts, threads)
        fits, sentence = told(found, wanted, facts["bounds"])
        same = same and fits
        print(f"  {_counted(threads)}: {sentence}")
        maps = None
        if found.maps is not None and wanted.maps is not None:
            maps = {
                "distances": map_distances(found.maps, wanted.maps).tolist(),
                "spearman": rank_correlations(found.maps, wanted.maps).tolist(),
            }
        legs.append({"provider": "cpu", "threads": threads, "outputs": found.outputs.tolist(), "maps": maps})
    if not given.no_latency:
        _add_times(kit, facts, given.threads, legs)
    ran = {name: files[name] for name in sorted(files) if name in facts["files"] or name.endswith(".py")}
    device = _device(kit, given.name, ran, legs)
    text = json.dumps(device, sort_keys=True, allow_nan=False, separators=(",", ":"))
    written = given.output.with_name(f".{given.output.name}.part")
    written.write_text(text + "\n", encoding="utf-8")
    written.replace(given.output)
    print(
        f"{'The answers are the reviewed ones' if same else 'THE ANSWERS ARE NOT THE REVIEWED ONES'}: {given.output}"
    )
    return SAME if same else DIFFERENT


def _add_times(kit: Kit, facts: Mapping[str, Any], threads: Sequence[int], legs: list[dict[str, Any]]) -> None:
    from .timing import KERNEL, time_model

    rules = facts["timing"]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    times = time_model(kit, rules, threads, _progress)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for leg in legs:
        of_leg = times[leg["threads"]]
        shared = {"clock_ms": 1e-6, "load_average": load, "kernel_ms": times[KERNEL]["durations_ms"]}
        leg["timing"] = {**of_leg, **shared, "rules": dict(rules)}
        every = sorted(value for process in of_leg["durations_ms"] for block in process for value in block)
        print(f"  {_counted(leg['threads'])}: p50 {every[len(every) // 2]:.3g} ms (n = {len(every)})")


def _counted(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r  timing: {done} of {total} blocks", end="", file=sys.stderr, flush=True)


def _device(kit: Kit, name: str, ran: Mapping[str, str], legs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is handed out: what ran, on what, and what came of it; no name of a machine or of its user."""
    import numpy
    import onnxruntime

    return {
        "format_version": 1,
        "name": name,
        "way": "python",
        "kit_sha256": hashlib.sha256(kit.read(FACTS)).hexdigest(),
        "files": dict(ran),
        "device": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "versions": {
            "onnxruntime": onnxruntime.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "legs": list(legs),
    }


def _processor() -> str:
    """Return the processor's trade name, on boards the board's."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    return re.sub(r"[^ -~]", "", named.group(1) if named else platform.processor() or platform.machine())[:100]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="measure.py", description="Check, answer and time the kit on this device.")
    parser.add_argument("--name", type=_name, default=_name_of_this(), help="what the device is called in the report")
    parser.add_argument("--threads", type=_threads, default=[1], help="thread counts to answer and time with, as 1,4")
    parser.add_argument("--no-latency", action="store_true", help="answers and maps only")
    parser.add_argument(
        "--output", type=Path, default=Path("device.json"), help="file to write (default: device.json)"
    )
    return parser


def _name_of_this() -> str:
    return (
        re.sub(r"[^a-z0-9_.-]", "-", f"{platform.machine()}-{platform.system()}".lower())[:40].lstrip("_.-")
        or "device"
    )


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise argparse.ArgumentTypeError("expected small letters, digits, . _ and -, at most 40")
    return text


def _threads(text: str) -> list[int]:
    counts = [int(part) for part in text.split(",") if part.isdigit() and len(part) < 4]
    if not counts or len(counts) != len(text.split(",")) or min(counts) < 1 or len(set(counts)) < len(counts):
        raise argparse.ArgumentTypeError("expected different numbers of at least 1, as 1,4")
    return counts
