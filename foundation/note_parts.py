"""The parts that notes are made of: what one layer does, what one recovery step did, what one trial came to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from foundation.measurements import PairedDifference
from foundation.settings import Settings

Calibration = Literal["minmax", "percentile", "entropy", "mse"]
"""How a search may choose ranges."""


class Parity(Settings):
    """How near a file's answers are to those of the network that it was made from.

    Attributes:
        images: how many were answered.
        max_difference_relative: greatest difference between logits, as a share of the logits' range.
        top1_agreement: share of images with the same answer, 0…1.
    """

    images: int
    max_difference_relative: float
    top1_agreement: float


class Estimate(Settings):
    """A number, its 95 % interval (None where there is no sound one) and the size of the sample behind both."""

    value: float
    ci95: tuple[float, float] | None
    n: int

    @property
    def least(self) -> float:
        """Lower bound of the interval; the number itself where there is none."""
        return self.ci95[0] if self.ci95 else self.value


class SaturatingLayerNote(Settings):
    """What one layer's sums do on x86 without VNNI.

    Attributes:
        layer: its name in the float graph.
        weight_pairs_at_risk: share of its neighbouring weights whose sum some activations would saturate, above 0.
        largest_sum: the sum of two products that is furthest from zero, for activations of 0…255.
        saturated_sums: share of the sums of two products that saturate on the images.
        changed_outputs: share of its outputs in which at least one of them does, before rounding.
        images: how many were looked at, each at 64 positions drawn once where a layer has more; so the two shares are
            estimates there, and what is at risk is not.
    """

    layer: str
    weight_pairs_at_risk: float
    largest_sum: int
    saturated_sums: float
    changed_outputs: float
    images: int


class EqualizationNote(Settings):
    """What equalization did.

    Attributes:
        pairs: pairs of layers that were balanced.
        kept_channels: channels that stayed as they were, because they reach the bound of a Clip.
        largest_factor: by which a channel was scaled up or down, 1 or more.
        float_sqnr_db: the equalized float graph's logits against the plain one's; None where not a bit changed.
    """

    step: Literal["equalization"] = "equalization"
    pairs: int
    kept_channels: int
    largest_factor: float
    float_sqnr_db: float | None


class HalfRangeNote(Settings):
    """Which layer got weights of seven bits."""

    step: Literal["first_layer_half_range"] = "first_layer_half_range"
    layer: str


class KeptActivationsNote(Settings):
    """ReLU and Clip stayed in the file."""

    step: Literal["keep_activations"] = "keep_activations"


class LearnedRoundingNote(Settings):
    """What learned rounding did.

    Attributes:
        weights: how many were looked at.
        turned_weights: those among them that are not rounded to the nearest integer.
        layer_error_fell_by_db: mean over the layers.
    """

    step: Literal["learned_rounding"] = "learned_rounding"
    weights: int
    turned_weights: int
    layer_error_fell_by_db: float


class ReconstructionNote(Settings):
    """What reconstruction did.

    Attributes:
        weights: how many were learned.
        turned_weights: those among them whose integer is another one than before the step.
        answers_error_fell_by_db: on the calibration images that were not learned from; 0 where nothing was changed.
    """

    step: Literal["reconstruction"] = "reconstruction"
    weights: int
    turned_weights: int
    answers_error_fell_by_db: float


class CompensatedRoundingNote(Settings):
    """What compensated rounding did.

    Attributes:
        weights: how many were looked at.
        turned_weights: those among them that are not rounded to the nearest integer.
        layer_error_fell_by_db: mean over the layers.
    """

    step: Literal["compensated_rounding"] = "compensated_rounding"
    weights: int
    turned_weights: int
    layer_error_fell_by_db: float


class BiasCorrectionNote(Settings):
    """How many layers' biases were corrected."""

    step: Literal["bias_correction"] = "bias_correction"
    layers: int


StepNote = (
    EqualizationNote
    | HalfRangeNote
    | KeptActivationsNote
    | CompensatedRoundingNote
    | LearnedRoundingNote
    | ReconstructionNote
    | BiasCorrectionNote
)


class RecoveryStepNote(Settings):
    """One recovery step: what it did, and the logits' SQNR against the float graph before and after it.

    Both in dB on the calibration images; None where the logits are equal, or not finite.
    """

    did: Annotated[StepNote, Field(discriminator="step")]
    logits_sqnr_db_before: float | None
    logits_sqnr_db_after: float | None

    @property
    def gain_db(self) -> float | None:
        """By how much the step raised it; None where one of the two is."""
        before, after = self.logits_sqnr_db_before, self.logits_sqnr_db_after
        return None if before is None or after is None else after - before


