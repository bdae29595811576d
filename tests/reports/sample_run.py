"""A run folder as the stages leave it: eight classes, six variants, everything measured, from a fixed seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from calibration_data.prepared import SPLITS, SplitName
from calibration_data.prepared_folder import Columns, Head, Rows, read_prepared, write_prepared
from foundation.answer_documents import write_answers
from foundation.explanations import Explanations
from foundation.image_by_image import ImageByImage, write_image_by_image
from foundation.measurements import CENTRE_PRIOR, RANDOM_MAP, Measurement, Where, write_measurements
from foundation.metrics import METRICS
from foundation.notes import ExportNotes, NeuralCompressorNotes, Notes
from foundation.processor import Cpu
from foundation.record import (
    FORMAT_VERSION,
    Environment,
    RunRecord,
    StageRecord,
    Status,
    VariantRecord,
    Verdict,
    exit_code_of,
    stage_name,
    write_record,
)
from foundation.run_folder import RunFolder
from stages.validate.answers import Answers, Predictions
from stages.validate.answers_in_detail import answers_in_detail
from stages.validate.calibration import reliability_document
from stages.validate.changed_answers import changed_answers
from stages.validate.changes_ledger import changes_ledger
from stages.validate.counterparts import Counterparts, ExplainedImages
from stages.validate.fidelity import measure_saliency
from stages.validate.maps.baselines import centre_prior
from stages.validate.saliency import SaliencySettings
from stages.validate.shown_maps import maps_to_show

CLASSES = (
    "dyed lifted polyps",
    "dyed resection margins",
    "esophagitis",
    "normal cecum",
    "normal pylorus",
    "normal z-line",
    "polyps",
    "ulcerative colitis",
)
VARIANTS = ("fp32", "fp16", "dynamic-int8", "static-int8", "inc-int8", "pact-int8")
METHODS = ("export", "fp16", "dynamic", "static", "neural_compressor", "pact")
NOISE = {"fp16": 0.01, "dynamic-int8": 0.5, "static-int8": 0.75, "inc-int8": 0.6, "pact-int8": 1.1}
SIZES = (1_168_412, 588_120, 318_226, 331_870, 329_004, 317_902)
P50 = {"fp32": 4.12, "fp16": 4.61, "dynamic-int8": 5.96, "static-int8": 2.31, "inc-int8": 2.38, "pact-int8": 2.22}
SIZE = 64
PER_CLASS = 6
ON_CPU = Where("cpu", "test")


def write_sample_run(root: Path, classes: Sequence[str] = CLASSES) -> Path:
    """Write a complete run folder and return it."""
    rng = np.random.default_rng(7)
    labels = np.repeat(np.arange(len(classes)), PER_CLASS).astype(np.int64)
    frames = [_frame(rng, int(label)) for label in labels]
    images = np.stack([image for image, _ in frames])
    masks = np.stack([mask for _, mask in frames])
    write_data(root / "data", classes, images, labels, masks)
    logits = _logits(rng, labels, len(classes))
    maps = _maps(rng, masks)
    target = logits["fp32"].argmax(axis=1).astype(np.int64)
    write_image_findings(RunFolder(root), logits, labels, maps, np.arange(len(labels)), target)
    measurements = _measurements(classes, labels, logits, maps, images, masks)
    write_measurements(root / "validate" / "measurements.json", measurements)
    write_answers_in_detail(RunFolder(root), logits, labels, measurements)
    write_json(root / "train" / "history.json", _history())
    write_record(RunFolder(root), _record(classes, measurements))
    return root


MACHINE = {
    "format_version": 1, "before": {"load_average": [0.1, 0.2, 0.2]}, "after": {"load_average": [0.9, 0.3, 0.2]},
    "others_share": 0.02, "warning": None, "ended_utc": "2026-11-28T02:14:09+00:00", "commit": "5f1d" * 10,
}  # fmt: skip


def write_answers_in_detail(
    run: RunFolder, logits: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64], measured: list[Measurement]
) -> None:
    """Write confusion matrices and curves."""
    data = read_prepared(run.data)
    of_all = [
        Answers.of(Predictions(name, logits[name], labels, run.predictions(name)), data.classes, data.test.groups,
                   min_positives=10)
        for name in VARIANTS
    ]  # fmt: skip
    write_answers(run.answers, answers_in_detail(of_all, measured))


def write_image_findings(
    run: RunFolder,
    logits: Mapping[str, NDArray[np.float32]],
    labels: NDArray[np.int64],
    maps: Mapping[str, NDArray[np.float32]],
    image_index: NDArray[np.int64],
    target: NDArray[np.int64],
) -> None:
    """Write every variant's answers and maps by occlusion, and what is shown of both."""
    answers = {name: Predictions(name, logits[name], labels, run.predictions(name)) for name in VARIANTS}
    explanations = {
        name: Explanations(name, maps[name], image_index, target, run.maps(name, "occlusion")) for name in VARIANTS
    }
    for name in VARIANTS:
        answers[name].write()
        explanations[name].write()
    data, fp32 = read_prepared(run.data), answers.pop("fp32")
    changed = changed_answers(fp32, answers)
    changes_ledger(fp32, answers, data).write(run.changes_table, run.changes)
    of_all = [Answers.of(one, data.classes, data.test.groups, min_positives=10) for one in (fp32, *answers.values())]
    write_json(run.reliability, reliability_document(of_all))
    write_json(run.machine, MACHINE)
    shown = maps_to_show("occlusion", explanations.pop("fp32"), explanations)
    write_image_by_image(run.image_by_image, ImageByImage(changed, shown))


