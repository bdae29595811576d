"""`model_card.md`: what is known from the run about the files that would ship; nothing else."""

from __future__ import annotations

from calibration_data.summary import summary_lines
from foundation.measurements import Measurement
from foundation.metrics import row_of
from reports import formats, markdown
from reports.class_tables import class_tables, rare_sentence, subgroup_tables
from reports.decision import outcome
from reports.facts import BASELINE, Facts
from reports.measured import rare_labels
from reports.saliency_tables import saliency_tables
from reports.statements import statements
from reports.tables import Table
from reports.threshold_tables import threshold_tables
from reports.variant_tables import accuracy_table, latency_tables


def render(facts: Facts) -> str:
    """Return the file's text."""
    sections = [
        f"# Model card: {markdown.escape(facts.record.name)}",
        _summary(facts),
        "## Intended use",
        _words(facts),
        "## Files",
        _files(facts),
        "## Data",
        _data(facts),
        "## Training",
        _training(facts),
        "## Performance on the test images",
        "Intervals are 95 %.",
        *_tables((accuracy_table(facts), *saliency_tables(facts), *latency_tables(facts))),
        _changes(facts),
        "## Per label and subgroup" if facts.task == "multi_label" else "## Per class and subgroup",
        markdown.escape(rare_sentence(facts)),
        *_tables(class_tables(facts), "Not measured."),
        *_tables(threshold_tables(facts), "No operating points were asked for."),
        *_tables(subgroup_tables(facts), "No subgroups are recorded."),
        "## Limits",
        _limits(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(facts: Facts) -> str:
    verdict = outcome(facts)
    synthetic = " The images are synthetic." if facts.record.synthetic else ""
    classes = markdown.escape(", ".join(facts.record.classes) or "unknown")
    number = formats.count(len(facts.record.classes), "class", "classes")
    if facts.task == "multi_label":
        number = f"{formats.count(len(facts.record.classes), 'label')}, of which an image has any number"
    changed = "".join(f" {markdown.escape(change.sentence)}" for change in facts.record.gate_changes)
    return (
        f"An image classifier for {number}: {classes}. "
        f"{verdict.headline}. {markdown.escape(verdict.sentence)}{changed}{synthetic}"
    )


def _words(facts: Facts) -> str:
    return "\n".join(f"- {one.name}: {markdown.escape(one.text)}" for one in statements(facts))


def _files(facts: Facts) -> str:
    if not facts.record.variants:
        return "No file was compiled."
    lines = ["| Variant | Method | File | Size | sha256 | Made from |", "| --- | --- | --- | ---: | --- | --- |"]
    names: dict[str | None, str] = {record.sha256: record.variant for record in facts.record.variants}
    for record in facts.record.variants:
        cells = (
            record.variant,
            record.method,
            record.path,
            formats.size(record.size_bytes),
            record.sha256,
            names.get(record.parent_sha256) or record.parent_sha256 or "none",
        )
        lines.append("| " + " | ".join(markdown.escape(text) for text in cells) + " |")
    return "\n".join(lines)


def _data(facts: Facts) -> str:
    if facts.data is None:
        return f"Data set {markdown.escape(facts.record.dataset)}; the run folder holds no images."
    data = facts.data
    sizes = ", ".join(f"{len(data.split(name))} {name}" for name in ("train", "validation", "test"))
    told = "".join(f" {markdown.escape(line)}" for line in summary_lines(data, facts.show_names)[1:])
    return (
        f"Data set {markdown.escape(data.dataset)}: {sizes} images of {data.image_size} × {data.image_size} pixels, "
        f"{formats.count(data.channels, 'channel')}.{told} "
        f"Digest of all images, masks and labels: {data.sha256}."
    )


def _training(facts: Facts) -> str:
    model = facts.record.configuration.get("model")
    source = next((key for key, value in model.items() if value is not None), "") if isinstance(model, dict) else ""
    if source in ("onnx", "torch"):
        kind = "an ONNX file" if source == "onnx" else "a PyTorch network with its weights"
        return f"The model is {kind} from elsewhere; how it was trained is not known to this run."
    settings = model.get("train") if isinstance(model, dict) else None
    epochs = formats.count(len(facts.history), "epoch") if facts.history else "The run holds no training history"
    if not isinstance(settings, dict):
        return f"{epochs}."
    lines = [f"- {markdown.escape(str(key))}: {markdown.escape(str(value))}" for key, value in settings.items()]
    return f"{epochs}. Settings:\n\n" + "\n".join(lines)


def _tables(tables: tuple[Table, ...], otherwise: str = "") -> list[str]:
    if not tables:
        return [otherwise]
    return [f"### {markdown.escape(table.caption)}\n\n{markdown.table(table)}" for table in tables]


def _changes(facts: Facts) -> str:
    kind = "yes/no answers" if facts.task == "multi_label" else "answers"
    lines = [
        f"- {markdown.escape(item.variant)}: {item.changed} of {item.answers} {kind} differ from fp32's; "
        f"{item.broken} became wrong, {item.mended} became right."
        for item in (facts.image_by_image.answers.changes if facts.image_by_image else ())
    ]
    return "\n".join(lines)


def _limits(facts: Facts) -> str:
    limits = ["The run holds no clinical evaluation."]
    if facts.record.synthetic:
        limits.append("The images were generated. The numbers have no clinical meaning.")
    if facts.data is not None:
        limits.append(f"Measured on {formats.count(len(facts.data.test), 'test image')} of one data set.")
    if rare_labels(facts):
        limits.append(f"Too few test images to judge: {markdown.escape(', '.join(rare_labels(facts)))}.")
    limits.append(
        f"Accuracy and latency of an int8 file hold for the processor they were measured on: "
        f"{markdown.escape(facts.record.environment.cpu.model)}."
    )
    absent = [m for m in facts.measurements if m.value is None and not _asks_nothing(m)]
    whole = sum(m.where.subgroup is None for m in absent)
    if whole:
        limits.append(f"{formats.count(whole, 'measurement')} could not be taken; report.json gives the reasons.")
    if len(absent) > whole:
        number = formats.count(len(absent) - whole, "measurement")
        limits.append(f"{number} of subgroups could not be taken, mostly for too few images; report.json lists them.")
    return "\n".join(f"- {limit}" for limit in limits)


def _asks_nothing(measurement: Measurement) -> bool:
    """Return whether nobody would ask for it: fp32 against itself, and the sanity check of another file than fp32."""
    row = row_of(measurement.metric)
    if measurement.variant == BASELINE:
        return row is not None and row.against_fp32
    return row is not None and row.table == "sanity"
