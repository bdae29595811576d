"""The accepted run of a folder of runs: `accepted.json`, written by a person's decision, read by every nightly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import ExitCode, UsageError
from foundation.files import JSON, read_json, sha256_of_json, write_json
from foundation.run_folder import RunFolder
from pipeline.judge.evidence import Evidence, read_evidence

ACCEPTED_NAME = "accepted.json"
FORMAT_VERSION = 1


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
        """Whether the run's folder, where it still exists, says what it said when it was accepted."""
        run = RunFolder(self.folder)
        return not run.record.exists() or essential_sha256(run) == self.sha256


def accept(run: RunFolder, family: Path, *, reason: str | None = None) -> Accepted:
    """Make a run the one that later runs of its family are compared with.

    Args:
        run: the run; it ended with exit code 0, or `reason` says why it is accepted all the same.
        family: the folder of the runs, where `accepted.json` is written atomically; usually `run.root.parent`.
        reason: one sentence, kept in `accepted.json`.

    Raises:
        UsageError: the run is no run, has no measurements, or has another exit code and no reason.
    """
    evidence = read_evidence(run)
    if evidence.exit_code != ExitCode.PASSED and not (reason and reason.strip()):
        found = "no exit code: it did not end" if evidence.exit_code is None else f"exit code {evidence.exit_code}"
        raise UsageError(
            f"{run.root}: expected a run that passed its gates (exit code 0), found {found}. "
            "Accept another run, or say why this one is acceptable with a reason."
        )
    if all(measurement.value is None for measurement in evidence.measurements):
        raise UsageError(
            f"{run.root}: expected measurements, found none; later runs could not be compared with it. "
            "Accept a run that ended its validation."
        )
    accepted = Accepted(evidence, run.root, essential_sha256(run), reason)
    write_json(
        family / ACCEPTED_NAME,
        {
            "format_version": FORMAT_VERSION,
            "folder": os.path.relpath(run.root, family),
            "run_sha256": accepted.sha256,
            "reason": reason,
            "evidence": evidence.as_json(),
        },
    )
    return accepted


def read_accepted(family: Path) -> Accepted | None:
    """Return the accepted run of a folder of runs; None where none was accepted yet.

    Raises:
        UsageError: `accepted.json` is there and is not what `accept` writes.
    """
    path = family / ACCEPTED_NAME
    if not path.exists():
        return None
    record = read_json(path)
    try:
        if record["format_version"] != FORMAT_VERSION:
            raise KeyError("format_version")
        evidence = Evidence.from_json(record["evidence"])
        return Accepted(evidence, family / record["folder"], record["run_sha256"], record["reason"])
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: expected an accepted run of format_version {FORMAT_VERSION}, found another shape ({error!r}). "
            "Accept a run again with `edgeproof accept RUN`."
        ) from error


def essential_sha256(run: RunFolder) -> str:
    """Return the digest over what `run.json` says was run and came out, without times and cache.

    Raises:
        UsageError: `run.json` is missing or has another shape.
    """
    record = read_json(run.record)
    try:
        return sha256_of_json(_essentials(record))
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"{run.record}: expected a run record, found another shape ({error!r}). Run again."
        ) from error


def _essentials(record: Mapping[str, JSON]) -> dict[str, JSON]:
    keys = ("configuration_sha256", "gates_sha256", "environment", "variants", "verdicts", "exit_code")
    stages = [{key: stage[key] for key in ("name", "inputs", "outputs")} for stage in record["stages"]]
    return {**{key: record[key] for key in keys}, "stages": stages}
