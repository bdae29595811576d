"""Asking places about files, and putting together what they answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foundation.errors import NotMeasuredError, StageError, UsageError
from foundation.measurements import Measurement
from foundation.places import PlaceRecord
from foundation.progress import Observer
from pipeline.places.reasons import why_otherwise
from stages.validate.accuracy import AccuracySettings
from stages.validate.places import PLACES
from stages.validate.places.asking import Answered, ask
from stages.validate.places.here import HERE
from stages.validate.places.measure import (
    OF_MAPS,
    AskedImages,
    measure_answers,
    measure_maps,
    unmeasured,
)
from stages.validate.places.place import Place
from stages.validate.places.questions import TWIN, Asked, ask_model, ask_twin
from stages.validate.places.turns import measure_times, time_in_turns

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class AskedFile:
    """One file that is asked.

    Attributes:
        variant: its name.
        path: the file.
        sha256: of it.
        twin: its saliency twin; None where there is none.
    """

    variant: str
    path: Path
    sha256: str
    twin: Path | None


@dataclass(frozen=True)
class Inquiry:
    """What is asked, the same at every place.

    Attributes:
        files: each with another name.
        pixels: uint8 [n, channels, height, width].
        images: what is known of them.
        targets: int64 [m], the class that is explained of each of the first m images; may be empty.
        data_sha256: of the run's images; None without a run.
        settings: how answers are measured.
        stall_s: seconds after which a place has hung.
    """

    files: tuple[AskedFile, ...]
    pixels: NDArray[np.uint8]
    images: AskedImages
    targets: NDArray[np.int64]
    data_sha256: str | None
    settings: AccuracySettings
    stall_s: float


@dataclass(frozen=True)
class _Here:
    """A file's questions, and what it answers to them here."""

    questions: tuple[Asked, ...]
    answered: Answered


def ask_places(inquiry: Inquiry, names: Sequence[str], observer: Observer) -> tuple[PlaceRecord, ...]:
    """Ask every file here, then at each place, and return what was found at each.

    A place that cannot be asked, and a file that a place cannot run, cost their own numbers alone.

    Raises:
        UsageError: a file is missing, or is none that can be asked.
        StageError: a file has no answers here.
    """
    here: dict[str, _Here] = {}
    with observer.stage("answers here") as progress:
        for index, file in enumerate(inquiry.files):
            questions = _questions(inquiry, file)
            here[file.variant] = _Here(questions, ask("here", HERE, [one.question for one in questions]))
            progress(index + 1, len(inquiry.files))
            missing = here[file.variant].answered.errors.get(file.variant)
            if missing is not None:
                raise StageError(f"{file.variant}: expected answers here, found none ({missing}).")
    return tuple(_ask_one(name, PLACES[name], inquiry, here, observer) for name in names)


def _questions(inquiry: Inquiry, file: AskedFile) -> tuple[Asked, ...]:
    batch, targets = inquiry.settings.batch_size, inquiry.targets
    questions = [ask_model(file.variant, file.path, inquiry.pixels, batch)]
    if file.twin is not None and len(targets):
        questions.append(ask_twin(file.variant, file.twin, inquiry.pixels[: len(targets)], targets, batch))
    return tuple(questions)


def _ask_one(name: str, place: Place, inquiry: Inquiry, here: Mapping[str, _Here], observer: Observer) -> PlaceRecord:
    """Ask one place about every file."""
    found = PlaceRecord(
        name,
        place.kind,
        place.what,
        inquiry.data_sha256,
        {file.variant: file.sha256 for file in inquiry.files},
        {},
        (),
    )
    rows: list[Measurement] = []
    answers: dict[str, Answered] = {}
    for file in inquiry.files:
        try:
            with observer.stage(f"{name}: {file.variant}") as progress:
                questions = [one.question for one in here[file.variant].questions]
                answered = ask(name, place, questions, progress, inquiry.stall_s)
        except NotMeasuredError as error:
            observer.say(f"✗ {error}")
            return replace(found, reason=str(error), measurements=tuple(_absent(name, inquiry, str(error))))
        except (StageError, UsageError) as error:
            observer.say(f"✗ {file.variant}: {error}")
            rows += _all_unmeasured(file, name, str(error), inquiry)
            continue
        answers[file.variant] = answered
        rows += _measured(name, file, here[file.variant], answered, inquiry)
        for question, why in answered.errors.items():
            observer.say(f"✗ {question}: {name} gave no answer: {why}")
    rows += _timed(name, place, here, answers, inquiry, observer)
    nothing = not any(row.value is not None for row in rows)
    return replace(
        found,
        versions={key: version for one in answers.values() for key, version in one.versions.items()},
        measurements=tuple(rows),
        notes=_notes(name, here, answers, rows),
        placements={
            variant: one.placements[variant] for variant, one in answers.items() if variant in one.placements
        },
        reason="none of the files has an answer there; each says why" if nothing else None,
    )


