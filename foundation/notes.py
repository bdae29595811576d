"""What each method found out about the file it made, as it stands in the record beside the file and in a run's.

One class per method, told apart by its field `method`. Whoever writes notes and whoever shows them agree on this
module and `note_parts` alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from foundation.note_parts import (
    AccuracyTuningNote,
    CandidateNote,
    MethodNote,
    Parity,
    RecoveryStepNote,
    SaturatingLayerNote,
    SensitivityNote,
    TrialNote,
)
from foundation.processor import CpuTarget, IntegerType
from foundation.settings import Settings


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
        bits: of a weight, in all layers but the first.
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
    bits: Literal[8, 4] = 8


class TunedNotes(Settings):
    """Of a searched static file.

    Attributes:
        file: of the chosen file itself.
        chosen: the point of the search that it is.
        search: all trials, in the order of their measurement.
        sensitivity: the layers, the costliest for the logits first.
        misses: name of each limit that the chosen file breaks → by how much; empty where it keeps them all.
        without_gradient: why maps are compared by occlusion; "" where they are gradient maps.
        timed_at: the place that speed was measured at; None for ONNX Runtime on the processor at hand.
    """

    method: Literal["tuned"] = "tuned"
    file: StaticNotes
    chosen: CandidateNote
    search: tuple[TrialNote, ...]
    sensitivity: tuple[SensitivityNote, ...]
    misses: Mapping[str, float] = Field(default_factory=dict)
    without_gradient: str = ""
    timed_at: str | None = None

    @property
    def map_method(self) -> str:
        """The key of the saliency method that compares the files."""
        return "occlusion" if self.without_gradient else "gradient"

    @property
    def front(self) -> tuple[TrialNote, ...]:
        """The Pareto front: trials that no other one beats in both speed and saliency, the fastest first."""
        found = [(trial, trial.measured.point) for trial in self.search if trial.measured]
        points = [(trial, *point) for trial, point in found if point]
        front, likest = list[TrialNote](), -math.inf
        for trial, _, likeness in sorted(points, key=lambda one: (-one[1], -one[2])):
            if likeness > likest:
                front.append(trial)
                likest = likeness
        return tuple(front)


class AutoNotes(Settings):
    """Of a file whose method was chosen by measuring several.

    Attributes:
        file: of the chosen file itself.
        why: which rule chose it.
        methods: every method that was tried, in a fixed order.
        misses: name of each limit that the chosen file breaks → by how much; empty where it keeps them all.
        agreement_limit: share of the float file's answers that a file had to give.
    """

    method: Literal["auto"] = "auto"
    file: Annotated[DynamicNotes | StaticNotes | WeightOnlyNotes, Field(discriminator="method")]
    why: str
    methods: tuple[MethodNote, ...]
    misses: Mapping[str, float]
    agreement_limit: float

    @property
    def chosen(self) -> str:
        """The method that was chosen, as it is written on the command line."""
        return next(one.method for one in self.methods if not one.why_not)


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
    | AutoNotes
    | NeuralCompressorNotes
    | GraphOptimizedNotes,
    Field(discriminator="method"),
]


def static_notes(notes: Notes) -> StaticNotes | None:
    """Return what is known of a static file, also of a chosen one; None for a file of another method."""
    if isinstance(notes, TunedNotes | AutoNotes):
        return static_notes(notes.file)
    return notes if isinstance(notes, StaticNotes) else None


def float_layers(notes: Notes) -> tuple[str, ...] | None:
    """Return the names of the layers that compute in float; None for a method that does not say."""
    if isinstance(notes, AutoNotes):
        return float_layers(notes.file)
    if isinstance(notes, WeightOnlyNotes | NeuralCompressorNotes):
        return notes.float_layers
    static = static_notes(notes)
    return static.float_layers if static else None
