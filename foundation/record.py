"""The record of a run, `run.json`: what was run, on what, how each stage went, and what the gates say.

Everybody who wants to know something of a run reads it here. The history of its formats:

- 1: an untyped head; a stage had one name, "quantize/static-int8"; a measurement mixed where it was taken with
  remarks in its `settings`, and a verdict did not hold the measurement that it judged.
- 2: `validate/measurements.json` beside it holds `Measurement`s with `where` and `remarks`. Read as before; it names
  the outputs of the stages alone, so measurements and reports cannot be held against it.
- 3: as the types below say: `files` has every file of the run, and the record carries a digest of itself.

A record of another format is refused with a sentence: a run is made again, not converted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from foundation.artifacts import Task
from foundation.errors import ExitCode
from foundation.files import JSON, sha256_of_json
from foundation.measurements import Measurement
from foundation.notes import Notes
from foundation.processor import Cpu
from foundation.run_folder import RunFolder
from foundation.sealed_files import refuse_broken_seal, write_sealed
from foundation.typed_files import CLOSED, read_typed

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT_VERSION: Literal[3] = 3
_READ_VERSIONS = (2, 3)
_MEND = "Delete it and run again, or choose another folder for the run."

Status = Literal["done", "reused", "failed", "not_measured"]
"""How a stage went: `reused` where an earlier run's outputs were taken; `not_measured` where a tool is missing."""

FileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""The name of a variant, which is part of the paths of its files."""


@dataclass(frozen=True)
class Verdict:
    """What one gate says of the measurements.

    `missing` means that its number was not measured, `inconclusive` that these images cannot tell at its error rate.

    Attributes:
        gate: the criterion as one reads it.
        status: its outcome.
        value: what was held against the limit: the measurement's own value, a difference or a ratio.
        limit: the bound.
        detail: the measurement in words, or why it is missing.
        measurement: what was judged, the worst of several; None where nothing fits the gate.
        against: fp32's measurement, where the gate is relative to it; None otherwise.
    """

    gate: str
    status: Literal["passed", "failed", "inconclusive", "missing"]
    value: float | None
    limit: float
    detail: str
    measurement: Measurement | None = None
    against: Measurement | None = None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class GateChange:
    """Acceptance criteria that were changed after this folder held measurements.

    Attributes:
        old: the criteria that are gone, as one reads them.
        new: the criteria that came.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]

    __pydantic_config__ = CLOSED

    @property
    def sentence(self) -> str:
        """What everybody who sees the verdict must know."""
        old, new = ("; ".join(names) or "none" for names in (self.old, self.new))
        return f"Gates changed after the measurements ({old} → {new})."


@dataclass(frozen=True)
class StageRecord:
    """How one stage of a run went.

    Attributes:
        kind: what it does: "data", "train", "quantize", "validate", a saliency method…
        subject: the variant that it does it with; None where there is one such stage in a run.
        status: how it went.
        key: the identity of its result.
        inputs: name → sha256.
        outputs: path relative to the run folder → sha256.
        seconds: how long it took; None where nobody knows.
        error: why it has no result, one sentence.
    """

    kind: str
    subject: str | None
    status: Status
    key: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    seconds: float | None
    error: str | None

    __pydantic_config__ = CLOSED

    @property
    def name(self) -> str:
        """Kind and subject in one word."""
        return stage_name(self.kind, self.subject)

    @property
    def succeeded(self) -> bool:
        """Whether it has a result."""
        return self.status in ("done", "reused")


def stage_name(kind: str, subject: str | None) -> str:
    """Return a stage's name as one reads it: "train", "quantize/static-int8"."""
    return kind if subject is None else f"{kind}/{subject}"


@dataclass(frozen=True)
class VariantRecord:
    """One compiled file: what it is, how it was made and from which parent.

    Attributes:
        variant: its name.
        method: the compiler's.
        path: relative to the run folder.
        sha256: of the file.
        size_bytes: of the file.
        parent_sha256: of the checkpoint or the file that it was made from; None where there is none.
        settings: of the method.
        notes: what the method found out.
    """

    variant: FileName
    method: str
    path: str
    sha256: str
    size_bytes: int
    parent_sha256: str | None
    settings: Mapping[str, JSON]
    notes: Notes

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class Environment:
    """The machine and the software that a run's numbers belong to.

    Attributes:
        edgeproof: its version; None where it runs from its source without being installed.
        python: its version.
        platform: the operating system.
        cpu: the processor, with the instruction sets that matter to inference.
        packages: name → version.
        providers: the execution providers at hand.
        neural_compressor: name → version in the worker's own environment; None where there is none.
        sources_sha256: of edgeproof's own code; None in a record of before it was taken.
    """

    edgeproof: str | None
    python: str
    platform: str
    cpu: Cpu
    packages: Mapping[str, str]
    providers: tuple[str, ...]
    neural_compressor: Mapping[str, str] | None
    sources_sha256: str | None = None

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class FileRecord:
    """What one file of a run was when it was written."""

    sha256: str
    size_bytes: int

    __pydantic_config__ = CLOSED


