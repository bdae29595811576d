"""The search for the fastest static int8 file that still answers, and looks, like the float one.

Three things decide: which range each activation gets, which repairs are made, and how many of the layers that
suffer most stay in float. Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) proposes; what a
proposal is worth is measured on the compiled file. Every trial is on disk before the next one begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from foundation.errors import StageError, UsageError
from foundation.note_parts import CandidateNote, MeasuredNote, SensitivityNote, TrialNote
from foundation.processor import CpuTarget
from foundation.progress import Progress
from foundation.settings import Settings
from stages.search.entries import DIGEST, digest_of, refuse_edited, told_value, without_digest
from stages.search.journal import open_journal
from stages.search.proposals import ask, sampler

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

Note = TypeVar("Note", bound=BaseModel)

LEAST_SCORED_IMAGES = 8
_MOST_REPEATS = 20
"""Proposals in a row that are known already: the sampler has nothing new to say."""


class TunedSettings(Settings):
    """A search for the fastest static int8 file within limits on accuracy, agreement and saliency."""

    method: Literal["tuned"] = Field("tuned", description="the fastest measured static int8 file within the limits")
    accuracy_drop: float = Field(
        0.03, ge=0, le=1, description="limit: accuracy that may be lost against fp32, on validation images"
    )
    agreement: float = Field(0.95, ge=0, le=1, description="limit: share of answers that are fp32's, at least")
    saliency_spearman: float = Field(
        0.75, ge=-1, le=1, description="limit: rank correlation of the gradient maps with fp32's, at least"
    )
    alpha: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="probability that any of the files tried passes although it breaks a limit: each is held by its "
        "one-sided bound at alpha / trials",
    )
    trials: int = Field(24, ge=1, le=10_000, description="files to compile and measure, at most")
    minutes: float = Field(
        20.0,
        gt=0,
        description="time for the layers' sensitivity and the search; every layer is looked at, one file is tried in "
        "any case, and the trial under way is finished",
    )
    target: Literal["auto", CpuTarget] = Field(
        "auto",
        description="processor whose integer types are used; answers are measured on the one at hand, and speed "
        "too, but for openvino and wasm at the place of that name where it is installed",
    )
    images: int = Field(128, ge=1, description="calibration images, from the training split")
    scored_images: int = Field(512, ge=LEAST_SCORED_IMAGES, description="validation images that each file answers")
    explained_images: int = Field(32, ge=2, description="validation images that each file explains")
    latency_rounds: int = Field(30, ge=5, le=10_000, description="pairs of queries, one to fp32 and one to the file")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of the proposals and of the choice of images")


def open_study(journal: Path, identity: str) -> Study:
    """Begin a search, or go on with it.

    Args:
        journal: file of what has been found so far; what is written there is on disk at once.
        identity: of model, data and settings; another identity begins anew.

    Raises:
        UsageError: the journal is none, or an entry of it was edited.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            storage=open_journal(journal),
            study_name=identity,
            direction="maximize",
            load_if_exists=True,
        )
        refuse_edited(study, journal)
        known_layers(study)
        _finished(study)
    except (UsageError, OSError):  # the latter of the disk
        raise
    except Exception as error:  # Optuna raises whatever a damaged entry leads it to
        raise UsageError(
            f"{journal}: expected the journal of a search, found one with a damaged entry "
            f"({type(error).__name__}: {str(error)[:200]}). Delete it and run again; the search begins anew."
        ) from error
    return study