def _timed(
    name: str,
    place: Place,
    here: Mapping[str, _Here],
    answers: Mapping[str, Answered],
    inquiry: Inquiry,
    observer: Observer,
) -> list[Measurement]:
    """Return the times of the files that answered, where the place is real."""
    models = {one: here[one].questions[0].question for one in answers if one not in answers[one].errors}
    if place.kind != "real" or not models:
        return []
    with observer.stage(f"{name}: times") as progress:
        timed = time_in_turns(name, place, tuple(models.values()), progress, inquiry.stall_s)
    for variant, one in timed.items():
        if one.durations_ms is None:
            observer.say(f"✗ {variant}: {name} gave no times: {one.reason}")
    return measure_times(name, timed, {variant: question.batch for variant, question in models.items()})


def _notes(
    name: str, here: Mapping[str, _Here], answers: Mapping[str, Answered], rows: Sequence[Measurement]
) -> dict[str, tuple[str, ...]]:
    fp32s = [row for row in rows if row.variant == "fp32"]
    notes = {}
    for variant, answered in answers.items():
        of_file = [row for row in rows if row.variant == variant]
        question, where = here[variant].questions[0].question, answered.placements.get(variant)
        notes[variant] = why_otherwise(name, question, where, of_file, fp32s)
    return {variant: told for variant, told in notes.items() if told}


def _measured(name: str, file: AskedFile, here: _Here, there: Answered, inquiry: Inquiry) -> list[Measurement]:
    """Return every number of a file at a place."""
    model, variant = here.questions[0], file.variant
    if variant in there.errors:
        return _all_unmeasured(file, name, there.errors[variant], inquiry)
    logits = model.logits(there.outputs[variant])
    scored = model.answers is None or model.answers.kind != "label"
    rows = measure_answers(
        variant,
        name,
        logits,
        model.logits(here.answered.outputs[variant]),
        inquiry.images,
        inquiry.settings,
        scored,
    )
    if len(here.questions) > 1:
        rows += _measured_maps(name, variant, here.questions[1], here.answered, there, inquiry)
    return rows


def _measured_maps(
    name: str, variant: str, twin: Asked, here: Answered, there: Answered, inquiry: Inquiry
) -> list[Measurement]:
    question = TWIN.format(variant)
    missing = there.errors.get(question) or here.errors.get(question)
    if missing is not None:
        return unmeasured(variant, name, missing, OF_MAPS)
    try:
        maps = [twin.maps(outputs[question]) for outputs in (there.outputs, here.outputs)]
    except StageError as error:
        return unmeasured(variant, name, str(error), OF_MAPS)
    return measure_maps(variant, name, maps[0], maps[1], inquiry.images.groups[: len(maps[0])], inquiry.settings)


def _absent(name: str, inquiry: Inquiry, reason: str) -> list[Measurement]:
    return [row for file in inquiry.files for row in _all_unmeasured(file, name, reason, inquiry)]


def _all_unmeasured(file: AskedFile, name: str, reason: str, inquiry: Inquiry) -> list[Measurement]:
    rows = unmeasured(file.variant, name, reason)
    if inquiry.images.labels is not None:
        rows += unmeasured(file.variant, name, reason, ("accuracy",))
    if file.twin is not None and len(inquiry.targets):
        rows += unmeasured(file.variant, name, reason, OF_MAPS)
    return rows
