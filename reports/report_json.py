"""`report.json`: the run's facts for programs, with the keys that `format_version` promises.

This interface is published (`docs/report.schema.json`), and older than the record of a run: whatever the record
becomes, it is rendered here into these keys. What was not measured is null, never left out.

The history of its formats; a key that comes, goes or changes its meaning asks for the next number:

- 1: `run`, `environment`, `stages`, `variants`, `measurements`, `verdicts`. Before the first release came a verdict's
  `measurement`, a measurement's `difference`, and `gate_changes`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from foundation.errors import ExitCode
from foundation.files import JSON
from foundation.measurements import Measurement, PairedDifference
from foundation.record import Environment, GateChange, RunRecord, StageRecord, Status, VariantRecord, Verdict
from foundation.typed_files import CLOSED
from reports.facts import Facts

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT_VERSION: Literal[1] = 1


@dataclass(frozen=True)
class PublishedRun:
    """What was run and how it ended.

    Attributes:
        name: of the run.
        configuration: the whole of it, defaults included; paths without their folders.
        configuration_sha256: its identity.
        gates_sha256: identity of the acceptance criteria, fixed before the run.
        dataset: name of the data set.
        synthetic: whether the images were generated.
        classes: names of the classes or labels, in their order.
        exit_code: 0 all gates passed, 1 a gate failed, 3 evidence incomplete; null where it did not end.
    """

    name: str
    configuration: Mapping[str, JSON]
    configuration_sha256: str
    gates_sha256: str
    dataset: str
    synthetic: bool
    classes: tuple[str, ...]
    exit_code: ExitCode | None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class PublishedStage:
    """How one stage went.

    Attributes:
        name: kind and, behind a slash, the variant that it was about.
        status: how it went.
        key: the identity of its result.
        inputs: name → sha256.
        outputs: path relative to the run folder → sha256.
        seconds: how long it took; null where nobody knows.
        error: why it has no result.
    """

    name: str
    status: Status
    key: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    seconds: float | None
    error: str | None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class PublishedMeasurement:
    """One number.

    Attributes:
        metric: its name; the part behind a slash is a class's or a label's.
        value: in `unit`; null where it was not measured.
        unit: of the value.
        variant: the file, or a map that knows nothing of the image.
        provider: the execution provider that ran the file.
        split: the images.
        n: size of the sample; null where there is none.
        ci95: lower and upper bound of the 95 % interval; null where there is no sound one.
        settings: what else tells it from others (`threads`, `batch_size`, `method`, `subgroup`, `per`, `change`,
            `place`), and how it was measured; `reason` says why there is no value, `no_interval` why no interval.
        difference: from fp32's number on the same images; null where there is none.
    """

    metric: str
    value: float | None
    unit: str
    variant: str
    provider: str | None
    split: str | None
    n: int | None
    ci95: tuple[float, float] | None
    settings: Mapping[str, JSON]
    difference: PairedDifference | None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class PublishedVerdict:
    """What one gate says.

    Attributes:
        gate: the criterion as one reads it.
        status: its outcome.
        value: what was held against the limit.
        limit: the bound.
        detail: the measurement in words, or why it is missing.
        measurement: what was judged; null where nothing fits the gate.
    """

    gate: str
    status: Literal["passed", "failed", "inconclusive", "missing"]
    value: float | None
    limit: float
    detail: str
    measurement: PublishedMeasurement | None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class PublishedReport:
    """A run of edgeproof, as `report.json` says it.

    Attributes:
        format_version: of the file.
        run: what was run and how it ended.
        environment: where it ran.
        stages: in the order in which they ran.
        variants: the compiled files, fp32 first.
        measurements: every one, the absent ones included.
        verdicts: one per gate.
        gate_changes: every change of the gates after measurements were seen.
    """

    format_version: Literal[1]
    run: PublishedRun
    environment: Environment
    stages: tuple[PublishedStage, ...]
    variants: tuple[VariantRecord, ...]
    measurements: tuple[PublishedMeasurement, ...]
    verdicts: tuple[PublishedVerdict, ...]
    gate_changes: tuple[GateChange, ...]

    __pydantic_config__ = CLOSED


def render(facts: Facts) -> str:
    """Return the file's text; what was not measured is null, never left out."""
    report = published(facts.record, facts.measured_everywhere)
    return json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def json_schema() -> dict[str, JSON]:
    """Return the JSON schema of the file, draft 2020-12."""
    schema = _adapter().json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "edgeproof report.json"}
    return {**schema, **head}


def published(record: RunRecord, measurements: Sequence[Measurement]) -> dict[str, JSON]:
    """Return a run as `report.json` and `--json` show it."""
    report = PublishedReport(
        format_version=FORMAT_VERSION,
        run=PublishedRun(
            name=record.name,
            configuration=record.configuration,
            configuration_sha256=record.configuration_sha256,
            gates_sha256=record.gates_sha256,
            dataset=record.dataset,
            synthetic=record.synthetic,
            classes=record.classes,
            exit_code=record.exit_code,
        ),
        environment=record.environment,
        stages=tuple(_stage(stage) for stage in record.stages),
        variants=record.variants,
        measurements=tuple(_measurement(measurement) for measurement in measurements),
        verdicts=tuple(_verdict(verdict) for verdict in record.verdicts),
        gate_changes=record.gate_changes,
    )
    values: dict[str, JSON] = _adapter().dump_python(report, mode="json")
    return values


def verdict_json(verdict: Verdict) -> dict[str, JSON]:
    """Return a verdict with the measurement that it judged; null where nothing fits the gate."""
    from pydantic import TypeAdapter

    values: dict[str, JSON] = TypeAdapter(PublishedVerdict).dump_python(_verdict(verdict), mode="json")
    return values


@cache
def _adapter() -> TypeAdapter[PublishedReport]:
    from pydantic import TypeAdapter

    return TypeAdapter(PublishedReport)


def _stage(stage: StageRecord) -> PublishedStage:
    return PublishedStage(
        stage.name, stage.status, stage.key, stage.inputs, stage.outputs, stage.seconds, stage.error
    )


def _verdict(verdict: Verdict) -> PublishedVerdict:
    judged = None if verdict.measurement is None else _measurement(verdict.measurement)
    return PublishedVerdict(verdict.gate, verdict.status, verdict.value, verdict.limit, verdict.detail, judged)


def _measurement(one: Measurement) -> PublishedMeasurement:
    return PublishedMeasurement(
        metric=one.metric,
        value=one.value,
        unit=one.unit,
        variant=one.variant,
        provider=one.where.provider,
        split=one.where.split,
        n=one.n,
        ci95=one.ci95,
        settings={**one.where.settings, **one.remarks},
        difference=one.difference,
    )
