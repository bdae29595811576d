"""Run one configuration in other places: folder, locale, time zone, hash seed, umask, and the machine's threads.

Every file is compared byte for byte, but those that hold times or latencies: `run.json`, the measurements, and the
report made of them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from campaign import Tally, differences, tell
from forked import files_of
from small_commands import CONFIGURATION
from whole_process import COMMAND, environment

WITH_TIMES = (
    "run.json",
    "validate/measurements.json",
    "validate/machine.json",
    "validate/placement.json",
    "report/",
    ".lock",
)
"""What holds seconds, latencies, the machine's load or the time of day; beginnings of paths in the run folder."""


@dataclass(frozen=True)
class Place:
    """What is other than usual."""

    folder: str = "plain"
    variables: Mapping[str, str] = field(default_factory=dict)
    umask: int = 0o022


PLACES: dict[str, Place] = {
    "folder with blanks and umlauts": Place("Bilder der Nächte/ü 1"),
    "tr_TR.UTF-8": Place(variables={"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"}),
    "LC_ALL=C, no UTF-8 mode": Place(variables={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "LC_ALL=POSIX": Place(variables={"LC_ALL": "POSIX"}),
    "TZ=Pacific/Kiritimati": Place(variables={"TZ": "Pacific/Kiritimati"}),
    "TZ=America/Anchorage": Place(variables={"TZ": "America/Anchorage"}),
    "PYTHONHASHSEED=1": Place(variables={"PYTHONHASHSEED": "1"}),
    "PYTHONHASHSEED=4242": Place(variables={"PYTHONHASHSEED": "4242"}),
    "umask 077": Place(umask=0o077),
    "umask 000": Place(umask=0o000),
    "OMP_NUM_THREADS=4": Place(variables={"OMP_NUM_THREADS": "4"}),
}


def places(scratch: Path, budget: int) -> list[Tally]:
    """Run in each place, or in as many as the budget has, and compare with the usual one."""
    usual = _run(scratch / "places", Place("usual", {"PYTHONHASHSEED": "0"}))
    if "export/fp32.onnx" not in usual:
        return [Tally("run", "place", 0, 0, tuple(f"places, the usual one: {find}" for find in usual))]
    chosen = list(PLACES)[: budget or None]
    available = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.lower()
    finds: list[str] = []
    for number, name in enumerate(chosen):
        if name.startswith("tr_TR") and "tr_tr" not in available:
            print(f"places: {name} is not installed here; the C library falls back to C, the variables are set")
        for find in differences(_run(scratch / f"place {number}", PLACES[name]), usual):
            tell(finds, f"places, {name}: {find}")
    return [Tally("run", "place", len(usual), len(chosen), tuple(finds))]


def _run(scratch: Path, place: Place) -> dict[str, bytes]:
    folder = scratch / place.folder
    folder.mkdir(parents=True)
    (folder / "tiny.json").write_text(json.dumps(CONFIGURATION))
    ended = subprocess.run(
        [*COMMAND, "run", "tiny.json", "--quiet"],
        cwd=folder,
        env=environment(**place.variables),
        umask=place.umask,
        capture_output=True,
        check=False,
    )
    if ended.returncode:
        return {f"an exit code of {ended.returncode}: {ended.stderr[-300:]!r}": b""}
    files = files_of(folder / "runs" / "tiny")
    modes = {path: (folder / "runs" / "tiny" / path).stat().st_mode & 0o777 for path in files}
    assert all(os.access(folder / "runs" / "tiny" / path, os.R_OK) for path in modes)
    return {path: content for path, content in files.items() if not path.startswith(WITH_TIMES)}
