"""`edgeproof quantize MODEL.onnx --method auto`: several methods are tried and measured, and one file is kept.

Which one is the best depends on the model and on the processor: static integers win on most convolutional networks,
with some regions in float (mixed) on others, dynamic ones on transformers, and on what is small or already fast
nothing but the size is won. So it is measured, and since times decide, another measurement may choose another of two
files that are about as good. Each file by itself is byte for byte the one that its method makes when it is asked for
by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from foundation.artifacts import OnnxModel
from foundation.errors import DiskError, StageError, UsageError
from foundation.note_parts import Estimate, MethodNote
from foundation.notes import AutoNotes, DynamicNotes, StaticNotes, WeightOnlyNotes
from pipeline.one_file.agreement import Agreement
from pipeline.one_file.choice import Candidate, Choice, choose, worth_rounding
from pipeline.one_file.options import CompileRequest
from pipeline.one_file.speed import Speed


@dataclass(frozen=True)
class Measures:
    """How a method's file is made and measured.

    Attributes:
        make: compiles what a request asks for.
        agree: compares a file's answers with the float file's, on images that none was calibrated on.
        time: times files beside the float file, all of them in one measurement.
    """

    make: Callable[[CompileRequest], OnnxModel]
    agree: Callable[[CompileRequest, OnnxModel], Agreement]
    time: Callable[[Sequence[OnnxModel]], tuple[Speed, ...]]


def requests_of(request: CompileRequest) -> tuple[CompileRequest, ...]:
    """Return a request for each method that auto tries; options go to those that have a use for them."""
    plain = replace(request, agreement=None)
    return (
        replace(plain, method="static"),
        replace(plain, method="mixed"),
        replace(plain, method="dynamic", calibration=None, recovery=None),
        replace(plain, method="weight-only", calibration=None, recovery=None, target=None),
    )


def best_method(
    requests: Sequence[CompileRequest], measures: Measures, source_bytes: int, least_agreement: float
) -> tuple[OnnxModel, Speed]:
    """Make a file by every method, measure all, and return the one to keep, with its speed.

    Its notes hold what all of them came to. Where a file of static or mixed would be the fastest but for its answers,
    and nobody said which recovery to take, its weights are rounded anew for them.

    Args:
        requests: one for each method, of different names.
        measures: how files are made and measured.
        source_bytes: size of the float file.
        least_agreement: share of the float file's answers that a file has to give.

    Raises:
        UsageError, StageError: no method can make a file.
    """
    made: dict[str, tuple[OnnxModel, Agreement]] = {}
    failed: dict[str, UsageError | StageError] = {}

    def make(one: CompileRequest) -> None:
        try:
            model = measures.make(one)
            made[one.title] = model, measures.agree(one, model)
        except DiskError:
            raise
        except (UsageError, StageError) as error:
            failed[one.title] = error

    for one in requests:
        make(one)
    if not made:
        raise _nothing_made(failed)
    candidates = _timed(made, measures)
    choice = choose(candidates, source_bytes, least_agreement)
    worth = worth_rounding(candidates, choice)
    rounded = [replace(one, recovery="rounding") for one in requests if one.title == worth and one.recovery is None]
    for one in rounded:
        make(one)
        if one.title in made:
            candidates = _timed(made, measures)  # all anew: speeds of two measurements cannot be compared
            choice = choose(candidates, source_bytes, least_agreement)
    (chosen,) = (one for one in candidates if one.method == choice.chosen)
    model, _ = made[choice.chosen]
    assert isinstance(model.notes, DynamicNotes | StaticNotes | WeightOnlyNotes)
    notes = AutoNotes(
        file=model.notes,
        why=choice.why,
        methods=tuple(_note(one.title, candidates, failed, choice) for one in (*requests, *rounded)),
        misses=choice.misses[choice.chosen],
        agreement_limit=least_agreement,
    )
    return replace(model, notes=notes), chosen.speed


def _timed(made: Mapping[str, tuple[OnnxModel, Agreement]], measures: Measures) -> list[Candidate]:
    speeds = measures.time([model for model, _ in made.values()])
    return [
        Candidate(method, model.size_bytes, speed, agreement)
        for (method, (model, agreement)), speed in zip(made.items(), speeds, strict=True)
    ]


def _note(
    method: str, candidates: Sequence[Candidate], failed: Mapping[str, UsageError | StageError], choice: Choice
) -> MethodNote:
    if method in failed:
        return MethodNote(
            method=method,
            size_bytes=None,
            speedup=None,
            agreement=None,
            logits_sqnr_db=None,
            misses={},
            why_not=f"cannot be made: {failed[method]}",
        )
    (found,) = (one for one in candidates if one.method == method)
    speed, agreement = found.speed, found.agreement
    same = agreement.same_class
    return MethodNote(
        method=method,
        size_bytes=found.size_bytes,
        speedup=None if speed.ratio is None else Estimate(value=speed.ratio, ci95=speed.ci95, n=speed.processes),
        agreement=None if same is None else Estimate(value=same, ci95=agreement.same_class_ci95, n=agreement.images),
        logits_sqnr_db=agreement.logits_sqnr_db,
        misses=choice.misses[method],
        why_not=choice.why_not.get(method, ""),
    )


def _nothing_made(failed: Mapping[str, UsageError | StageError]) -> UsageError | StageError:
    """Return the error where no method works; what is wrong for all of them alike is said once."""
    errors = list(failed.values())
    if len({str(error) for error in errors}) == 1:
        return errors[0]
    told = " ".join(f"{method}: {error}" for method, error in failed.items())
    return type(errors[0])(f"expected a model that one method can compile, found none. {told}")
