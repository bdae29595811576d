"""What a comparison needs of a run: its measurements and what they depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from foundation.errors import UsageError
from foundation.files import JSON, read_json, sha256_of_json
from foundation.record import Measurement
from foundation.run_folder import RunFolder


@dataclass(frozen=True)
class Evidence:
    """What a run says of itself, as far as a comparison needs it.

    Attributes:
        run: the run folder's name.
        configuration_sha256: digest of the configuration.
        gates_sha256: digest of the gates.
        data_sha256: digest over the prepared data's files; None where the run holds none.
        exit_code: the run's own exit code; None where it did not end.
        cpu_model: the processor that the latencies were measured on.
        packages: name to version; Python, edgeproof and the Intel Neural Compressor worker's own are among them.
        measurements: every measurement, the absent ones included.
    """

    run: str
    configuration_sha256: str
    gates_sha256: str
    data_sha256: str | None
    exit_code: int | None
    cpu_model: str
    packages: Mapping[str, str]
    measurements: tuple[Measurement, ...]

    def as_json(self) -> dict[str, JSON]:
        """Return the evidence as it stands in `accepted.json`."""
        record = asdict(self)
        record["measurements"] = [measurement.as_json() for measurement in self.measurements]
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, JSON]) -> Evidence:
        """Return the evidence that `as_json` wrote."""
        measurements = tuple(Measurement.from_json(entry) for entry in record["measurements"])
        return cls(**{**record, "measurements": measurements})


def read_evidence(run: RunFolder) -> Evidence:
    """Return what a run folder holds; a run that ended before validation has no measurements.

    Raises:
        UsageError: the folder is no run, or its files have another shape.
    """
    record = read_json(run.record)
    measured = read_json(run.measurements) if run.measurements.exists() else []
    try:
        data = {
            path: sha256
            for stage in record["stages"]
            for path, sha256 in stage["outputs"].items()
            if path.startswith("data/")
        }
        return Evidence(
            run=run.root.resolve().name,
            configuration_sha256=record["configuration_sha256"],
            gates_sha256=record["gates_sha256"],
            data_sha256=sha256_of_json(data) if data else None,
            exit_code=record["exit_code"],
            cpu_model=record["environment"]["cpu"]["model"],
            packages=_versions(record["environment"]),
            measurements=tuple(Measurement.from_json(entry) for entry in measured),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{run.root}: expected the files of a run, found another shape ({error!r}). "
            "Run again with this version of edgeproof."
        ) from error


def _versions(environment: Mapping[str, JSON]) -> dict[str, str]:
    own = {name: environment[name] for name in ("python", "edgeproof") if environment[name] is not None}
    worker = environment["neural_compressor"] or {}
    return {**own, **environment["packages"], **{f"{name} of the worker": found for name, found in worker.items()}}
