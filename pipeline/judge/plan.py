"""How many test images the gates need, before anything is trained: the answer of `edgeproof plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from foundation.files import JSON
from foundation.metrics import METRICS, row_name
from pipeline.judge.gate import Gate
from stages.validate.intervals.estimates import TAIL
from stages.validate.intervals.sample_size import images_for_share, pairs_for_noninferiority

if TYPE_CHECKING:
    from rich.table import Table

_SHARES = ("accuracy", "balanced_accuracy", "sensitivity/CLASS", "specificity/CLASS", "agreement")
"""Metrics whose scatter is known before anything was measured."""


@dataclass(frozen=True)
class Planned:
    """What one gate needs.

    Attributes:
        gate: the criterion as one reads it.
        images_80: images, or patients where several belong to one, for 80 % power; None where it cannot be said.
        images_90: likewise for 90 %.
        detail: under which assumption, or why it cannot be said.
    """

    gate: str
    images_80: int | None
    images_90: int | None
    detail: str

    def as_json(self) -> dict[str, JSON]:
        """Return it as `--json` prints it."""
        return asdict(self)


def plan(gates: Sequence[Gate], discordance: float, reserve: float) -> tuple[Planned, ...]:
    """Return what each gate needs.

    Args:
        gates: of the configuration.
        discordance: share of the answers that a variant changes, half of them for the better.
        reserve: by how much the true value is better than the limit of a gate with `confidence: lower_bound`.

    Raises:
        UsageError: a share is not inside 0…1.
    """
    for name, value in (("--discordance", discordance), ("--reserve", reserve)):
        if not 0 < value < 1:
            raise UsageError(f"{name}: expected a share between 0 and 1, found {value:g}.")
    return tuple(_planned(gate, discordance, reserve) for gate in gates)


def _planned(gate: Gate, discordance: float, reserve: float) -> Planned:
    row = row_name(gate.metric)
    if row == "size_bytes":
        return Planned(gate.name, None, None, "known exactly, without images")
    if not gate.tests_difference and gate.confidence == "point":
        return Planned(gate.name, None, None, "no error rate; see noninferior_to, confidence")
    if row not in _SHARES:
        heading = METRICS[row].heading
        why = f"{heading}: its scatter is not known before a run; an inconclusive verdict names the images"
        return Planned(gate.name, None, None, why)
    of_class = " of the class" if "/CLASS" in row else ""
    # Against fp32 every changed answer counts; against the accepted run the agreement with fp32 goes both ways.
    if gate.margin is not None and row == "agreement" and not gate.asks_accepted:
        if discordance >= gate.margin:
            return Planned(gate.name, None, None, f"cannot pass if {discordance:.0%} of the answers change")
        needed = [images_for_share(1 - gate.margin, 1 - discordance, gate.alpha, power) for power in (0.8, 0.9)]
        return Planned(gate.name, needed[0], needed[1], f"images if {discordance:.0%} of the answers change")
    if gate.margin is not None:
        # Two one-sided tests pass together as often as one does at half the chance of missing.
        powers = [(1 + power) / 2 if gate.equivalent_to else power for power in (0.8, 0.9)]
        needed = [pairs_for_noninferiority(gate.margin, discordance, gate.alpha, power) for power in powers]
        what = f"images{of_class} if {discordance:.0%} of the answers change, as many for the better"
        return Planned(gate.name, needed[0], needed[1], what)
    expected = gate.limit + (reserve if gate.at_least is not None else -reserve)
    if not 0 < expected < 1:
        return Planned(gate.name, None, None, f"the truth cannot be {reserve:g} better than {gate.limit:g}")
    needed = [images_for_share(gate.limit, expected, TAIL, power) for power in (0.8, 0.9)]
    return Planned(gate.name, needed[0], needed[1], f"images{of_class} if the truth is {expected:g}")


def plan_table(planned: Sequence[Planned]) -> Table:
    """Return the plan as a table; where patients have several images, patients are what counts."""
    from rich.table import Table

    caption = "Patients instead of images where several belong to one."
    table = Table("gate", "80 % power", "90 % power", "what", caption=caption)
    for one in planned:
        counts = ("–" if count is None else f"{count:,}" for count in (one.images_80, one.images_90))
        table.add_row(one.gate, *counts, one.detail)
    return table
