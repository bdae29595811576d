"""JSON files that carry a digest of their own content, so that an edit of one is found when it is read.

Whoever edits a file and computes its digest anew is not found: only a signature with a key that he does not have
finds him.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from foundation.errors import UsageError
from foundation.files import JSON, sha256_of_json, write_text

SEAL = "sha256"
"""The key of the digest; it is taken over the canonical JSON of everything else in the object."""
SHOWN_DIGITS = 12
"""Of a digest, in a sentence."""


def write_sealed(path: Path, values: Mapping[str, JSON]) -> None:
    """Write an object with the digest of its content as JSON, atomically; a digest that it holds is computed anew."""
    write_text(path, _sealed_text(values))


def seal_fault(content: bytes) -> str | None:
    """Return what is wrong with a sealed file, None where nothing is: every byte of it counts, spaces included.

    Args:
        content: of the file; it is a JSON object.

    Returns:
        What the file says of itself and what was found, as part of a sentence.

    Raises:
        ValueError: it is no JSON object.
    """
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError("no object")
    said, found = values.get(SEAL), sha256_of_json(_without_seal(values))
    if said != found:
        return f"expected sha256 {str(said)[:SHOWN_DIGITS]} of its content, found {found[:SHOWN_DIGITS]}"
    if content != _sealed_text(values).encode():
        return f"expected the layout that it is written in, found another (its content: {found[:SHOWN_DIGITS]})"
    return None


def refuse_broken_seal(path: Path, mend: str) -> None:
    """Do nothing with a file that is as it was written.

    Raises:
        UsageError: it was changed.
    """
    try:
        fault = seal_fault(path.read_bytes())
    except (ValueError, RecursionError) as error:
        fault = f"expected a file with the digest of its content, found another ({error})"
    if fault is not None:
        raise UsageError(f"{path}: {fault}. The file was changed after it was written. {mend}")


def _without_seal(values: Mapping[str, JSON]) -> dict[str, JSON]:
    return {key: value for key, value in values.items() if key != SEAL}


def _sealed_text(values: Mapping[str, JSON]) -> str:
    own = _without_seal(values)
    sealed = {**own, SEAL: sha256_of_json(own)}
    return json.dumps(sealed, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
