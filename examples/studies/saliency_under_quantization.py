"""What saliency-guided training and PACT do to accuracy and saliency, at 8, 4 and 2 bits, on Kvasir-SEG.

    python examples/studies/saliency_under_quantization.py ../shared/data/kvasir_seg --seeds 3 --output study/

Four ways to train × three bit widths × seeds. The rows "plain" and "saliency-guided" are trained in float and only
rounded afterwards, with clips from the activations; the PACT rows are trained with their rounding. Everything is
measured on the official validation images: accuracy on all, saliency on those with a polyp and its mask, as the
gradient of the polyp's logit in the network that ships (its integers are the file's). A random map's scores stand
beside. The interval is a 95 % bootstrap over images of the mean over seeds; the range is that of the seeds.
Results are kept per training, so a killed study goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.special import softmax
from scipy.stats import bootstrap

from calibration_data.datasets.kvasir_seg import KvasirSegSettings
from calibration_data.preparation import prepare
from calibration_data.prepared import PreparedData
from calibration_data.settings import DataSettings, open_source
from foundation.artifacts import Checkpoint
from foundation.files import sha256_of_json, write_json
from foundation.run_folder import RunFolder
from stages.network.checkpoint import load_checkpoint
from stages.network.normalisation import normalise
from stages.network.settings import PactSettings
from stages.train.gradient_maps import gradient_maps
from stages.train.settings import SaliencyGuidedSettings, TrainSettings
from stages.train.trainer import train
from stages.validate.deletion import deletion_auc
from stages.validate.map_similarity import mass_in_mask, pointing_hits

BITS = (8, 4, 2)
METRICS = ("accuracy", "pointing_game", "mass_in_mask", "deletion_auc")
PERCENT = ("accuracy", "pointing_game", "mass_in_mask")


@dataclass(frozen=True)
class Arm:
    """One row of the table at one width."""

    method: str
    bits: int | None
    trained_with_rounding: bool
    guided: bool


ARMS = (
    Arm("plain", None, False, False),
    Arm("saliency-guided", None, False, True),
    *(Arm("plain", bits, False, False) for bits in BITS),
    *(Arm("saliency-guided", bits, False, True) for bits in BITS),
    *(Arm("PACT", bits, True, False) for bits in BITS),
    *(Arm("PACT + saliency-guided", bits, True, True) for bits in BITS),
)


def settings_of(arm: Arm, seed: int, epochs: int, start: Path | None) -> TrainSettings:
    """Return how an arm is trained; `start` holds the float weights of an arm that is only rounded."""
    pact = None
    if arm.bits is not None:
        # An arm that is only rounded takes its clips from the activations. PACT's 10 needs the paper's long training
        # to come down; 4 holds nearly all that a normalised activation reaches.
        pact = PactSettings(
            weight_bits=arm.bits,
            activation_bits=arm.bits,
            activation_quantizer="pact" if arm.trained_with_rounding else "lsq",
            alpha_init=4.0,
        )
    return TrainSettings(
        network="cnn-small",
        pact=pact,
        saliency_guided=SaliencyGuidedSettings() if arm.guided else None,
        pretrained=start,
        epochs=0 if start else epochs,
        seed=seed,
        threads=1,
    )


def measure(data: PreparedData, checkpoint: Checkpoint) -> dict[str, list[float]]:
    """Return each metric's value of each image it is taken over."""
    spec, network = load_checkpoint(checkpoint)
    test, polyp = data.test, data.classes.index("polyp")

    def probability(images: NDArray[np.uint8], targets: NDArray[np.int64]) -> NDArray[np.float64]:
        with torch.no_grad():
            logits = network(normalise(torch.from_numpy(images), spec.mean, spec.std)).double().numpy()
        return np.asarray(softmax(logits, axis=1)[np.arange(len(targets)), targets])

    right = np.concatenate(
        [
            probability(test.images[start : start + 64], test.labels[start : start + 64]) > 0.5
            for start in range(0, len(test), 64)
        ]
    )
    masked = np.flatnonzero(test.has_mask)
    images, masks, targets = test.images[masked], test.masks[masked], np.full(len(masked), polyp)
    rounding = spec.pact is not None
    maps = gradient_maps(checkpoint, images, targets, rounding=rounding)
    fill = np.round(np.array(spec.mean) * 255).astype(np.uint8)
    return {
        "accuracy": right.astype(float).tolist(),
        **scores_of(maps, masks),
        "deletion_auc": deletion_auc(probability, images, maps, targets, fill).tolist(),
        "random_deletion_auc": deletion_auc(
            probability, images, np.random.default_rng(0).random(maps.shape), targets, fill
        ).tolist(),
    }


