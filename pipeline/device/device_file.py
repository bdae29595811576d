"""`device.json`, as it may come from anybody: read with limits, nothing believed that the run can compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.errors import UsageError
from foundation.typed_files import CLOSED, read_typed
from pipeline.device.kit.measure import NAME

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MOST_BYTES = 16_000_000
_MOST_QUERIES = 1_000_000
_MEND = "Measure again with the kit."

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=300)]
Ms = Annotated[float, Field(ge=0.0, le=1e7)]
Block = Annotated[tuple[Ms, ...], Field(max_length=100_000, fail_fast=True)]
Process = Annotated[tuple[Block, ...], Field(max_length=1000, fail_fast=True)]
Durations = Annotated[tuple[Process, ...], Field(min_length=1, max_length=50, fail_fast=True)]
Each = Annotated[tuple[Ms, ...], Field(max_length=50)]
Output = Annotated[tuple[float, ...], Field(max_length=100_000, fail_fast=True)]
Outputs = Annotated[tuple[Output, ...], Field(max_length=64, fail_fast=True)]


@dataclass(frozen=True)
class Timed:
    """What fresh processes measured.

    Attributes:
        durations_ms: [processes, rounds, queries].
        load_ms: of each process, from the file to a session.
        first_inference_ms: of each, its first query.
        preprocessing_ms: of each, from pixels to the input; empty where nobody took it.
        kernel_ms: of the calibration kernel, in turns with the model; None where there was none.
        clock_ms: the smallest step of the clock.
        load_average: processes that ran or waited before, mean over a minute; None where the system does not tell.
        rules: processes, rounds, queries…
    """

    durations_ms: Durations
    load_ms: Each
    first_inference_ms: Each
    clock_ms: Annotated[float, Field(gt=0.0, le=1000.0)]
    rules: Annotated[dict[Text, Annotated[int, Field(ge=0, le=2**32)]], Field(max_length=20)]
    preprocessing_ms: Each = ()
    kernel_ms: Durations | None = None
    load_average: Annotated[float, Field(ge=0.0, le=1e6)] | None = None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class MapsThere:
    """How near each golden image's map came to the reviewed one: ‖difference‖ / ‖reviewed‖, and Spearman's."""

    distances: Annotated[tuple[Annotated[float, Field(ge=0.0, le=1e30)], ...], Field(max_length=64)]
    spearman: Annotated[tuple[Annotated[float, Field(ge=-1.0, le=1.0)], ...], Field(max_length=64)]

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class Leg:
    """One way in which the device ran the files.

    Attributes:
        provider: of the runtime.
        threads: of a session.
        outputs: [golden images, width], as the model gave them; None where it could not.
        maps: None where the kit has none, or the device could not.
        timing: None where nothing was timed.
        reason: why there is nothing.
    """

    provider: Literal["cpu", "wasm", "webgpu"]
    threads: Annotated[int, Field(ge=1, le=1024)]
    outputs: Outputs | None
    maps: MapsThere | None = None
    timing: Timed | None = None
    reason: Text | None = None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class Told:
    """What a device says of itself."""

    system: Text
    processor: Text
    cores: Annotated[int, Field(ge=1, le=100_000)] | None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class DeviceFile:
    """All of it.

    Attributes:
        name: what the device is called.
        way: what ran the kit.
        kit_sha256: of the kit's `kit.json`.
        files: name → sha256 of what ran.
        device: the device in its own words.
        versions: of what ran the files, name → version.
        legs: the ways in which it did.
        format_version: of the file.
    """

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    way: Literal["python", "browser"]
    kit_sha256: Sha256
    files: Annotated[dict[Text, Sha256], Field(max_length=100)]
    device: Told
    versions: Annotated[dict[Text, Text], Field(max_length=20)]
    legs: Annotated[tuple[Leg, ...], Field(min_length=1, max_length=16)]
    format_version: Literal[1] = field(default=1)

    __pydantic_config__ = CLOSED


def read_device_file(path: Path) -> DeviceFile:
    """Return what a kit wrote on a device.

    Raises:
        UsageError: the file is missing, larger than `MOST_BYTES`, or anything but such a file: with NaN, negative
            times or lists that are too long.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size > MOST_BYTES:
        raise UsageError(
            f"{path}: expected the device.json of a kit, at most {MOST_BYTES} bytes; found {size}. {_MEND}"
        )
    if not path.exists():
        raise UsageError(f"{path}: expected the device.json that a kit wrote, found nothing. Check the path.")
    found = read_typed(path, _adapter(), "the device.json of a kit, of format_version 1", _MEND, (1,))
    for leg in found.legs:
        if leg.timing is not None:
            durations_of(leg.timing, path)
    return found


def durations_of(timing: Timed, path: Path) -> NDArray[np.float64]:
    """Return the times of all queries, float64 [processes, rounds, queries].

    Raises:
        UsageError: processes did not all take as many, or the file holds none, or too many.
    """
    shapes = {(len(of_process), *{len(block) for block in of_process}) for of_process in timing.durations_ms}
    processes = len(timing.durations_ms)
    shape = next(iter(shapes))
    whole = len(shapes) == 1 and len(shape) == 2 and min(shape) > 0
    if not whole or not len(timing.load_ms) == len(timing.first_inference_ms) == processes:
        raise UsageError(
            f"{path}: expected as many rounds and queries of every process, found times that do not fit. {_MEND}"
        )
    if processes * shape[0] * shape[1] > _MOST_QUERIES:
        raise UsageError(f"{path}: expected at most {_MOST_QUERIES} queries, found more. {_MEND}")
    return np.array(timing.durations_ms, dtype=np.float64)


@cache
def _adapter() -> TypeAdapter[DeviceFile]:
    from pydantic import TypeAdapter

    return TypeAdapter(DeviceFile)
