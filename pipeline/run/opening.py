"""How a run begins: what a killed process left goes, and configuration and gates are fixed."""

from __future__ import annotations

from foundation.files import remove_leftovers
from foundation.record import FORMAT_VERSION, RunRecord
from foundation.run_folder import RunFolder
from pipeline.configuration import Configuration
from pipeline.machine.environment import describe
from pipeline.run.ledger import Ledger


def open_ledger(configuration: Configuration, run: RunFolder) -> Ledger:
    """Return the ledger of a run whose configuration and gates are fixed from here on; the folder's lock is held.

    What an earlier, killed process left half-written goes, and so do the measurements of another configuration.
    """
    remove_leftovers(run.root)
    record = RunRecord(
        name=configuration.name,
        configuration=configuration.as_json(),
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
