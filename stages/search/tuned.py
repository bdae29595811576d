"""The tuned variant: layers ranked by what quantizing each alone costs, then the search within limits.

Candidates are scored on validation images, as a user of the method would; the test split is never looked at. A limit
is kept where the images show it, see `limits`. Where no file keeps them all, the nearest is written and its notes say
what it misses. A model with an operator that the saliency twin does not cover is explained by occlusion. Latency
decides, so two searches may end with different files; one search, once recorded, is reused like every other stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundation.artifacts import OnnxModel
from foundation.errors import UsageError
from foundation.note_parts import CandidateNote, MeasuredNote, SensitivityNote, TrialNote
from foundation.notes import StaticNotes, TunedNotes
from foundation.progress import Progress
from stages.saliency_twin.twin_file import twin_path
from stages.search.candidates import Candidates, write_twin
from stages.search.choice import best_trial
from stages.search.limits import held_again
from stages.search.study import TunedSettings, known_layers, open_study, remember_layer, search, tried

if TYPE_CHECKING:
    from optuna import Study

    from calibration_data.prepared import PreparedData
    from stages.quantize.methods.static import StaticSettings
    from stages.search.score import Reference


ROUNDING_IMAGES = 32
"""That a trial's compensated rounding looks at, at most: its time grows with them, and a search has many trials."""
Ranking = Mapping[str, Sequence[str]]
"""What layers are ranked by → their names, the most sensitive first."""


def tune(
    fp32: OnnxModel,
    variant: str,
    settings: TunedSettings,
    data: PreparedData,
    path: Path,
    identity: str,
    progress: Progress,
    labelled: bool = True,
    journal: Path | None = None,
) -> OnnxModel:
    """Search, and compile the fastest static int8 file that keeps every limit, or the one that comes nearest.

    Args:
        fp32: the float file.
        variant: name of the result.
        settings: limits and budget.
        data: training images calibrate, validation images score.
        path: the file to write; what is made on the way lies beside it, and the ranges in `ranges/` there.
        identity: of everything that decides; a journal of another identity is begun anew.
        progress: called with steps done and in all: one for each layer, one for each trial.
        labelled: whether the labels are known; if not, accuracy is no limit.
        journal: of layers and trials, kept when the search ends; None for `VARIANT.search.jsonl` beside the file.

    Raises:
        UsageError: nothing to quantize in the model.
        StageError: no file could be measured.
    """
    from onnx_files.graph import layers
    from onnx_files.loading import load
    from stages.search.at_place import place_for

    deadline = time.monotonic() + 60 * settings.minutes
    trial_path = path.with_name(f"{variant}.trial.onnx")
    nodes = {node.name: node.op_type for node in layers(load(fp32), fp32)}
    total = len(nodes) + settings.trials
    try:
        reference = _reference(fp32, settings, data, twin_path(trial_path), labelled)
        timed_at = place_for(settings.target)
        candidates = Candidates(fp32, variant, data, settings, reference, trial_path, timed_at)
        # Speeds of two places in one journal would be compared with each other.
        of_these = f"{identity} timed at {timed_at}" if timed_at else identity
        study = open_study(journal or path.with_name(f"{variant}.search.jsonl"), of_these)
        sensitivity = _sensitivity(candidates, nodes, study, lambda done, _: progress(done, total))
        ranking = {
            "logits": _ranked(sensitivity, "logits_sqnr_db"),
            "saliency": _ranked(sensitivity, "saliency_spearman"),
        }
        trials = search(
            lambda candidate: candidates.measure(_static(candidate, ranking, settings)),
            len(nodes),
            settings,
            study,
            lambda done, _: progress(len(nodes) + done, total),
            deadline,
        )
        trials, best = chosen(
            held_again(trials, settings),
            lambda candidate: candidates.measure(_static(candidate, ranking, settings), True),
        )
        compiled = candidates.compile(_static(best.candidate, ranking, settings), final=True)
        trial_path.rename(path)
    finally:
        for leftover in (trial_path, trial_path.with_suffix(".json"), twin_path(trial_path)):
            leftover.unlink(missing_ok=True)
    assert isinstance(compiled.notes, StaticNotes)
    assert best.measured is not None
    notes = TunedNotes(
        file=compiled.notes,
        chosen=best.candidate,
        search=tuple(trials),
        sensitivity=tuple(sensitivity),
        misses=best.measured.misses,
        without_gradient=reference.without_gradient,
        timed_at=timed_at,
    )
    tuned = replace(compiled, path=path, settings=settings.model_dump(mode="json"), notes=notes)
    tuned.write_record()
    return tuned


