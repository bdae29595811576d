"""The stages that explain every file: its saliency twin, its maps by each method, and what the maps are worth."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from foundation.errors import DiskError, NotMeasuredError, StageError, UsageError
from foundation.files import sha256_of_file
from foundation.measurements import (
    CENTRE_PRIOR,
    RANDOM_MAP,
    Measurement,
    read_measurements,
    write_measurements,
)
from foundation.progress import Observer, Progress
from pipeline.run.deliveries import Performer, work_folder
from pipeline.run.stage import Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calibration_data.prepared import PreparedData
    from stages.validate.counterparts import Counterparts, ExplainedImages
    from stages.validate.maps.methods import ExplainedFiles, Explainer
    from stages.validate.saliency import SaliencySettings


@dataclass(frozen=True)
class Explaining:
    """What explaining one file needs.

    Attributes:
        settings: methods, images and how finely.
        performer: of the run's stages.
        data: the images.
        fp32: the baseline.
        model: the file.
        progress: called with what is done and the total.
    """

    settings: SaliencySettings
    performer: Performer
    data: PreparedData
    fp32: OnnxModel
    model: OnnxModel
    progress: Progress

    @property
    def is_baseline(self) -> bool:
        """Whether the file is fp32 itself."""
        return self.model.variant == self.fp32.variant


def explain_model(task: Explaining, without_reference: dict[str, str], observer: Observer) -> list[Measurement]:
    """Write a file's saliency twin and measure its maps by each method; a method that fails costs only its numbers.

    Args:
        task: the file and its run.
        without_reference: method → why fp32 has no maps by it; filled in while fp32 is explained, read afterwards.
        observer: who watches.
    """
    from stages.validate.fidelity import unmeasured_saliency

    variant = task.model.variant
    files, reasons = _explained_files(task, observer)
    found: list[Measurement] = []
    for method in task.settings.methods:
        why_not = reasons.get(method, "")
        if not why_not and method in without_reference:
            why_not = f"fp32 has no maps by {method} to hold others against: {without_reference[method]}"
        if not why_not:
            try:
                found += _explain_by(task, method, files)
                continue
            except DiskError:
                raise
            except (StageError, UsageError) as error:
                observer.say(f"✗ {variant}, {method}: {error}")
                why_not = str(error)
        if task.is_baseline:
            without_reference[method] = why_not
        found += unmeasured_saliency(variant, why_not, task.data.task, method)
    return found


def explain_by_one_method(task: Explaining, method: str, observer: Observer) -> None:
    """Do the stages of one method alone; its maps of fp32 are there, unless the file is fp32.

    Raises:
        StageError: the file cannot be explained by it.
    """
    files, reasons = _explained_files(
        replace(task, settings=task.settings.model_copy(update={"methods": (method,)})), observer
    )
    if method in reasons:
        raise StageError(reasons[method])
    _explain_by(task, method, files)


def _explained_files(task: Explaining, observer: Observer) -> tuple[ExplainedFiles, dict[str, str]]:
    """Write what a file is explained by, and return it with the reason for each method that lacks what it needs.

    The saliency twin ships with the file, so it is written whatever the methods; Grad-CAM's only where it is asked.
    """
    from stages.validate.maps.methods import SALIENCY_METHODS, ExplainedFiles

    runs_on = {method: SALIENCY_METHODS[method].runs_on for method in task.settings.methods}
    made: dict[str, Path] = {}
    reasons: dict[str, str] = {}
    for kind in ("twin", *(("grad_cam",) if "grad_cam" in runs_on.values() else ())):
        path = _twin_path(task.model.path, kind)
        stage = Stage(
            kind="twin" if kind == "twin" else "grad_cam_twin",
            subject=task.model.variant,
            inputs={"model": task.model.sha256},
            settings={},
            modules=("stages.saliency_twin.drawing", "stages.saliency_twin.grad_cam"),
            outputs=(path,),
        )
        try:
            made[kind] = task.performer.perform(
                stage, partial(_write_twin, task.model.path, kind), partial(Path, path)
            )
        except DiskError:
            raise
        except (StageError, UsageError) as error:
            observer.say(f"{task.model.variant}: {kind.replace('_', '-')} could not be written. {error}")
            reasons |= {method: str(error) for method, needed in runs_on.items() if needed == kind}
    return ExplainedFiles(task.model.path, made.get("twin"), made.get("grad_cam")), reasons


def _twin_path(model: Path, kind: str) -> Path:
    from stages.saliency_twin.twin_file import twin_path

    if kind == "twin":
        return twin_path(model)
    from stages.saliency_twin.grad_cam import grad_cam_path

    return grad_cam_path(model)


def _write_twin(model: Path, kind: str) -> Path:
    """Write the saliency twin or the Grad-CAM twin beside a model.

    Raises:
        NotMeasuredError: an operator of the file has no rule, or there is nothing that Grad-CAM could look at.
    """
    from stages.saliency_twin.twin_file import make_twin

    try:
        if kind == "twin":
            return make_twin(model, None, None, None)
        from stages.saliency_twin.grad_cam import make_grad_cam

        return make_grad_cam(model)
    except DiskError:
        raise
    except UsageError as error:
        raise NotMeasuredError(str(error)) from error


def _explain_by(task: Explaining, method: str, files: ExplainedFiles) -> Sequence[Measurement]:
    """Return the measurements of a file's maps by one method; for fp32 also those of maps that know nothing.

    Raises:
        StageError: a logit or a gradient is not finite.
    """
    run, settings, model = task.performer.run, task.settings, task.model
    path = run.root / "validate" / "measured" / f"{model.variant}.{method}.json"
    maps_path, values_path = run.maps(model.variant, method), run.map_values(model.variant, method)

    def compute() -> Sequence[Measurement]:
        from foundation.explanations import Explanations
        from stages.validate.fidelity import measure_saliency
        from stages.validate.map_values import write_map_values
        from stages.validate.maps.methods import open_method
        from stages.validate.saliency import explain

        index, images = _explained(task)
        explainer = open_method(method, files, images.task, settings)
        maps = explain(explainer, images.images, images.targets, settings.batch_size, task.progress)
        Explanations(model.variant, maps, index, images.targets, maps_path).write()
        against = _counterparts(task, explainer, images)
        scored = measure_saliency(model.variant, maps, images, against, method, settings)
        write_map_values(values_path, scored.values)
        found = [*scored.rows]
        if task.is_baseline:
            found += _uninformed(explainer, maps, images, replace(against, fp32s=scored.values), settings)
        write_measurements(path, found)
        return found

    stage = Stage(
        kind=method,
        subject=model.variant,
        inputs={
            "model": model.sha256,
            "fp32": task.fp32.sha256,
            "data": task.data.sha256,
            "answers": sha256_of_file(run.predictions("fp32")),
        },
        settings={
            "saliency": settings.model_dump(mode="json", exclude={"methods"}),
            "processor": asdict(task.performer.record.environment.cpu),
        },
        modules=("stages.validate.fidelity", "stages.validate.maps.methods", "stages.saliency_twin.drawing"),
        outputs=(path, maps_path, values_path),
    )
    return task.performer.perform(stage, compute, partial(read_measurements, path))


def _explained(task: Explaining) -> tuple[NDArray[np.int64], ExplainedImages]:
    """Return which test images are explained, and what is known of them; the same for every variant."""
    from stages.validate.answers import Predictions
    from stages.validate.counterparts import ExplainedImages
    from stages.validate.explained import explained_classes, images_to_explain

    test, settings = task.data.test, task.settings
    answers = Predictions.read("fp32", task.performer.run.predictions("fp32")).logits
    index = images_to_explain(test, settings.images, settings.seed)
    targets = explained_classes(answers, test.mask_class, task.data.task)[index]
    return index, ExplainedImages.of(test, index, targets, task.data.task)


def _counterparts(task: Explaining, explainer: Explainer, images: ExplainedImages) -> Counterparts:
    """Return what a file's maps are held against: fp32's, those of random weights, and the file's own answers."""
    from foundation.explanations import Explanations
    from onnx_files.sessions import open_session
    from stages.validate.counterparts import Counterparts
    from stages.validate.deletion import blurred
    from stages.validate.fidelity import probability_of
    from stages.validate.map_values import read_map_values
    from stages.validate.maps.queries import mean_colour

    run, settings, method = task.performer.run, task.settings, explainer.method
    session = open_session(task.model.path, "cpu", settings.threads)
    fill = mean_colour(session)[:, None, None]
    against = Counterparts(
        probability_of(session, images.task, settings.batch_size),
        fill,
        blurred(images.images) if settings.insertion_start == "blur" else fill,
        noisy=partial(_noisy_maps, task, explainer, images) if settings.sensitivity_samples else None,
        gains=explainer.gains(images.images, images.targets),
    )
    if not task.is_baseline:
        reference = Explanations.read("fp32", run.maps("fp32", method)).maps
        return replace(against, reference=reference, fp32s=read_map_values(run.map_values("fp32", method)))
    try:
        seeds = range(settings.seed, settings.seed + settings.sanity_draws)
        randomised = [_randomised_maps(task, method, images, seed, None) for seed in seeds]
        return replace(against, randomised=randomised, cascade=_cascade(task, method, images))
    except DiskError:
        raise
    except (StageError, UsageError) as error:
        return replace(against, why_not_randomised=f"fp32 with random weights: {error}")


