"""Which file of a search is taken, and which one is worth its dear repair."""

from __future__ import annotations

from collections.abc import Sequence

from foundation.errors import StageError
from foundation.note_parts import TrialNote

FILES_FOR_A_ROUNDING = 6
"""Of so many files one has its rounding chosen anew, which takes as long as several others."""


def best_trial(trials: Sequence[TrialNote]) -> TrialNote:
    """Return the fastest trial that keeps every limit, or the one that comes nearest where none does.

    Files whose measured speed lies within the fastest one's interval are as fast. Of these, or where no speed could
    be measured, the one is taken that stays furthest inside its limits. Where none keeps them all, the nearest is the
    one whose worst limit is broken by the least; what a few images showed to break one is taken only where that is so
    of every file.

    Raises:
        StageError: none could be measured.
    """
    measured = [(trial, trial.measured) for trial in trials if trial.measured is not None]
    measured = [(trial, found) for trial, found in measured if not found.at_best] or measured
    within = [(trial, found) for trial, found in measured if found.within_limits]
    timed = [(trial, found, found.speedup) for trial, found in within if found.speedup]
    if timed:
        fastest = max((speed for _, _, speed in timed), key=lambda speed: speed.value)
        within = [(trial, found) for trial, found, speed in timed if speed.value >= fastest.least]
    if within:
        return max(within, key=lambda pair: min(pair[1].margins.values()))[0]
    if not measured:
        raise StageError(f"tuned: none of {len(trials)} files could be measured ({trials[0].error}).")
    return max(measured, key=lambda pair: min(pair[1].margins.values()))[0]


def next_to_round(trials: Sequence[TrialNote]) -> TrialNote | None:
    """Return the trial whose candidate is to be tried with compensated rounding next, None where it is not time yet.

    Asynchronous successive halving (Li et al., MLSys 2020) of two rungs: the best sixth of the plain files goes on. A
    rounding makes no file faster. So the best is one that is faster than what keeps the limits so far and comes
    nearest to them; where there is none, the one that would be chosen.

    Args:
        trials: so far.
    """
    plain = [trial for trial in trials if not trial.candidate.compensated_rounding]
    rounded = {
        trial.candidate.model_copy(update={"compensated_rounding": False})
        for trial in trials
        if trial.candidate.compensated_rounding
    }
    left = [trial for trial in plain if trial.measured is not None and trial.candidate not in rounded]
    if not left or len(rounded) >= len({trial.candidate for trial in plain}) // FILES_FOR_A_ROUNDING:
        return None
    best = best_trial(trials).measured
    if best is not None and best.within_limits and best.speedup is not None:
        least = (best.speedup.ci95 or (0.0, best.speedup.value))[1]
        faster = [
            (trial, found)
            for trial in left
            if (found := trial.measured) and found.speedup and found.speedup.value > least
        ]
        if faster:
            return max(faster, key=lambda pair: min(pair[1].margins.values()))[0]
    return best_trial(left)
