"""The accepted run of a folder of runs: `accepted.json`, written by a person's decision, read by every nightly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundation.errors import ExitCode, UsageError
from foundation.files import JSON, remove_leftovers_of, sha256_of_json
from foundation.record import RunRecord, read_record, record_adapter
from foundation.run_files import refuse_changed, why_unverified
from foundation.run_folder import RunFolder
from foundation.sealed_files import refuse_broken_seal, write_sealed
from foundation.typed_files import CLOSED, read_typed
from pipeline.judge.evidence import Evidence, read_evidence

if TYPE_CHECKING:
    from pydantic import TypeAdapter

ACCEPTED_NAME = "accepted.json"
FORMAT_VERSION: Literal[3] = 3
"""1 held a digest of each part of the run; 2 holds its record and is read as before; 3 carries its own digest."""
_READ_VERSIONS = (2, 3)
_MEND = "Accept a run again with `edgeproof accept RUN`."


@dataclass(frozen=True)
class Accepted:
    """The run that later runs are compared with, as a copy: its folder may be deleted.

    Attributes:
        evidence: the measurements and what they depend on.
        folder: where the run lay, or still lies.
        sha256: digest over what `run.json` says of configuration, gates, inputs and outputs.
        reason: why it was accepted with an exit code other than 0; None where the code is 0.
    """

    evidence: Evidence
    folder: Path
    sha256: str
    reason: str | None

    @property
    def is_intact(self) -> bool:
        """Whether the run's folder, where it still exists, holds what it held when it was accepted."""
        run = RunFolder(self.folder)
        try:
            if not run.record.exists():
                return True
            record = read_record(run)
            refuse_changed(run, record)
            return essential_sha256(record) == self.sha256
        except UsageError:  # changed since
            return False


@dataclass(frozen=True)
class _File:
    """What stands in `accepted.json`; the folder is relative to the file's own."""

    evidence: Evidence
    folder: str
    run_sha256: str
    reason: str | None
    format_version: Literal[2, 3]
    sha256: str | None = field(default=None, compare=False)

    __pydantic_config__ = CLOSED


def accept(run: RunFolder, family: Path, *, reason: str | None = None) -> Accepted:
    """Make a run the one that later runs of its family are compared with.

    Args:
        run: the run; it ended with exit code 0, or `reason` says why it is accepted all the same.
        family: the folder of the runs, where `accepted.json` is written atomically; usually `run.root.parent`.
        reason: one sentence, kept in `accepted.json`.

    Raises:
        UsageError: the run is no run, is not as it was recorded, has no measurements, or has another exit code and no
            reason.
    """
    evidence = read_evidence(run)
    unverified = why_unverified(evidence.record)
    if unverified is not None:
        raise UsageError(f"{run.root}: {unverified}")
    exit_code = evidence.record.exit_code
    if exit_code != ExitCode.PASSED and not (reason and reason.strip()):
        found = "no exit code: it did not end" if exit_code is None else f"exit code {exit_code}"
        raise UsageError(
            f"{run.root}: expected a run that passed its gates (exit code 0), found {found}. "
            "Accept another run, or say why this one is acceptable with a reason."
        )
    changes = evidence.record.gate_changes
    if changes and not (reason and reason.strip()):
        raise UsageError(
            f"{run.root}: expected gates that were fixed before the run. {' '.join(one.sentence for one in changes)} "
            "Accept another run, or say why this one is acceptable with a reason."
        )
    if all(measurement.value is None for measurement in evidence.measurements):
        raise UsageError(
            f"{run.root}: expected measurements, found none; later runs could not be compared with it. "
            "Accept a run that ended its validation."
        )
    accepted = Accepted(evidence, run.root, essential_sha256(evidence.record), reason)
    stored = _File(evidence, os.path.relpath(run.root, family), accepted.sha256, reason, FORMAT_VERSION)
    with _others_kept_out(family) as alone:
        if alone:
            remove_leftovers_of(family / ACCEPTED_NAME)
        write_sealed(family / ACCEPTED_NAME, _adapter().dump_python(stored, mode="json"))
    return accepted


@contextmanager
def _others_kept_out(family: Path) -> Iterator[bool]:
    """Let one process at a time accept, so that what lies half-written is a killed one's; yield whether that holds.

    The folder itself is locked: `.lock` is the nightly's, and a run may be accepted while the next one is under way.
    """
    import fcntl

    descriptor = os.open(family, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            alone = True
        except OSError:  # a network's file system that locks no folders
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def read_accepted(family: Path) -> Accepted | None:
    """Return the accepted run of a folder of runs; None where none was accepted yet.

    Raises:
        UsageError: `accepted.json` is there and is not what `accept` writes, or was edited.
    """
    path = family / ACCEPTED_NAME
    if not path.exists():
        return None
    stored = read_typed(
        path,
        _adapter(),
        f"an accepted run of format_version {FORMAT_VERSION}",
        _MEND,
        _READ_VERSIONS,
    )
    if stored.format_version == FORMAT_VERSION:
        refuse_broken_seal(path, _MEND)
    return Accepted(stored.evidence, family / stored.folder, stored.run_sha256, stored.reason)


def essential_sha256(record: RunRecord) -> str:
    """Return the digest over what a record says was run and came out, without times and cache."""
    values: dict[str, JSON] = record_adapter().dump_python(record, mode="json")
    environment = values["environment"]
    if isinstance(environment, dict) and environment["sources_sha256"] is None:  # accepted before it was recorded
        del environment["sources_sha256"]
    keys = ("configuration_sha256", "gates_sha256", "environment", "variants", "verdicts", "exit_code")
    stages = [{key: stage[key] for key in ("kind", "subject", "inputs", "outputs")} for stage in values["stages"]]
    return sha256_of_json({**{key: values[key] for key in keys}, "stages": stages})


@cache
def _adapter() -> TypeAdapter[_File]:
    from pydantic import TypeAdapter

    return TypeAdapter(_File)