def write_data(
    folder: Path,
    classes: Sequence[str],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    masks: NDArray[np.bool_],
    mask_class: NDArray[np.int64] | None = None,
) -> None:
    """Write the three splits, all with the same images; labels [n] are classes, [n, classes] yes or no."""
    has_mask = masks.any(axis=(1, 2))
    splits: dict[SplitName, tuple[Rows, Columns]] = {}
    for split in SPLITS:
        ids = [f"{split}/frame-{index:03d}.png" for index in range(len(labels))]
        rows = Rows(images, masks, np.arange(len(labels)), np.where(has_mask, np.arange(len(labels)), -1))
        splits[split] = (
            rows,
            Columns(
                labels=labels,
                mask_class=np.full(len(labels), -1) if mask_class is None else mask_class,
                image_ids=ids,
                groups=[f"{split}-patient-{index // 2}" for index in range(len(labels))],
                subgroups=[("narrow-band" if index % 3 == 0 else "white light",) for index in range(len(labels))],
                sha256=[_sha(name) for name in ids],
            ),
        )
    head = Head(
        dataset="endoscopy",
        task="multi_class" if labels.ndim == 1 else "multi_label",
        classes=classes,
        mean=[0.55, 0.35, 0.3],
        std=[0.2, 0.15, 0.14],
        synthetic=True,
        groups_known=True,
        skipped=["frame-900.png: the file ends before the image does"],
    )
    write_prepared(folder, head, splits)


