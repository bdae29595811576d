"""How often a night is red by its times: a machine that is slower as a whole, and software that is.

    python benchmarks/nights_times.py --nights 200

Both nights of a pair are timed by `stages.validate.latency`, whose processes answer with drawn times, and compared by
`pipeline.judge.comparison`. A slower machine slows the files and the calibration kernel, slower software the files
alone. There are as few processes as the product ever starts, five of each file. The cases share their nights' noise,
so that the rows of one noise are not independent of each other.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from nights import TEN, THREE, is_red, record, share

from foundation.artifacts import OnnxModel
from pipeline.judge.comparison import Comparison, compare
from pipeline.judge.evidence import Evidence
from pipeline.judge.paired_runs import PairedRuns
from pipeline.judge.tolerances import ComparisonSettings
from stages.validate.latency import measure_latency
from stages.validate.latency_settings import LatencySettings
from stages.validate.latency_turns import KERNEL


@dataclass(frozen=True)
class Noise:
    """Standard deviations of times on the logarithmic scale, about per cent.

    Attributes:
        night: of a file, or of the kernel, for as long as a night lasts.
        process: of one of its processes.
        round: of a round that all share.
        block: of each file in each round.
        query: of each query.
    """

    night: float
    process: float
    round: float = 0.01
    block: float = 0.01
    query: float = 0.05


NOISES: Mapping[str, Noise] = {
    "processes 1.5 %": Noise(0.0, 0.015),  # as in `latency_verdicts.py`
    "processes 3 %, nights 2 %": Noise(0.02, 0.03),
}


@dataclass(frozen=True)
class Speeds:
    """What the times of a night are multiplied by.

    Attributes:
        kernel: the calibration kernel's.
        files: every file's.
    """

    kernel: float = 1.0
    files: float = 1.0


USUAL = Speeds()
CASES: Mapping[str, Speeds] = {
    "nothing changed": USUAL,
    "the machine is 1.3 × slower": Speeds(1.3, 1.3),
    "the machine is 2 × slower": Speeds(2.0, 2.0),
    "the machine is 2 × slower for files, 1.8 × for the kernel": Speeds(1.8, 2.0),
    "the software is 1.1 × slower": Speeds(1.0, 1.1),
    "the software is 1.2 × slower": Speeds(1.0, 1.2),
    "the software is 1.3 × slower": Speeds(1.0, 1.3),
    "the software is 2 × slower": Speeds(1.0, 2.0),
    "the software is 2 × slower, the machine 2 × faster": Speeds(0.5, 1.0),
}


@dataclass
class Machine:
    """A machine of one night whose times are drawn.

    Attributes:
        random: where they are drawn from.
        speeds: of the night.
        noise: of its times.
        levels: of each file in this night, drawn when it is first opened.
        rounds: of each round of a start, drawn when it is first asked for.
    """

    random: np.random.Generator
    speeds: Speeds
    noise: Noise
    levels: dict[str, float] = field(default_factory=dict)
    rounds: list[float] = field(default_factory=list)

    @contextmanager
    def start(self) -> Iterator[Process]:
        """Start a process that answers as `stages.validate.latency_worker` does."""
        yield Process(self)

    def level(self, name: str) -> float:
        """Return the logarithm of what a file's times, or the kernel's, are this night multiplied by."""
        if name not in self.levels:
            factor = self.speeds.kernel if name == KERNEL else self.speeds.files
            self.levels[name] = float(np.log(factor) + self.random.normal(0.0, self.noise.night))
        return self.levels[name]


@dataclass
class Process:
    """One process of a machine."""

    machine: Machine
    level: float = 0.0
    blocks: int = 0

    def ask(self, message: Mapping[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        """Return the answer to a message."""
        random, rounds, noise = self.machine.random, self.machine.rounds, self.machine.noise
        if message is None:
            return {"peak_memory_bytes": 120_000_000}
        if "ready" in message:
            rounds.clear()
            return {}
        if "queries" in message:
            if self.blocks == len(rounds):
                rounds.append(random.normal(0.0, noise.round))
            block = self.level + rounds[self.blocks] + random.normal(0.0, noise.block)
            self.blocks += 1
            logs = block + random.normal(0.0, noise.query, message["queries"])
            return {"durations_ns": np.rint(4e6 * np.exp(logs)).astype(np.int64).tolist()}
        name = KERNEL if "kernel" in message else Path(message["model"]).stem
        self.level = self.machine.level(name) + random.normal(0.0, noise.process)
        others = dict.fromkeys(("load_ns", "preprocessing_ns", "first_inference_ns"), 1_000_000)
        return {"nodes_on_provider": 1.0, "idle_memory_bytes": 100_000_000, **others}


def timed(files: Sequence[str], speeds: Speeds, noise: Noise, seed: tuple[int, int]) -> Evidence:
    """Return what a night measures of its times.

    Args:
        files: their names, "fp32" among them.
        speeds: of the night.
        noise: of its times.
        seed: of the night.
    """
    # Drawn times need no warm-up, and without a budget of time no processes come to the first five.
    settings = LatencySettings(seed=seed[0], time_budget_s=0.0, warmup_queries=0)
    models = [OnnxModel(name, Path(f"{name}.onnx"), "0" * 64, None) for name in files]
    machine = Machine(np.random.default_rng(seed), speeds, noise)
    found = measure_latency(models, np.zeros((1, 8, 8), np.uint8), settings, start=machine.start)
    return Evidence("night", record(), tuple(found))


def one_night(files: Sequence[str], speeds: Speeds, noise: Noise, seed: int) -> Comparison:
    """Return how a night compares with an accepted one of the usual speed; see `timed`."""
    accepted, tonight = (timed(files, of, noise, (seed, place)) for place, of in enumerate((USUAL, speeds)))
    return compare(accepted, tonight, ComparisonSettings(), PairedRuns())


def lost_to_kernel(one: Comparison) -> bool:
    """Return whether a file's speed against the kernel is among what regressed."""
    return any((row.metric, row.status) == ("latency_against_kernel", "regressed") for row in one.differences)


def main() -> None:
    """Print the share of red nights for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=200, help="of each row")
    nights = parser.parse_args().nights
    print("| noise | files | case | red by the speed against the kernel | red by any row |")
    print("| --- | ---: | --- | --- | --- |")
    few = {name: CASES[name] for name in ("nothing changed", "the software is 2 × slower")}
    for (noise_name, noise), (files, cases) in product(NOISES.items(), ((THREE, CASES), (TEN, few))):
        for name, speeds in cases.items():
            found = [one_night(files, speeds, noise, seed) for seed in range(nights)]
            shares = [share([judge(one) for one in found]) for judge in (lost_to_kernel, is_red)]
            print(f"| {noise_name} | {len(files)} | {name} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
