"""Time of a training step: plain, saliency-guided, PACT, both, and Brevitas' learned-clip layers on the same network.

    python benchmarks/training.py --network resnet20 --batch 128 --size 32 --threads 2

Every round takes each kind once, in a rotating order, so that what else the machine does falls on all of them; the
ratios are of one round. Brevitas is the peer where it is installed (`pip install brevitas`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import bootstrap
from torch import Tensor, nn

from stages.network.checkpoint import NetworkSpec
from stages.network.normalisation import normalise
from stages.network.quantized_layer import QuantizedLayer
from stages.network.quantizers import ClipQuantizer, InputQuantizer, keep_clips_positive
from stages.network.settings import PactSettings
from stages.train import augmentation
from stages.train.objectives import label_loss
from stages.train.recipe import build_optimizer
from stages.train.saliency_guided import saliency_guided_terms
from stages.train.settings import AugmentSettings, SaliencyGuidedSettings, TrainSettings

CLASSES = tuple("0123456789")
BOUNDS = {("saliency-guided", "plain"): 2.5, ("pact", "plain"): 1.5, ("pact", "brevitas"): 1.0}
"""The ratios that this project holds itself to."""


def step_of(
    network: nn.Module, settings: TrainSettings, images: Tensor, labels: Tensor, channels_last: bool
) -> Callable[[], None]:
    """Return one whole optimizer step on a fixed batch."""
    network.train()
    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = build_optimizer(network, settings)
    parameters = list(network.parameters())
    generator = torch.Generator(images.device).manual_seed(0)

    def step() -> None:
        if settings.saliency_guided:
            noise = torch.rand(images.shape, generator=generator, device=images.device)
            logits, divergence = saliency_guided_terms(
                network, images, labels, "multi_class", settings.saliency_guided, noise
            )
            loss = label_loss(logits, labels, "multi_class", 0.0, None) + divergence
        else:
            loss = label_loss(network(images), labels, "multi_class", 0.0, None)
        optimizer.zero_grad()
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        optimizer.step()
        keep_clips_positive(network)
        if images.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def brevitas_network(network: nn.Module) -> nn.Module:
    """Return a network from `insert_pact` with Brevitas' layers of learned range in place of every quantizer of ours.

    The same tensors are quantized to the same bits in both.
    """
    import brevitas.nn as quantized
    from brevitas.quant import (
        Int8ActPerTensorFloatMinMaxInit,
        Int8WeightPerChannelFloat,
        Uint8ActPerTensorFloatMaxInit,
    )

    for name, module in list(network.named_modules()):
        new: nn.Module
        if isinstance(module, QuantizedLayer):
            new = nn.Sequential(_brevitas_layer(quantized, Int8WeightPerChannelFloat, module), *_norm_of(module))
        elif isinstance(module, ClipQuantizer) and not module.signed:
            new = quantized.QuantReLU(
                act_quant=Uint8ActPerTensorFloatMaxInit, bit_width=module.bits, min_val=0.0, max_val=10.0
            )
        elif isinstance(module, ClipQuantizer | InputQuantizer):
            new = quantized.QuantIdentity(
                act_quant=Int8ActPerTensorFloatMinMaxInit, bit_width=8, min_val=-10.0, max_val=10.0
            )
        else:
            continue
        network.set_submodule(name, new)
    return network


def _norm_of(layer: QuantizedLayer) -> list[nn.Module]:
    return [] if layer.norm is None else [layer.norm]


def _brevitas_layer(quantized: Any, weight_quant: Any, layer: QuantizedLayer) -> nn.Module:
    old, bits = layer.layer, layer.quantizer.bits
    if isinstance(old, nn.Linear):
        linear: nn.Module = quantized.QuantLinear(
            old.in_features,
            old.out_features,
            bias=old.bias is not None,
            weight_quant=weight_quant,
            weight_bit_width=bits,
        )
        return linear
    assert isinstance(old, nn.Conv2d)
    convolution: nn.Module = quantized.QuantConv2d(
        old.in_channels, old.out_channels, old.kernel_size, stride=old.stride, padding=old.padding,
        groups=old.groups, bias=old.bias is not None, weight_quant=weight_quant, weight_bit_width=bits,
    )  # fmt: skip
    return convolution


def measure(kinds: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each kind's step in each round."""
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    names = list(kinds)
    for step in kinds.values():
        step()
    for number in range(rounds):
        for kind in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            kinds[kind]()
            seconds[kind].append(time.perf_counter() - started)
    return seconds


