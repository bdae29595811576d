"""What a device's answers and times are worth, as measurements of its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foundation.artifacts import Task
from foundation.errors import UsageError
from foundation.files import JSON
from foundation.measurements import Measurement, Where
from onnx_files.answers import AnswerForm
from pipeline.device.device_file import DeviceFile, Leg, Timed, durations_of
from pipeline.device.golden import decisions
from pipeline.device.handed_out import HandedOut
from stages.validate import latency_intervals, metrics
from stages.validate.intervals.estimates import Estimate
from stages.validate.intervals.proportions import wilson_interval
from stages.validate.latency import QUANTILES
from stages.validate.measurements import measured, not_measured

if TYPE_CHECKING:
    from collections.abc import Iterator

_FINE_CLOCK = 10
"""A percentile below so many steps of the clock would be a count of steps."""
_GOLDEN = "golden images alone: an interval over them would speak of how they were chosen"


@dataclass(frozen=True)
class Likeness:
    """How near the answers of one leg came to the reviewed ones.

    Attributes:
        same: whether answers and maps are the reviewed ones, within the kit's bounds.
        sentence: that, with its numbers.
    """

    same: bool
    sentence: str


def likeness_of(kit: HandedOut, leg: Leg, path: Path) -> Likeness:
    """Return whether a leg gave the reviewed answers and maps.

    Raises:
        UsageError: there are not as many answers as golden images, or of another width.
    """
    how = f"{leg.provider}, {leg.threads} thread{'s' if leg.threads > 1 else ''}"
    if leg.outputs is None:
        return Likeness(False, f"{how}: not measured ({leg.reason or 'it says nothing of why'})")
    found, bounds = _outputs(kit, leg, path), kit.facts["bounds"]
    largest = float(np.abs(found.astype(np.float64) - kit.outputs).max())
    furthest = max(leg.maps.distances, default=0.0) if leg.maps else 0.0
    same = largest <= bounds["outputs"] and furthest <= bounds["maps"]
    answers = (
        "answers equal bit for bit"
        if _equal(found, kit).all()
        else (f"answers differ by at most {largest:.3g} (bound {bounds['outputs']:.3g})")
    )
    maps = ""
    if leg.maps is not None:
        far = f"differ by at most {furthest:.3g} of their norm (bound {bounds['maps']:.3g})"
        maps = f", maps {far if furthest else 'equal'}"
    return Likeness(same, f"{how}: {'same' if same else 'DIFFERENT'}, {answers}{maps}")


def measurements_of(
    kit: HandedOut, device: DeviceFile, legs: tuple[Leg, ...], place: str, path: Path
) -> list[Measurement]:
    """Return everything that was measured at a place; of answers, those of the leg that came least near."""
    answered = [leg for leg in legs if leg.outputs is not None]
    rows: list[Measurement] = []
    if answered:
        worst = max(answered, key=lambda leg: _largest(kit, leg, path))
        rows += _answers(kit, worst, place, path)
    for leg in sorted(legs, key=lambda leg: -leg.threads):
        if leg.timing is not None:
            rows += _times(kit, leg, leg.timing, place, path)
    return rows


# --- answers ---


def _answers(kit: HandedOut, leg: Leg, place: str, path: Path) -> Iterator[Measurement]:
    where = Where(provider=leg.provider, threads=leg.threads, place=place)
    remarks: dict[str, JSON] = {"images": kit.facts["images"], "no_interval": _GOLDEN}
    found, wanted, task = _outputs(kit, leg, path), kit.outputs, _task(kit)
    kind, n = kit.facts["answers"]["kind"], len(kit.outputs)
    agreeing = (decisions(found, kind, task) == decisions(wanted, kind, task)).ravel()
    equal = _equal(found, kit)
    shares = {"place_agreement": agreeing, "place_bit_equal": equal}
    for name, right in shares.items():
        interval = wilson_interval(float(right.sum()), len(right))
        yield measured(
            name, kit.variant, Estimate(float(right.mean()), interval, n), where, {"images": kit.facts["images"]}
        )
    if kind != "label":
        there, here = _logits(kit, found), _logits(kit, wanted)
        sqnr = float(metrics.logits_sqnr_db(there, here, np.ones((1, n)))[0])
        largest = float(np.abs(there.astype(np.float64) - here).max())
        yield measured("place_logits_sqnr_db", kit.variant, Estimate(sqnr, None, n), where, remarks)
        yield measured("place_largest_difference", kit.variant, Estimate(largest, None, n), where, remarks)
    if leg.maps is not None and leg.maps.spearman:
        of_maps = Where(provider=leg.provider, threads=leg.threads, method="gradient", place=place)
        mean = float(np.mean(leg.maps.spearman))
        yield measured("place_saliency_spearman", kit.variant, Estimate(mean, None, n), of_maps, remarks)


def _outputs(kit: HandedOut, leg: Leg, path: Path) -> NDArray[np.float32]:
    wanted = kit.outputs.shape
    lengths = {len(row) for row in leg.outputs or ()}
    maps = 0 if leg.maps is None else len(leg.maps.distances)
    if (len(leg.outputs or ()), *lengths) != wanted or (leg.maps and not maps == len(leg.maps.spearman) == wanted[0]):
        raise UsageError(
            f"{path}: expected {wanted[0]} answers of {wanted[1]} numbers and as many maps, found others. "
            "Measure again with the kit."
        )
    with np.errstate(over="ignore"):
        found = np.array(leg.outputs, dtype=np.float32)
    if not np.isfinite(found).all():
        raise UsageError(
            f"{path}: expected answers that float32 holds, found larger ones. Measure again with the kit."
        )
    return found


def _largest(kit: HandedOut, leg: Leg, path: Path) -> float:
    return float(np.abs(_outputs(kit, leg, path).astype(np.float64) - kit.outputs).max())


def _equal(found: NDArray[np.float32], kit: HandedOut) -> NDArray[np.bool_]:
    """Return which images are answered bit for bit as reviewed: bool [n]."""
    return np.asarray((found.view(np.uint32) == kit.outputs.view(np.uint32)).all(axis=1))


def _task(kit: HandedOut) -> Task:
    return "multi_label" if kit.facts["task"] == "multi_label" else "multi_class"


def _logits(kit: HandedOut, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    answers = kit.facts["answers"]
    if "width" not in answers:
        return outputs
    return AnswerForm(kit.facts["output"], answers["kind"], answers["width"], answers["classes"]).to_logits(outputs)


# --- times ---


def _times(kit: HandedOut, leg: Leg, timing: Timed, place: str, path: Path) -> Iterator[Measurement]:
    where = Where(provider=leg.provider, threads=leg.threads, batch_size=1, place=place)
    durations, first = durations_of(timing, path), len(timing.durations_ms)
    remarks: dict[str, JSON] = {
        "processes": first,
        **{k: v for k, v in timing.rules.items() if k not in ("processes", "seed")},
    }
    if timing.load_average is not None:
        remarks["load_average"] = timing.load_average
    yield from _percentiles(kit.variant, durations, timing.clock_ms, where, remarks)
    each = {
        "throughput_images_per_s": 1e3 / np.maximum(durations.mean(axis=(1, 2)), 1e-9),
        "preprocessing_ms": np.array(timing.preprocessing_ms),
        "load_ms": np.array(timing.load_ms),
        "first_inference_ms": np.array(timing.first_inference_ms),
    }
    for name, values in each.items():
        if len(values) == first > 1 and values.min() > 0:
            yield measured(
                name, kit.variant, latency_intervals.geometric_estimate(np.log(values), first), where, remarks
            )
    if timing.kernel_ms is not None:
        kernel = np.array(timing.kernel_ms, dtype=np.float64) if _fits(timing) else None
        if kernel is not None and first > 1 and min(kernel.min(), durations.min()) > 0:
            logs = latency_intervals.log_ratios(kernel, durations)
            found = latency_intervals.geometric_estimate(logs, first)
            yield measured("latency_against_kernel", kit.variant, found, where, remarks)


def _fits(timing: Timed) -> bool:
    """Whether the kernel was timed as often as the model."""
    shapes = [
        {(len(process), *(len(block) for block in process)) for process in of}
        for of in (timing.durations_ms, timing.kernel_ms or ())
    ]
    return shapes[0] == shapes[1] and len(timing.durations_ms) == len(timing.kernel_ms or ())


def _percentiles(
    variant: str, durations: NDArray[np.float64], clock_ms: float, where: Where, remarks: Mapping[str, JSON]
) -> Iterator[Measurement]:
    of_processes = durations.reshape(len(durations), -1)
    coarse = float(np.median(durations)) < _FINE_CLOCK * clock_ms
    for name, quantile in QUANTILES.items():
        estimate = None
        reason = f"the device's clock goes in steps of {clock_ms:.3g} ms, too coarse for this file"
        if not coarse and len(durations) > 1:
            estimate = latency_intervals.percentile_estimate(of_processes, quantile, len(durations))
            needed = latency_intervals.smallest_sample(quantile)
            reason = f"n too small: {durations.size} queries, and this percentile takes {needed}"
        if estimate is None:
            yield not_measured(name, variant, reason, where, remarks)
        else:
            yield measured(name, variant, estimate, where, remarks)
