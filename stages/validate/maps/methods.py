"""Every saliency method of a shipped file behind one interface: (images, targets) → maps.

`SALIENCY_METHODS` is the table; `open_method` makes one of its rows ready for a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import Task
from foundation.errors import NotMeasuredError, StageError, UsageError
from onnx_files.sessions import open_session, session_answers, session_preprocessing
from stages.validate.maps import gradients
from stages.validate.maps.baselines import random_maps
from stages.validate.maps.occlusion import occlusion_maps
from stages.validate.maps.queries import Twin, image_input, mean_colour
from stages.validate.maps.rise import rise_maps
from stages.validate.maps.settings import MapSettings

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Images = NDArray[np.uint8]
Maps = NDArray[np.float32]
Indices = NDArray[np.int64]

MapFunction = Callable[[Images, Indices], Maps]
"""(images uint8 [n, c, h, w], target classes int64 [n]) → maps float32 [n, h, w], higher = more important."""
RunsOn = Literal["model", "twin", "grad_cam"]


@dataclass(frozen=True)
class ExplainedFiles:
    """What there is of a variant to explain it by.

    Attributes:
        model: the shipped file.
        twin: its saliency twin, or None.
        grad_cam: its Grad-CAM twin, or None.
    """

    model: Path
    twin: Path | None = None
    grad_cam: Path | None = None


@dataclass(frozen=True)
class SaliencyMethod:
    """One row of `SALIENCY_METHODS`.

    Attributes:
        meaning: in a line.
        source: the paper.
        runs_on: which file it asks.
        signed: whether values below 0 speak against the class; otherwise the least value is 0.
        maps: (session, images, targets, task, settings) → maps.
        resolution: (session, image size in pixels, settings) → patch and stride in pixels of the random maps that are
            as coarse as its own.
    """

    meaning: str
    source: str
    runs_on: RunsOn
    signed: bool
    maps: Callable[[InferenceSession, Images, Indices, Task, MapSettings], Maps]
    resolution: Callable[[InferenceSession, int, MapSettings], tuple[int, int]]


@dataclass(frozen=True)
class Explainer:
    """A method, opened for a file; a `MapFunction`.

    An image's map does not depend on which others are asked with it, but for files whose arithmetic does (dynamic
    quantization takes its ranges from the batch). The same question has the same answer.

    Attributes:
        method: a key of `SALIENCY_METHODS`.
        session: of the file that the method asks.
        task: the kind of task.
        settings: of the method.
    """

    method: str
    session: InferenceSession
    task: Task
    settings: MapSettings

    def __call__(self, images: Images, targets: Indices) -> Maps:
        """Return the maps float32 [n, h, w] of images uint8 [n, c, h, w] for the classes int64 [n].

        Raises:
            UsageError: the images don't fit the file, or a class does not exist.
            StageError: the file's numbers overflow, or a patch does not fit.
        """
        self._check(images, targets)
        if not len(images):
            return np.empty((0, *images.shape[2:]), dtype=np.float32)
        maps = self._row.maps(self.session, images, targets, self.task, self.settings)
        if not np.isfinite(maps).all():
            raise StageError(
                f"{self.method}: expected finite maps, found NaN or infinity. The file's numbers overflow; leave "
                "more of it in float."
            )
        return maps

    def gains(self, images: Images, targets: Indices) -> NDArray[np.float64] | None:
        """Return what the map of each image should add up to, float64 [n]; None where the method promises nothing."""
        if self.method != "integrated_gradients":
            return None
        return gradients.logit_gains(Twin(self.session, self.settings.batch_size), images, targets)

    def random_maps(self, shape: tuple[int, int, int], seed: int) -> Maps:
        """Return maps [n, h, w] that know nothing, as coarse as this method's: what chance scores beside it."""
        patch, stride = self._row.resolution(self.session, min(shape[1:]), self.settings)
        return random_maps(seed, shape, patch, stride)

    @property
    def _row(self) -> SaliencyMethod:
        return SALIENCY_METHODS[self.method]

    def _check(self, images: Images, targets: Indices) -> None:
        expected = list(image_input(self.session).shape[1:])
        fits = images.ndim == 4 == len(expected) + 1 and all(
            not isinstance(size, int) or size == found for size, found in zip(expected, images.shape[1:], strict=True)
        )
        if not fits or images.dtype != np.uint8:
            raise UsageError(
                f"{self.method}: expected images uint8 of shape [n, {', '.join(map(str, expected))}], found "
                f"{images.dtype} {list(images.shape)}. Use the data that the model was exported for."
            )
        classes = self._classes()
        known = classes if isinstance(classes, int) else np.iinfo(np.int64).max
        if targets.shape != (len(images),) or targets.dtype != np.int64 or ((targets < 0) | (targets >= known)).any():
            raise UsageError(
                f"{self.method}: expected a class of 0 to {classes} (exclusive) for each of {len(images)} images, "
                f"int64, found {targets.dtype} {list(targets.shape)} {np.unique(targets)[:8].tolist()}."
            )

    def _classes(self) -> int | str:
        """Return how many classes there are to explain; a name where the file leaves that open."""
        answers = session_answers(self.session)
        # A twin's first output is the logits as they are; a file may give one number for two classes, or a class's.
        if answers is not None and self._row.runs_on == "model":
            return answers.classes
        classes: int | str = self.session.get_outputs()[0].shape[1]
        return classes


