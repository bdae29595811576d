"""`edgeproof import`: what a kit found on a device, taken into the run it came from and judged by the run's gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from foundation.errors import ExitCode, UsageError
from foundation.files import JSON
from foundation.places import PlaceRecord, read_places
from foundation.record import RunRecord, Verdict, read_record
from foundation.run_files import refuse_changed
from foundation.run_folder import RunFolder
from pipeline.device.device_file import DeviceFile, Leg, read_device_file
from pipeline.device.handed_out import HandedOut, files_of, kit_of
from pipeline.device.there import Likeness, likeness_of, measurements_of
from pipeline.places.keep import keep_places
from reports import REPORT_FILES
from stages.validate.places import PLACES

_OF_A_KIT = "device kit, "


@dataclass(frozen=True)
class Taken:
    """What became part of a run.

    Attributes:
        run: the folder.
        variant: that was measured.
        places: the names under which the report shows it, one for each provider.
        likeness: of each leg.
        verdicts: of the gates that name the variant at one of the places.
        remarks: what its user must know, as sentences.
    """

    run: RunFolder
    variant: str
    places: tuple[str, ...]
    likeness: tuple[Likeness, ...]
    verdicts: tuple[Verdict, ...]
    remarks: tuple[str, ...]

    @property
    def exit_code(self) -> ExitCode:
        """0 where every leg gave the reviewed answers and no gate on it failed, 1 otherwise."""
        failed = any(verdict.status == "failed" for verdict in self.verdicts)
        return ExitCode.GATE_FAILED if failed or not all(one.same for one in self.likeness) else ExitCode.PASSED

    @property
    def sentence(self) -> str:
        """The outcome, a line for each leg and gate."""
        lines = [f"{self.variant} at {', '.join(self.places)}, now in {self.run.report / 'index.html'}"]
        lines += [f"  {one.sentence}" for one in self.likeness]
        lines += [f"  gate {verdict.status}: {verdict.gate}" for verdict in self.verdicts]
        return "\n".join(lines)

    def as_json(self) -> dict[str, JSON]:
        """Return it as `--json` prints it."""
        return {
            "exit_code": int(self.exit_code),
            "run": str(self.run.root),
            "variant": self.variant,
            "places": list(self.places),
            "legs": [{"same": one.same, "sentence": one.sentence} for one in self.likeness],
            "gates": [{"gate": verdict.gate, "status": verdict.status} for verdict in self.verdicts],
            "remarks": list(self.remarks),
        }


def take_device(run: RunFolder, path: Path, name: str | None) -> Taken:
    """Make what a kit found on a device part of the run that the kit came from.

    Each provider is a place of its own: the device's name, and `NAME.webgpu` beside it. The same file again changes
    nothing; another one of the same device and variant takes its place.

    Args:
        run: a finished run.
        path: `device.json`.
        name: what the device is called in place of its own name; None for that.

    Raises:
        UsageError: the run is none or was changed; the file is no `device.json`, or of another run or kit; or the
            name is none or another place's.
    """
    record = read_record(run)
    besides = {(run.report / name).relative_to(run.root).as_posix() for name in REPORT_FILES}
    refuse_changed(run, record, besides=besides)
    device = read_device_file(path)
    kit = kit_of(run, record, device, path)
    if name is not None:
        _refuse_bad_name(name)
        device = replace(device, name=name)
    likeness = tuple(likeness_of(kit, leg, path) for leg in device.legs)
    places = [_place(run, record, kit, device, provider, path) for provider in _providers(device.legs)]
    after = keep_places(run, places)
    names = tuple(place.place for place in places)
    verdicts = tuple(
        verdict
        for verdict, gate in zip(after.verdicts, after.configuration.get("gates") or (), strict=False)
        if isinstance(gate, dict) and gate.get("place") in names and gate.get("variant") == kit.variant
    )
    signed = "The run's record names the device now, so its signature is one of before: sign it again."
    return Taken(run, kit.variant, names, likeness, verdicts, (signed,) if run.signature.exists() else ())


def _place(
    run: RunFolder, record: RunRecord, kit: HandedOut, device: DeviceFile, provider: str, path: Path
) -> PlaceRecord:
    """Return a place with what it found of this variant; what it found of others before stays in the run."""
    legs = tuple(leg for leg in device.legs if leg.provider == provider)
    place = f"{device.name}.webgpu" if provider == "webgpu" else device.name
    earlier = next((one for one in read_places(run, record) if one.place == place), None)
    what = f"{_OF_A_KIT}{'a browser' if device.way == 'browser' else device.device.processor}, {device.device.system}"
    if place in PLACES or (earlier is not None and not earlier.what.startswith(_OF_A_KIT)):
        raise UsageError(f"{place}: expected the name of a device, found that of another place. Give --place NAME.")
    found = measurements_of(kit, device, legs, place, path)
    notes = tuple(likeness_of(kit, leg, path).sentence for leg in legs)
    return PlaceRecord(
        place=place,
        kind="real",
        what=what,
        data_sha256=record.data_sha256,
        files=files_of(kit),
        versions=dict(device.versions),
        measurements=tuple(found),
        notes={kit.variant: notes},
    )


def _providers(legs: Sequence[Leg]) -> list[str]:
    return sorted({leg.provider for leg in legs})


def _refuse_bad_name(name: str) -> None:
    import re

    from pipeline.device.kit.measure import NAME

    if not re.fullmatch(NAME, name):
        raise UsageError(f"--place: expected small letters, digits, . _ and -, at most 40, found {name[:60]!r}.")
