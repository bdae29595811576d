"""Whether a file is shown to keep the limits of a search: by one-sided bounds, corrected for the number of files.

A search that tries many files and takes the best of those whose estimate keeps a limit takes one that was lucky. So
a file keeps a limit where its bound at `alpha / trials` does (Bonferroni): with probability 1 − alpha, none that
passes breaks one. A file must keep all limits, which needs no correction (Berger 1982, intersection-union test).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from foundation.measurements import PairedDifference
from foundation.note_parts import ScoreNote, TrialNote
from stages.validate.intervals.paired import bounds

if TYPE_CHECKING:
    from stages.search.study import TunedSettings

AGREEMENT, ACCURACY_DROP, SALIENCY = "agreement", "accuracy_drop", "saliency_spearman"


def margins(found: ScoreNote, settings: TunedSettings, at_best: bool = False) -> dict[str, float]:
    """Return for each limit that was looked at how far its bound is inside it.

    Args:
        found: a file's score.
        settings: limits, error rate and number of files.
        at_best: whether to take the bound on the other side. Below 0 a limit is then shown to be broken; without it,
            not shown to be kept.
    """
    tail = settings.alpha / settings.trials
    bound = {name: _bound(difference, tail, at_best) for name, difference in found.evidence.items()}
    of_limits = {AGREEMENT: 1.0 + bound[AGREEMENT] - settings.agreement}
    if SALIENCY in bound:
        of_limits[SALIENCY] = math.tanh(bound[SALIENCY]) - settings.saliency_spearman
    if ACCURACY_DROP in bound:
        of_limits[ACCURACY_DROP] = settings.accuracy_drop + bound[ACCURACY_DROP]
    return of_limits


def is_ruled_out(found: ScoreNote, settings: TunedSettings, by: float) -> bool:
    """Return whether an estimate breaks a limit by more than so much, whatever a bound may show."""
    broken = [settings.agreement - found.agreement.value]
    if found.saliency_spearman is not None:
        broken.append(settings.saliency_spearman - found.saliency_spearman.value)
    if found.accuracy_drop is not None:
        broken.append(found.accuracy_drop.value - settings.accuracy_drop)
    return max(broken) > by


def held_again(trials: Sequence[TrialNote], settings: TunedSettings) -> list[TrialNote]:
    """Return trials with the margins that they have under these settings: more trials ask more of each file."""
    return [
        trial
        if trial.measured is None
        else trial.model_copy(
            update={
                "measured": trial.measured.model_copy(
                    update={"margins": margins(trial.measured.score, settings, trial.measured.at_best)}
                )
            }
        )
        for trial in trials
    ]


def images_needed(settings: TunedSettings) -> int | None:
    """Return how many images show the agreement asked for of a file that answers each like the float file.

    Returns:
        None where no number does: of an agreement of 1.
    """
    from stages.validate.intervals.estimates import normal_quantile

    # Without a discordant pair Tango's bound d solves n·d = z²·(1 − d).
    z, room = normal_quantile(settings.alpha / settings.trials), 1.0 - settings.agreement
    if room <= 0:
        return None
    return math.floor(z**2 * (1 - room) / room) + 1


def _bound(difference: PairedDifference, tail: float, upper: bool) -> float:
    """Return what a difference is above, or below, with probability 1 − tail; of a single patient, the extreme."""
    if difference.units < 2:
        return 1.0 if upper else -1.0
    # Where an interval is refused for few patients, a bound that counts each as one pair still errs to the safe side.
    found = bounds(replace(difference, no_interval=None), tail)
    assert found is not None
    return found[1] if upper else found[0]