@dataclass(frozen=True)
class RunRecord:
    """Everything that `run.json` says; `dataclasses.replace` makes the next one while the run is under way.

    Attributes:
        name: of the run.
        configuration: the whole of it, defaults included.
        configuration_sha256: its identity.
        gates_sha256: identity of the acceptance criteria, fixed before the run.
        dataset: name of the data set.
        environment: where it ran.
        task: the kind of task; None before the images are read.
        synthetic: whether the images were generated.
        classes: names of the classes or labels, in their order.
        variants: the compiled files, fp32 first.
        stages: in the order in which they ran.
        verdicts: one per gate, once the run was judged.
        exit_code: how it ended; None where it did not.
        format_version: of the file.
        gate_changes: every change of the gates after measurements were seen, in its order.
        files: path relative to the run folder → what lay there when the run last wrote it; all but the record itself
            and hidden files. Empty in format 2.
        sha256: digest of all the above as it was read from the disk; what writes a record takes it anew.
    """

    name: str
    configuration: Mapping[str, JSON]
    configuration_sha256: str
    gates_sha256: str
    dataset: str
    environment: Environment
    task: Task | None
    synthetic: bool
    classes: tuple[str, ...]
    variants: tuple[VariantRecord, ...]
    stages: tuple[StageRecord, ...]
    verdicts: tuple[Verdict, ...]
    exit_code: ExitCode | None
    format_version: Literal[2, 3]
    gate_changes: tuple[GateChange, ...] = ()
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    sha256: str | None = field(default=None, compare=False)

    __pydantic_config__ = CLOSED

    @property
    def all_stages_succeeded(self) -> bool:
        """Whether every stage so far has a result."""
        return all(stage.succeeded for stage in self.stages)

    @property
    def unfinished_stages(self) -> tuple[StageRecord, ...]:
        """The stages that failed or could not measure."""
        return tuple(stage for stage in self.stages if not stage.succeeded)

    @property
    def data_sha256(self) -> str | None:
        """Digest over the prepared data's files; None where the run holds none."""
        data = {path: sha256 for path, sha256 in self.outputs.items() if path.startswith("data/")}
        return sha256_of_json(data) if data else None

    @property
    def outputs(self) -> Mapping[str, str]:
        """Path relative to the run folder → sha256 of every file that a stage left."""
        return {path: sha256 for stage in self.stages for path, sha256 in stage.outputs.items()}


def exit_code_of(verdicts: Sequence[Verdict], all_stages_succeeded: bool) -> ExitCode:
    """Return 3 where evidence is missing or too little to tell, else 1 where a gate failed, else 0."""
    if not all_stages_succeeded or any(verdict.status in ("missing", "inconclusive") for verdict in verdicts):
        return ExitCode.INCOMPLETE
    return ExitCode.GATE_FAILED if any(verdict.status == "failed" for verdict in verdicts) else ExitCode.PASSED


def read_record(run: RunFolder) -> RunRecord:
    """Return what a run folder's `run.json` says.

    Raises:
        UsageError: it is missing, damaged, edited, or of another format.
    """
    record = parse_record(run)
    if record.format_version == FORMAT_VERSION:
        refuse_broken_seal(run.record, f"Take it from a copy. {_MEND}")
    return record


def parse_record(run: RunFolder) -> RunRecord:
    """Return what `run.json` says, whether or not it was edited; for whoever says what is wrong with a run.

    Raises:
        UsageError: it is missing, damaged, or of another format.
    """
    what = f"the record of a run of format_version {FORMAT_VERSION}"
    return read_typed(run.record, record_adapter(), what, _MEND, _READ_VERSIONS)


def write_record(run: RunFolder, record: RunRecord) -> None:
    """Write `run.json` atomically, with a digest of its content."""
    write_sealed(run.record, record_adapter().dump_python(record, mode="json"))


@cache
def record_adapter() -> TypeAdapter[RunRecord]:
    """Return what turns a record into JSON values and back."""
    from pydantic import TypeAdapter

    return TypeAdapter(RunRecord)
