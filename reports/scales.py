"""Where a number stands on an axis, in hundredths of its length, and the round numbers that are written beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """A linear axis.

    Attributes:
        low: the number at its beginning.
        high: at its end, above `low`.
    """

    low: float
    high: float

    @classmethod
    def over(
        cls, values: Iterable[float], *, margin: float = 0.06, within: tuple[float, float] | None = None
    ) -> Scale:
        """Return an axis that shows all values with a margin.

        Args:
            values: at least one.
            margin: share of their range that is left free on both sides.
            within: the axis does not leave these bounds, such as 0 and 1 of a share.
        """
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(finite), max(finite)
        span = (high - low) or abs(high) * 0.1 or 1.0
        low, high = low - margin * span, high + margin * span
        if within is not None:
            low, high = max(low, within[0]), min(high, within[1])
        return cls(low, high if high > low else low + 1.0)

    def at(self, value: float) -> float:
        """Return a value's place, 0 to 100; what lies beyond an end stands there."""
        return round(100.0 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low))), 2)

    def ticks(self, most: int = 5) -> tuple[float, ...]:
        """Return round numbers on the axis, at most so many."""
        rough = (self.high - self.low) / max(1, most - 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in _ROUND if factor * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(round(k * step, 10) + 0.0 for k in range(first, last + 1))
