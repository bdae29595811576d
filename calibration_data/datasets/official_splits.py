"""How people spell the splits that a data set's authors fixed, in a table's column or as names of folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from calibration_data.prepared import SplitName

SPELLINGS: Mapping[str, SplitName] = MappingProxyType(
    {
        "train": "train",
        "training": "train",
        "val": "validation",
        "valid": "validation",
        "validate": "validation",
        "validation": "validation",
        "dev": "validation",
        "development": "validation",
        "test": "test",
        "testing": "test",
        "holdout": "test",
    }
)
"""Lower-case spelling, without hyphens and spaces → split."""

_FILLING = re.compile(r"[-_ ]|(?<=.)(?:set|data|images)$")


def split_named(text: str) -> SplitName | None:
    """Return the split that a text names, or None; case, hyphens, spaces and an appended `_set` do not count."""
    return SPELLINGS.get(_FILLING.sub("", text.strip().lower()))