def scores_of(maps: NDArray[np.floating[Any]], masks: NDArray[np.bool_]) -> dict[str, list[float]]:
    """Return the scores that need no network."""
    return {
        "pointing_game": pointing_hits(maps, masks).tolist(),
        "mass_in_mask": mass_in_mask(maps, masks).tolist(),
    }


def cell(values: list[list[float]], percent: bool) -> str:
    """Return the mean over images and seeds, its 95 % interval over images, and the range of the seeds."""
    table = np.array(values) * (100 if percent else 1)
    digits = 1 if percent else 3
    per_image = table.mean(axis=0)
    interval = bootstrap((per_image,), np.mean, rng=np.random.default_rng(0), method="percentile").confidence_interval
    seeds = table.mean(axis=1)
    mean, low, high, least, most = (
        f"{value:.{digits}f}" for value in (table.mean(), interval.low, interval.high, seeds.min(), seeds.max())
    )
    return f"{mean} ({low} to {high}; seeds {least} to {most})"


def main() -> None:
    """Train, measure, and write `results.json` and `table.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="the folder of Kvasir-SEG")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--image-size", type=int, default=64, help="pixels")
    parser.add_argument("--output", type=Path, default=Path("study"))
    arguments = parser.parse_args()
    source = KvasirSegSettings(name="kvasir_seg", root=arguments.root.resolve())
    settings = DataSettings(source=source, image_size=arguments.image_size)
    data = prepare(open_source(settings), settings, arguments.output / "data")

    results: dict[str, dict[str, list[list[float]]]] = {}
    tasks = [(arm, seed) for seed in range(arguments.seeds) for arm in ARMS]
    floats: dict[tuple[str, int], Path] = {}
    for arm, seed in track(tasks, "training", console=Console(stderr=True)):
        only_rounded = arm.bits is not None and not arm.trained_with_rounding
        start = floats[arm.method, seed] if only_rounded else None
        settings = settings_of(arm, seed, arguments.epochs, start)
        key = sha256_of_json({"data": data.sha256, "arm": asdict(arm), "seed": seed, "epochs": arguments.epochs})
        folder = arguments.output / "trainings" / key[:16]
        run = RunFolder(folder)
        if arm.bits is None:
            floats[arm.method, seed] = run.checkpoint
        measured = folder / "measured.json"
        if not measured.exists():
            write_json(measured, measure(data, train(data, settings, run, key)))
        name = f"{arm.method}, {'float' if arm.bits is None else f'W{arm.bits}A{arm.bits}'}"
        for metric, values in json.loads(measured.read_text()).items():
            results.setdefault(name, {}).setdefault(metric, []).append(values)

    masks = data.test.masks[data.test.has_mask]
    noise = np.random.default_rng(0).random((arguments.seeds, *masks.shape))
    random: dict[str, list[list[float]]] = {"accuracy": []}
    for maps in noise:
        for metric, values in scores_of(maps, masks).items():
            random.setdefault(metric, []).append(values)
    # Deleting at random depends on the network; this is the mean over all of them.
    random["deletion_auc"] = [
        np.mean([found["random_deletion_auc"] for found in results.values()], axis=(0, 1)).tolist()
    ]
    results["random map"] = random

    lines = [
        f"Kvasir-SEG, {len(data.test)} test images, {len(masks)} with a polyp, {arguments.seeds} seeds, "
        f"cnn-small, {arguments.image_size} px, {arguments.epochs} epochs; "
        "mean (95 % over images; range of the seeds)",
        "",
        "| training, bits | accuracy % | pointing game % | mass in mask % | deletion AUC |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in results.items():
        cells = [cell(found[metric], metric in PERCENT) if found.get(metric) else "–" for metric in METRICS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    write_json(arguments.output / "results.json", results)
    (arguments.output / "table.md").write_text("\n".join(lines) + "\n")
    Console(soft_wrap=True).print("\n".join(lines))


if __name__ == "__main__":
    main()
