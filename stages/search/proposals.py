"""What a search proposes next: what a user would try by hand, then what Optuna's sampler makes of the trials so far.

The sampler proposes what compiles in seconds. Compensated rounding takes many times that and is for the best of it.
A proposal depends on the trials before it alone: a search that was killed proposes what it would have proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from foundation.note_parts import Calibration, CandidateNote, TrialNote
from stages.search.choice import next_to_round

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_STARTUP_TRIALS = 8
_MOST_FLOAT_LAYERS_SHARE = 0.5
"""Beyond half of the layers in float, a file is no int8 file any more."""


def ask(study: Study, trials: Sequence[TrialNote], layers: int, seed: int) -> tuple[Any, CandidateNote]:
    """Return the trial after others, and its candidate: the same whether or not a kill came in between.

    Args:
        study: of the search.
        trials: those that have a result, repeated candidates among them.
        layers: how many layers could stay in float.
        seed: of the proposals.
    """
    from optuna.trial import TrialState

    planned = _planned(trials, layers)
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))  # of a process killed before it asked
    if planned is not None and not waiting:
        study.enqueue_trial(planned.model_dump())
    study.sampler = sampler(seed, len(trials))
    asked = study.ask()
    return asked, _propose(asked, layers)


def _planned(trials: Sequence[TrialNote], layers: int) -> CandidateNote | None:
    """Return what is tried next without asking the sampler; None where it is asked."""
    starting_points = _starting_points(layers)
    if len(trials) < len(starting_points):
        return starting_points[len(trials)]
    promoted = next_to_round(trials)
    return None if promoted is None else promoted.candidate.model_copy(update={"compensated_rounding": True})


def sampler(seed: int, told: int) -> Any:
    """Return Optuna's sampler for the trial after `told` others; it also notes how far a trial breaks the limits."""
    import warnings

    import numpy as np
    import optuna

    def broken_limits(trial: FrozenTrial) -> Sequence[float]:
        return [-margin for margin in trial.user_attrs["measured"]["margins"].values()]

    with warnings.catch_warnings():  # constraints are an experimental feature of Optuna's, and say so
        warnings.simplefilter("ignore")
        free = optuna.samplers.TPESampler(
            seed=int(np.random.SeedSequence((seed, told)).generate_state(1)[0]),
            n_startup_trials=_STARTUP_TRIALS,
            multivariate=True,
            constraints_func=broken_limits,
        )
        return optuna.samplers.PartialFixedSampler({"compensated_rounding": False}, free)


def _starting_points(layers: int) -> tuple[CandidateNote, ...]:
    # What a user would try by hand, the plain one first: the search can only improve on it.
    plain = CandidateNote(
        calibration="minmax", equalization=False, bias_correction=False, ranking="logits", float_layers=0
    )
    repaired = plain.model_copy(update={"equalization": True, "bias_correction": True})
    mse = repaired.model_copy(update={"calibration": "mse"})
    in_float = {"ranking": "saliency", "float_layers": min(2, _most_float_layers(layers))}
    return (
        plain,
        repaired.model_copy(update={"calibration": "percentile"}),
        mse,
        mse.model_copy(update=in_float),
    )


def _most_float_layers(layers: int) -> int:
    return max(1, int(layers * _MOST_FLOAT_LAYERS_SHARE))


def _propose(trial: Any, layers: int) -> CandidateNote:
    return CandidateNote(
        calibration=trial.suggest_categorical("calibration", get_args(Calibration)),
        equalization=trial.suggest_categorical("equalization", (False, True)),
        bias_correction=trial.suggest_categorical("bias_correction", (False, True)),
        compensated_rounding=trial.suggest_categorical("compensated_rounding", (False, True)),
        ranking=trial.suggest_categorical("ranking", ("logits", "saliency")),
        float_layers=trial.suggest_int("float_layers", 0, _most_float_layers(layers)),
    )
