"""What looks wrong about a baseline, before anybody trusts a comparison with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foundation.measurements import Measurement
from stages.validate.answers import Answers, Predictions

WEAK_AREA = 0.6
"""A mean AUROC whose interval reaches down to this is told to be weak; what is compared with it says little."""

_CAUSES = (
    "Likely causes are another order of the classes, or another mean, std, layout or colour order than the model's."
)


def suspicions(predictions: Predictions, measurements: Sequence[Measurement], classes: Sequence[str]) -> list[str]:
    """Return a sentence for each reason to doubt that a file was run as it was meant to be.

    Args:
        predictions: of the file on the test images; of a multi-label task nothing is said.
        measurements: of its answers.
        classes: names of the classes.
    """
    return _doubts(predictions, measurements, classes)


def suspicions_of(answers: Answers, measurements: Sequence[Measurement]) -> list[str]:
    """Return the same of answers, with the measurements of several files.

    Of a multi-label task it is a mean AUROC that is not above chance.
    """
    own = [one for one in measurements if one.variant == answers.variant and one.where.subgroup is None]
    if answers.task == "multi_class":
        return _doubts(answers, own, answers.classes)
    area = next((one for one in own if one.metric == "auroc_macro" and one.ci95 is not None), None)
    if area is None or area.ci95 is None or area.value is None or area.ci95[0] > WEAK_AREA:
        return []
    interval = f"{area.value:.3f} (95 % {area.ci95[0]:.3f} to {area.ci95[1]:.3f})"
    return [f"its mean AUROC, {interval}, is not clearly above {WEAK_AREA:g}, where chance scores 0.5."]


def _doubts(
    predictions: Predictions | Answers, measurements: Sequence[Measurement], classes: Sequence[str]
) -> list[str]:
    if predictions.task != "multi_class" or len(predictions.labels) < 2:
        return []
    answers = predictions.logits.argmax(axis=1)
    if len(np.unique(answers)) == 1 < len(np.unique(predictions.labels)):
        return [f"it answers all {len(answers)} test images with {classes[int(answers[0])]!r}. {_CAUSES}"]
    balanced = next((one for one in measurements if one.metric == "balanced_accuracy"), None)
    occurring = len(np.unique(predictions.labels))
    if balanced is None or balanced.ci95 is None or occurring < 2:
        return []
    chance = 1 / occurring
    if balanced.ci95[0] <= chance:
        return [
            f"its balanced accuracy, {balanced.value:.3f} (95 % {balanced.ci95[0]:.3f} to {balanced.ci95[1]:.3f}), "
            f"is not above chance, {chance:.3f}. {_CAUSES}"
        ]
    return []
