"""What a comparison is made between: the record of a run and its measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from foundation.measurements import Measurement, read_measurements
from foundation.places import of_places, read_places
from foundation.record import RunRecord, read_record
from foundation.run_files import refuse_changed
from foundation.run_folder import RunFolder
from foundation.typed_files import CLOSED


@dataclass(frozen=True)
class Evidence:
    """A run, as far as it can be compared.

    Attributes:
        run: the run folder's name.
        record: of the run.
        measurements: every measurement made here and at the places of its configuration, the absent ones included;
            empty where the run ended before validation.
    """

    run: str
    record: RunRecord
    measurements: tuple[Measurement, ...]

    __pydantic_config__ = CLOSED

    @property
    def data_sha256(self) -> str | None:
        """Digest over the prepared data's files; None where the run holds none."""
        return self.record.data_sha256

    @property
    def packages(self) -> Mapping[str, str]:
        """Name → version; Python, edgeproof and the Intel Neural Compressor worker's own are among them."""
        environment = self.record.environment
        own = {"python": environment.python, "edgeproof": environment.edgeproof}
        worker = environment.neural_compressor or {}
        return {
            **{name: found for name, found in own.items() if found is not None},
            **environment.packages,
            **{f"{name} of the worker": found for name, found in worker.items()},
        }


def read_evidence(run: RunFolder) -> Evidence:
    """Return what a run folder holds, after every file was held against its record.

    A run that ended before validation has no measurements.

    Raises:
        UsageError: the folder is no run, its files have another shape, or one is not the one that was recorded.
    """
    record = read_record(run)
    refuse_changed(run, record)
    here = read_measurements(run.measurements) if run.measurements.exists() else ()
    elsewhere = of_places(one for one in read_places(run, record) if one.place in _configured_places(record))
    return Evidence(run.root.resolve().name, record, (*here, *elsewhere))


def _configured_places(record: RunRecord) -> tuple[str, ...]:
    """Return the places that each run of a configuration asks; what was asked by hand is not asked again tonight."""
    validation = record.configuration.get("validation")
    places = validation.get("places") if isinstance(validation, dict) else None
    at = places.get("at") if isinstance(places, dict) else None
    return tuple(at) if isinstance(at, list) else ()
