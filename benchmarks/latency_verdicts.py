"""How often "faster", "slower" and "not distinguishable" are right: whole runs on files whose difference is known.

    python benchmarks/latency_verdicts.py --simulated                 # seconds
    python benchmarks/latency_verdicts.py --runs 20                   # this machine, minutes
    python benchmarks/latency_verdicts.py --runs 20 --busy            # beside a process that keeps a core busy

Each run times three files as `edgeproof run` does: fp32, a copy of it, and one made 5 % slower by as many more
layers. The copy has to be "not distinguishable" in 19 of 20 runs, and the slow one "slower" in 15 of 20. The
simulated mode puts made-up times below the same functions: processes of one file differ by 1.5 %, rounds by 1 % that
all files share and by 1 % that each has of its own, queries by 5 %.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

LAYERS = 40
"""Of fp32; the slow file has 5 % more of them."""
SLOWER = 1.05
IDENTICAL, SLOW = "identical", "slow"
BOUNDS = {IDENTICAL: ("not distinguishable", 0.95), SLOW: ("slower", 0.75)}
"""What has to be said of a file, and in which share of the runs."""


# --- simulated processes ---


@dataclass
class World:
    """A machine whose times are drawn instead of taken.

    Attributes:
        random: where they are drawn from.
        effects: spread of processes, of rounds that all files share, of a file's own rounds, and of queries.
        rounds: the shared effect of each round of a start, drawn when it is first needed.
    """

    random: np.random.Generator
    effects: tuple[float, float, float, float] = (0.015, 0.01, 0.01, 0.05)
    rounds: list[float] = field(default_factory=list)

    @contextmanager
    def start(self) -> Iterator[Process]:
        """Start a process that answers as `stages.validate.latency_worker` does."""
        yield Process(self)


@dataclass
class Process:
    """One simulated process."""

    world: World
    level: float = 0.0
    blocks: int = 0

    def ask(self, message: Mapping[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        """Return the answer to a message."""
        if message is None:
            return {"peak_memory_bytes": 120_000_000}
        if "ready" in message:
            self.world.rounds.clear()
            return {}
        if "queries" not in message:
            slower = np.log(SLOWER) if Path(message.get("model", "")).stem == SLOW else 0.0
            self.level = slower + self.world.random.normal(0.0, self.world.effects[0])
            return {
                "nodes_on_provider": 1.0,
                "idle_memory_bytes": 100_000_000,
                "load_ns": 40_000_000,
                "preprocessing_ns": 100_000,
                "first_inference_ns": 9_000_000,
            }
        _, shared, own, query = self.world.effects
        if self.blocks == len(self.world.rounds):
            self.world.rounds.append(self.world.random.normal(0.0, shared))
        level = self.level + self.world.rounds[self.blocks] + self.world.random.normal(0.0, own)
        self.blocks += 1
        logs = level + self.world.random.normal(0.0, query, message["queries"])
        return {"durations_ns": np.rint(4e6 * np.exp(logs)).astype(np.int64).tolist()}


# --- files of this machine ---


def write_files(folder: Path) -> list[Any]:
    """Write fp32, its copy and the slow file; return them as the product's models."""
    from foundation.artifacts import OnnxModel
    from foundation.files import sha256_of_file

    _write_layers(folder / "fp32.onnx", LAYERS)
    shutil.copyfile(folder / "fp32.onnx", folder / f"{IDENTICAL}.onnx")
    _write_layers(folder / f"{SLOW}.onnx", round(LAYERS * SLOWER))
    paths = [folder / f"{name}.onnx" for name in ("fp32", IDENTICAL, SLOW)]
    return [OnnxModel(path.stem, path, sha256_of_file(path), None) for path in paths]


def _write_layers(path: Path, layers: int) -> None:
    """Write a chain of equal convolutions on 32 × 32 pixels."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from onnx_files.preprocessing import Preprocessing

    rng = np.random.default_rng(0)
    weights = {
        "first": rng.standard_normal((32, 1, 3, 3)) / 3,
        "kernel": rng.standard_normal((32, 32, 3, 3)) / 24,
        "head": rng.standard_normal((32, 10)),
    }
    nodes = [helper.make_node("Conv", ["image", "first"], ["0"], pads=[1, 1, 1, 1])]
    for layer in range(layers):
        nodes.append(helper.make_node("Conv", [f"{layer}", "kernel"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"{layer + 1}"]))
    nodes += [
        helper.make_node("GlobalAveragePool", [f"{layers}"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, Preprocessing("float32", (0.5,), (0.25,), 32).to_metadata())
    onnx.save(model, path)


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """Keep a core busy while the block runs."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


# --- runs ---


def one_run(models: list[Any], seed: int, simulated: bool, budget_s: float) -> dict[str, tuple[float, str, int]]:
    """Return each file's speed-up, what is said of it, and how many processes it took."""
    from reports.formats import speedup_in_words
    from stages.validate.latency import measure_latency
    from stages.validate.latency_settings import LatencySettings

    settings = LatencySettings(seed=seed, time_budget_s=budget_s)
    image = np.random.default_rng(seed).integers(0, 256, (1, 32, 32), dtype=np.uint8)
    if simulated:
        rows = measure_latency(models, image, settings, start=World(np.random.default_rng([1, seed])).start)
    else:
        rows = measure_latency(models, image, settings)
    found = {row.variant: row for row in rows if row.metric == "latency_speedup"}
    return {
        name: (found[name].value or 0.0, speedup_in_words(found[name].ci95), found[name].n or 0) for name in BOUNDS
    }


def main() -> int:
    """Repeat whole runs and say how often the verdict was right; 1 where it was not often enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, help="whole runs; 20, simulated 400")
    parser.add_argument("--simulated", action="store_true", help="made-up times of known spread")
    parser.add_argument("--busy", action="store_true", help="beside a process that keeps a core busy")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds in which more processes may be started")
    parser.add_argument("--json", type=Path, help="write every run's verdicts here")
    arguments = parser.parse_args()
    runs = arguments.runs or (400 if arguments.simulated else 20)
    with TemporaryDirectory() as folder, busy_neighbour() if arguments.busy else nullcontext():
        models = write_files(Path(folder))
        found = [one_run(models, seed, arguments.simulated, arguments.budget) for seed in range(runs)]
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{runs} {'simulated ' if arguments.simulated else ''}runs{', a busy neighbour' if arguments.busy else ''}")
    fine = True
    for name, (wanted, share) in BOUNDS.items():
        said = Counter(one[name][1] for one in found)
        speedups, processes = ([one[name][place] for one in found] for place in (0, 2))
        right = said[wanted] / runs
        # A share that is right in truth lies below its bound by chance in half of the simulations.
        allowed = share - (2 * np.sqrt(share * (1 - share) / runs) if arguments.simulated else 0.0)
        fine &= bool(right >= allowed)
        print(
            f"{'✓' if right >= allowed else '✗'} {name}: {wanted} in {said[wanted]} of {runs} ({right:.1%}, "
            f"wanted {share:.0%}); {dict(said)}; median speed-up {np.median(speedups):.3f}, "
            f"{np.median(processes):.0f} processes (most {max(processes)})"
        )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
