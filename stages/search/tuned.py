"""The tuned variant: layers ranked by what quantizing each alone costs, then the search within limits.

Candidates are scored on validation images, as a user of the method would; the test split is never looked at. A limit
is held against the point estimate. Where no file keeps them all, the nearest is written and its notes say what it
misses. Latency decides, so two searches may end with different files; one search, once recorded, is reused like every
other stage.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foundation.artifacts import OnnxModel
from foundation.errors import DiskError, StageError, UsageError
from foundation.files import write_bytes
from foundation.note_parts import CandidateNote, MeasuredNote, ScoreNote, SensitivityNote
from foundation.notes import StaticNotes, TunedNotes
from foundation.progress import Progress
from onnx_files.image_input import preprocessing_of
from onnx_files.judged_output import explained_tensor
from onnx_files.reading import read_model
from stages.saliency_twin.twin_file import twin_path
from stages.search.study import TunedSettings, best_trial, known_layers, open_study, remember_layer, search

if TYPE_CHECKING:
    from optuna import Study

    from calibration_data.prepared import PreparedData
    from stages.quantize.methods.static import StaticSettings
    from stages.search.score import Reference


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
        UsageError: nothing to quantize in the model, or an operator of it has no saliency rule.
        StageError: no file could be measured.
    """
    from onnx_files.graph import layers
    from onnx_files.loading import load

    deadline = time.monotonic() + 60 * settings.minutes
    trial_path = path.with_name(f"{variant}.trial.onnx")
    nodes = {node.name: node.op_type for node in layers(load(fp32), fp32)}
    total = len(nodes) + settings.trials
    try:
        reference = _reference(fp32, settings, data, twin_path(trial_path), labelled)
        candidates = _Candidates(fp32, variant, data, settings, reference, trial_path)
        study = open_study(journal or path.with_name(f"{variant}.search.jsonl"), identity)
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
        best = best_trial(trials)
        chosen = candidates.compile(_static(best.candidate, ranking, settings), final=True)
        trial_path.rename(path)
    finally:
        for leftover in (trial_path, trial_path.with_suffix(".json"), twin_path(trial_path)):
            leftover.unlink(missing_ok=True)
    assert isinstance(chosen.notes, StaticNotes)
    assert best.measured is not None
    notes = TunedNotes(
        file=chosen.notes,
        chosen=best.candidate,
        search=tuple(trials),
        sensitivity=tuple(sensitivity),
        misses=best.measured.misses,
    )
    tuned = replace(chosen, path=path, settings=settings.model_dump(mode="json"), notes=notes)
    tuned.write_record()
    return tuned


def _reference(fp32: OnnxModel, settings: TunedSettings, data: PreparedData, twin: Path, labelled: bool) -> Reference:
    from stages.search.score import reference_answers

    return reference_answers(
        fp32.path,
        write_twin(fp32.path, twin, data),
        data.validation,
        data.task,
        labelled,
        settings.scored_images,
        settings.explained_images,
        settings.seed,
    )


@dataclass(frozen=True)
class _Candidates:
    """Compiles and measures one candidate after the other, each under the same path."""

    fp32: OnnxModel
    variant: str
    data: PreparedData
    settings: TunedSettings
    reference: Reference
    path: Path

    def compile(self, static: StaticSettings, final: bool = False) -> OnnxModel:
        from stages.quantize.methods.static import quantize_static

        return quantize_static(self.fp32, self.variant, static, self.data, self.path, check_saturation=final)

    def score(self, model: OnnxModel) -> ScoreNote:
        from stages.search.score import score

        try:
            twin = write_twin(model.path, twin_path(model.path), self.data)
            return score(self.reference, model.path, twin)
        except DiskError:
            raise
        except (UsageError, StageError) as error:  # of a file that is ours, under a name that goes into the record
            raise StageError(str(error).replace(str(model.path), f"a file of {self.variant}")) from error

    def measure(self, static: StaticSettings) -> MeasuredNote:
        from stages.search.score import speedup

        model = self.compile(static)
        found = self.score(model)
        image, rounds = self.data.validation.images[0], self.settings.latency_rounds
        return MeasuredNote(
            score=found,
            speedup=speedup(self.fp32.path, model.path, image, rounds),
            size_bytes=model.size_bytes,
            margins=_margins(found, self.settings),
        )


def write_twin(path: Path, output: Path, data: PreparedData) -> Path:
    """Write the saliency twin of a file of ours for the images of a data set, and return its path.

    A foreign file is read in a child process, which takes half a second; a search has a twin for every file it tries.

    Args:
        path: a file with one image as its input, whose height and width may be open.
        output: the file to write.
        data: any of its images has the size that the twin takes.

    Raises:
        UsageError: an operator has no rule, or the answers are none of a classifier.
    """
    from stages.saliency_twin.twin import build_twin

    model = read_model(path)
    channels, height, width = data.train.images.shape[1:]
    layout = preprocessing_of(model, OnnxModel("", path, "", None)).layout
    sizes = (channels, height, width) if layout == "NCHW" else (height, width, channels)
    for axis, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], sizes, strict=True):
        axis.dim_value = size
    try:
        twin = build_twin(model, None, explained_tensor(model, model.graph.output[0].name))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    write_bytes(output, twin.SerializeToString(deterministic=True))
    return output


def _sensitivity(
    candidates: _Candidates, nodes: Mapping[str, str], study: Study, progress: Progress
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
    from stages.quantize.recovery.steps import RecoverySettings

    return StaticSettings(
        method="static",
        target=settings.target,
        calibration=candidate.calibration,
        recovery=RecoverySettings(equalization=candidate.equalization, bias_correction=candidate.bias_correction),
        float_layers=tuple(ranking[candidate.ranking][: candidate.float_layers]),
        images=settings.images,
        seed=settings.seed,
    )


def _margins(found: ScoreNote, settings: TunedSettings) -> dict[str, float]:
    margins = {
        "agreement": found.agreement.value - settings.agreement,
        "saliency_spearman": found.saliency_spearman.value - settings.saliency_spearman,
    }
    if found.accuracy_drop is not None:
        margins["accuracy_drop"] = settings.accuracy_drop - found.accuracy_drop.value
    return margins
