"""What each method found out about the file it made, as it stands in the record beside the file and in a run's.

One class per method, told apart by its field `method`, and the parts that these hold. Whoever writes notes and
whoever shows them agree on this module alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from foundation.files import JSON
from foundation.processor import CpuTarget, IntegerType
from foundation.settings import Settings

Calibration = Literal["minmax", "percentile", "entropy", "mse"]
"""How a search may choose ranges."""


# --- parts ---


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
        images: how many were looked at.
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


class BiasCorrectionNote(Settings):
    """How many layers' biases were corrected."""

    step: Literal["bias_correction"] = "bias_correction"
    layers: int


StepNote = EqualizationNote | HalfRangeNote | KeptActivationsNote | LearnedRoundingNote | BiasCorrectionNote


class RecoveryStepNote(Settings):
    """One recovery step: what it did, and the logits' SQNR against the float graph before and after it.

    Both in dB on the calibration images; None where the logits are equal, or not finite.
    """

    did: Annotated[StepNote, Field(discriminator="step")]
    logits_sqnr_db_before: float | None
    logits_sqnr_db_after: float | None


class ScoreNote(Settings):
    """What a file keeps of the float file, on the images that a search scores with.

    Attributes:
        accuracy_drop: the float file's accuracy less this file's; None without labels.
        agreement: share of the answers that are the float file's.
        logits_sqnr_db: energy of the float file's logits over that of the deviation from them, in dB.
        saliency_spearman: rank correlation of the gradient maps with the float file's.
    """

    accuracy_drop: Estimate | None
    agreement: Estimate
    logits_sqnr_db: Estimate
    saliency_spearman: Estimate


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
        ranking: what the layers are ranked by, to leave the most sensitive ones in float.
        float_layers: how many of them.
    """

    calibration: Calibration
    equalization: bool
    bias_correction: bool
    ranking: Literal["logits", "saliency"]
    float_layers: int

    @property
    def repairs(self) -> tuple[str, ...]:
        """The repairs that are made, in words."""
        made = {"equalization": self.equalization, "bias correction": self.bias_correction}
        return tuple(name for name, is_made in made.items() if is_made)


class MeasuredNote(Settings):
    """What a candidate's file turned out to be.

    Attributes:
        score: what it keeps of the float file.
        speedup: the float file's latency over this one's; more is better.
        size_bytes: of the file.
        margins: name of each limit → how far the file is inside it; below 0 it is broken.
    """

    score: ScoreNote
    speedup: Estimate
    size_bytes: int
    margins: Mapping[str, float]

    @property
    def within_limits(self) -> bool:
        """Whether no limit is broken."""
        return min(self.margins.values()) >= 0


class TrialNote(Settings):
    """A candidate and what it turned out to be; `error` where it could not be compiled or measured."""

    candidate: CandidateNote
    measured: MeasuredNote | None
    error: str | None = None

    @property
    def within_limits(self) -> bool:
        """Whether it was measured and breaks no limit."""
        return self.measured is not None and self.measured.within_limits


class AccuracyTuningNote(Settings):
    """How Neural Compressor came to a file that keeps the accuracy."""

    trials: int
    baseline_accuracy: float
    tuned_accuracy: float


# --- one per method ---


class ExportNotes(Settings):
    """Of the float file, which loses nothing that would need a note."""

    method: Literal["export"] = "export"


class GivenNotes(Settings):
    """Of a file that the user brought.

    Attributes:
        given_sha256: of the user's own file.
        tools: what made it, name → version, as far as it says.
    """

    method: Literal["given"] = "given"
    given_sha256: str
    tools: Mapping[str, str]


class PactNotes(Settings):
    """Of integers that were trained.

    Attributes:
        weight_bits: as trained.
        activation_bits: as trained.
        target: processor that the weights are stored for.
        layers_stored_unsigned: names of layers whose weights are stored as uint8, because int8 might saturate.
        layers: how many are quantized.
        layers_run_in_integers: how many of them ONNX Runtime runs in integers on the machine that exported them.
        parity: the file against the network's fake quantization.
    """

    method: Literal["pact"] = "pact"
    weight_bits: int
    activation_bits: int
    target: CpuTarget
    layers_stored_unsigned: tuple[str, ...]
    layers: int
    layers_run_in_integers: int
    parity: Parity


class Fp16Notes(Settings):
    """Of half precision.

    Attributes:
        constants: numbers that were converted.
        clipped_constants: those among them beyond float16's largest number.
        raised_constants: those below its smallest.
        tensors_with_changed_constants: where these stand.
        float_islands: names of nodes that stay in float32 → the largest magnitude that each makes or reads.
        logits_sqnr_db: against the float file, on the images that were looked at; None without images or difference.
    """

    method: Literal["fp16"] = "fp16"
    constants: int
    clipped_constants: int
    raised_constants: int
    tensors_with_changed_constants: tuple[str, ...]
    float_islands: Mapping[str, float]
    logits_sqnr_db: float | None


class DynamicNotes(Settings):
    """Of dynamic int8.

    Attributes:
        linear_layers: names of the layers that multiply integers.
        convolutions_in_float_arithmetic: names of those with int8 weights that are multiplied out at load.
        reduce_range: weights of linear layers take seven of their eight bits.
    """

    method: Literal["dynamic"] = "dynamic"
    linear_layers: tuple[str, ...]
    convolutions_in_float_arithmetic: tuple[str, ...]
    reduce_range: bool


class WeightOnlyNotes(Settings):
    """Of integer weights in float arithmetic.

    Attributes:
        layers: names of those whose weights are integers.
        float_layers: names of the others, which are too small.
        weight_sqnr_db: name of each weight → its power over that of its error, in dB; None where there is no error.
    """

    method: Literal["weight_only"] = "weight_only"
    layers: tuple[str, ...]
    float_layers: tuple[str, ...]
    weight_sqnr_db: Mapping[str, float | None]


class StaticNotes(Settings):
    """Of static int8.

    Attributes:
        activation_type: type of every activation.
        weight_type: type of every weight.
        reduce_range: weights take seven of their eight bits.
        layers: how many the float graph has.
        float_layers: names of those that compute in float.
        calibration_images: their names.
        saturation: layers that would go wrong on x86 without VNNI; None where nobody looked.
        recovery: the steps that were taken, in their order.
    """

    method: Literal["static"] = "static"
    activation_type: IntegerType
    weight_type: IntegerType
    reduce_range: bool
    layers: int
    float_layers: tuple[str, ...]
    calibration_images: tuple[str, ...]
    saturation: tuple[SaturatingLayerNote, ...] | None
    recovery: tuple[RecoveryStepNote, ...] = ()


class TunedNotes(Settings):
    """Of a searched static file.

    Attributes:
        file: of the chosen file itself.
        chosen: the point of the search that it is.
        search: all trials, in the order of their measurement.
        sensitivity: the layers, the costliest for the logits first.
    """

    method: Literal["tuned"] = "tuned"
    file: StaticNotes
    chosen: CandidateNote
    search: tuple[TrialNote, ...]
    sensitivity: tuple[SensitivityNote, ...]


class NeuralCompressorNotes(Settings):
    """Of Intel Neural Compressor.

    Attributes:
        worker: versions in its environment.
        reduce_range: weights take seven of their eight bits.
        layers: how many the float graph has.
        calibration_images: their names.
        float_layers: names of those that compute in float; None in mode dynamic, which does not say.
        tuning: None but in mode tuned.
    """

    method: Literal["neural_compressor"] = "neural_compressor"
    worker: Mapping[str, str]
    reduce_range: bool
    layers: int
    calibration_images: tuple[str, ...]
    float_layers: tuple[str, ...] | None
    tuning: AccuracyTuningNote | None


class GraphOptimizedNotes(Settings):
    """Of a float graph that onnxruntime-tools fused.

    Attributes:
        worker: versions in its environment.
        nodes_before: of the float graph.
        nodes_after: of the fused one.
    """

    method: Literal["graph_optimized"] = "graph_optimized"
    worker: Mapping[str, str]
    nodes_before: int
    nodes_after: int


Notes = Annotated[
    ExportNotes
    | GivenNotes
    | PactNotes
    | Fp16Notes
    | DynamicNotes
    | WeightOnlyNotes
    | StaticNotes
    | TunedNotes
    | NeuralCompressorNotes
    | GraphOptimizedNotes,
    Field(discriminator="method"),
]
_NOTES: TypeAdapter[Notes] = TypeAdapter(Notes)


def notes_from_json(value: JSON) -> Notes:
    """Return the notes that were dumped to JSON.

    Raises:
        ValidationError: they are none (it is a ValueError).
    """
    return _NOTES.validate_python(value, strict=False)


def static_notes(notes: Notes) -> StaticNotes | None:
    """Return what is known of a static file, also of a searched one; None for a file of another method."""
    if isinstance(notes, TunedNotes):
        return notes.file
    return notes if isinstance(notes, StaticNotes) else None


def float_layers(notes: Notes) -> tuple[str, ...] | None:
    """Return the names of the layers that compute in float; None for a method that does not say."""
    if isinstance(notes, WeightOnlyNotes | NeuralCompressorNotes):
        return notes.float_layers
    static = static_notes(notes)
    return static.float_layers if static else None
