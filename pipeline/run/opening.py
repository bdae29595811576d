"""How a run begins: its folder is its own, what a killed process left goes, configuration and gates are fixed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pydantic import ValidationError

from foundation.errors import UsageError
from foundation.files import JSON, remove_leftovers
from foundation.lock import LOCK_NAME, lock_folder
from foundation.record import FORMAT_VERSION, GateChange, RunRecord
from foundation.run_folder import RunFolder
from pipeline.configuration import Configuration
from pipeline.judge.gate import Gate
from pipeline.machine.environment import describe
from pipeline.run.ledger import Ledger


@contextmanager
def held_run(run: RunFolder) -> Iterator[None]:
    """Hold a run's folder for this process while the block runs.

    Raises:
        UsageError: files of somebody else's lie where a run's would, or another process holds the folder.
    """
    ours = (run.record, run.root / LOCK_NAME)
    if not any(path.exists() for path in ours):
        taken = [path.name for path in run.own_folders if path.exists()]
        if taken:
            raise UsageError(
                f"{run.root}: expected a new folder or one of an earlier run, found a folder without `run.json` that "
                f"holds {', '.join(f'`{name}`' for name in taken)} already. Choose another folder with --run."
            )
    with lock_folder(run.root):
        yield


def open_ledger(configuration: Configuration, run: RunFolder) -> Ledger:
    """Return the ledger of a run whose configuration and gates are fixed from here on; the folder's lock is held.

    What an earlier, killed process left half-written goes, and so do the measurements of another configuration.
    """
    remove_leftovers(run.root)
    record = RunRecord(
        name=configuration.name,
        configuration=configuration.without_folders(),
        configuration_sha256=configuration.sha256,
        gates_sha256=configuration.gates_sha256,
        dataset=configuration.data.source.name,
        environment=describe(),
        task=None,
        synthetic=False,
        classes=(),
        variants=(),
        stages=(),
        verdicts=(),
        exit_code=None,
        format_version=FORMAT_VERSION,
    )
    ledger = Ledger.open(run, record)
    if ledger.earlier is not None:
        changes = (*ledger.earlier.gate_changes, *_changed_gates(configuration, ledger.earlier, run))
        ledger.record = replace(ledger.record, gate_changes=changes)
    if ledger.earlier is not None and ledger.earlier.configuration_sha256 != configuration.sha256:
        run.measurements.unlink(missing_ok=True)
        run.image_by_image.unlink(missing_ok=True)
        run.answers.unlink(missing_ok=True)
    return ledger


def _changed_gates(configuration: Configuration, earlier: RunRecord, run: RunFolder) -> tuple[GateChange, ...]:
    """Return how the gates differ from those that were there when this folder's measurements were taken."""
    measured = any(stage.kind == "validate" and stage.succeeded for stage in earlier.stages)
    if not (measured or earlier.verdicts or earlier.gate_changes or run.measurements.exists()):
        return ()
    given = earlier.configuration.get("gates")
    old = tuple(_name_of(gate) for gate in given) if isinstance(given, list) else ()
    new = tuple(gate.name for gate in configuration.gates)
    if old == new:
        return ()
    return (GateChange(tuple(one for one in old if one not in new), tuple(one for one in new if one not in old)),)


def _name_of(gate: JSON) -> str:
    """Return a recorded criterion as one reads it; as it is where this version does not know it."""
    try:
        return Gate.model_validate(gate).name
    except ValidationError:
        return str(gate)
