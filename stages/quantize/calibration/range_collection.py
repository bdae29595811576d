"""What ranges are chosen from, collected image by image: extremes, averaged extremes, or whole distributions.

Nothing here grows with the number of images. The distributions of up to `COUNTED_WHOLE` images are counted whole. Of
more, the first few tell where the bins and the tails lie; then the tails at either end are counted whole, and between
them a systematic sample: counting every value would take longer than the network itself (3 ns a value, and
MobileNetV2 at 224 px has 7 million to look at).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from foundation.arrays import let_go_of_pages
from foundation.errors import StageError
from foundation.progress import Progress
from onnx_files.preprocessing import Preprocessing
from stages.quantize.calibration.activations import ActivationReader, in_parallel, threads_of_worker, workers
from stages.quantize.calibration.histogram import Distribution, Histogram, Values
from stages.quantize.calibration.range_search import Range

if TYPE_CHECKING:
    from onnx import ModelProto

COUNTED_WHOLE = 16
"""Most images of which every value is counted."""
PILOT_IMAGES = 4
PILOT_VALUES = 16_384
"""Of each tensor and pilot image, that tell where the tails begin."""
LEAST_TAIL_SHARE = 0.0005
"""At either end: ten times what the default percentile cuts off."""
SAMPLED_VALUES = 1 << 17
"""Of each tensor, over all images."""
LEAST_SAMPLED_VALUES = 256
"""Of each tensor and image, however many images there are."""
COUNTED_AT_A_TIME = 1 << 16
"""Values of a tensor's tails and sample that wait to be counted together: less would be all bins and few values."""
MOST_INPUTS_AT_A_TIME = 16
"""That a worker takes up together: handing each over alone would cost a small network a tenth of its time."""
LEAST_LOTS = 8
"""Of inputs to each worker, so that none waits long for the last one."""

Part = TypeVar("Part")


