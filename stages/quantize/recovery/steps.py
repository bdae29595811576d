"""What wins back accuracy that static quantization costs, each step by itself and each with its measured effect.

Equalization comes first, because it changes the activations and so their ranges; then the first layer's range and
the kept activations, which are options of the writer; then the rounding, compensated or learned; then the biases,
which correct whatever shift all of that leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from foundation.errors import StageError
from foundation.note_parts import (
    BiasCorrectionNote,
    CompensatedRoundingNote,
    EqualizationNote,
    HalfRangeNote,
    KeptActivationsNote,
    LearnedRoundingNote,
    ReconstructionNote,
    RecoveryStepNote,
    StepNote,
)
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.graph import LAYER_TYPES, GraphIndex, attributes_of
from onnx_files.probes import Batches, Memory, answers, sqnr_db
from stages.quantize.recovery.bias_correction import correct_biases
from stages.quantize.recovery.compensation import CompensatedRoundingSettings, compensate
from stages.quantize.recovery.equalization import Equalized, equalize
from stages.quantize.recovery.reconstruction import Reconstruction, ReconstructionSettings, reconstruct
from stages.quantize.recovery.rounding import LearnedRoundingSettings, learn_rounding, unlike_integers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto


class RecoverySettings(Settings):
    """Steps against the loss of static quantization; all are off unless asked for."""

    equalization: bool = Field(
        False, description="balance the weights' ranges between neighbouring layers (arXiv 1906.04721)"
    )
    clips: Literal["keep", "replace"] = Field(
        "keep",
        description="equalization past a Clip such as ReLU6: keep it, and leave channels alone that reach its bound, "
        "or replace it by ReLU, which changes the network where the bound was reached",
    )
    bias_correction: bool = Field(
        False, description="subtract each channel's mean shift from the bias (arXiv 1906.04721)"
    )
    first_layer_half_range: bool = Field(
        False, description="weights of seven bits in the first layer, against saturation on x86 without VNNI"
    )
    keep_activations: bool = Field(
        False,
        description="leave ReLU and Clip in the file where the output's range could stand for them (format QDQ)",
    )
    learned_rounding: LearnedRoundingSettings | None = Field(
        None, description="learn whether each weight is rounded up or down (AdaRound, arXiv 2004.10568)"
    )

    compensated_rounding: CompensatedRoundingSettings | None = Field(
        None,
        description="round weight by weight, and let the others make up for what that costs a layer's answers (GPTQ, "
        "arXiv 2210.17323); sets the biases too, and takes seconds",
    )

    reconstruction: ReconstructionSettings | None = Field(
        None,
        description="learn integers, biases and the activations' steps for the answers of the whole network, after "
        "another rounding or alone; minutes, for small networks",
    )

    @model_validator(mode="after")
    def _one_rounding(self) -> Self:
        if self.learned_rounding and self.compensated_rounding:
            raise ValueError("learned_rounding and compensated_rounding choose the same integers; take one of them")
        return self

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that are on, in their order."""
        return tuple(name for name in STEPS if getattr(self, name))


STEPS = ("equalization", "first_layer_half_range", "keep_activations", "compensated_rounding", "learned_rounding",
         "reconstruction", "bias_correction")  # fmt: skip
_READ_INTEGERS = frozenset({"compensated_rounding", "learned_rounding", "reconstruction", "bias_correction"})
"""Steps that look at what the graph became in integers; writing it takes as long as some steps."""


class Write(Protocol):
    """Writes a graph in QDQ form with ranges and options of ONNX Runtime's writer."""

    def __call__(self, proto: ModelProto, ranges: Any, options: Mapping[str, Any], /) -> ModelProto:
        """Args: float graph, left as it is; what `calibrate` gave; options."""


@dataclass(frozen=True)
class Recovered:
    """What the final file is to be written from.

    Attributes:
        written: that file in QDQ form; None where no step was taken.
        model: the float graph.
        ranges: of its activations.
        options: for ONNX Runtime's writer, beside the usual ones.
        integers: learned ones by the weight's name; what is written must hold them.
        notes: one for each step, in their order.
    """

    written: ModelProto | None
    model: ModelProto
    ranges: Any
    options: Mapping[str, Any]
    integers: Mapping[str, NDArray[np.generic]]
    notes: tuple[RecoveryStepNote, ...]

    def check(self, compiled: ModelProto) -> None:
        """Make sure that a written file holds the learned integers.

        Raises:
            StageError: it does not.
        """
        unlike = unlike_integers(compiled, self.integers)
        if unlike:
            name, count = next(iter(unlike.items()))
            raise StageError(
                f"expected the learned integers in the written file, found {count} others in `{name}` and others in "
                f"{len(unlike) - 1} more weights. Turn the rounding step off, and report this with the model."
            )


