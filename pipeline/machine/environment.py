"""The machine and the software that a run's numbers belong to, as `run.json` records them."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.processor import Cpu, detect_cpu
from foundation.record import Environment
from foundation.versions import installed_version
from onnx_files.sessions import available_providers
from pipeline.run.sources import sources_sha256
from stages.quantize.neural_compressor.environment import worker_versions

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "edgeproof"

RELEVANT_FEATURES = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm"
)  # fmt: skip
"""Instruction sets that matter to inference, as Linux names them: asimd is NEON, asimddp its dot products."""

_BOARD_NAME = Path("/proc/device-tree/model")


def describe() -> Environment:
    """Return the versions, the processor and the providers of this machine.

    Raises:
        UsageError: the environment variable for Intel Neural Compressor's worker names something unusable.
    """
    versions = {requirement.name: installed_version(requirement.name) for requirement in requirements()}
    return Environment(
        edgeproof=installed_version(DISTRIBUTION),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=described_cpu(),
        packages={name: found for name, found in sorted(versions.items()) if found is not None},
        providers=tuple(available_providers()),
        neural_compressor=worker_versions(),
        sources_sha256=sources_sha256("pipeline.flow"),
    )


def described_cpu() -> Cpu:
    """Return this machine's processor as a record has it."""
    cpu = detect_cpu()
    return replace(cpu, model=processor_name(cpu), features=relevant_features(cpu))


def relevant_features(cpu: Cpu) -> tuple[str, ...]:
    """Return those of a processor's instruction sets that matter to inference."""
    return tuple(feature for feature in RELEVANT_FEATURES if feature in cpu.features)


def processor_name(cpu: Cpu, board_name: Path = _BOARD_NAME) -> str:
    """Return the processor's trade name; on ARM boards, whose processors have none, the board's.

    Two boards must not look alike: latencies are compared only between equal names.
    """
    if cpu.model != platform.machine() or not board_name.exists():
        return cpu.model
    return board_name.read_text(encoding="utf-8", errors="replace").strip("\0\n ")


def requirements() -> tuple[Requirement, ...]:
    """Return the distributions that edgeproof needs on this machine and those of its optional providers."""
    from packaging.requirements import Requirement

    try:
        declared = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # run from its source without being installed
        return ()
    wanted = []
    for line in declared:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or marker.evaluate({"extra": "openvino"}):
            wanted.append(requirement)
    return tuple(wanted)