class ScoreNote(Settings):
    """What a file keeps of the float file, on the images that a search scores with.

    Attributes:
        accuracy_drop: the float file's accuracy less this file's; None without labels.
        agreement: share of the answers that are the float file's.
        logits_sqnr_db: energy of the float file's logits over that of the deviation from them, in dB.
        saliency_spearman: rank correlation of the gradient maps with the float file's; None where its answers alone
            rule a file out.
        evidence: name of each limit → what its bound follows from at any error rate: how the agreement differs from
            that of the same file, the accuracy from the float file's, and Fisher's z of the correlation from 0.
    """

    accuracy_drop: Estimate | None
    agreement: Estimate
    logits_sqnr_db: Estimate
    saliency_spearman: Estimate | None
    evidence: Mapping[str, PairedDifference] = Field(default_factory=dict)


class SensitivityNote(Settings):
    """What quantizing one layer alone costs."""

    layer: str
    operator: str
    score: ScoreNote


class CandidateNote(Settings):
    """One point of a search.

    Attributes:
        calibration: how ranges are chosen.
        equalization: whether the weights of neighbouring layers are levelled first.
        bias_correction: whether the mean error of each layer is taken out of its bias.
        compensated_rounding: whether weights make up for what rounding the others costs a layer's answers; older
            searches did not try it.
        ranking: what the layers are ranked by, to leave the most sensitive ones in float.
        float_layers: how many of them.
    """

    calibration: Calibration
    equalization: bool
    bias_correction: bool
    ranking: Literal["logits", "saliency"]
    float_layers: int
    compensated_rounding: bool = False

    @property
    def repairs(self) -> tuple[str, ...]:
        """The repairs that are made, in words."""
        made = {
            "equalization": self.equalization,
            "compensated rounding": self.compensated_rounding,
            "bias correction": self.bias_correction,
        }
        return tuple(name for name, is_made in made.items() if is_made)


class MeasuredNote(Settings):
    """What a candidate's file turned out to be.

    Attributes:
        score: what it keeps of the float file.
        speedup: the float file's latency over this one's; more is better. None where it was not measured.
        size_bytes: of the file.
        margins: name of each limit that was looked at → how far the bound that the images show is inside it; below 0
            the limit is not shown to be kept.
        reason: why speed, or maps and speed, were not measured.
        at_best: whether the margins are what the file has at best: a few images show that it breaks a limit.
    """

    score: ScoreNote
    speedup: Estimate | None
    size_bytes: int
    margins: Mapping[str, float]
    reason: str = ""
    at_best: bool = False

    @property
    def point(self) -> tuple[float, float] | None:
        """Speed-up, and rank correlation of the gradient maps; None unless both were measured."""
        likeness = self.score.saliency_spearman
        return (self.speedup.value, likeness.value) if self.speedup and likeness else None

    @property
    def within_limits(self) -> bool:
        """Whether no limit is broken."""
        return not self.misses

    @property
    def misses(self) -> Mapping[str, float]:
        """Name of each limit that is not shown to be kept → by how much, above 0."""
        return {name: -margin for name, margin in self.margins.items() if margin < 0}


class TrialNote(Settings):
    """A candidate and what it turned out to be; `error` where it could not be compiled or measured."""

    candidate: CandidateNote
    measured: MeasuredNote | None
    error: str | None = None

    @property
    def within_limits(self) -> bool:
        """Whether it was measured and breaks no limit."""
        return self.measured is not None and self.measured.within_limits


class MethodNote(Settings):
    """What a method came to beside others, on images that none of its files was calibrated on.

    Attributes:
        method: as it is written on the command line.
        size_bytes: of its file; None where none could be made.
        speedup: the float file's time for a query over this one's; more is better. None where it was not measured.
        agreement: share of the answers that are the float file's; None where the model has one answer only.
        logits_sqnr_db: energy of the float file's logits over that of the deviation from them, in dB; None where the
            model answers with a class number.
        misses: name of each limit that is broken → by how much, above 0: `agreement` in shares, `outputs_db` in dB
            of the worst output, `size` and `speed` as shares of the float file's.
        why_not: why it was not chosen; empty of the chosen one.
    """

    method: str
    size_bytes: int | None
    speedup: Estimate | None
    agreement: Estimate | None
    logits_sqnr_db: float | None
    misses: Mapping[str, float]
    why_not: str


class AccuracyTuningNote(Settings):
    """How Neural Compressor came to a file that keeps the accuracy."""

    trials: int
    baseline_accuracy: float
    tuned_accuracy: float