def recover(
    proto: ModelProto,
    settings: RecoverySettings,
    calibrate: Callable[[ModelProto], Any],
    write: Write,
    batches: Batches,
    *,
    per_channel: bool,
    progress: Progress = no_progress,
    measured: bool = True,
    width_axis: int = 3,
    memory: Memory | None = None,
) -> Recovered:
    """Take the chosen steps and measure each.

    Args:
        proto: the float graph; left as it is.
        settings: which steps.
        calibrate: finds a graph's ranges on the calibration images; called once, and again after equalization.
        write: writes a graph in QDQ form.
        batches: the calibration images.
        per_channel: weights have one scale per output channel.
        progress: called while the rounding is chosen, the one slow step, with the layers that are done and all.
        measured: whether to say what each step does, which takes all images twice a step and changes no file.
        width_axis: axis of the images from left to right, as the model takes them.
        memory: what float graphs gave before, on the same images; a search asks for the same again and again.
    """
    ranges = calibrate(proto)
    if not settings.steps:
        return Recovered(None, proto, ranges, {}, {}, ())
    reference = answers(proto, batches) if measured else None

    def decibels(graph: ModelProto) -> float | None:
        return None if reference is None else sqnr_db(reference, answers(graph, batches))

    options: dict[str, Any] = {}
    integers: dict[str, NDArray[np.generic]] = {}
    notes: list[RecoveryStepNote] = []
    model, written, exact = proto, proto, proto
    if measured or settings.steps[0] in _READ_INTEGERS:
        written = write(proto, ranges, options)
    before = decibels(written)
    for step, following in zip(settings.steps, (*settings.steps[1:], None), strict=True):
        did: StepNote
        if step == "equalization":
            equalized = equalize(model, settings.clips, batches, memory)
            model, ranges, exact = equalized.model, calibrate(equalized.model), equalized.model
            did = _balanced(equalized, decibels(model))
        elif step in ("compensated_rounding", "learned_rounding"):
            model, chosen, did = _with_integers(model, written, settings, batches, progress, width_axis)
            integers |= chosen
        elif step == "reconstruction":
            learned = reconstruct(
                model, written, ranges, batches, settings.reconstruction, progress, width_axis, exact
            )
            model, ranges, did = learned.model, learned.ranges, _told(learned)
            integers |= learned.integers
        elif step == "bias_correction":
            corrected = correct_biases(model, written, batches, memory)
            model = corrected.model
            did = BiasCorrectionNote(layers=len(corrected.shifts))
        elif step == "first_layer_half_range":
            options |= half_range_options(model, per_channel=per_channel)
            did = HalfRangeNote(layer=first_layer(model).name)
        else:
            options |= {"QDQKeepRemovableActivations": True}
            did = KeptActivationsNote()
        if measured or following is None or following in _READ_INTEGERS:
            written = write(model, ranges, options)
        after = decibels(written)
        notes.append(RecoveryStepNote(did=did, logits_sqnr_db_before=before, logits_sqnr_db_after=after))
        before = after
    recovered = Recovered(written, model, ranges, options, integers, tuple(notes))
    recovered.check(written)
    return recovered


def _with_integers(
    model: ModelProto,
    written: ModelProto,
    settings: RecoverySettings,
    batches: Batches,
    progress: Progress,
    width_axis: int,
) -> tuple[ModelProto, Mapping[str, NDArray[np.generic]], StepNote]:
    """Return the graph with chosen integers, the integers, and what was done."""
    if settings.compensated_rounding is not None:
        steps = settings.compensated_rounding
        compensated = compensate(model, written, batches, steps, progress, width_axis)
        note = CompensatedRoundingNote(
            weights=compensated.weights,
            turned_weights=compensated.turned,
            layer_error_fell_by_db=compensated.error_db,
        )
        return compensated.model, compensated.integers, note
    assert settings.learned_rounding is not None
    learned = learn_rounding(model, written, batches, settings.learned_rounding, progress)
    did = LearnedRoundingNote(
        weights=learned.weights, turned_weights=learned.turned, layer_error_fell_by_db=learned.error_db
    )
    return learned.model, learned.integers, did


def _balanced(equalized: Equalized, float_sqnr_db: float | None) -> EqualizationNote:
    return EqualizationNote(
        pairs=len(equalized.pairs),
        kept_channels=equalized.kept_channels,
        largest_factor=equalized.largest_factor,
        float_sqnr_db=float_sqnr_db,
    )


def _told(learned: Reconstruction) -> ReconstructionNote:
    return ReconstructionNote(
        weights=learned.weights, turned_weights=learned.turned, answers_error_fell_by_db=learned.error_db
    )


def first_layer(proto: ModelProto) -> NodeProto:
    """Return the first layer with constant weights; there is one in every graph that is quantized."""
    constants = GraphIndex.of(proto.graph).initializers
    return next(node for node in proto.graph.node if node.op_type in LAYER_TYPES and node.input[1] in constants)


def half_range_options(proto: ModelProto, *, per_channel: bool) -> dict[str, Any]:
    """Return the options with which ONNX Runtime's writers store the first layer's weights in seven bits.

    Args:
        proto: the float graph.
        per_channel: weights have one scale per output channel.
    """
    layer = first_layer(proto)
    override: dict[str, Any] = {"reduce_range": True}
    if per_channel:
        transposed = attributes_of(layer).get("transB", 0)
        override["axis"] = 0 if layer.op_type == "Conv" or (layer.op_type == "Gemm" and transposed) else 1
    return {"TensorQuantOverrides": {layer.input[1]: [override]}}
