"""The base of every settings class: frozen, strict, and closed to unknown keys; and the paths in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys and values of a wrong type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _absolute(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    if folder is None:
        return path
    # os.path, unlike pathlib, leaves an unknown ~user and a loop of links for whoever opens the file to refuse.
    return Path(os.path.realpath(folder / os.path.expanduser(path)))  # noqa: PTH111


LocalPath = Annotated[Path, Field(strict=False), AfterValidator(_absolute)]
"""A file or folder of the user's; in a configuration it may be relative to the configuration's own folder."""


def without_paths(values: Any) -> Any:
    """Return dumped settings (mode "python") as JSON values, with a mark in place of every path.

    Where files lie changes nothing of what is made from them; their content has a digest of its own.
    """
    if isinstance(values, Mapping):
        return {key: without_paths(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_paths(value) for value in values]
    return "(a path)" if isinstance(values, Path) else values


def without_folders(values: Any, typed: Any) -> Any:
    """Return JSON values in which every path is its last part: folders carry names of users and of patients.

    Args:
        values: settings as JSON.
        typed: the same settings as Python values; what is a `Path` there is a path.
    """
    if isinstance(typed, Path):
        return typed.name
    if isinstance(typed, Mapping):
        return {key: without_folders(values[key], typed[key]) for key in values}
    if isinstance(typed, list | tuple):
        return [without_folders(value, one) for value, one in zip(values, typed, strict=True)]
    return values
