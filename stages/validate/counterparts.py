"""What saliency maps are held against, and a metric's value for each map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import PreparedSplit, Task
from foundation.metrics import Metric
from stages.validate import Computation
from stages.validate.answers import NO_SCORES
from stages.validate.deletion import Probability

Images = NDArray[np.uint8]
Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

DIED = "with random weights no map varies: the network answers nothing"


@dataclass(frozen=True)
class ExplainedImages:
    """The images that the maps explain, and what is known of them.

    Attributes:
        images: uint8 [m, channels, h, w].
        targets: int64 [m], the class that is explained.
        masks: bool [m, h, w], True on the lesion.
        has_mask: bool [m].
        groups: m names of what images belong together by; intervals come from resamples of whole groups.
        task: the kind of task.
    """

    images: Images
    targets: Indices
    masks: Masks
    has_mask: Masks
    groups: tuple[str, ...]
    task: Task

    @classmethod
    def of(cls, data: PreparedSplit, index: Indices, targets: Indices, task: Task) -> ExplainedImages:
        """Return the images of a split at the indices [m], with the classes [m] that are explained."""
        groups = tuple(data.groups[position] for position in index)
        return cls(data.images[index], targets, data.masks[index], data.has_mask[index], groups, task)


@dataclass(frozen=True)
class Counterparts:
    """What maps are held against; what was not asked for is not measured, without a word.

    Attributes:
        probability: the answers of the file that the maps explain; None where it gives the number of a class alone.
        fill: uint8 [channels, 1, 1], what a pixel becomes that is taken away.
        start: uint8 that broadcasts to the images, what insertion begins with.
        reference: fp32's maps of the same images, float32 [m, h, w]; None for fp32 itself.
        randomised: maps of fp32 with random weights, float32 [m, h, w] for each order; empty where there are none.
        why_not_randomised: the reason for none.
        cascade: the same with the weights of its topmost layers alone in a random order, by what they are.
        noisy: makes the maps of noisy copies of the images, float32 [m, h, w] for each copy; None where unasked.
        gains: float64 [m], the class's logit of an image − that of the baseline, which the map should add up to; None
            where the method promises nothing of the kind.
        fp32s: by metric fp32's value of each image, float64 [m], for the paired difference; empty for fp32 itself.
    """

    probability: Probability | None
    fill: Images
    start: Images
    reference: Maps | None = None
    randomised: Sequence[Maps] = ()
    why_not_randomised: str = "the sanity check is made of fp32"
    cascade: Mapping[str, Maps] = field(default_factory=dict)
    noisy: Callable[[], Iterable[Maps]] | None = None
    gains: Floats | None = None
    fp32s: Mapping[str, Floats] = field(default_factory=dict)


def is_asked(metric: Metric, against: Counterparts) -> bool:
    """Return whether there is anything to measure a kind of metric by, or a reason to tell why there is not."""
    match metric.inputs:
        case "noise":
            return against.noisy is not None
        case "path":
            return against.gains is not None
        case "cascade":
            return bool(against.cascade)
        case _:
            return True


def counted_images(
    metric: Metric, variant: str, explained: ExplainedImages, against: Counterparts
) -> tuple[Masks, str]:
    """Return which images a kind of metric counts, bool [m], and why it counts none; "" where it counts some."""
    every = np.ones(len(explained.targets), dtype=np.bool_)
    match metric.inputs:
        case "maps" if metric.against_fp32:
            return every, f"{variant} is the reference itself" if against.reference is None else ""
        case "perturbed" if against.probability is None:
            return every, NO_SCORES.format("the model")
        case "randomised" if not against.randomised:
            return every, against.why_not_randomised
        case "randomised":
            # A constant map, of a network that died with its weights, would pass for one that changed.
            varies = np.logical_and.reduce([np.ptp(maps, axis=(1, 2)) > 0 for maps in against.randomised])
            return varies, "" if varies.any() else DIED
        case "masks":
            usable = explained.has_mask & explained.masks.any(axis=(1, 2))
            return usable, "" if usable.any() else "none of the explained images has a mask"
        case _:
            return every, ""


def values_of(
    metric: Metric,
    computation: Computation,
    maps: Maps,
    explained: ExplainedImages,
    against: Counterparts,
    counted: Masks,
) -> Floats:
    """Return a metric's value for each counted map, float64; NaN where it is not defined."""
    chosen = maps[counted]
    match metric.inputs:
        case "perturbed":
            images, targets = explained.images[counted], explained.targets[counted]
            start = against.start if metric.higher_is_better else against.fill
            start = start[counted] if start.ndim == 4 else start
            return computation.function(against.probability, images, chosen, targets, start)
        case "masks":
            return computation.function(chosen, explained.masks[counted])
        case "maps" if metric.against_fp32:
            assert against.reference is not None  # `counted_images` gives a reason where there is none
            return computation.function(chosen, against.reference[counted])
        case "maps":
            return computation.function(chosen)
        case "noise":
            assert against.noisy is not None  # see `is_asked`
            return computation.function(chosen, (maps[counted] for maps in against.noisy()))
        case "path":
            assert against.gains is not None
            return computation.function(chosen, against.gains[counted])
        case _:
            return np.asarray(values_of_draws(computation, maps, against, counted).mean(axis=0))


def values_of_draws(computation: Computation, maps: Maps, against: Counterparts, counted: Masks) -> Floats:
    """Return the likeness of each counted map to that of every random order, float64 [draws, counted]."""
    chosen = maps[counted]
    return np.stack([computation.function(chosen, of_draw[counted]) for of_draw in against.randomised])
