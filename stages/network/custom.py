"""The user's own network, named `module:function` in the configuration, see `foundation.user_code`."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from foundation.user_code import import_function, what

if TYPE_CHECKING:
    from torch import nn


def build_custom(name: str, channels: int, classes: int) -> nn.Module:
    """Import the user's module and return what its function builds.

    Args:
        name: `module:function`; called as function(channels, classes).
        channels: of the image, 1 or 3.
        classes: number of logits.

    Raises:
        UsageError: the name has another form, the module or function is missing, or the function gives no module.
    """
    from torch import nn

    function = import_function("train.network", name)
    try:
        network = function(channels, classes)
    except Exception as error:
        raise UsageError(
            f"train.network: {name}({channels}, {classes}) failed with {what(error)}. "
            "It is called with the image's channels and the number of classes."
        ) from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"train.network: expected a torch.nn.Module from {name}, found {type(network).__name__}.")
    return network


def check_logits(network: nn.Module, name: str, channels: int, classes: int, image_size: int) -> None:
    """Run two blank images through a user's network and compare the result's shape with what training expects.

    Args:
        network: in any mode; its mode and its buffers are left as they were.
        name: for the message.
        channels: of the image.
        classes: number of logits.
        image_size: height and width in pixels.

    Raises:
        UsageError: the network fails, or gives something other than logits float [2, classes].
    """
    import torch

    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            logits = network.eval()(torch.zeros(2, channels, image_size, image_size))
    except Exception as error:
        raise UsageError(
            f"train.network: {name} failed with {what(error)} on images [2, {channels}, {image_size}, {image_size}]."
        ) from error
    finally:
        for module, training in modes.items():
            module.training = training
    found = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if found != [2, classes] or not logits.is_floating_point():
        raise UsageError(
            f"train.network: expected logits [2, {classes}] from {name} for two images, found {found}. "
            "The network takes normalised images [batch, channels, height, width] and returns one logit per class."
        )


def custom_source_sha256(name: str) -> str:
    """Return a sha256 over the Python files of the module's top-level package: another code is another network.

    Args:
        name: `module:function`; nothing but finding the package is done with it, so it is not run.

    Raises:
        UsageError: there is no such package.
    """
    package = name.split(":")[0].split(".")[0]
    try:
        spec = find_spec(package)
    except ValueError:  # a module that was made without a file
        spec = None
    if spec is None:
        raise UsageError(
            f"train.network: expected a module {package!r}, found none. "
            "Install it into this environment, or put its folder on PYTHONPATH."
        )
    files = {Path(spec.origin).name: Path(spec.origin)} if spec.origin and Path(spec.origin).is_file() else {}
    for folder in spec.submodule_search_locations or ():
        files |= {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*.py")}
    digest = hashlib.sha256()
    for name_in_package, path in sorted(files.items()):
        digest.update(f"{name_in_package}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
