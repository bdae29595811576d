"""Tensors out of a file from elsewhere: safetensors or a torch checkpoint, and no code.

Nothing is unpickled but tensors and plain values (torch's `weights_only`).
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from foundation.errors import UsageError

MAX_BYTES = 4 * 2**30
_LARGEST_RATIO = 20
"""Weights hardly compress; a bomb's zeros do, a thousand times."""
# Where checkpoints keep the state dict, in the order in which it is looked for.
_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "state_dict_ema", "model_ema", "ema")

_DEEPEST = 4
_LONGEST_NAME = 500


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file's state dict, by the file's own names.

    Args:
        path: safetensors, or a torch checkpoint of tensors and plain values; as it is or below one of the usual keys
            (`state_dict`, `model`, `net`, …); 4 GiB at most.

    Returns:
        name → tensor, of any kind that the file holds; empty where it holds a checkpoint without tensors.

    Raises:
        UsageError: the file is missing, too large, damaged, no checkpoint, or holds Python objects.
    """
    if not path.is_file():
        raise UsageError(f"{path}: expected a file of weights, found {'a folder' if path.is_dir() else 'nothing'}.")
    with path.open("rb") as stream:
        start = stream.read(9)
    size, unpacked = path.stat().st_size, _unpacked_bytes(path)
    if max(size, unpacked) > MAX_BYTES:
        raise UsageError(
            f"{path}: expected weights of {MAX_BYTES} bytes at most, found {max(size, unpacked)}. Is it the right "
            "file?"
        )
    if unpacked > _LARGEST_RATIO * size:
        raise UsageError(
            f"{path}: expected weights as torch.save writes them, found {unpacked} bytes packed into {size} (a "
            "decompression bomb?). Save them anew."
        )
    try:
        if start[8:] == b"{":  # safetensors: the header's length in eight bytes, then JSON
            content: object = load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):  # torch names pickle protocols: nothing to a user
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused or start.startswith(b"\x80"):
            raise UsageError(_has_code(path, refused[1] if refused else "pickled")) from error
        raise UsageError(_is_damaged(path, "no checkpoint")) from error
    except Exception as error:  # torch raises errors of many kinds on a damaged file
        raise UsageError(_is_damaged(path, str(error).split("\n")[0] or type(error).__name__)) from error
    return {_name(path, key): value for key, value in _state_dict(content).items() if isinstance(value, Tensor)}


def _unpacked_bytes(path: Path) -> int:
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except Exception:  # an older checkpoint or safetensors, neither of which is compressed; or a damaged directory
        return 0


def _has_code(path: Path, what: str) -> str:
    return (
        f"{path}: expected tensors and plain values, found Python objects ({what}), which would run code as they "
        "are loaded. Where you trust the file, save its weights alone: torch.save(network.state_dict(), …), or "
        "safetensors."
    )


def _is_damaged(path: Path, reason: str) -> str:
    return (
        f"{path}: expected safetensors or a torch checkpoint, found something else or a damaged file ({reason}). "
        "Get it again, or save the network's state dict with torch.save or safetensors."
    )


def _state_dict(content: object) -> Mapping[object, object]:
    """Return the innermost container that a checkpoint's usual keys lead to."""
    if not isinstance(content, Mapping):
        return {}
    state_dict: Mapping[object, object] = content
    for _ in range(_DEEPEST):
        inner = (state_dict.get(key) for key in _CONTAINERS)
        state_dict = next((value for value in inner if isinstance(value, Mapping)), state_dict)
    return state_dict


def _name(path: Path, key: object) -> str:
    """Return a tensor's name, which reports and terminals will show."""
    if not isinstance(key, str) or not key.isprintable() or len(key) > _LONGEST_NAME:
        raise UsageError(
            f"{path}: expected names of {_LONGEST_NAME} printable characters at most, found {str(key)[:40]!r}. "
            "Is it the right file?"
        )
    return key