def _reference(fp32: OnnxModel, settings: TunedSettings, data: PreparedData, twin: Path, labelled: bool) -> Reference:
    from stages.search.score import reference_answers

    without_gradient, written = "", None
    try:
        written = write_twin(fp32.path, twin, data)
    except UsageError as error:
        without_gradient = str(error).removeprefix(f"{fp32.path}: ")  # it goes into the record
    return reference_answers(
        fp32.path,
        written,
        data.validation,
        data.task,
        labelled,
        settings.scored_images,
        settings.explained_images,
        settings.seed,
        without_gradient,
    )


def chosen(
    trials: Sequence[TrialNote], evaluate: Callable[[CandidateNote], MeasuredNote]
) -> tuple[list[TrialNote], TrialNote]:
    """Return the trials and the best of them, measured as a whole.

    Maps and timing that were left out of a trial can only make it worse. So while the nearest one lacks something, it
    is measured as a whole; the choice is then the one that there would be had none been left out.

    Args:
        trials: as the search made them.
        evaluate: measures a candidate as a whole.
    """
    of = {trial.candidate: trial for trial in trials}
    whole = set[CandidateNote]()
    while True:
        best = best_trial(list(of.values()))
        found = best.measured
        if best.candidate in whole or found is None or found.within_limits or found.speedup:
            break
        whole.add(best.candidate)
        of[best.candidate] = tried(evaluate, best.candidate)
    return list(of.values()), best


def _sensitivity(
    candidates: Candidates, nodes: Mapping[str, str], study: Study, progress: Progress
) -> list[SensitivityNote]:
    """Return what quantizing each layer alone costs, the costliest for the logits first; the study keeps each."""
    from stages.quantize.methods.static import StaticSettings

    known = known_layers(study)
    for done, (layer, operator) in enumerate(nodes.items(), start=1):
        if layer not in known:
            alone = StaticSettings(
                method="static",
                target=candidates.settings.target,
                images=candidates.settings.images,
                seed=candidates.settings.seed,
                float_layers=tuple(name for name in nodes if name != layer),
            )
            score = candidates.score(candidates.compile(alone))
            known[layer] = SensitivityNote(layer=layer, operator=operator, score=score)
            remember_layer(study, known[layer])
        progress(done, len(nodes))
    return sorted((known[layer] for layer in nodes), key=lambda found: found.score.logits_sqnr_db.value)


def _ranked(
    sensitivity: Sequence[SensitivityNote], metric: Literal["logits_sqnr_db", "saliency_spearman"]
) -> tuple[str, ...]:
    ordered = sorted(sensitivity, key=lambda found: getattr(found.score, metric).value)
    return tuple(found.layer for found in ordered)


def _static(candidate: CandidateNote, ranking: Ranking, settings: TunedSettings) -> StaticSettings:
    from stages.quantize.methods.static import StaticSettings
    from stages.quantize.recovery.compensation import CompensatedRoundingSettings
    from stages.quantize.recovery.steps import RecoverySettings

    rounding = CompensatedRoundingSettings(images=ROUNDING_IMAGES) if candidate.compensated_rounding else None
    return StaticSettings(
        method="static",
        target=settings.target,
        calibration=candidate.calibration,
        recovery=RecoverySettings(
            equalization=candidate.equalization,
            bias_correction=candidate.bias_correction,
            compensated_rounding=rounding,
        ),
        float_layers=tuple(ranking[candidate.ranking][: candidate.float_layers]),
        images=settings.images,
        seed=settings.seed,
    )