def _noisy_maps(task: Explaining, explainer: Explainer, images: ExplainedImages) -> Iterator[NDArray[np.float32]]:
    """Yield the maps of each noisy copy of the images."""
    from stages.validate.map_stability import noisy_copies
    from stages.validate.saliency import explain

    settings = task.settings
    copies = noisy_copies(images.images, settings.sensitivity_samples, settings.sensitivity_radius, settings.seed)
    for copy in copies:
        yield explain(explainer, copy, images.targets, settings.batch_size, task.progress)


def _cascade(task: Explaining, method: str, images: ExplainedImages) -> dict[str, NDArray[np.float32]]:
    """Return the maps of fp32 whose topmost layers know nothing, step by step down to the first layer."""
    from stages.validate.randomised import weighted_layers

    steps, layers = task.settings.sanity_cascade, weighted_layers(task.fp32.path)
    # Each step takes at least one layer more than the one before it.
    topmost = sorted({-(-layers * step // steps) for step in range(1, steps + 1)}) if steps else []
    return {
        f"top {count} of {layers} layers": _randomised_maps(task, method, images, task.settings.seed, count)
        for count in topmost
    }


def _randomised_maps(
    task: Explaining, method: str, images: ExplainedImages, seed: int, topmost: int | None
) -> NDArray[np.float32]:
    """Return the maps by a method of fp32 after the weights of its topmost layers were put in a random order.

    Raises:
        StageError: it answers with NaN or infinity.
        NotMeasuredError: an operator of the file has no rule.
    """
    from stages.validate.maps.methods import SALIENCY_METHODS, ExplainedFiles, open_method
    from stages.validate.randomised import write_randomised
    from stages.validate.saliency import explain

    with _folder_for_a_while(work_folder(task.performer.run) / "randomised" / method) as folder:
        path = folder / "fp32.onnx"
        write_randomised(task.fp32.path, path, seed, topmost)
        kind = SALIENCY_METHODS[method].runs_on
        twin = _write_twin(path, kind) if kind != "model" else None
        files = ExplainedFiles(path, twin if kind == "twin" else None, twin if kind == "grad_cam" else None)
        explainer = open_method(method, files, images.task, task.settings)
        return explain(explainer, images.images, images.targets, task.settings.batch_size, task.progress)


@contextmanager
def _folder_for_a_while(folder: Path) -> Iterator[Path]:
    """Yield an empty folder of the run, which goes afterwards; its fixed name keeps error messages the same."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _uninformed(
    explainer: Explainer,
    maps: NDArray[np.float32],
    images: ExplainedImages,
    against: Counterparts,
    settings: SaliencySettings,
) -> list[Measurement]:
    """Return what maps that know nothing score: noise as coarse as the method's maps, and a spot in the centre."""
    from stages.validate.fidelity import measure_saliency
    from stages.validate.maps.baselines import centre_prior

    # They answer to no file and no image, so that noise and a sum have nothing to say of them.
    beside = replace(against, reference=maps, noisy=None, gains=None)
    shape = (maps.shape[0], maps.shape[1], maps.shape[2])
    know_nothing = {RANDOM_MAP: explainer.random_maps(shape, settings.seed), CENTRE_PRIOR: centre_prior(shape)}
    return [
        row
        for name, of_name in know_nothing.items()
        for row in measure_saliency(name, of_name, images, beside, explainer.method, settings).rows
    ]
