"""Weights from elsewhere: a safetensors file or a torch checkpoint put into a network, with a list of what fits.

A file fits as far as names and shapes do. Names are compared after what wrappers and frameworks put around them is
taken off (`module.` of DataParallel, `_orig_mod.` of torch.compile, the numbering of DenseNet's first checkpoints).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from foundation.errors import UsageError
from stages.network.checkpoint import NetworkSpec
from stages.network.weights_file import read_weights

_LISTED = 10
_PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.", "network.", "net.")
_COUNTER = "num_batches_tracked"  # not used by batch norm with a fixed momentum, and absent from old files


@dataclass(frozen=True)
class ShapeMismatch:
    """A tensor whose name fits and whose shape does not, such as the head of another number of classes."""

    key: str
    file_shape: tuple[int, ...]
    network_shape: tuple[int, ...]


@dataclass(frozen=True)
class PretrainedReport:
    """What became of a file's tensors; batch norm's counters are left out of every list.

    Attributes:
        file: its name.
        loaded: the network's tensors that now hold the file's values.
        missing: the network's tensors of which the file has none; they keep their initial values.
        unexpected: the file's tensors for which the network has no place.
        mismatched: names that fit with shapes that do not; the network's keep their initial values.
        summed: the first convolution's weight, if its three colour channels were added up for gray images.
    """

    file: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[ShapeMismatch, ...]
    summed: str | None

    def text(self) -> str:
        """Return the report in a few lines, ten names of a kind at most."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        lines = [f"{self.file}: {len(self.loaded)} of the network's {total} tensors loaded"]
        if self.summed:
            lines.append(f"  {self.summed}: the file's three colour channels summed into one, for gray images")
        shapes = [
            f"{m.key} (file {_shape(m.file_shape)}, network {_shape(m.network_shape)})" for m in self.mismatched
        ]
        kinds: dict[str, Sequence[str]] = {
            "another shape, kept at their initial values": shapes,
            "not in the file, kept at their initial values": self.missing,
            "in the file, no place in the network": self.unexpected,
        }
        lines += [f"  {len(names)} {kind}: {_listed(names)}" for kind, names in kinds.items() if names]
        return "\n".join(lines)


def build_pretrained(spec: NetworkSpec, seed: int, path: Path) -> tuple[nn.Module, PretrainedReport]:
    """Return what `spec.build` returns, with the file's weights in it; PACT comes after them.

    Args:
        spec: of the network.
        seed: of the initial weights of what the file does not bring.
        path: safetensors or torch checkpoint.

    Raises:
        UsageError: as for `NetworkSpec.build` and `load_pretrained`.
    """
    network = spec.build_float(seed)
    report = load_pretrained(network, path)
    return spec.with_pact(network), report


def load_pretrained(network: nn.Module, path: Path) -> PretrainedReport:
    """Copy every tensor of a file whose name and shape fit into a network.

    A first convolution for three channels is summed over them where the network takes one: that is what the
    convolution does to a gray image shown to it in three equal channels.

    Args:
        network: plain, before PACT; changed in place, and only if the whole file could be read.
        path: safetensors, or a torch checkpoint of tensors and plain values, up to 4 GiB.

    Raises:
        UsageError: the file is missing, too large, no checkpoint, holds more than tensors, holds weights that are no
            finite floating-point numbers, or none that fits.
    """
    places = network.state_dict()  # shares the network's memory
    found = read_weights(path)
    source_of = _match(tuple(found), tuple(places))
    first_convolution = _first_convolution(network)
    values: dict[str, Tensor] = {}
    mismatched, summed = [], None
    for key, source in source_of.items():
        value, place = found[source], places[key]
        if key == first_convolution and _is_colour_for_gray(value.shape, place.shape):
            value, summed = _checked(path, source, value, place).sum(dim=1, keepdim=True), key
        if value.shape == place.shape:
            values[key] = _checked(path, source, value, place)
        else:
            mismatched.append(ShapeMismatch(key, tuple(value.shape), tuple(place.shape)))
    loaded = tuple(key for key in places if key in values and not key.endswith(_COUNTER))
    if not loaded:
        raise UsageError(_nothing_fits(path, tuple(found), tuple(places), len(mismatched)))
    for key, value in values.items():
        places[key].copy_(value)
    used = set(source_of.values())
    return PretrainedReport(
        file=path.name,
        loaded=loaded,
        missing=tuple(key for key in places if key not in source_of and not key.endswith(_COUNTER)),
        unexpected=tuple(key for key in found if key not in used and not key.endswith(_COUNTER)),
        mismatched=tuple(mismatched),
        summed=summed,
    )


def _first_convolution(network: nn.Module) -> str | None:
    names = (name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    return next((f"{name}.weight" for name in names), None)


def _is_colour_for_gray(file_shape: torch.Size, network_shape: torch.Size) -> bool:
    return network_shape[1] == 1 and file_shape == (network_shape[0], 3, *network_shape[2:])


# --- names ---


def _canonical(key: str) -> str:
    """Return a tensor's name without what wrappers put before it, and with today's name for older ones."""
    while prefix := next((prefix for prefix in _PREFIXES if key.startswith(prefix)), ""):
        key = key.removeprefix(prefix)
    key = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key)  # torchvision before 0.2
    key = re.sub(r"(layer\d\.\d+)\.shortcut\.", r"\1.downsample.", key)  # MedMNIST's ResNet, after kuangliu's
    return re.sub(r"^linear\.", "fc.", key)


def _match(found: tuple[str, ...], places: tuple[str, ...]) -> dict[str, str]:
    """Return the network's name → the file's name, in the network's order; equal names go first."""
    by_canonical: dict[str, str] = {}
    for name in found:
        by_canonical.setdefault(_canonical(name), name)
    exact, taken, source_of = set(found), set(found) & set(places), {}
    for place in places:
        similar = by_canonical.get(_canonical(place))
        if place in exact:
            source_of[place] = place
        elif similar is not None and similar not in taken:
            source_of[place] = similar
            taken.add(similar)
    return source_of


# --- the values ---


def _checked(path: Path, key: str, value: Tensor, place: Tensor) -> Tensor:
    """Return a file's tensor in the type of the network's."""
    plain = value.layout is torch.strided and not value.is_quantized and value.device.type == "cpu"
    if not plain or value.is_floating_point() != place.is_floating_point():
        kind = "floating-point" if place.is_floating_point() else "integer"
        raise UsageError(
            f"{path}: expected plain {kind} numbers in {key}, found {str(value.dtype).removeprefix('torch.')} "
            f"({value.layout}, {value.device.type}). Take the float network's file, from before any quantization."
        )
    value = value.to(place.dtype)
    if not bool(torch.isfinite(value).all()):
        raise UsageError(f"{path}: expected finite numbers in {key}, found NaN or infinity. Take another checkpoint.")
    return value


def _nothing_fits(path: Path, found: tuple[str, ...], places: tuple[str, ...], mismatched: int) -> str:
    if not found:
        return f"{path}: expected a state dict (names and tensors), found no tensor. Is it the right file?"
    return (
        f"{path}: expected weights of this network, found none that fits. The file has {', '.join(found[:3])}…; "
        f"the network has {', '.join(places[:3])}…, and {mismatched} names that fit have another shape. "
        "Choose the network that the file was made for."
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a single number"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
