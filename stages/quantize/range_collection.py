"""What ranges are chosen from, collected image by image: extremes, averaged extremes, or whole distributions.

Nothing here grows with the number of images. For distributions the first `PILOT_IMAGES` are counted whole, because
the bins follow from their extremes. Of the others the outermost `TAIL_SHARE` at either end is counted whole, and
between the tails a systematic sample of at least `SAMPLED_VALUES` per tensor and image: counting every value would
take longer than the network itself (3 ns a value, and MobileNetV2 at 224 px has 7 million to look at).
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration_data.preprocessing import Preprocessing
from pipeline.errors import StageError
from stages.quantize.activations import Activations, Observer, counting_threads, run_ahead
from stages.quantize.graph import Progress
from stages.quantize.histogram import Distribution, Histogram, Values
from stages.quantize.range_search import Range

if TYPE_CHECKING:
    from onnx import ModelProto

PILOT_IMAGES = 16
TAIL_SHARE = 0.002
SAMPLED_VALUES = 2048
IMAGES_AT_A_TIME = 16
"""Whose tails and samples wait to be counted together."""


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

    def run(self, observer: Observer, start: int, end: int, see: Callable[[Activations], None]) -> None:
        """Hand the activations of the images from one number to before another to `see`, image by image.

        Args:
            observer: the session.
            start, end: numbers in the order; `start` begins an input.
            see: what takes the activations.
        """
        end = min(end, len(self.order))

        def see_each(activations: Activations) -> None:
            nonlocal start
            for place in range(min(self.size, end - start)):
                see({name: self._of_image(values, place) for name, values in activations.items()})
            start += self.size

        run_ahead(observer, self._inputs(start, end), see_each)

    def _inputs(self, start: int, end: int) -> Iterator[dict[str, NDArray[Any]]]:
        for first in range(start, end, self.size):
            # A model that takes nothing but whole batches gets its last one filled up; nobody looks at the filling.
            chosen = [self.order[place % len(self.order)] for place in range(first, first + self.size)]
            batch = np.stack([self.images[index] for index in chosen])
            if (first // self.size) % IMAGES_AT_A_TIME == 0:
                let_go_of_pages(self.images)
            yield {self.input_name: self.preprocessing.to_input(batch)}

    def _of_image(self, values: NDArray[np.float32], place: int) -> Values:
        has_batch = self.size > 1 and values.ndim > 0 and len(values) == self.size
        return np.ravel(values[place] if has_batch else values)


def let_go_of_pages(images: NDArray[np.uint8]) -> None:
    """Give back the memory of what was read of images that are mapped from disk."""
    owner: Any = images
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


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
    observer = Observer(proto, names, optimized=False, threads=0)
    extremes: dict[str, list[Range]] = {name: [] for name in names}
    sums: dict[str, tuple[int, int]] = dict.fromkeys(names, (0, 0))
    done = 0

    def see(activations: Activations) -> None:
        nonlocal done
        for name, values in activations.items():
            low, high = _finite(name, *_ends(values))
            if averaged:
                sums[name] = (sums[name][0] + _exact(low), sums[name][1] + _exact(high))
            else:
                extremes[name] = [_wider(extremes[name], low, high)]
        done += 1
        progress(done, len(feeds.order))

    feeds.run(observer, 0, len(feeds.order), see)
    if averaged:
        return {name: (_mean(low, done), _mean(high, done)) for name, (low, high) in sums.items()}
    return {name: found for name, (found,) in extremes.items()}


def _ends(values: Values) -> Range:
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)


def _wider(earlier: list[Range], low: float, high: float) -> Range:
    return min([low, *(found[0] for found in earlier)]), max([high, *(found[1] for found in earlier)])


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
    feeds: ImageFeeds,
    progress: Progress,
) -> dict[str, Distribution]:
    """Return how each tensor's values are distributed over all images.

    Args:
        proto: the float graph.
        names: tensors.
        lower_bounds: of those that a ReLU or Clip bounds.
        feeds: the images.
        progress: called after each image with the images done and all.

    Raises:
        StageError: an activation is not finite.
    """
    observer = Observer(proto, names, optimized=True, threads=counting_threads())
    histograms = _pilot(observer, names, feeds)
    done = min(_pilot_images(feeds), len(feeds.order))
    progress(done, len(feeds.order))
    collectors = {
        name: _Collector(name, histogram, lower_bounds.get(name, -np.inf)) for name, histogram in histograms.items()
    }

    marks = np.empty(0, dtype=np.bool_)

    def see(activations: Activations) -> None:
        nonlocal done, marks
        longest = max(map(len, activations.values()))
        if len(marks) < longest:  # one for all: fresh pages for each tensor would cost more than the comparison
            marks = np.empty(longest, dtype=np.bool_)
        for name, values in activations.items():
            collectors[name].add(values, marks)
        done += 1
        progress(done, len(feeds.order))

    feeds.run(observer, done, len(feeds.order), see)
    for collector in collectors.values():
        collector.flush()
    return {name: histogram.distribution() for name, histogram in histograms.items()}


def _pilot_images(feeds: ImageFeeds) -> int:
    return -(-PILOT_IMAGES // feeds.size) * feeds.size  # whole inputs


def _pilot(observer: Observer, names: list[str], feeds: ImageFeeds) -> dict[str, Histogram]:
    # Twice: the bins follow from the extremes.
    extremes: dict[str, list[Range]] = {name: [] for name in names}

    def see_ends(activations: Activations) -> None:
        for name, values in activations.items():
            extremes[name] = [_wider(extremes[name], *_finite(name, *_ends(values)))]

    feeds.run(observer, 0, _pilot_images(feeds), see_ends)
    histograms = {name: Histogram(*found) for name, (found,) in extremes.items()}

    def see_values(activations: Activations) -> None:
        for name, values in activations.items():
            histograms[name].add_all(values)

    feeds.run(observer, 0, _pilot_images(feeds), see_values)
    return histograms


class _Collector:
    """Takes tails and a sample out of a tensor's values, and counts them some images at a time."""

    def __init__(self, name: str, histogram: Histogram, bound: float) -> None:
        self._name = name
        self._histogram = histogram
        low, high = histogram.tails(TAIL_SHARE)
        self._low, self._high = np.float32(low), np.float32(high)
        # Below what a ReLU lets through nothing can lie.
        self._has_low_tail = low > bound
        self._tails: list[Values] = []
        self._sample: list[Values] = []
        self._values = 0
        self._images = 0

    def add(self, values: Values, marks: NDArray[np.bool_]) -> None:
        """Take a part of some values; `marks` is room for as many."""
        tail = values[self._outside(values, marks)]
        # An odd stride does not fall into step with channels and rows.
        stride = max(1, len(values) // SAMPLED_VALUES) | 1
        self._sample.append(values[::stride].copy())
        self._tails.append(tail)
        self._values += len(values) - len(tail)
        self._images += 1
        if self._images == IMAGES_AT_A_TIME:
            self.flush()

    def flush(self) -> None:
        if not self._images:
            return
        sample = np.concatenate(self._sample)
        # Infinity lies in a tail; what is no number compares with nothing, but spreads.
        _finite(self._name, *_ends(sample))
        body = sample[~self._outside(sample, np.empty(len(sample), dtype=np.bool_))]
        self._histogram.add_tails(np.concatenate(self._tails))
        self._histogram.add_sample(body, self._values)
        _finite(self._name, self._histogram.lowest, self._histogram.highest)
        self._tails, self._sample, self._values, self._images = [], [], 0, 0

    def _outside(self, values: Values, marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        outside = np.greater(values, self._high, out=marks[: len(values)])
        if self._has_low_tail:
            outside |= values < self._low
        return outside
