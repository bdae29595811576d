"""The digests of a journal's entries: what a search goes on from is what it wrote itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import UsageError
from foundation.files import JSON, sha256_of_json

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

DIGEST = "sha256"
"""The key of an entry's digest in the journal."""


def refuse_edited(study: Study, journal: Path) -> None:
    """Do nothing with a study whose entries are as they were written: another one would lead to another file.

    Raises:
        UsageError: one was edited, or is of a version that wrote no digests.
    """
    from optuna.trial import TrialState

    edited = [
        layer
        for layer, entry in study.user_attrs.items()
        if not isinstance(entry, dict) or not _is_written(study, without_digest(entry), entry.get(DIGEST))
    ]
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)):
        measured, error = frozen.user_attrs.get("measured"), frozen.user_attrs.get("error")
        entry = {"candidate": frozen.params, "measured": measured, "error": error}
        counts = frozen.state == TrialState.COMPLETE or measured is not None or error is not None
        written = _is_written(study, entry, frozen.user_attrs.get(DIGEST)) and _is_told(frozen, measured)
        if counts and not written:
            edited.append(f"trial {frozen.number}")
    if edited:
        raise UsageError(
            f"{journal}: expected the journal of a search as it was written, found one that was edited "
            f"({edited[0]}). Delete it and run again; the search begins anew."
        )


def _is_told(frozen: FrozenTrial, measured: Any) -> bool:
    """Return whether the number that the sampler sees of a complete trial is the one that was measured."""
    from optuna.trial import TrialState

    return frozen.state != TrialState.COMPLETE or frozen.values == [told_value(measured)]


def told_value(measured: JSON) -> float:
    """Return what the sampler is told of a trial: its speed-up, and 0 where that was not measured."""
    return float(measured["speedup"]["value"]) if measured["speedup"] else 0.0


def _is_written(study: Study, entry: JSON, said: object) -> bool:
    try:
        return said == digest_of(study, entry)
    except ValueError:  # NaN, which none of ours holds
        return False


def digest_of(study: Study, entry: JSON) -> str:
    """Return the digest of an entry and of what it belongs to: model, data and settings."""
    return sha256_of_json({"study": study.study_name, "entry": entry})


def without_digest(entry: JSON) -> JSON:
    """Return an entry of a layer as it was before its digest was put in."""
    return {key: value for key, value in entry.items() if key != DIGEST}
