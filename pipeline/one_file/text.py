"""A compiled file as a person reads it: a table of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from foundation.files import JSON
from foundation.note_parts import Estimate, RecoveryStepNote, SaturatingLayerNote
from foundation.notes import AutoNotes, TunedNotes, static_notes
from foundation.printable import printable
from pipeline.one_file.options import spelled_method
from pipeline.one_file.result import CompiledFile
from pipeline.one_file.speed import Speed
from reports.formats import NOT_MEASURED, count, decibels, interval, percent, plain, size, speedup_in_words, with_unit

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN_NAMES = 5


def compiled_table(compiled: CompiledFile) -> RenderableType:
    """Return size, layers, images and agreement of a compiled file, its search, and what would saturate elsewhere.

    Where several methods were tried, a table of them stands below.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = Text(printable(str(compiled.compiled.path)))
    table = Table(width=80, show_header=False, title=title, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for what, found in _rows(compiled):
        table.add_row(what, Text(printable(found)))
    notes = compiled.compiled.notes
    return Group(table, _methods_table(notes)) if isinstance(notes, AutoNotes) else table


def _methods_table(notes: AutoNotes) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(width=80, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for heading in ("method", "size", "as fast", "same class", "SQNR"):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    table.add_column("", overflow="fold", ratio=1)
    for found in notes.methods:
        speed, agreement = found.speedup, found.agreement
        table.add_row(
            spelled_method(found.method),
            size(found.size_bytes) if found.size_bytes is not None else "–",
            f"{with_unit(speed.value, '×')}\n{interval(*speed.ci95, '×')}" if speed and speed.ci95 else "–",
            percent(agreement.value) if agreement else "–",
            decibels(found.logits_sqnr_db) if found.logits_sqnr_db is not None else "–",
            Text(printable(found.why_not or "chosen")) if found.size_bytes is not None else "cannot be made",
        )
    return table


def _rows(compiled: CompiledFile) -> Iterator[tuple[str, str]]:
    before, after = compiled.source_bytes, compiled.compiled.size_bytes
    notes = compiled.compiled.notes
    static = static_notes(notes)
    yield "size", f"{size(before)} → {size(after)} ({after / before:.2f}×)"
    yield "layers", _layers(compiled)
    if static:
        bits = "7 of 8 bits" if static.reduce_range else "8 bits"
        bits = "4 bits but in the first layer" if static.bits == 4 else bits
        yield "integers", f"activations {static.activation_type}, weights {static.weight_type}, {bits}"
    if compiled.preprocessing:
        form = compiled.preprocessing
        values = (
            "pixels of 0…255" if form.input_type == "uint8" else f"mean {_list(form.mean)}, std {_list(form.std)}"
        )
        yield "input", f"{form.image_size} × {form.width}, {form.layout}, {values}"
    if compiled.folder:
        yield "images", _images(compiled)
    for step in static.recovery if static and not isinstance(notes, TunedNotes) else ():
        yield "recovery", _recovery(step)
    yield from _agreement(compiled)
    yield "speed", _speed(compiled.speed)
    if isinstance(notes, AutoNotes):
        yield "chosen", f"{notes.chosen}: {notes.why}"
        yield from ((spelled_method(one.method), one.why_not) for one in notes.methods if one.size_bytes is None)
    if isinstance(notes, TunedNotes):
        yield from _search(notes, compiled.compiled.settings)
    for sentence in compiled.worse:
        yield "worse", sentence
    for sentence in compiled.doubts:
        yield "in doubt", sentence
    if static and static.saturation is not None:
        yield "without VNNI", _saturation(static.saturation)


def _layers(compiled: CompiledFile) -> str:
    if compiled.float_layers is None:
        return str(compiled.layers)
    in_float = len(compiled.float_layers)
    named = f" ({_names(compiled.float_layers)})" if in_float else ""
    return f"{compiled.layers - in_float} of {compiled.layers} in integers, {in_float} in float{named}"


def _images(compiled: CompiledFile) -> str:
    assert compiled.folder is not None
    parts = [f"calibrated on {compiled.calibration_images}"] if compiled.calibration_images else []
    if compiled.scored_images:
        word = "chosen" if isinstance(compiled.compiled.notes, AutoNotes) else "searched"
        parts.append(f"{word} on {compiled.scored_images}")
    same = compiled.scored_images == len(compiled.folder.held_out) > 0
    compared = compiled.agreement.images if compiled.agreement else 0
    parts.append("compared on the same" if same else f"compared on {compared}")
    if compiled.folder.skipped:
        parts.append(f"{len(compiled.folder.skipped)} skipped (first: {compiled.folder.skipped[0]})")
    if compiled.folder.duplicates:
        parts.append(count(compiled.folder.duplicates, "duplicate left out", "duplicates left out"))
    return ", ".join(parts)


def _agreement(compiled: CompiledFile) -> Iterator[tuple[str, str]]:
    found = compiled.agreement
    if found is None:
        why = "no image is left that was not calibrated on" if compiled.folder else "no images were given"
        yield "same class", f"{NOT_MEASURED}: {why}"
        return
    if found.same_class is None or found.same_class_ci95 is None:
        yield "same class", f"{NOT_MEASURED}: the model has one output"
    else:
        low, high = found.same_class_ci95
        yield "same class", f"{percent(found.same_class)} ({interval(low, high, 'share')}) of {found.images} images"
    if found.logits_sqnr_db is not None:
        yield "logits SQNR", decibels(found.logits_sqnr_db)


def _recovery(step: RecoveryStepNote) -> str:
    before, after = step.logits_sqnr_db_before, step.logits_sqnr_db_after
    named = step.did.step.replace("_", " ")
    if before is None or after is None:
        return named
    return f"{named}, logits SQNR {decibels(before)} → {decibels(after)} on the calibration images"


def _speed(found: Speed) -> str:
    if found.ratio is None or found.ci95 is None:
        return f"{NOT_MEASURED}: {found.reason}"
    words = speedup_in_words(found.ci95)
    told = f"{with_unit(found.ratio, '×')} as fast" if words != "not distinguishable" else words
    return f"{told} ({interval(*found.ci95, '×')}), one thread, {found.processes} processes of each file"


def _search(notes: TunedNotes, limits: Mapping[str, JSON]) -> Iterator[tuple[str, str]]:
    chosen, trials = notes.chosen, notes.search
    found = next(trial.measured for trial in trials if trial.measured and trial.candidate == chosen)
    speed, likeness = found.speedup, found.score.saliency_spearman
    if likeness:
        yield "saliency", f"ρ {_estimate(likeness, 'correlation')}, {notes.map_method} maps of {likeness.n} images"
    if notes.without_gradient:
        yield "gradients", f"{NOT_MEASURED}, so occlusion compares the files: {notes.without_gradient}"
    if speed:
        sample = f"processes of each file at the place {notes.timed_at}" if notes.timed_at else "pairs of queries"
        yield "speed-up", f"{_estimate(speed, '×')}, one thread, {speed.n} {sample}"
    else:
        yield "speed-up", f"{NOT_MEASURED}: {found.reason}"
    yield "chosen", f"ranges by {chosen.calibration}, {' and '.join(chosen.repairs) or 'no recovery'}"
    within = sum(trial.within_limits for trial in trials)
    kept = f"same class ≥ {percent(limits['agreement'])}, saliency ≥ {plain(limits['saliency_spearman'])}"
    yield "search", f"{count(len(trials), 'file')} tried, {within} shown to keep the limits ({kept})"


def _estimate(found: Estimate, unit: str) -> str:
    return with_unit(found.value, unit) + (f" ({interval(*found.ci95, unit)})" if found.ci95 else "")


def _saturation(layers: Sequence[SaturatingLayerNote]) -> str:
    if not layers:
        return "no layer can saturate"
    wrong = [layer for layer in layers if layer.changed_outputs > 0]
    if not wrong:
        return f"{count(len(layers), 'layer')} could saturate, none does on {layers[0].images} images"
    worst = sorted(wrong, key=lambda layer: -layer.changed_outputs)[:_SHOWN_NAMES]
    named = ", ".join(f"{layer.layer} {percent(layer.changed_outputs)}" for layer in worst)
    more = f" and {len(wrong) - len(worst)} more" if len(wrong) > len(worst) else ""
    return (
        f"{count(len(wrong), 'layer')} of {len(layers)} at risk saturate{'s' if len(wrong) == 1 else ''} "
        f"(outputs changed: {named}{more}); --target x86-avx2 is safe there"
    )


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
