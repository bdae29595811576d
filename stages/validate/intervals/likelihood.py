"""Likelihood ratios and predictive values: what a decision is worth, from sensitivity, specificity and prevalence."""

from __future__ import annotations

import math

from stages.validate.intervals.estimates import Interval


def ratio_of_proportions_interval(first: float, first_ci: Interval, second: float, second_ci: Interval) -> Interval:
    """Return the interval of first / second, two independent proportions, from the interval of each.

    MOVER-R (Donner and Zou 2012, Statistical Methods in Medical Research 21:347), written without the cancellation of
    its published form. The limits carry what is known of groups, so the ratio's interval does too.

    Args:
        first: 0 to 1.
        first_ci: its limits.
        second: above 0 to 1.
        second_ci: likewise.

    Returns:
        Limits from 0 on; infinity where the second proportion may be 0.
    """
    (low_a, high_a), (low_b, high_b) = first_ci, second_ci
    product = first * second
    below = product**2 - low_a * high_b * (2 * first - low_a) * (2 * second - high_b)
    above = product**2 - high_a * low_b * (2 * first - high_a) * (2 * second - low_b)
    divisor = product + math.sqrt(max(below, 0.0))
    low = low_a * (2 * first - low_a) / divisor if divisor > 0 else 0.0
    bottom = low_b * (2 * second - low_b)
    high = (product + math.sqrt(max(above, 0.0))) / bottom if bottom > 0 else math.inf
    return low, high


def predictive_value(likelihood_ratio: float, prevalence: float) -> float:
    """Return the probability of the class after a decision, by Bayes: of LR+ the PPV, of LR− the NPV's complement.

    Args:
        likelihood_ratio: 0 to infinity.
        prevalence: above 0, below 1.
    """
    if math.isinf(likelihood_ratio):
        return 1.0
    odds = likelihood_ratio * prevalence / (1.0 - prevalence)
    return odds / (1.0 + odds)
