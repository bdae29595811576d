"""A run folder with yes/no labels: fourteen findings of the chest, some of them rare, two images per patient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sample_run import (
    NOISE,
    SIZE,
    VARIANTS,
    saliency_rows,
    write_answers_in_detail,
    write_data,
    write_image_findings,
    write_sample_run,
)
from scipy.ndimage import gaussian_filter

from calibration_data.prepared_folder import read_prepared
from foundation.errors import ExitCode
from foundation.measurements import Measurement, read_measurements, write_measurements
from foundation.metrics import METRICS, row_name
from foundation.record import read_record, write_record
from foundation.run_folder import RunFolder
from pipeline.judge.gate import Gate
from pipeline.judge.gates import judge
from stages.validate.accuracy import AccuracySettings, measure_accuracy
from stages.validate.explained import explained_classes, images_to_explain
from stages.validate.fidelity import ExplainedImages

FINDINGS = {
    "Infiltration": 0.3, "Effusion": 0.25, "Atelectasis": 0.2, "Nodule": 0.15, "Mass": 0.12, "Pneumothorax": 0.1,
    "Consolidation": 0.1, "Pleural thickening": 0.1, "Cardiomegaly": 0.08, "Emphysema": 0.08, "Fibrosis": 0.02,
    "Edema": 0.02, "Pneumonia": 0.01, "Hernia": 0.0,
}  # fmt: skip
IMAGES = 200
EXPLAINED = 24


def write_label_sample_run(root: Path) -> Path:
    """Write a complete run folder and return it."""
    run = RunFolder(write_sample_run(root))
    rng = np.random.default_rng(5)
    labels = (rng.random((IMAGES, len(FINDINGS))) < list(FINDINGS.values())).astype(np.int64)
    frames, masks = _frames(rng, labels)
    mask_class = np.where(masks.any(axis=(1, 2)), labels.argmax(axis=1), -1)
    for path in run.data.iterdir():
        path.unlink()
    write_data(run.data, tuple(FINDINGS), frames, labels, masks, mask_class)
    test = read_prepared(run.data).test

    logits = _logits(rng, labels)
    chosen = images_to_explain(test, EXPLAINED, seed=0)
    target = explained_classes(logits["fp32"], test.mask_class, "multi_label")[chosen]
    maps = _maps(rng, masks[chosen])
    explained = ExplainedImages.of(test, chosen, target, "multi_label")
    accuracy = AccuracySettings(resamples=1000)
    measured: list[Measurement] = []
    for variant in VARIANTS:
        reference = None if variant == "fp32" else logits["fp32"]
        measured += measure_accuracy(
            variant, logits[variant], labels, tuple(FINDINGS), reference, test.groups, test.subgroups, accuracy
        )
    write_image_findings(run, logits, labels, maps, chosen, target)
    measured += saliency_rows(maps, explained)
    of_files = ("file", "timing", "place")
    measured += [
        row for row in read_measurements(run.measurements) if METRICS[row_name(row.metric)].inputs in of_files
    ]
    write_measurements(run.measurements, measured)
    write_answers_in_detail(run, logits, labels, measured)
    _rewrite_record(run, measured)
    return run.root


def _frames(rng: np.random.Generator, labels: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return radiograph-like frames in grey, every sixth one with a finding marked by a box."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE - 0.5
    lungs = sum(np.exp(-(((columns - side) / 0.13) ** 2) - (rows / 0.3) ** 2) for side in (-0.2, 0.2))
    frames = np.empty((len(labels), 1, SIZE, SIZE), np.uint8)
    masks = np.zeros((len(labels), SIZE, SIZE), dtype=bool)
    for index, findings in enumerate(labels):
        texture = gaussian_filter(rng.standard_normal((SIZE, SIZE)), 1.5)
        shade = 170 - 110 * lungs + 40 * texture
        if findings.any():
            y, x = rng.uniform(-0.2, 0.2), rng.choice([-0.2, 0.2]) + rng.uniform(-0.05, 0.05)
            half = rng.uniform(0.06, 0.12)
            shade += 70 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / half**2)
            if index % 6 == 0:
                masks[index] = (abs(rows - y) < half) & (abs(columns - x) < half)
        frames[index, 0] = np.clip(shade, 0, 255)
    return frames, masks


def _logits(rng: np.random.Generator, labels: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    rate = labels.mean(axis=0).clip(0.005)
    fp32 = rng.normal(0, 1.2, labels.shape) + 2.2 * labels + np.log(rate / (1 - rate)) / 2
    noise = {variant: rng.normal(0, 0.5 * scale, labels.shape) for variant, scale in NOISE.items()}
    return {name: (fp32 + noise.get(name, 0.0)).astype(np.float32) for name in VARIANTS}


def _maps(rng: np.random.Generator, masks: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
    def smooth(scale: float) -> NDArray[np.float64]:
        return np.stack([gaussian_filter(rng.standard_normal((SIZE, SIZE)), 5) for _ in masks]) * scale

    fp32 = np.stack([gaussian_filter(mask.astype(float), 5) for mask in masks]) + smooth(1.5)
    maps = {name: fp32 + smooth(1.2 * NOISE[name] if name in NOISE else 0.0) for name in VARIANTS}
    return {name: of.astype(np.float32) for name, of in maps.items()}


def _rewrite_record(run: RunFolder, measured: list[Measurement]) -> None:
    record = read_record(run)
    gates = [
        Gate(metric="auroc_macro", variant="fp32", at_least=0.8),
        Gate(metric="auroc_macro", variant="pact-int8", at_least=-0.02, relative_to_fp32="difference"),
        Gate(metric="auroc/Effusion", variant="static-int8", at_least=0.8),
        Gate(metric="auroc/Hernia", variant="static-int8", at_least=0.8),
        Gate(metric="pointing_game", variant="static-int8", at_least=0.3),
    ]
    configuration = {
        **record.configuration, "name": "chest-demo", "gates": [gate.model_dump(mode="json") for gate in gates]
    }  # fmt: skip
    changed = replace(
        record,
        name="chest-demo",
        configuration=configuration,
        dataset="chest",
        task="multi_label",
        classes=tuple(FINDINGS),
        verdicts=judge(gates, measured),
        exit_code=ExitCode.INCOMPLETE,
    )
    write_record(run, changed)
