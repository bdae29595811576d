"""How a run begins: its folder is its own, what a killed process left goes, configuration and gates are fixed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from foundation.errors import UsageError
from foundation.files import remove_leftovers
from foundation.lock import LOCK_NAME, lock_folder
from foundation.record import FORMAT_VERSION, RunRecord
from foundation.run_folder import RunFolder
from pipeline.configuration import Configuration
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
    if ledger.earlier is not None and ledger.earlier.configuration_sha256 != configuration.sha256:
        run.measurements.unlink(missing_ok=True)
        run.image_by_image.unlink(missing_ok=True)
    return ledger
