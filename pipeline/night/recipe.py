"""The accepted recipe, run again tonight: whether the world changed or what we ask of it.

A run's record holds its configuration with the last part of each path alone. Where the files lie is taken from
tonight's configuration; the recipe is the accepted one only if its digest is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foundation.errors import UsageError
from pipeline.configuration import Configuration
from pipeline.configuration_file import parse_configuration
from pipeline.judge.comparison import Comparison
from pipeline.judge.evidence import Evidence
from pipeline.night.causes import Cause

FOLDER_NAME = "accepted-recipe"
"""Beside the nights; one for all of them, so that what did not change since is taken from its cache."""


@dataclass(frozen=True)
class Rerun:
    """What came of the accepted recipe tonight.

    Attributes:
        comparison: of the accepted run with it; None where it could not be run again.
        sentence: that in words.
    """

    comparison: Comparison | None
    sentence: str

    def narrowed(self, causes: tuple[Cause, ...]) -> tuple[Cause, ...]:
        """Return the causes that suspect the configuration with what was found, and without what it rules out."""
        return tuple(self._narrowed(cause) if "configuration" in cause.suspects else cause for cause in causes)

    def _narrowed(self, cause: Cause) -> Cause:
        suspects = cause.suspects
        if self.comparison is not None:
            world = self.comparison.exit_code != 0
            suspects = tuple(kind for kind in suspects if (kind == "configuration") != world)
        return replace(cause, suspects=suspects, sentence=f"{cause.sentence} {self.sentence}")


def accepted_configuration(accepted: Evidence, tonight: Configuration) -> Configuration:
    """Return the configuration of the accepted run with tonight's paths.

    Args:
        accepted: the reference.
        tonight: where the files lie now.

    Raises:
        UsageError: this version does not know it, or a path of it is not among tonight's.
    """
    typed = tonight.as_python()
    values = _with_paths(dict(accepted.record.configuration), typed)
    found = parse_configuration(values, f"the configuration of {accepted.run}", Path.cwd())
    lost = set(_paths(found.as_python())) - set(_paths(typed))
    if lost:  # relative to the working directory it would be another file
        raise UsageError(
            f"{accepted.run}: expected each path of its configuration in the same place of tonight's, found none for "
            f"{', '.join(sorted(path.name for path in lost))}. Run its own configuration file by hand."
        )
    if found.sha256 != accepted.record.configuration_sha256:
        raise UsageError(
            f"{accepted.run}: expected its recorded configuration to have the sha256 "
            f"{accepted.record.configuration_sha256[:12]}, found {found.sha256[:12]} with tonight's paths and this "
            "version's defaults. Run its own configuration file by hand."
        )
    return found


def told(comparison: Comparison) -> Rerun:
    """Return what the accepted recipe came to, from its comparison with the accepted run."""
    if comparison.exit_code == 0:
        sentence = (
            "The accepted recipe, run again tonight, came out as accepted: the configuration's change did it, "
            "not the world around it."
        )
    else:
        sentence = (
            f"The accepted recipe, run again tonight, is red as well ({comparison.summary}): the world around it did "
            "it, not the configuration's change alone."
        )
    return Rerun(comparison, sentence)


def _paths(values: Any) -> Iterator[Path]:
    if isinstance(values, Path):
        yield values
    elif isinstance(values, Mapping | list | tuple):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from _paths(value)


def _with_paths(recorded: Any, typed: Any) -> Any:
    """Return recorded values with every path of tonight's that has the recorded name in the same place."""
    if isinstance(typed, Path):
        return str(typed) if recorded == typed.name else recorded
    if isinstance(typed, Mapping) and isinstance(recorded, Mapping):
        return {key: _with_paths(value, typed.get(key)) for key, value in recorded.items()}
    if isinstance(typed, list | tuple) and isinstance(recorded, list) and len(typed) == len(recorded):
        return [_with_paths(value, one) for value, one in zip(recorded, typed, strict=True)]
    return recorded
