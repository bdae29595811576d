"""By how much a file misses the limits that it was chosen by, in words."""

from __future__ import annotations

from collections.abc import Mapping

from reports.formats import significant

_WORDS = {
    "accuracy_drop": ("accuracy", 100, "points"),
    "agreement": ("agreement", 100, "points"),
    "saliency_spearman": ("saliency", 1, "of ρ"),
    "outputs_db": ("an output's SQNR", 1, "dB"),
    "size": ("size", 100, "%"),
    "speed": ("speed", 100, "%"),
}
"""Name of a limit → what it is on, what a shortfall is multiplied by, and the unit that it then has."""


def missed(misses: Mapping[str, float]) -> str:
    """Return for example "agreement by 0.8 points, saliency by 0.05 of ρ", the worst miss first.

    Args:
        misses: name of each limit that is broken → by how much.
    """
    worst_first = sorted(misses, key=lambda name: (-misses[name], name))
    told = ((*_WORDS[name], misses[name]) for name in worst_first)
    return ", ".join(f"{what} by {significant(factor * by, 2)} {unit}" for what, factor, unit, by in told)