def _frame(rng: np.random.Generator, label: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a mucosa-like frame, with a lesion and its mask in five of the eight classes."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
    folds = gaussian_filter(rng.standard_normal((SIZE, SIZE)), 4)
    shade = 1.0 - 1.1 * (rows**2 + columns**2) + 1.6 * folds
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    colour = np.array([205.0, 118.0, 96.0])[:, None, None] * shade
    if label in (0, 1, 2, 6, 7):
        y, x = rng.uniform(-0.22, 0.22, 2)
        a, b, turn = rng.uniform(0.10, 0.2), rng.uniform(0.08, 0.16), rng.uniform(0, np.pi)
        u = (rows - y) * np.cos(turn) + (columns - x) * np.sin(turn)
        v = (columns - x) * np.cos(turn) - (rows - y) * np.sin(turn)
        mask = (u / a) ** 2 + (v / b) ** 2 < 1 + 3 * folds
        tint = np.array([60.0, 90.0, 170.0] if label < 2 else [235.0, 150.0, 130.0])[:, None, None]
        colour = np.where(gaussian_filter(mask.astype(float), 1) > 0.4, 0.55 * colour + 0.45 * tint * shade, colour)
    corner = rows**2 + columns**2 > 0.27
    pixels = np.where(corner, 6.0, colour) + rng.normal(0, 3, (3, SIZE, SIZE))
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


def _logits(rng: np.random.Generator, labels: NDArray[np.int64], classes: int) -> dict[str, NDArray[np.float32]]:
    fp32 = rng.normal(0, 1.3, (len(labels), classes))
    fp32[np.arange(len(labels)), labels] += 3.6
    result = {"fp32": fp32.astype(np.float32)}
    for variant, scale in NOISE.items():
        result[variant] = (fp32 + rng.normal(0, scale, fp32.shape)).astype(np.float32)
    return result


def _maps(rng: np.random.Generator, masks: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
    def smooth(scale: float) -> NDArray[np.float64]:
        return np.stack([gaussian_filter(rng.standard_normal((SIZE, SIZE)), 5) for _ in masks]) * scale

    lesion = np.stack([gaussian_filter(mask.astype(float), 5) for mask in masks])
    fp32 = lesion + smooth(2.0)
    result = {"fp32": fp32.astype(np.float32)}
    for variant, scale in NOISE.items():
        result[variant] = (fp32 + smooth(1.6 * scale)).astype(np.float32)
    return result


@dataclass
class Measured:
    """The measurements as they are collected."""

    images: int
    rows: list[Measurement] = field(default_factory=list)

    def add(
        self,
        metric: str,
        value: float | None,
        unit: str,
        variant: str,
        half: float | None = None,
        where: Where = ON_CPU,
        **more: Any,
    ) -> None:
        """Add a row; `half` is half the width of its interval, which is cut off where a share ends."""
        ci95 = None
        if value is not None and half is not None:
            ci95 = (max(0.0, value - half), min(value + half, 1.0) if unit == "share" else value + half)
        self.rows.append(Measurement(metric, value, unit, variant, where, **{"n": self.images, "ci95": ci95} | more))


def _measurements(
    classes: Sequence[str],
    labels: NDArray[np.int64],
    logits: dict[str, NDArray[np.float32]],
    maps: dict[str, NDArray[np.float32]],
    images: NDArray[np.uint8],
    masks: NDArray[np.bool_],
) -> list[Measurement]:
    found = Measured(len(labels))
    for index, variant in enumerate(VARIANTS):
        _add_answers(found, index, classes, labels, logits[variant])
        if variant != "fp32":
            _add_likeness(found, variant, logits[variant], logits["fp32"])
    explained = ExplainedImages(
        images, logits["fp32"].argmax(axis=1), masks, masks.any(axis=(1, 2)), _names("image", labels), "multi_class"
    )
    found.rows += saliency_rows(maps, explained)
    for provider, threads, factor in (("cpu", 1, 1.0), ("cpu", 2, 0.62), ("openvino", 1, 0.8)):
        _add_latency(found, provider, threads, factor)
    return found.rows


def _add_answers(
    found: Measured,
    index: int,
    classes: Sequence[str],
    labels: NDArray[np.int64],
    logits: NDArray[np.float32],
) -> None:
    variant = VARIANTS[index]
    answers = logits.argmax(axis=1)
    right = answers == labels
    recalls = [float((answers[labels == k] == k).mean()) for k in range(len(classes))]
    spares = [float((answers[labels != k] != k).mean()) for k in range(len(classes))]
    narrow = np.arange(len(labels)) % 3 == 0  # as in write_data
    found.add("accuracy", float(right.mean()), "share", variant, 0.07)
    found.add("balanced_accuracy", float(np.mean(recalls)), "share", variant, 0.07)
    found.add("auroc_macro", 0.981 - 0.004 * index, "share", variant, 0.012)
    for k, name in enumerate(classes):
        found.add(f"sensitivity/{name}", recalls[k], "share", variant, 0.15)
        found.add(f"specificity/{name}", spares[k], "share", variant, 0.03)
    for name, members in (("narrow-band", narrow), ("white light", ~narrow)):
        share, where = float(right[members].mean()), replace(ON_CPU, subgroup=name)
        found.add("accuracy", share, "share", variant, 0.1, where, n=int(members.sum()))
    found.add("ece", 0.031 + 0.004 * index, "share", variant)
    found.add("brier", 0.21 + 0.01 * index, "squared distance", variant, 0.03)
    found.add("size_bytes", SIZES[index], "bytes", variant, None, Where(), n=None)
    if index:
        found.add("size_against_fp32", SIZES[index] / SIZES[0], "ratio", variant, None, Where(), n=None)


def _add_likeness(found: Measured, variant: str, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
    same = float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean())
    sqnr = 10 * np.log10(float(np.square(reference).sum()) / float(np.square(logits - reference).sum()))
    found.add("agreement", same, "share", variant, 0.04)
    found.add("logits_sqnr_db", sqnr, "dB", variant, 0.6)


def saliency_rows(maps: dict[str, NDArray[np.float32]], explained: ExplainedImages) -> list[Measurement]:
    """Return what the maps of each variant are worth, and beside them those that know nothing, by occlusion.

    The "file" is surer of its answer the brighter the lesion is, and where there is none the brighter the image is.
    """
    rng = np.random.default_rng(11)
    masks = np.where(explained.masks.any(axis=(1, 2), keepdims=True), explained.masks, True)

    def probability(images: NDArray[np.uint8], targets: NDArray[np.int64]) -> NDArray[np.float64]:
        seen = (images.mean(axis=1) * masks[: len(images)]).sum(axis=(1, 2)) / masks[: len(images)].sum(axis=(1, 2))
        return np.asarray(1 / (1 + np.exp((110 - seen) / 12)), dtype=np.float64)

    def smooth() -> NDArray[np.float32]:
        return np.stack([gaussian_filter(rng.standard_normal((SIZE, SIZE)), 5) for _ in masks]).astype(np.float32)

    fill = np.full((explained.images.shape[1], 1, 1), 70, np.uint8)
    against = Counterparts(probability, fill, fill)
    shape = (len(masks), SIZE, SIZE)
    rows: list[Measurement] = []
    fp32s: Mapping[str, NDArray[np.float64]] = {}
    for variant, of_variant in {**maps, RANDOM_MAP: smooth(), CENTRE_PRIOR: centre_prior(shape)}.items():
        others = {} if variant in VARIANTS[1:] else {"randomised": [maps["fp32"] * 0.2 + smooth()]}
        reference = None if variant == "fp32" else maps["fp32"]
        held = replace(against, reference=reference, fp32s={} if variant == "fp32" else fp32s, **others)
        settings = SaliencySettings(resamples=1000)
        scored = measure_saliency(variant, of_variant, explained, held, "occlusion", settings)
        fp32s = scored.values if variant == "fp32" else fp32s
        rows += scored.rows
    return rows


def _add_latency(found: Measured, provider: str, threads: int, factor: float) -> None:
    where = Where(provider, threads=threads)
    for variant in VARIANTS:
        if (provider, variant) == ("openvino", "dynamic-int8"):
            refused: dict[str, Any] = {
                "n": None, "remarks": {"reason": "OpenVINO does not support DynamicQuantizeLinear"}
            }  # fmt: skip
            for metric, row in METRICS.items():
                if row.inputs == "timing":
                    found.add(metric, None, row.unit, variant, None, where, **refused)
            continue
        memory = 1_500_000.0 + 9 * SIZES[VARIANTS.index(variant)]
        p50, of = P50[variant], {"remarks": {"processes": 5}}
        for metric, times, half in (("p50", 1.0, 0.02), ("p90", 1.09, 0.04), ("p99", 1.31, 0.11)):
            found.add(f"latency_{metric}_ms", p50 * factor * times, "ms", variant, half * p50, where, n=1050, **of)
        found.add("latency_against_kernel", 0.5 / (p50 * factor), "×", variant, 0.01 / p50, where, n=5, **of)
        found.add("throughput_images_per_s", 980 / (p50 * factor), "images/s", variant, 9.0, where, n=5, **of)
        for metric, time in (("preprocessing_ms", 0.21), ("load_ms", 6.0 * p50), ("first_inference_ms", 1.9 * p50)):
            found.add(metric, time, "ms", variant, 0.1 * time, where, n=5, **of)
        found.add("peak_memory_bytes", memory, "bytes", variant, 0.04 * memory, where, n=5, **of)
        if variant != "fp32":
            found.add("latency_speedup", P50["fp32"] / p50, "×", variant, 0.12, where, n=5, **of)


def _names(what: str, of: Sequence[Any] | NDArray[Any]) -> tuple[str, ...]:
    return tuple(f"{what}-{index}" for index in range(len(of)))


def _history() -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 2.1 * 0.8**epoch + 0.2,
            "validation_loss": 2.0 * 0.82**epoch + 0.35,
            "validation_balanced_accuracy": 0.93 - 0.8 * 0.75**epoch,
        }
        for epoch in range(1, 13)
    ]


