"""What a file answers where images get worse: JPEG, blur, noise, brightness and rotation at five strengths each."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.measurements import Measurement, Where
from foundation.settings import Settings
from stages.validate import decisions
from stages.validate.answers import Answers
from stages.validate.intervals.estimates import Estimate
from stages.validate.intervals.paired import paired_shares
from stages.validate.intervals.proportions import Decisions, share_interval
from stages.validate.measurements import measured

Images = NDArray[np.uint8]
Logits = NDArray[np.float32]
Remarks = Mapping[str, str | float]

STRENGTHS = (1, 2, 3, 4, 5)
_WIDTH_PX = 224
"""Of the images that the published strengths of blur are made for; smaller ones are blurred in proportion."""


class RobustnessSettings(Settings):
    """On which images, and how much worse these are made."""

    images: int = Field(256, ge=10, le=1_000_000, description="test images, spread over the classes")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the choice of images and of the noise")


@dataclass(frozen=True)
class Kind:
    """One way in which images get worse.

    Attributes:
        heading: what the levels are, as one reads it.
        levels: of the five strengths.
        change: (images uint8 [n, c, h, w], level, seed) → images of the same shape.
    """

    heading: str
    levels: tuple[float, float, float, float, float]
    change: Callable[[Images, float, int], Images]


def _jpeg(images: Images, quality: float, seed: int) -> Images:
    from PIL import Image

    changed = np.empty_like(images)
    for place, image in enumerate(images):
        pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, "JPEG", quality=int(quality))
        read = np.asarray(Image.open(packed))
        changed[place] = read[None] if read.ndim == 2 else np.moveaxis(read, -1, 0)
    return changed


def _blur(images: Images, sigma_px: float, seed: int) -> Images:
    from scipy.ndimage import gaussian_filter

    sigma = sigma_px * images.shape[-1] / _WIDTH_PX
    return _rounded(gaussian_filter(images.astype(np.float32), (0, 0, sigma, sigma), mode="nearest"))


def _noise(images: Images, share: float, seed: int) -> Images:
    noise = np.random.default_rng(seed).standard_normal(images.shape, dtype=np.float32)
    return _rounded(images + 255.0 * share * noise)


def _brightness(images: Images, share: float, seed: int) -> Images:
    return _rounded(images.astype(np.float32) + 255.0 * share)


def _rotation(images: Images, degrees: float, seed: int) -> Images:
    from scipy.ndimage import rotate

    turned = rotate(images.astype(np.float32), degrees, axes=(3, 2), reshape=False, order=1, mode="nearest")
    return _rounded(turned)


def _rounded(values: NDArray[np.floating]) -> Images:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


KINDS: Mapping[str, Kind] = {
    "jpeg": Kind("JPEG quality", (25, 18, 15, 10, 7), _jpeg),
    "blur": Kind("Gaussian blur, px of 224", (1, 2, 3, 4, 6), _blur),
    "noise": Kind("Gaussian noise, share of the range", (0.08, 0.12, 0.18, 0.26, 0.38), _noise),
    "brightness": Kind("Brighter by, share of the range", (0.1, 0.2, 0.3, 0.4, 0.5), _brightness),
    "rotation": Kind("Rotation, degrees", (5, 10, 15, 20, 30), _rotation),
}
"""All but the rotation by the strengths of ImageNet-C (Hendrycks and Dietterich 2019, arXiv:1903.12261), which makes
images brighter in HSV's value; here, every channel gets the same."""


def changes() -> tuple[tuple[str, Kind, int], ...]:
    """Return each kind at each strength with its name in measurements: "jpeg 3"."""
    return tuple((f"{name} {strength}", kind, strength) for name, kind in KINDS.items() for strength in STRENGTHS)


CHANGE_NAMES = tuple(name for name, _, _ in changes())
"""What a gate may name."""


def changed_images(images: Images, kind: Kind, strength: int, seed: int) -> Images:
    """Return images made worse; the same for every file.

    Args:
        images: uint8 [n, channels, height, width].
        kind: a row of `KINDS`.
        strength: 1 to 5.
        seed: of the noise.
    """
    return kind.change(images, kind.levels[strength - 1], seed)


def measure_robustness(
    answers: Answers, logits: Sequence[Logits], reference: Sequence[Logits] | None
) -> list[Measurement]:
    """Return accuracy under every change, and agreement with fp32, which sees the same images.

    Args:
        answers: of the file to the images as they are; fp32's logits in it are left aside.
        logits: one float32 [n, classes] for each of `changes`.
        reference: fp32's; None for fp32 itself.
    """
    found: list[Measurement] = []
    for place, (name, kind, strength) in enumerate(changes()):
        where = Where(provider="cpu", split="test", change=name)
        told: Remarks = {"change_is": kind.heading, "level": kind.levels[strength - 1]}
        fp32 = None if reference is None else reference[place]
        found.append(_accuracy(replace(answers, logits=logits[place], reference_logits=fp32), where, told))
        if fp32 is not None:
            function = decisions.agreement if answers.task == "multi_class" else decisions.label_agreement
            same = Decisions(function(logits[place], fp32, None), answers.units)
            found.append(_share("robust_agreement", answers.variant, same, where, told))
    return found


def _accuracy(answers: Answers, where: Where, told: Remarks) -> Measurement:
    function = decisions.accuracy if answers.task == "multi_class" else decisions.label_accuracy
    own = Decisions(function(answers.logits, answers.labels, None), answers.units)
    one = _share("robust_accuracy", answers.variant, own, where, told)
    if answers.reference_logits is None:
        return one
    fp32 = Decisions(function(answers.reference_logits, answers.labels, None), answers.units)
    return replace(one, difference=paired_shares(own, fp32))


def _share(metric: str, variant: str, of: Decisions, where: Where, told: Remarks) -> Measurement:
    remarks = {**told, "no_interval": of.too_few} if of.too_few else told
    n = of.values.shape[-1]
    return measured(metric, variant, Estimate(float(of.shares.mean()), share_interval(of), n), where, remarks)
