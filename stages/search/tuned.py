"""The tuned variant: layers ranked by what quantizing each alone costs, then the search within limits.

Candidates are scored on validation images, as a user of the method would; the test split is never looked at. A limit
is held against the point estimate. Latency decides, so two searches may end with different files; one search, once
recorded, is reused like every other stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from foundation.errors import StageError, UsageError
from foundation.files import JSON, write_bytes
from foundation.progress import Progress
from onnx_files.image_input import preprocessing_of
from onnx_files.reading import read_model
from stages.saliency_twin.twin_file import twin_path
from stages.search.study import Candidate, Measured, Trial, TunedSettings, best_trial, open_study, search

if TYPE_CHECKING:
    from onnx import ModelProto
    from optuna import Study

    from calibration_data.prepared import PreparedData
    from stages.quantize.methods.static import StaticSettings
    from stages.search.score import Reference, Score


_SQUASHING = frozenset(("Softmax", "LogSoftmax", "Sigmoid", "Identity"))


@dataclass(frozen=True)
class _Bench:
    """Where candidates are compiled and scored."""

    fp32: OnnxModel
    variant: str
    data: PreparedData
    settings: TunedSettings
    reference: Reference
    trial_path: Path

    def compile(self, static: StaticSettings, final: bool = False) -> OnnxModel:
        from stages.quantize.methods.static import quantize_static

        return quantize_static(self.fp32, self.variant, static, self.data, self.trial_path, check_saturation=final)

    def score(self, model: OnnxModel) -> Score:
        from stages.search.score import score

        try:
            twin = write_twin(model.path, twin_path(model.path), self.data)
            return score(self.reference, model.path, twin)
        except (UsageError, StageError) as error:  # of a file that is ours, under a name that goes into the record
            raise StageError(str(error).replace(str(model.path), f"a file of {self.variant}")) from error


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
    """Search, and compile the fastest static int8 file that keeps every limit.

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
        StageError: no file keeps every limit.
    """
    from onnx_files.graph import layers, load
    from stages.search.score import reference_answers, speedup

    deadline = time.monotonic() + 60 * settings.minutes
    trial_path = path.with_name(f"{variant}.trial.onnx")
    nodes = {node.name: node.op_type for node in layers(load(fp32), fp32)}
    total = len(nodes) + settings.trials
    try:
        reference = reference_answers(
            fp32.path,
            write_twin(fp32.path, twin_path(trial_path), data),
            data.validation,
            data.task,
            labelled,
            settings.scored_images,
            settings.explained_images,
            settings.seed,
        )
        bench = _Bench(fp32, variant, data, settings, reference, trial_path)
        if journal is None:
            journal = path.with_name(f"{variant}.search.jsonl")
        study = open_study(journal, identity, settings.seed)
        sensitivity = _sensitivity(bench, nodes, study, lambda done: progress(done, total))
        rankings = {
            "logits": _ranked(sensitivity, "logits_sqnr_db"),
            "saliency": _ranked(sensitivity, "saliency_spearman"),
        }

        def evaluate(candidate: Candidate) -> Measured:
            model = bench.compile(_static(candidate, rankings, settings))
            found = bench.score(model)
            faster = speedup(fp32.path, model.path, data.validation.images[0], settings.latency_rounds)
            record = {**asdict(found), "speedup": asdict(faster), "size_bytes": model.size_bytes}
            return Measured(faster.value, (faster.ci95 or (faster.value,))[0], _margins(found, settings), record)

        trials = search(
            evaluate,
            len(nodes),
            settings,
            study,
            lambda done, _: progress(len(nodes) + done, total),
            deadline,
        )
        best = best_trial(trials)
        chosen = bench.compile(_static(best.candidate, rankings, settings), final=True)
        trial_path.rename(path)
    finally:
        for leftover in (trial_path, trial_path.with_suffix(".json"), twin_path(trial_path)):
            leftover.unlink(missing_ok=True)
    notes = {
        **chosen.notes,
        "chosen": asdict(best.candidate),
        "search": [_as_json(trial) for trial in trials],
        "sensitivity": sensitivity,
    }
    tuned = replace(chosen, path=path, method="tuned", settings=settings.model_dump(mode="json"), notes=notes)
    tuned.write_record()
    return tuned


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
    layout = preprocessing_of(model, OnnxModel("", path, "", "", None)).layout
    sizes = (channels, height, width) if layout == "NCHW" else (height, width, channels)
    for axis, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], sizes, strict=True):
        axis.dim_value = size
    try:
        twin = build_twin(model, None, explained_tensor(model))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    write_bytes(output, twin.SerializeToString(deterministic=True))
    return output


def explained_tensor(model: ModelProto) -> str:
    """Return the tensor whose gradient is compared: the first output, or what a Softmax or Sigmoid there reads.

    The gradient of a probability vanishes as it nears 1.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    name: str = model.graph.output[0].name
    while name in makers and makers[name].op_type in _SQUASHING:
        name = makers[name].input[0]
    return name


def _sensitivity(
    bench: _Bench, nodes: Mapping[str, str], study: Study, progress: Callable[[int], None]
) -> list[dict[str, JSON]]:
    """Return what quantizing each layer alone costs, the costliest for the logits first; the study keeps each."""
    from stages.quantize.methods.static import StaticSettings

    known: Mapping[str, dict[str, JSON]] = study.user_attrs
    found: list[dict[str, JSON]] = []
    for done, (layer, operator) in enumerate(nodes.items(), start=1):
        row = known.get(layer)
        if row is None:
            alone = StaticSettings(
                method="static",
                target=bench.settings.target,
                images=bench.settings.images,
                seed=bench.settings.seed,
                float_layers=tuple(name for name in nodes if name != layer),
            )
            row = {"layer": layer, "operator": operator, **asdict(bench.score(bench.compile(alone)))}
            study.set_user_attr(layer, row)
        found.append(row)
        progress(done)
    return sorted(found, key=lambda row: row["logits_sqnr_db"]["value"])


def _ranked(sensitivity: Sequence[Mapping[str, JSON]], metric: str) -> tuple[str, ...]:
    return tuple(row["layer"] for row in sorted(sensitivity, key=lambda row: row[metric]["value"]))


def _static(candidate: Candidate, rankings: Mapping[str, Sequence[str]], settings: TunedSettings) -> StaticSettings:
    from stages.quantize.methods.static import StaticSettings
    from stages.quantize.recovery.steps import RecoverySettings

    return StaticSettings(
        method="static",
        target=settings.target,
        calibration=candidate.calibration,
        recovery=RecoverySettings(equalization=candidate.equalization, bias_correction=candidate.bias_correction),
        float_layers=tuple(rankings[candidate.ranking][: candidate.float_layers]),
        images=settings.images,
        seed=settings.seed,
    )


def _margins(found: Score, settings: TunedSettings) -> dict[str, float]:
    margins = {
        "agreement": found.agreement.value - settings.agreement,
        "saliency_spearman": found.saliency_spearman.value - settings.saliency_spearman,
    }
    if found.accuracy_drop is not None:
        margins["accuracy_drop"] = settings.accuracy_drop - found.accuracy_drop.value
    return margins


def _as_json(trial: Trial) -> dict[str, JSON]:
    measured = trial.measured
    return {
        **asdict(trial.candidate),
        "error": trial.error,
        "measured": None if measured is None else dict(measured.record),
        "within_limits": measured is not None and measured.within_limits,
    }