def _record(classes: Sequence[str], measurements: list[Measurement]) -> RunRecord:
    verdicts = _verdicts(measurements)
    return RunRecord(
        name="endoscopy-demo",
        configuration={
            "name": "endoscopy-demo",
            "data": {"source": {"name": "endoscopy", "images_per_class": 120}, "image_size": SIZE, "channels": 3},
            "model": {"train": {"network": "resnet20", "epochs": 12, "pact_bits": 8, "saliency_guided": True}},
            "variants": [{"name": name, "method": method} for name, method in zip(VARIANTS, METHODS, strict=True)],
        },
        configuration_sha256=_sha("configuration"),
        gates_sha256=_sha("gates"),
        dataset="endoscopy",
        environment=Environment(
            edgeproof="0.1.0",
            python="3.11.2",
            platform="Linux-6.1-x86_64",
            cpu=Cpu("AMD EPYC 7B13", 2, ("avx", "avx2", "fma"), "x86-avx2"),
            packages={"numpy": "2.4.6", "onnx": "1.23.2", "onnxruntime": "1.31.1", "torch": "2.13.0+cpu"},
            providers=("CPUExecutionProvider", "OpenVINOExecutionProvider"),
            neural_compressor={"neural-compressor": "3.7.1", "onnx": "1.18.0", "numpy": "1.26.4"},
        ),
        task="multi_class",
        synthetic=True,
        classes=tuple(classes),
        variants=tuple(
            VariantRecord(
                variant=name,
                method=method,
                path="export/fp32.onnx" if name == "fp32" else f"quantize/{name}.onnx",
                sha256=_sha(name),
                size_bytes=SIZES[index],
                parent_sha256=_sha("checkpoint") if name in ("fp32", "pact-int8") else _sha("fp32"),
                settings={"per_channel": True, "calibration": "minmax", "images": 128} if "int8" in name else {},
                notes=_notes(name),
            )
            for index, (name, method) in enumerate(zip(VARIANTS, METHODS, strict=True))
        ),
        stages=_stages(),
        verdicts=verdicts,
        exit_code=exit_code_of(verdicts, all_stages_succeeded=True),
        format_version=FORMAT_VERSION,
    )


