"""Which of several files made from one model is kept: answers first, then speed, then size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.one_file.agreement import Agreement
from pipeline.one_file.result import LEAST_DB
from pipeline.one_file.speed import Speed
from reports.limits import missed

_AS_SMALL = 1.01
"""Files whose sizes differ by less than this are as small: nobody gives up an answer for it."""
_BROKEN = {
    "size": "larger",
    "speed": "slower",
    "agreement": "answers otherwise",
    "outputs_db": "loses an output",
}


@dataclass(frozen=True)
class Candidate:
    """A file that one method made, measured.

    Attributes:
        method: its name; each candidate has another one.
        size_bytes: of the file.
        speed: beside the float file's, of one measurement for all candidates.
        agreement: with the float file.
    """

    method: str
    size_bytes: int
    speed: Speed
    agreement: Agreement


@dataclass(frozen=True)
class Choice:
    """One of the candidates, and why.

    Attributes:
        chosen: its method.
        why: which rule chose it.
        misses: method → name of each limit that it breaks → by how much, above 0.
        why_not: method → why it was not chosen, of all the others.
    """

    chosen: str
    why: str
    misses: Mapping[str, Mapping[str, float]]
    why_not: Mapping[str, str]


def choose(candidates: Sequence[Candidate], source_bytes: int, least_agreement: float) -> Choice:
    """Choose the fastest file that answers like the float file and is not larger.

    Only a file that is faster than the float file beyond doubt counts as fast. Of those that are not distinguishable
    from the fastest, the one with the highest SQNR is taken. Where none is faster, it is the smallest that is not
    slower, and of those as small within 1 % the one with the highest SQNR. Where none keeps every limit, the same is
    asked of those whose worst miss is the least: of points, and of per cent of the float file's size and speed and of
    the least SQNR of an output.

    Args:
        candidates: one or more; of equals the first is taken.
        source_bytes: size of the float file.
        least_agreement: share of the float file's answers that a file has to give, where they are classes.
    """
    misses = {one.method: _misses(one, source_bytes, least_agreement) for one in candidates}
    least = min(_worst(found) for found in misses.values())
    near = [one for one in candidates if _worst(misses[one.method]) == least]
    alike, why = _fastest(near) or _smallest(near)
    chosen = max(alike, key=_likeness)
    if missing := misses[chosen.method]:
        why = f"none fits; it comes nearest, and misses {missed(missing)}"
    elif chosen is not alike[0]:
        what = "fast" if chosen.speed.is_faster else "small"
        why = f"as {what} as {alike[0].method}, and nearer to the float file"
    why_not = {
        one.method: _why_not(one, chosen, misses[one.method], one in alike) for one in candidates if one is not chosen
    }
    return Choice(chosen.method, why, misses, why_not)


def worth_rounding(candidates: Sequence[Candidate], choice: Choice) -> str | None:
    """Return the method whose file would be the fastest if it only answered better; None where none would.

    Only a file of integer activations loses its answers to how weights are rounded: one of static or mixed.
    """
    (chosen,) = (one for one in candidates if one.method == choice.chosen)
    fits = not choice.misses[choice.chosen]
    lost = [
        one
        for one in candidates
        if one.method in ("static", "mixed")
        and one.speed.is_faster
        and choice.misses[one.method]
        and choice.misses[one.method].keys() <= {"agreement", "outputs_db"}
        and not (fits and not one.speed.is_faster_than(chosen.speed))
    ]
    return min(lost, key=_slowness).method if lost else None


def _fastest(candidates: Sequence[Candidate]) -> tuple[list[Candidate], str] | None:
    """Return the fastest and those not distinguishable from it; None where none is faster than the float file."""
    faster = sorted((one for one in candidates if one.speed.is_faster), key=_slowness)
    if not faster:
        return None
    first = faster[0]
    return [one for one in faster if one is first or not first.speed.is_faster_than(one.speed)], "the fastest"


def _smallest(candidates: Sequence[Candidate]) -> tuple[list[Candidate], str]:
    """Return the smallest and those as small; a file that could not be timed counts only where none could."""
    timed = [one for one in candidates if one.speed.ratio is not None] or candidates
    ordered = sorted(timed, key=lambda one: one.size_bytes)
    return [one for one in ordered if one.size_bytes <= _AS_SMALL * ordered[0].size_bytes], (
        "the smallest that is not slower, since none is faster"
    )


def _misses(found: Candidate, source_bytes: int, least_agreement: float) -> dict[str, float]:
    misses = {}
    if found.size_bytes > source_bytes:
        misses["size"] = found.size_bytes / source_bytes - 1
    if found.speed.is_slower and found.speed.ratio is not None:
        misses["speed"] = 1 - found.speed.ratio
    same = found.agreement.same_class
    if same is not None and same < least_agreement:
        misses["agreement"] = least_agreement - same
    decibels = [value for value in found.agreement.outputs_db.values() if value is not None]
    if decibels and min(decibels) < LEAST_DB:
        misses["outputs_db"] = LEAST_DB - min(decibels)
    return misses


def _worst(misses: Mapping[str, float]) -> float:
    """Return the greatest miss, 0 where there is none; decibels as a share of their limit, like the others."""
    return max((by / LEAST_DB if name == "outputs_db" else by for name, by in misses.items()), default=0.0)


def _slowness(found: Candidate) -> float:
    assert found.speed.ratio is not None
    return -found.speed.ratio


def _likeness(found: Candidate) -> tuple[float, float]:
    """Return the SQNR, and where all answer with class numbers, the share of equal ones."""
    return found.agreement.logits_sqnr_db or 0.0, found.agreement.same_class or 0.0


def _why_not(found: Candidate, chosen: Candidate, misses: Mapping[str, float], is_alike: bool) -> str:
    if misses:
        return ", ".join(_BROKEN[name] for name in misses)
    what = "fast" if chosen.speed.is_faster else "small"
    if is_alike:
        return f"as {what}, but no nearer to float"
    if found.speed.ratio is None:
        return f"not timed: {found.speed.reason}"
    return f"not as {what}"
