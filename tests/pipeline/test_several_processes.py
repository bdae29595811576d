"""Two processes under torchrun end with the weights of one, and a second command lets the waiting one go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foundation.errors import ExitCode
from foundation.progress import Silent
from foundation.run_folder import RunFolder
from pipeline.configuration_file import parse_configuration
from pipeline.flow import run_until

IN_TURN = Path(__file__).with_name("commands_in_turn.py")
CONFIGURATION = {
    "name": "shared",
    "data": {"source": {"name": "digits"}, "image_size": 16, "channels": 1},
    "train": {
        "network": "cnn-small",
        "epochs": 1,
        "batch_size": 251,
        "threads": 1,
        "learning_rate": 0.02,
        "augment": {"flip": "none", "crop": 1},
        "device": "cpu",
    },
}


def configure(folder, **recipe):
    folder.mkdir(exist_ok=True)
    values = {**CONFIGURATION, "train": {**CONFIGURATION["train"], **recipe}}
    (folder / "config.json").write_text(json.dumps(values))
    return parse_configuration(values, "shared", folder)


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def run_two(folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, *TWO, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def train_alone(folder, **recipe):
    """Train in this process; the networks are compared, not the processes."""
    run = RunFolder(folder / "run")
    assert run_until("train", configure(folder, **recipe), run, None, Silent()) == ExitCode.PASSED
    return run.root / "train"


PLAIN = {"pact": None, "saliency_guided": None}
RECIPES = {
    "plain": (PLAIN, 1e-5),
    "norm-batches": ({**PLAIN, "norm_batches": 4}, 1e-5),
    "saliency-guided": ({**PLAIN, "saliency_guided": {}}, 1e-5),
    # At the rate above, errors this size carry a digit of float32 to the third digit of the weights.
    "distillation": ({**PLAIN, "distillation": True, "learning_rate": 0.002}, 1e-5),
    # bfloat16 keeps three digits, and every step rounds anew.
    "mixed-precision": ({**PLAIN, "mixed_precision": True}, 5e-2),
    # Sums taken in another order land on the other side of a rounding now and then, and background pixels do so
    # together.
    "pact": ({**PLAIN, "pact": {}}, 5e-2),
}
"""Name → what is trained, and how far the weights of two processes may be from those of one."""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    teacher = train_alone(tmp_path_factory.mktemp("teacher"), **PLAIN, seed=1) / "checkpoint.safetensors"
    taught = {"distillation": {"teacher": str(teacher), "feature_weight": 0.2}}
    return {
        name: {**recipe, **taught} if "distillation" in recipe else recipe for name, (recipe, _) in RECIPES.items()
    }


@pytest.fixture(scope="module")
def by_two(tmp_path_factory, recipes):
    """Train every recipe in two processes: the first by the commands as one types them, the others in one start."""
    root = tmp_path_factory.mktemp("two")
    for name, recipe in recipes.items():
        configure(root / name, **recipe)
    first, *others = recipes
    for number in (1, 2):
        done = run_two(root / first, "-m", "pipeline", "train", root / first / "config.json", "--json")
        assert done.returncode == 0, done.stderr
        (root / first / f"said-{number}.json").write_text(done.stdout)
    done = run_two(root, IN_TURN, *(root / name / "config.json" for name in others))
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_end_with_the_weights_of_one(tmp_path, recipes, by_two, recipe):
    trained_by = {
        "one": train_alone(tmp_path / recipe, **recipes[recipe]),
        "two": by_two / recipe / "runs" / "shared" / "train",
    }
    # The second time everything was there, and the waiting process was let go.
    said = [json.loads((by_two / recipe / f"said-{number}.json").read_text()) for number in (1, 2)]
    assert [{stage["status"] for stage in one["stages"]} for one in said] == [{"done"}, {"reused"}]
    networks = {name: load_file(trained / "checkpoint.safetensors") for name, trained in trained_by.items()}
    histories = {name: json.loads((trained / "history.json").read_text()) for name, trained in trained_by.items()}
    tolerance = RECIPES[recipe][1]
    assert networks["one"].keys() == networks["two"].keys()
    for name, tensor in networks["one"].items():
        assert torch.allclose(tensor.double(), networks["two"][name].double(), rtol=0, atol=tolerance), name
    (one,), (two,) = histories["one"], histories["two"]
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=10 * tolerance)


def test_a_loss_that_is_no_number_stops_both_processes_and_keeps_the_best_network(tmp_path):
    recipe = {"epochs": 6, "batch_size": 64, "learning_rate": 200, "warmup_fraction": 0.9}
    configure(tmp_path / "wild", **PLAIN, **recipe)
    done = run_two(tmp_path / "wild", "-m", "pipeline", "train", tmp_path / "wild" / "config.json")
    assert done.returncode != 0
    assert done.stderr.count("expected a finite loss") == 1
    network = load_file(tmp_path / "wild" / "runs" / "shared" / "train" / "last_good.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in network.values())