def _notes(variant: str) -> Notes:
    if variant != "inc-int8":
        return ExportNotes()
    return NeuralCompressorNotes(
        worker={}, reduce_range=False, layers=9, calibration_images=(), float_layers=("head/MatMul",), tuning=None
    )


def _verdicts(measurements: list[Measurement]) -> tuple[Verdict, ...]:
    whole = [m for m in measurements if m.where.subgroup is None]
    found = {(m.metric, m.variant, m.where.provider, m.where.threads): m for m in whole}
    fp32, static, pact = (
        found["balanced_accuracy", name, "cpu", None] for name in ("fp32", "static-int8", "pact-int8")
    )
    rho = found["saliency_spearman", "static-int8", "cpu", None]
    speedup = found["latency_speedup", "static-int8", "cpu", 1]
    size, float_size = (found["size_bytes", name, None, None] for name in ("static-int8", "fp32"))

    def gate(
        name: str, value: float, limit: float, detail: str, judged: Measurement, against: Measurement | None = None
    ) -> Verdict:
        passed = value <= limit if "≤" in name else value >= limit
        return Verdict(f"{name} {limit:g}", "passed" if passed else "failed", value, limit, detail, judged, against)

    baseline, lost = _value(fp32), [_value(one) - _value(fp32) for one in (static, pact)]
    share = "{:.6g} share, n = 48".format
    return (
        gate("fp32: balanced_accuracy ≥", baseline, 0.85, share(baseline), fp32),
        gate("static-int8: balanced_accuracy − fp32 ≥", lost[0], -0.02, share(_value(static)), static, fp32),
        gate("pact-int8: balanced_accuracy − fp32 ≥", lost[1], -0.02, share(_value(pact)), pact, fp32),
        gate("static-int8: saliency_spearman ≥", _value(rho), 0.5, f"{_value(rho):.6g} correlation, n = 48", rho),
        gate("static-int8: size_bytes / fp32 ≤", SIZES[3] / SIZES[0], 0.3, f"{SIZES[3]} bytes", size, float_size),
        gate(
            "static-int8: latency_speedup (cpu, 1 thr.) ≥",
            _value(speedup),
            1.0,
            f"{_value(speedup):.6g} ×, n = 5",
            speedup,
        ),
    )


def _value(measurement: Measurement) -> float:
    assert measurement.value is not None
    return measurement.value


def _stages() -> tuple[StageRecord, ...]:
    def stage(
        kind: str, seconds: float, *outputs: str, subject: str | None = None, status: Status = "done"
    ) -> StageRecord:
        of = {path: _sha(path) for path in outputs}
        return StageRecord(kind, subject, status, _sha(stage_name(kind, subject)), {}, of, seconds, None)

    return (
        stage("prepare", 2.81, "data/train.npz", "data/validation.npz", "data/test.npz", "data/manifest.json"),
        stage("train", 94.2, "train/checkpoint.safetensors", "train/history.json", status="reused"),
        stage("export", 6.4, "export/fp32.onnx"),
        *(stage("quantize", 3.3, f"quantize/{name}.onnx", subject=name) for name in VARIANTS[1:]),
        stage("validate", 71.0, "validate/measurements.json"),
    )


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