@dataclass(frozen=True)
class ImageFeeds:
    """Images as a model's inputs, one at a time unless the model takes nothing but batches of one size.

    Attributes:
        images: uint8 [n, channels, height, width]; may be mapped from disk.
        order: the order in which to take them.
        preprocessing: from images to the model's input.
        input_name: name of that input.
        size: images in one input.
    """

    images: NDArray[np.uint8]
    order: list[int]
    preprocessing: Preprocessing
    input_name: str
    size: int

    def look(
        self, observer: ActivationReader, start: int, end: int, part_of: Callable[[str, Values], Part]
    ) -> Iterator[dict[str, Part]]:
        """Yield of each image, in order, what `part_of` makes of its activations; several images run at a time.

        Args:
            observer: the session.
            start, end: numbers in the order; `start` begins an input.
            part_of: from a tensor's name and its values, which are gone afterwards; runs in several threads.
        """

        def look_at(inputs: list[list[int]]) -> list[dict[str, Part]]:
            found = []
            for images in inputs:  # one after the other, so that a worker holds the activations of one
                activations = observer.activations(self._input(images))
                found += [
                    {name: part_of(name, self._of_image(values, place)) for name, values in activations.items()}
                    for place in range(len(images))
                ]
            return found

        end = min(end, len(self.order))
        inputs = [self.order[first : min(first + self.size, end)] for first in range(start, end, self.size)]
        size = max(1, min(MOST_INPUTS_AT_A_TIME, len(inputs) // (LEAST_LOTS * workers())))
        lots = (inputs[first : first + size] for first in range(0, len(inputs), size))
        for parts in in_parallel(look_at, lots):
            let_go_of_pages(self.images)
            yield from parts

    def _input(self, images: list[int]) -> dict[str, NDArray[Any]]:
        if self.size == 1:
            return {self.input_name: self.preprocessing.to_input(self.images[images[0], None])}
        # A model that takes nothing but whole batches gets its last one filled up; nobody looks at the filling.
        filled = [images[place % len(images)] for place in range(self.size)]
        return {self.input_name: self.preprocessing.to_input(np.stack([self.images[index] for index in filled]))}

    def _of_image(self, values: NDArray[np.float32], place: int) -> Values:
        has_batch = self.size > 1 and values.ndim > 0 and len(values) == self.size
        return (values[place] if has_batch else values).reshape(-1)


# --- minimum and maximum ---


def collect_extremes(
    proto: ModelProto, names: list[str], feeds: ImageFeeds, averaged: bool, progress: Progress
) -> dict[str, Range]:
    """Return each tensor's lowest and highest value over all images, or the means of each image's.

    The graph runs as ONNX Runtime's own calibrators run it, without fusions and with its own choice of threads, so
    that the extremes are theirs to the last bit.

    Raises:
        StageError: an activation is not finite.
    """
    observer = ActivationReader(proto, names, optimized=False, threads=0)
    extremes: dict[str, Range] = {}
    sums: dict[str, tuple[int, int]] = dict.fromkeys(names, (0, 0))
    images = len(feeds.order)
    for done, ends in enumerate(feeds.look(observer, 0, images, _finite_ends), 1):
        for name, (low, high) in ends.items():
            if averaged:
                sums[name] = (sums[name][0] + _exact(low), sums[name][1] + _exact(high))
            else:
                extremes[name] = _wider(extremes.get(name), low, high)
        progress(done, images)
    if averaged:
        return {name: (_mean(low, images), _mean(high, images)) for name, (low, high) in sums.items()}
    return extremes


def _ends(values: Values) -> Range:
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)


def _finite_ends(name: str, values: Values) -> Range:
    return _finite(name, *_ends(values))


def _wider(earlier: Range | None, low: float, high: float) -> Range:
    return (low, high) if earlier is None else (min(low, earlier[0]), max(high, earlier[1]))


def _exact(value: float) -> int:
    # Every float32 is a whole number of 2⁻¹⁴⁹, and whole numbers add up the same in any order.
    return int(value * 2.0**149)


def _mean(total: int, count: int) -> float:
    return float(np.float32(total / count / 2**149))


def _finite(name: str, low: float, high: float) -> Range:
    if not (np.isfinite(low) and np.isfinite(high)):
        raise StageError(
            f"expected finite activations on the calibration images, found {low} to {high} in `{name}`. "
            "Check the network's weights for a layer that overflows."
        )
    return low, high


# --- histograms ---


def collect_distributions(
    proto: ModelProto,
    names: list[str],
    lower_bounds: Mapping[str, float],
    tail_share: float,
    feeds: ImageFeeds,
    progress: Progress,
) -> dict[str, Distribution]:
    """Return how each tensor's values are distributed over all images.

    Args:
        proto: the float graph.
        names: tensors.
        lower_bounds: of those that a ReLU or Clip bounds.
        tail_share: share of the values that is counted whole at either end.
        feeds: the images.
        progress: called after each image with the images done and all.

    Raises:
        StageError: an activation is not finite.
    """
    observer = ActivationReader(proto, names, optimized=True, threads=threads_of_worker())
    images = len(feeds.order)
    if images <= COUNTED_WHOLE:
        return _counted_whole(observer, feeds, progress)
    collectors = _pilot(observer, feeds, lower_bounds, tail_share)
    looks = feeds.look(observer, 0, images, lambda name, values: collectors[name].part_of(values))
    for done, parts in enumerate(looks, 1):
        for name, part in parts.items():
            collectors[name].add(part)
        progress(done, images)
    return {name: collectors[name].distribution() for name in names}


def _counted_whole(observer: ActivationReader, feeds: ImageFeeds, progress: Progress) -> dict[str, Distribution]:
    # Twice through the images: the bins follow from the extremes.
    images = len(feeds.order)
    extremes: dict[str, Range] = {}
    for ends in feeds.look(observer, 0, images, _finite_ends):
        extremes |= {name: _wider(extremes.get(name), low, high) for name, (low, high) in ends.items()}
    histograms = {name: Histogram(*found) for name, found in extremes.items()}
    looks = feeds.look(observer, 0, images, lambda name, values: histograms[name].count(values))
    for done, counts in enumerate(looks, 1):
        for name, counted in counts.items():
            histograms[name].add(counted)
        progress(done, images)
    return {name: histogram.distribution() for name, histogram in histograms.items()}


def _pilot(
    observer: ActivationReader, feeds: ImageFeeds, lower_bounds: Mapping[str, float], tail_share: float
) -> dict[str, _Collector]:
    """Return for each tensor what collects it, with bins and tails' ends from the first images."""

    def seen(name: str, values: Values) -> tuple[Range, Values]:
        return _finite_ends(name, values), _sample(values, PILOT_VALUES)

    extremes: dict[str, Range] = {}
    samples: dict[str, list[Values]] = {}
    for found in feeds.look(observer, 0, -(-PILOT_IMAGES // feeds.size) * feeds.size, seen):
        for name, (ends, sample) in found.items():
            extremes[name] = _wider(extremes.get(name), *ends)
            samples.setdefault(name, []).append(sample)
    sampled = max(LEAST_SAMPLED_VALUES, SAMPLED_VALUES // len(feeds.order))
    return {
        name: _Collector(
            name,
            Histogram(*found),
            _tails(np.concatenate(samples[name]), tail_share, lower_bounds.get(name, -np.inf)),
            sampled,
        )
        for name, found in extremes.items()
    }


def _tails(values: Values, share: float, bound: float) -> tuple[np.float32 | None, np.float32]:
    ordered = np.sort(values) if len(values) else np.zeros(1, dtype=np.float32)
    outermost = int(share * len(ordered))
    low, high = ordered[outermost], ordered[len(ordered) - 1 - outermost]
    return (low if low > bound else None), high  # below what a ReLU lets through nothing can lie


def _sample(values: Values, least: int) -> Values:
    # An odd stride does not fall into step with channels and rows.
    return values[:: max(1, len(values) // least) | 1].copy()


@dataclass(frozen=True)
class _Part:
    """What is kept of one image's values of a tensor.

    Attributes:
        tail: every value beyond the tails' ends.
        sample: of all values, the tails among them.
        body_values: how many lie between the tails.
    """

    tail: Values
    sample: Values
    body_values: int


class _Collector:
    """Takes tails and a sample out of a tensor's values, and counts them some images at a time.

    Args:
        name: of the tensor.
        histogram: what counts.
        tails: where the lower one ends and the upper one begins; None for no lower one.
        sampled: values to take of one image.
    """

    def __init__(
        self, name: str, histogram: Histogram, tails: tuple[np.float32 | None, np.float32], sampled: int
    ) -> None:
        self._name = name
        self._histogram = histogram
        self._low, self._high = tails
        self._sampled = sampled
        self._parts: list[_Part] = []
        self._waiting = 0

    def part_of(self, values: Values) -> _Part:
        """Return what to keep of one image's values; changes nothing, so several threads may ask."""
        tail = values[self._outside(values)]
        return _Part(tail, _sample(values, self._sampled), len(values) - len(tail))

    def add(self, part: _Part) -> None:
        """Count a part, sooner or later."""
        self._parts.append(part)
        self._waiting += len(part.tail) + len(part.sample)
        if self._waiting >= COUNTED_AT_A_TIME:
            self._count()

    def distribution(self) -> Distribution:
        """Return how the values of all parts are distributed."""
        if self._parts:
            self._count()
        return self._histogram.distribution()

    def _count(self) -> None:
        sample = np.concatenate([part.sample for part in self._parts])
        # Infinity lies in a tail; what is no number compares with nothing, but spreads.
        _finite(self._name, *_ends(sample))
        self._histogram.add_tails(np.concatenate([part.tail for part in self._parts]))
        self._histogram.add_sample(sample[~self._outside(sample)], sum(part.body_values for part in self._parts))
        _finite(self._name, self._histogram.lowest, self._histogram.highest)
        self._parts, self._waiting = [], 0

    def _outside(self, values: Values) -> NDArray[np.bool_]:
        outside: NDArray[np.bool_] = values > self._high
        if self._low is not None:
            outside |= values < self._low
        return outside