def open_method(name: str, files: ExplainedFiles, task: Task, settings: MapSettings) -> Explainer:
    """Open one method for a variant's files, on the CPU provider.

    Args:
        name: a key of `SALIENCY_METHODS`.
        files: what there is of the variant.
        task: the kind of task.
        settings: samples, steps, patches, batch and threads.

    Raises:
        UsageError: no such method, or the file cannot be read, has several inputs or no preprocessing.
        NotMeasuredError: the variant lacks the file that the method asks.
    """
    if name not in SALIENCY_METHODS:
        raise UsageError(f"saliency method {name!r}: expected one of {', '.join(SALIENCY_METHODS)}.")
    wanted = SALIENCY_METHODS[name].runs_on
    path: Path | None = {"model": files.model, "twin": files.twin, "grad_cam": files.grad_cam}[wanted]
    if path is None:
        kind = "saliency" if wanted == "twin" else "Grad-CAM"
        raise NotMeasuredError(
            f"{name}: expected the {kind} twin of {files.model.name}, found none. Use "
            "occlusion or rise, which need the file alone."
        )
    session = open_session(path, "cpu", settings.threads)
    image_input(session)
    session_preprocessing(session)
    return Explainer(name, session, task, settings)


# --- rows ---


def _gradient(session: InferenceSession, images: Images, targets: Indices, task: Task, settings: MapSettings) -> Maps:
    return gradients.gradient_maps(Twin(session, settings.batch_size), images, targets)


def _gradient_x_input(
    session: InferenceSession, images: Images, targets: Indices, task: Task, settings: MapSettings
) -> Maps:
    return gradients.gradient_x_input_maps(Twin(session, settings.batch_size), images, targets)


def _smooth_grad(
    session: InferenceSession, images: Images, targets: Indices, task: Task, settings: MapSettings
) -> Maps:
    twin = Twin(session, settings.batch_size)
    samples, share = settings.smooth_samples, settings.smooth_noise_share
    return gradients.smooth_grad_maps(twin, images, targets, samples, share, settings.seed)


def _integrated_gradients(
    session: InferenceSession, images: Images, targets: Indices, task: Task, settings: MapSettings
) -> Maps:
    twin = Twin(session, settings.batch_size)
    return gradients.integrated_gradients_maps(twin, images, targets, settings.integration_steps)


def _grad_cam(session: InferenceSession, images: Images, targets: Indices, task: Task, settings: MapSettings) -> Maps:
    return gradients.grad_cam_maps(Twin(session, settings.batch_size), images, targets)


def _occlusion(
    session: InferenceSession, images: Images, targets: Indices, task: Task, settings: MapSettings
) -> Maps:
    patch, stride = _patches(session, min(images.shape[2:]), settings)
    return occlusion_maps(session, images, targets, task, patch, stride, mean_colour(session), settings.batch_size)


def _rise(session: InferenceSession, images: Images, targets: Indices, task: Task, settings: MapSettings) -> Maps:
    return rise_maps(
        session,
        images,
        targets,
        task,
        settings.rise_masks,
        settings.rise_cells,
        settings.rise_kept_share,
        mean_colour(session),
        settings.batch_size,
        settings.seed,
    )


def _pixels(session: InferenceSession, image_size: int, settings: MapSettings) -> tuple[int, int]:
    return 1, 1


def _patches(session: InferenceSession, image_size: int, settings: MapSettings) -> tuple[int, int]:
    return settings.patch(image_size), settings.stride(image_size)


def _mask_cells(session: InferenceSession, image_size: int, settings: MapSettings) -> tuple[int, int]:
    cell = -(-image_size // settings.rise_cells)
    return cell, max(1, cell // 4)


def _feature_cells(session: InferenceSession, image_size: int, settings: MapSettings) -> tuple[int, int]:
    coarse = next(output for output in session.get_outputs() if output.name == "saliency").shape
    cell = -(-image_size // min(coarse[2:]))
    return cell, max(1, cell // 4)


SALIENCY_METHODS: Mapping[str, SaliencyMethod] = {
    "gradient": SaliencyMethod(
        "how fast the logit changes with a pixel, whichever way",
        "Simonyan et al., arXiv 1312.6034", "twin", False, _gradient, _pixels,
    ),
    "gradient_x_input": SaliencyMethod(
        "what a pixel gives to the logit, if the network were linear: gradient times normalised pixel",
        "Shrikumar et al., arXiv 1605.01713", "twin", True, _gradient_x_input, _pixels,
    ),
    "smooth_grad": SaliencyMethod(
        "the gradient's magnitude after averaging over noisy copies of the image",
        "Smilkov et al., arXiv 1706.03825", "twin", False, _smooth_grad, _pixels,
    ),
    "integrated_gradients": SaliencyMethod(
        "what a pixel gives to the logit on the way from the mean colour; adds up to the logit's change",
        "Sundararajan et al., arXiv 1703.01365", "twin", True, _integrated_gradients, _pixels,
    ),
    "grad_cam": SaliencyMethod(
        "where the last convolution's maps that raise the logit are bright",
        "Selvaraju et al., arXiv 1610.02391", "grad_cam", False, _grad_cam, _feature_cells,
    ),
    "occlusion": SaliencyMethod(
        "how much log-odds a pixel's neighbourhood takes along when a patch hides it",
        "Zeiler and Fergus, arXiv 1311.2901", "model", True, _occlusion, _patches,
    ),
    "rise": SaliencyMethod(
        "the mean probability over random masks that show a pixel",
        "Petsiuk et al., arXiv 1806.07421", "model", False, _rise, _mask_cells,
    ),
}  # fmt: skip
"""By name; maps of the variants are compared within a method, never across two."""