def ratio(numerator: list[float], denominator: list[float]) -> tuple[float, float, float]:
    """Return the median of the rounds' ratios and its 95 % bootstrap interval."""
    ratios = np.array(numerator) / np.array(denominator)
    interval = bootstrap((ratios,), np.median, rng=np.random.default_rng(0), method="percentile").confidence_interval
    return float(np.median(ratios)), float(interval.low), float(interval.high)


def input_seconds(batch: int, size: int, folder: Path) -> float:
    """Return the seconds that reading a batch from disk and augmenting it take, as training does it."""
    count = batch * 20
    path = folder / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8))
    images = np.load(path, mmap_mode="c")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
    settings = AugmentSettings(crop=4, rotation_degrees=10, colour=0.2)
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    for start in range(0, count, batch):
        pixels = torch.from_numpy(images[np.sort(order[start : start + batch])])
        draws = augmentation.draw(batch, settings, generator)
        normalise(augmentation.augment(pixels, settings, draws), (0.5,) * 3, (0.2,) * 3)
    return (time.perf_counter() - started) / 20


def steps(arguments: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Return one training step of each kind, on the same images; Brevitas' where it is installed."""
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=arguments.device)
    labels = torch.randint(0, len(CLASSES), (arguments.batch,), device=arguments.device)
    pact = PactSettings(weight_bits=arguments.bits, activation_bits=arguments.bits)

    def spec(quantized: PactSettings | None) -> NetworkSpec:
        form = (arguments.network, CLASSES, 3, arguments.size, (0.5,) * 3, (0.2,) * 3)
        return NetworkSpec(*form, quantized, "multi_class")

    def step(network: nn.Module, quantized: PactSettings | None, guided: SaliencyGuidedSettings | None) -> Any:
        settings = TrainSettings(network=arguments.network, pact=quantized, saliency_guided=guided)
        return step_of(network.to(arguments.device), settings, images, labels, arguments.channels_last)

    kinds = {
        "plain": step(spec(None).build(0), None, None),
        "saliency-guided": step(spec(None).build(0), None, SaliencyGuidedSettings()),
        "pact": step(spec(pact).build(0), pact, None),
        "pact+saliency-guided": step(spec(pact).build(0), pact, SaliencyGuidedSettings()),
    }
    try:
        kinds["brevitas"] = step(brevitas_network(spec(pact).build(0)), None, None)
    except ImportError as error:
        Console(stderr=True).print(f"Brevitas: not measured ({error})")
    return kinds


def figures_of(seconds: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each kind's median in ms and its ratios to plain training and to Brevitas."""
    figures: dict[str, dict[str, Any]] = {}
    for kind, values in seconds.items():
        figures[kind] = {"median_ms": 1e3 * float(np.median(values)), "times_plain": ratio(values, seconds["plain"])}
        if "brevitas" in seconds:
            figures[kind]["times_brevitas"] = ratio(values, seconds["brevitas"])
    return figures


def table_of(figures: dict[str, dict[str, Any]], title: str) -> Table:
    """Return the figures as a table."""
    table = Table(title=title)
    for column in ("step", "median ms", "× plain (95 %)", "× Brevitas (95 %)"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for kind, row in figures.items():
        ratios = [row[key] for key in ("times_plain", "times_brevitas") if key in row]
        shown = [f"{value:.2f} ({low:.2f} to {high:.2f})" for value, low, high in ratios]
        table.add_row(kind, f"{row['median_ms']:.0f}", *shown)
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="image height and width, pixels")
    parser.add_argument("--bits", type=int, default=4, help="of weights and activations")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    seconds = measure(steps(arguments), arguments.rounds)
    with TemporaryDirectory() as folder:
        input_ms = 1e3 * input_seconds(arguments.batch, arguments.size, Path(folder))
    figures = figures_of(seconds)
    title = (
        f"{arguments.network}, {arguments.size} px, batch {arguments.batch}, {arguments.bits} bits, "
        f"{arguments.device}, {arguments.threads} threads, {arguments.rounds} rounds"
    )
    console = Console()
    console.print(table_of(figures, title))
    console.print(f"reading and augmenting a batch: {input_ms:.1f} ms, beside the step, in a thread of its own")
    for (kind, base), bound in BOUNDS.items():
        if base in seconds:
            found = ratio(seconds[kind], seconds[base])[0]
            console.print(f"{'✓' if found <= bound else '✗'} {kind} ≤ {bound} × {base}: {found:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"input_ms": input_ms, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
