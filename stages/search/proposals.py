"""What a search proposes next: what a user would try by hand, then what Optuna's sampler makes of the trials so far.

A proposal depends on the trials before it alone: a search that was killed proposes what it would have proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from foundation.note_parts import Calibration, CandidateNote

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_STARTUP_TRIALS = 8
_MOST_FLOAT_LAYERS_SHARE = 0.5
"""Beyond half of the layers in float, a file is no int8 file any more."""


def ask(study: Study, told: int, layers: int, seed: int) -> tuple[Any, CandidateNote]:
    """Return the trial after `told` others, and its candidate: the same whether or not a kill came in between.

    Args:
        study: of the search.
        told: how many trials have a result, repeated candidates among them.
        layers: how many layers could stay in float.
        seed: of the proposals.
    """
    from optuna.trial import TrialState

    starting_points = _starting_points(layers)
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))  # of a process killed before it asked
    if told < len(starting_points) and not waiting:
        study.enqueue_trial(starting_points[told].model_dump())
    study.sampler = sampler(seed, told)
    asked = study.ask()
    return asked, _propose(asked, layers)


def sampler(seed: int, told: int) -> Any:
    """Return Optuna's sampler for the trial after `told` others; it also notes how far a trial breaks the limits."""
    import warnings

    import numpy as np
    import optuna

    def broken_limits(trial: FrozenTrial) -> Sequence[float]:
        return [-margin for margin in trial.user_attrs["measured"]["margins"].values()]

    with warnings.catch_warnings():  # constraints are an experimental feature of Optuna's, and say so
        warnings.simplefilter("ignore")
        return optuna.samplers.TPESampler(
            seed=int(np.random.SeedSequence((seed, told)).generate_state(1)[0]),
            n_startup_trials=_STARTUP_TRIALS,
            multivariate=True,
            constraints_func=broken_limits,
        )


def _starting_points(layers: int) -> tuple[CandidateNote, ...]:
    # What a user would try by hand, the plain one first: the search can only improve on it.
    plain = CandidateNote(
        calibration="minmax", equalization=False, bias_correction=False, ranking="logits", float_layers=0
    )
    rounded = plain.model_copy(update={"calibration": "mse", "compensated_rounding": True})
    repaired = plain.model_copy(update={"equalization": True, "bias_correction": True})
    mse = repaired.model_copy(update={"calibration": "mse"})
    in_float = {"ranking": "saliency", "float_layers": min(2, _most_float_layers(layers))}
    return (
        plain,
        repaired.model_copy(update={"calibration": "percentile"}),
        mse,
        rounded,
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
