"""`edgeproof doctor`: what this machine has, what is missing and how to mend it."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundation.errors import EdgeproofError, ExitCode
from foundation.processor import INTEGER_TYPES, Cpu, detect_cpu, usable_cores
from foundation.versions import installed_version
from onnx_files.sessions import PROVIDERS, why_unavailable
from pipeline.machine.environment import (
    DISTRIBUTION,
    processor_name,
    relevant_features,
    requirements,
)
from stages.quantize.neural_compressor.environment import worker_python, worker_versions

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from rich.console import RenderableType

FREE_BYTES_WANTED = 2 * 1024**3
"""Room for the Intel Neural Compressor environment (600 MB) and a few runs."""


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: `missing` is needed by a full run; `warning` is optional, or may disturb it; `different` answers are
            not those that are known of such a machine.
        found: what is there.
        mend: what to do; "" where nothing is.
    """

    name: str
    status: Literal["ok", "missing", "warning", "different"]
    found: str
    mend: str = ""


def diagnose(folder: Path) -> tuple[Check, ...]:
    """Return what this machine has and lacks for a full run.

    Args:
        folder: where runs will be written.
    """
    cpu = detect_cpu()
    return (
        _python(),
        _edgeproof(),
        *(check_requirement(requirement) for requirement in requirements()),
        _processor(cpu),
        check_integer_types(cpu),
        _cores(cpu),
        *(_provider(name) for name in PROVIDERS),
        _neural_compressor(),
        check_disk(folder),
    )


def diagnose_deeply() -> tuple[Check, ...]:
    """Return whether the built-in reference model answers here as it is known to; it is compiled on the way."""
    from pipeline.machine.reference import Outcome, check_reference

    statuses: dict[Outcome, Literal["ok", "warning", "different"]] = {
        "equal": "ok", "close": "ok", "unable": "warning", "different": "different",
    }  # fmt: skip
    mend = (
        "Something below the model changed: compare `edgeproof doctor` with a machine that answers as known, before "
        "you trust a run of this one."
    )
    with tempfile.TemporaryDirectory(prefix="edgeproof-") as folder:
        found = check_reference(Path(folder))
    return tuple(
        Check(
            f"reference {one.variant}", statuses[one.outcome], one.found, mend if one.outcome == "different" else ""
        )
        for one in found
    )


def exit_code(checks: Iterable[Check]) -> ExitCode:
    """Return 3 where something that a full run needs is missing, 1 where answers are wrong, 0 otherwise."""
    statuses = {check.status for check in checks}
    if "missing" in statuses:
        return ExitCode.INCOMPLETE
    return ExitCode.GATE_FAILED if "different" in statuses else ExitCode.PASSED


def checks_table(checks: Iterable[Check]) -> RenderableType:
    """Return the checks as a table of at most 80 columns, and below it how to mend what is not in order."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "warning": "yellow", "missing": "bold red", "different": "bold red"}
    table = Table(width=80, box=None, pad_edge=False)
    for heading in ("", "check", "found"):
        table.add_column(heading, overflow="fold")
    mends: list[RenderableType] = []
    for check in checks:
        table.add_row(Text(check.status, style=styles[check.status]), Text(check.name), Text(check.found))
        if check.mend:
            mends.append(Padding(Text(f"{check.name}: {check.mend}"), (1, 0, 0, 0)))
    return Group(table, *mends)


def check_requirement(requirement: Requirement) -> Check:
    """Return whether a distribution is installed in its declared range; one of an extra is optional."""
    name, wanted = requirement.name, str(requirement.specifier) or "any version"
    optional = requirement.marker is not None and "extra" in str(requirement.marker)
    found = installed_version(name)
    install = f'Install it with `pip install "{name}{requirement.specifier}"`.'
    if found is None:
        return Check(name, "warning" if optional else "missing", f"not installed, expected {wanted}", install)
    if not requirement.specifier.contains(found, prereleases=True):
        return Check(name, "warning", f"{found}, expected {wanted}", install)
    return Check(name, "ok", found)


def check_integer_types(cpu: Cpu) -> Check:
    """Return which int8 types are exact and fast on a processor."""
    name = "int8 types"
    if cpu.target is None:
        return Check(
            name,
            "warning",
            f"none known for {cpu.model}",
            "Set activation_type, weight_type and reduce_range of static variants yourself instead of auto.",
        )
    types = INTEGER_TYPES[cpu.target]
    reduced = ", weights in 7 bits (reduce_range): full range saturates here" if types.reduce_range else ""
    return Check(name, "ok", f"{types.activation} activations × {types.weight} weights{reduced}")


def check_disk(folder: Path) -> Check:
    """Return whether there is room for runs in a folder, or in the nearest folder above it that exists."""
    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / 1024**3:.1f} GiB free in {existing}"
    if free < FREE_BYTES_WANTED:
        return Check("disk", "warning", found, "Free at least 2 GiB, or write runs to another disk.")
    return Check("disk", "ok", found)


def _python() -> Check:
    import importlib.metadata

    from packaging.specifiers import SpecifierSet

    found = platform.python_version()
    if installed_version(DISTRIBUTION) is None:
        return Check("python", "ok", found)
    wanted = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    if not SpecifierSet(wanted).contains(found, prereleases=True):
        return Check("python", "missing", f"{found}, expected {wanted}", f"Install Python {wanted}.")
    return Check("python", "ok", found)


def _edgeproof() -> Check:
    found = installed_version(DISTRIBUTION)
    if found is None:
        mend = "Install it with `pip install .` in its folder; without that the packages cannot be checked."
        return Check(DISTRIBUTION, "warning", "not installed, run from its source", mend)
    return Check(DISTRIBUTION, "ok", found)


def _processor(cpu: Cpu) -> Check:
    features = " ".join(relevant_features(cpu)) or "no instruction sets told"
    return Check("processor", "ok", f"{processor_name(cpu)}, target {cpu.target or 'none'}: {features}")


def _cores(cpu: Cpu) -> Check:
    usable = usable_cores()
    found = f"{usable} of {cpu.logical_cores} logical cores usable"
    if usable < 2:
        return Check(
            "cores",
            "warning",
            found,
            "Latencies share the only core with the system: expect wide intervals, or measure on a larger machine.",
        )
    return Check("cores", "ok", f"{found}; measure with at most {usable} threads")


def _provider(name: str) -> Check:
    reason = why_unavailable(name)
    if reason is None:
        return Check(f"provider {name}", "ok", "available")
    return Check(f"provider {name}", "missing" if name == "cpu" else "warning", "not available", reason)


def _neural_compressor() -> Check:
    name = "neural-compressor environment"
    try:
        python = worker_python()
        versions = worker_versions() or {}
    except EdgeproofError as error:
        return Check(name, "missing", "not available", str(error))
    told = ", ".join(f"{package} {found}" for package, found in versions.items())
    return Check(name, "ok", f"{told} ({python})")
