"""Why a night is red: which stage came out otherwise first, and which changed input can have done that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from foundation.metrics import row_of
from foundation.record import RunRecord, StageRecord
from pipeline.judge.changed_inputs import ChangedInput, InputKind, changed_inputs
from pipeline.judge.comparison import Comparison, Difference
from pipeline.judge.evidence import Evidence

_OF_TIME: tuple[InputKind, ...] = ("configuration", "code", "processor", "packages", "machine")
_OF_ANSWERS: tuple[InputKind, ...] = ("configuration", "data", "code", "processor", "packages")


@dataclass(frozen=True)
class Cause:
    """What a red night is due to, as far as its records tell.

    Attributes:
        stage: the first stage that came out otherwise, "quantize/static-int8"; None where only times did.
        suspects: what changed and can have done it; one alone is named as the cause, none means an unrecorded one.
        sentence: both in words.
    """

    stage: str | None
    suspects: tuple[InputKind, ...]
    sentence: str


def causes(accepted: Evidence, current: Evidence, comparison: Comparison) -> tuple[Cause, ...]:
    """Return why the rows of a comparison are red: one cause for answers, one for times; none where nothing is red.

    A stage whose inputs are the accepted run's and whose outputs are not came out otherwise by itself: its settings,
    our code, a package or the processor did that. Where the images differ already, the data did.

    Args:
        accepted: the reference.
        current: tonight's run.
        comparison: of the two.
    """
    red = [one for one in comparison.differences if one.status in ("regressed", "missing")]
    changes = changed_inputs(accepted, current)
    found = []
    if any(not _is_time(one) for one in red):
        found.append(_of_answers(first_otherwise(accepted.record, current.record), changes))
    if any(_is_time(one) for one in red):
        suspects = tuple(change for change in changes if change.kind in _OF_TIME)
        files = list(_other_files(accepted.record, current.record))
        where = f"Times: the files {'differ (' + ', '.join(files) + ')' if files else 'are the same bytes'}."
        found.append(Cause(None, _kinds(suspects), f"{where} {_named(suspects)}"))
    return tuple(found)


def first_otherwise(accepted: RunRecord, current: RunRecord) -> tuple[StageRecord, StageRecord] | None:
    """Return the first stage, in the order they ran, whose outputs differ, as it was and as it is; or None.

    Only stages that have outputs in both runs count.
    """
    before = {stage.name: stage for stage in accepted.stages if stage.succeeded}
    for stage in current.stages:
        then = before.get(stage.name)
        if then is not None and stage.succeeded and stage.outputs != then.outputs:
            return then, stage
    return None


def _of_answers(otherwise: tuple[StageRecord, StageRecord] | None, changes: Sequence[ChangedInput]) -> Cause:
    if otherwise is None:
        return Cause(None, (), "Answers: what both runs have came out as accepted; something else is missing.")
    then, stage = otherwise
    kinds = _OF_ANSWERS
    if stage.kind != "data" or stage.inputs == then.inputs:  # the images' source is as it was
        kinds = tuple(kind for kind in kinds if kind != "data")
    elif "configuration" not in {change.kind for change in changes}:  # images came, went or changed: no need of more
        kinds = ("data",)
    suspects = [change for change in changes if change.kind in kinds]
    where = f"Answers: the first stage that came out otherwise is {stage.name}; all before it is as accepted."
    return Cause(stage.name, _kinds(suspects), f"{where} {_named(suspects)}")


def _named(suspects: Sequence[ChangedInput]) -> str:
    if not suspects:
        return "Nothing that is recorded changed: chance, the machine's hardware or something unrecorded."
    if len(suspects) == 1:
        return f"The one thing that changed and can do that: {suspects[0].sentence}"
    return f"Any of these can have done that: {' '.join(change.sentence for change in suspects)}"


def _kinds(suspects: Sequence[ChangedInput]) -> tuple[InputKind, ...]:
    return tuple(dict.fromkeys(change.kind for change in suspects))


def _is_time(one: Difference) -> bool:
    row = row_of(one.metric)
    return row is not None and row.inputs == "timing"


def _other_files(accepted: RunRecord, current: RunRecord) -> Iterator[str]:
    then = {variant.variant: variant.sha256 for variant in accepted.variants}
    return (one.variant for one in current.variants if then.get(one.variant, one.sha256) != one.sha256)
