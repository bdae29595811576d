"""Processes that answer as `latency_worker` does, with times that a test makes up instead of taking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MS = 1_000_000
"""Nanoseconds."""


@dataclass(frozen=True)
class Asked:
    """One block of queries: of which file and provider, the how many-th process of it, the how many-th block of that
    process, and the how many-th of all blocks of all files since this start."""

    variant: str
    provider: str
    process: int
    block: int
    turn: int


Times = Callable[[Asked, int], list[int]]
"""Returns so many durations in ns."""


@dataclass
class Simulation:
    """A machine on which `times` says how long queries take.

    Attributes:
        times: of a block.
        order: which variant was asked for a block, in order.
        started: how many processes of each variant there were.
        kernel_ns: what the calibration kernel takes.
    """

    times: Times
    order: list[str] = field(default_factory=list)
    started: dict[str, int] = field(default_factory=dict)
    kernel_ns: int = MS
    turn: int = 0

    @contextmanager
    def start(self) -> Iterator[_Process]:
        yield _Process(self)


@dataclass
class _Process:
    simulation: Simulation
    variant: str = ""
    provider: str = ""
    number: int = 0
    blocks: int = 0

    def ask(self, message: Mapping[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        if message is None:
            return {"peak_memory_bytes": 130_000_000 + 1_000_000 * self.number}
        if "ready" in message:
            self.simulation.turn = 0
            return {}
        if "kernel" in message:
            self.variant = "calibration-kernel"
            nothing = ("load_ns", "preprocessing_ns", "first_inference_ns")
            return {"nodes_on_provider": 1.0, "idle_memory_bytes": 100_000_000, **dict.fromkeys(nothing, 0)}
        if self.variant == "calibration-kernel":  # a machine of its own: the tests are about the files
            return {"durations_ns": [self.simulation.kernel_ns] * message["queries"]}
        if "model" in message:
            self.variant, self.provider = Path(message["model"]).stem, message["provider"]
            self.number = self.simulation.started.get(self.variant, 0)
            self.simulation.started[self.variant] = self.number + 1
            return {
                "nodes_on_provider": 1.0,
                "idle_memory_bytes": 100_000_000,
                "load_ns": 40 * MS,
                "preprocessing_ns": MS // 10,
                "first_inference_ns": 9 * MS,
            }
        asked = Asked(self.variant, self.provider, self.number, self.blocks, self.simulation.turn)
        self.blocks += 1
        self.simulation.turn += 1
        self.simulation.order.append(self.variant)
        return {"durations_ns": self.simulation.times(asked, message["queries"])}
