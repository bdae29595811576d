"""A measurement: one number, where it belongs, and how it was measured; and the file that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from foundation.files import JSON, write_json
from foundation.typed_files import CLOSED, read_typed

if TYPE_CHECKING:
    from pydantic import TypeAdapter

RANDOM_MAP = "random-map"
CENTRE_PRIOR = "centre-prior"
UNINFORMED = (RANDOM_MAP, CENTRE_PRIOR)
"""The names under which maps that know nothing of the image are measured beside the variants: a floor to read their
saliency against, not variants that could pass, fail or get worse."""


@dataclass(frozen=True)
class Where:
    """What tells two measurements of one metric and variant apart; None: does not apply.

    Attributes:
        provider: the execution provider that ran the file.
        split: the images.
        threads: of the session, where time or memory was measured.
        batch_size: images per query, likewise.
        method: how the saliency maps were made.
        subgroup: the images of the split that count; None: all of them.
        per: what is decided about, "patient"; None: each image.
        change: how the images were made worse, kind and strength, "jpeg 3"; None: not at all.
        place: where the file answered, another processor, runtime or device, see `foundation.places`; None: here.
    """

    provider: str | None = None
    split: str | None = None
    threads: int | None = None
    batch_size: int | None = None
    method: str | None = None
    subgroup: str | None = None
    per: str | None = None
    change: str | None = None
    place: str | None = None

    __pydantic_config__ = CLOSED

    @property
    def settings(self) -> dict[str, str | int]:
        """What applies beside provider and split, by name."""
        named = {
            "threads": self.threads,
            "batch_size": self.batch_size,
            "method": self.method,
            "subgroup": self.subgroup,
            "per": self.per,
            "change": self.change,
            "place": self.place,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class PairedDifference:
    """How a variant's number differs from fp32's on the same images, paired by image, groups varying together.

    At a place it is the difference of the variant's number there from its own here.

    Attributes:
        value: the variant's − fp32's, in the measurement's unit.
        ci95: lower and upper bound; None where there is no sound one.
        method: "tango": score interval of a difference of proportions; "delong": of areas under the ROC curve,
            clustered by Obuchowski; "cluster_t": of means of one value per image; "bootstrap_t": a bootstrapped
            standard error.
        n: images that both were measured on.
        units: groups that these come from; n where each image is its own.
        gained: share of the decisions that became right; "tango" alone, like the following three.
        lost: share that became wrong.
        effective_n: independent pairs that these decisions are worth.
        least_effective_n: what they would be worth if all of a unit's decisions were alike.
        mcnemar_p: exact two-sided p that gains and losses are equally likely; None where images come in groups.
        standard_error: of the value; None for "tango".
        degrees: of Student's t; None for "tango".
        no_interval: why there is none.
        holm_p: two-sided p that there is no difference, corrected by Holm for the other subgroups of the same metric
            and variant; None of all images.
    """

    value: float
    ci95: tuple[float, float] | None
    method: Literal["tango", "delong", "cluster_t", "bootstrap_t"]
    n: int
    units: int
    gained: float | None = None
    lost: float | None = None
    effective_n: float | None = None
    least_effective_n: float | None = None
    mcnemar_p: float | None = None
    standard_error: float | None = None
    degrees: int | None = None
    no_interval: str | None = None
    holm_p: float | None = None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class Measurement:
    """One number with its unit, its sample size and its 95 % interval; `value` None means not measured.

    Attributes:
        metric: its name; the part behind a slash is a class's or a label's.
        value: in `unit`.
        unit: as its row of `METRICS` has it.
        variant: the file, or one of `UNINFORMED`.
        where: what tells it from other measurements of the metric and the variant.
        n: size of the sample; None where there is none.
        ci95: lower and upper bound; None where there is no sound interval.
        remarks: how it was measured (`bins`, `draws`, `rounds`, `mask_share`…), what its sample leaves out (`labels`,
            `too_rare`), and why there is no value (`reason`) or no interval (`no_interval`).
        difference: from fp32's number on the same images; None for fp32 itself, and where it is no comparison of
            images (size, time) or compares with fp32 already.
    """

    metric: str
    value: float | None
    unit: str
    variant: str
    where: Where = Where()  # frozen
    n: int | None = None
    ci95: tuple[float, float] | None = None
    remarks: Mapping[str, JSON] = field(default_factory=dict)
    difference: PairedDifference | None = None

    __pydantic_config__ = CLOSED

    @property
    def reason(self) -> str | None:
        """Why there is no value; None where nothing was said."""
        reason = self.remarks.get("reason")
        return None if reason is None else str(reason)


def write_measurements(path: Path, measurements: Iterable[Measurement]) -> None:
    """Write measurements as a JSON list, atomically."""
    write_json(path, _adapter().dump_python(tuple(measurements), mode="json"))


def read_measurements(path: Path) -> tuple[Measurement, ...]:
    """Return what `write_measurements` wrote.

    Raises:
        UsageError: the file is missing or holds something else.
    """
    return read_typed(path, _adapter(), "a list of measurements", "Delete it and run `edgeproof validate` again.")


@cache
def _adapter() -> TypeAdapter[tuple[Measurement, ...]]:
    from pydantic import FailFast, TypeAdapter

    return TypeAdapter(Annotated[tuple[Measurement, ...], FailFast()])
