"""Histograms of a stream of values: bins that never move, so that what was counted can be added up in any order.

The bins are those of ONNX Runtime's calibrators divided evenly: `BINS_PER_SIDE` on either side of zero up to the
greatest magnitude of the first values, and more of the same width where later values lie beyond. ONNX Runtime's own
bins, of which there are fewer, are therefore sums of these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Counts = NDArray[np.int64]

BINS_PER_SIDE = 4096
"""A multiple of what percentile (1024) and entropy (256) take of ONNX Runtime's bins."""
_MOST_BINS_PER_SIDE = 16 * BINS_PER_SIDE
_GREATEST_SCALE = float(np.finfo(np.float32).max)
_ON_THE_EDGE = 1 + 1e-6  # of the outermost bin, which takes what lies there
_CHUNK = 1 << 15  # values that are counted at a time: small enough for the cache, and for memory that is at hand


@dataclass(frozen=True)
class Distribution:
    """How a tensor's values are distributed.

    Attributes:
        counts: float64 [2·k], how many values lie in each bin; the bins are `width` wide and the first k are below 0.
            Fractions occur where values were sampled.
        width: of one bin, in the tensor's unit; 0 where all values are 0.
        lowest, highest: the exact extremes.
    """

    counts: NDArray[np.float64]
    width: float
    lowest: float
    highest: float

    def merged(self, factor: int) -> Distribution:
        """Return the same with `factor` bins in one, and as many as ONNX Runtime would have.

        Those are `BINS_PER_SIDE` / factor on either side; where values lie beyond, as many more as they need.
        """
        magnitude, width = max(abs(self.lowest), abs(self.highest)), self.width * factor
        bins = BINS_PER_SIDE // factor
        if magnitude > bins * width * _ON_THE_EDGE:
            bins = int(magnitude / width) + 1
        surplus = len(self.counts) // 2 - bins * factor
        counts = np.pad(self.counts, max(0, -surplus))[max(0, surplus) :][: 2 * bins * factor]
        return Distribution(counts.reshape(-1, factor).sum(axis=1), width, self.lowest, self.highest)

    @property
    def edges(self) -> NDArray[np.float64]:
        """The bins' edges, float64 [2·k + 1]."""
        half = len(self.counts) // 2
        return self.width * np.arange(-half, half + 1, dtype=np.float64)


class Histogram:
    """Counts of one tensor's values: all of them, or the tails and a sample of what lies between.

    Args:
        lowest, highest: of the first values; they set the bins' width, and widen with what is counted.
    """

    def __init__(self, lowest: float, highest: float) -> None:
        self.lowest = lowest
        self.highest = highest
        magnitude = max(abs(lowest), abs(highest))
        self.width = magnitude / BINS_PER_SIDE
        self._exact = np.zeros(2 * BINS_PER_SIDE, dtype=np.int64)
        self._sampled = np.zeros(2 * BINS_PER_SIDE, dtype=np.int64)
        self._body_values = 0

    def count(self, values: Values) -> Counts:
        """Return how many of some values, all between the first extremes, each bin takes; for `add`."""
        return _count(values, self.width, BINS_PER_SIDE)

    def add(self, counts: Counts) -> None:
        """Add what `count` found."""
        self._exact += counts

    def add_tails(self, values: Values) -> None:
        """Count every one of some values, wherever they lie; the extremes follow."""
        if len(values) == 0:
            return
        lowest, highest = float(values.min()), float(values.max())
        self.lowest, self.highest = float(np.minimum(self.lowest, lowest)), float(np.maximum(self.highest, highest))
        magnitude = max(abs(self.lowest), abs(self.highest))
        if not np.isfinite(magnitude) or magnitude == 0:
            return  # no bin for what the caller refuses
        if self.width == 0:
            self.width = magnitude / BINS_PER_SIDE
        self._reach(magnitude)
        self._exact += _count(values, self.width, len(self._exact) // 2)

    def add_sample(self, sample: Values, values: int) -> None:
        """Count a sample that stands for `values` values between the tails."""
        self._body_values += values
        self._sampled += _count(sample, self.width, len(self._sampled) // 2)

    def distribution(self) -> Distribution:
        """Return all that was counted, the sample multiplied up."""
        counts = self._exact.astype(np.float64)
        sampled = int(self._sampled.sum())
        if sampled:
            beyond = (len(self._exact) - len(self._sampled)) // 2
            counts += np.pad(self._sampled * (self._body_values / sampled), beyond)
        return Distribution(counts, self.width, self.lowest, self.highest)

    def _reach(self, magnitude: float) -> None:
        if magnitude <= len(self._exact) // 2 * self.width * _ON_THE_EDGE:
            return
        needed = int(magnitude / self.width) + 1
        while needed > _MOST_BINS_PER_SIDE:
            self._exact, self._sampled = _halved(self._exact), _halved(self._sampled)
            self.width *= 2
            needed = int(magnitude / self.width) + 1
        # In whole lots, so that ONNX Runtime's wider bins stay sums of these.
        grown = -(-needed // BINS_PER_SIDE) * BINS_PER_SIDE
        self._exact = np.pad(self._exact, max(0, grown - len(self._exact) // 2))


def _halved(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.pad(counts.reshape(-1, 2).sum(axis=1), len(counts) // 4)


def _count(values: Values, width: float, half: int) -> NDArray[np.int64]:
    counts = np.zeros(2 * half, dtype=np.int64)
    if width == 0:  # nothing but zeros so far, whose bin is the same whatever width follows
        counts[half] = len(values)
        return counts
    # Scaled and rounded down before it is shifted, so that float32 is fine enough and zero is an edge. A magnitude
    # that rounds onto the outermost edge belongs to the last bin, as in numpy.histogram.
    # Subnormal widths have a reciprocal that only float64 can hold.
    scale = np.float32(1 / width) if 1 / width < _GREATEST_SCALE else np.float64(1 / width)
    last = 2 * half - 1
    for start in range(0, len(values), _CHUNK):
        places = values[start : start + _CHUNK] * scale
        numbers = np.floor(places, out=places).astype(np.int32)
        numbers += half
        counts += np.bincount(np.clip(numbers, 0, last, out=numbers), minlength=2 * half)
    return counts