def search(
    evaluate: Callable[[CandidateNote], MeasuredNote],
    layers: int,
    settings: TunedSettings,
    study: Study,
    progress: Progress,
    deadline: float,
) -> list[TrialNote]:
    """Propose and measure candidates until the trials or the time are used up.

    A search that was interrupted goes on from its journal. The same candidate is never measured twice.

    Args:
        evaluate: compiles and measures; a StageError makes the trial a failed one.
        layers: how many layers could stay in float.
        settings: number of trials, and the seed of the proposals.
        study: from `open_study`.
        progress: called with trials done and in all.
        deadline: of the last trial's beginning, on `time.monotonic()`'s clock; the first one is made in any case.

    Returns:
        The trials in the order of their measurement, at least one.
    """
    from optuna.trial import TrialState

    with _on_damage():
        study.sampler = sampler(settings.seed, 0)  # it notes by how much a trial breaks the limits
        for killed in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            _close(study, killed)
        told = _finished(study)
    known = {trial.candidate: trial for trial in told}
    repeated = _repeated_at_the_end(told)
    while len(known) < settings.trials and (not known or time.monotonic() < deadline):
        with _on_damage():
            asked, candidate = ask(study, told, layers, settings.seed)
        repeated = repeated + 1 if candidate in known else 0
        if repeated == _MOST_REPEATS:
            break
        known[candidate] = known.get(candidate) or tried(evaluate, candidate)
        with _on_damage():
            _tell(study, asked, known[candidate])
        told.append(known[candidate])
        progress(len(known), settings.trials)
    return list(known.values())


def _repeated_at_the_end(told: Sequence[TrialNote]) -> int:
    """Return how many of the last trials, in a row, had a candidate that was known already."""
    seen: set[CandidateNote] = set()
    repeated = 0
    for trial in told:
        repeated = repeated + 1 if trial.candidate in seen else 0
        seen.add(trial.candidate)
    return repeated


def known_layers(study: Study) -> dict[str, SensitivityNote]:
    """Return the layers whose sensitivity a study holds, by name."""
    return {layer: _noted(SensitivityNote, without_digest(entry)) for layer, entry in study.user_attrs.items()}


def remember_layer(study: Study, found: SensitivityNote) -> None:
    """Write a layer's sensitivity into the study's journal."""
    entry = found.model_dump(mode="json")
    study.set_user_attr(found.layer, {**entry, DIGEST: digest_of(study, entry)})


def tried(evaluate: Callable[[CandidateNote], MeasuredNote], candidate: CandidateNote) -> TrialNote:
    """Return a candidate as it was measured, or as failed where that ends in a StageError."""
    try:
        return TrialNote(candidate=candidate, measured=evaluate(candidate))
    except StageError as error:
        return TrialNote(candidate=candidate, measured=None, error=str(error))


def _tell(study: Study, asked: Any, trial: TrialNote) -> None:
    from optuna.trial import TrialState

    measured = None if trial.measured is None else trial.measured.model_dump(mode="json")
    entry = {"candidate": asked.params, "measured": measured, "error": trial.error}
    asked.set_user_attr(DIGEST, digest_of(study, entry))  # first: what has none was cut off, and does not count
    if trial.measured is None:
        asked.set_user_attr("error", trial.error)
        study.tell(asked, state=TrialState.FAIL)
        return
    asked.set_user_attr("measured", measured)
    study.tell(asked, told_value(measured))


def _close(study: Study, killed: FrozenTrial) -> None:
    """End a trial that a kill cut off: as measured where it had been, else as none, to be proposed again."""
    from optuna.trial import TrialState

    measured = killed.user_attrs.get("measured")
    if measured:
        study.tell(killed.number, told_value(measured))
    else:
        study.tell(killed.number, state=TrialState.FAIL)


def _finished(study: Study) -> list[TrialNote]:
    from optuna.trial import TrialState

    trials = []
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)):
        measured, error = frozen.user_attrs.get("measured"), frozen.user_attrs.get("error")
        if frozen.state == TrialState.COMPLETE and not measured:
            raise ValueError("a trial without a measurement")
        if measured or error:
            trials.append(_noted(TrialNote, {"candidate": frozen.params, "measured": measured, "error": error}))
    return trials


def _noted(note: type[Note], entry: Any) -> Note:
    try:
        return note.model_validate(entry, strict=False)
    except ValidationError as error:
        raise _damaged(error.errors()[0]["msg"]) from error


@contextmanager
def _on_damage() -> Iterator[None]:
    """Turn whatever Optuna raises on what a damaged journal holds into a sentence."""
    try:
        yield
    except (UsageError, OSError):  # the latter of the disk
        raise
    except Exception as error:
        raise _damaged(f"{type(error).__name__}: {str(error)[:200]}") from error


def _damaged(reason: str) -> UsageError:
    return UsageError(
        f"expected the journal of a search, found one with a damaged entry ({reason}). Delete the file "
        "*.search.jsonl and run again; the search begins anew."
    )
