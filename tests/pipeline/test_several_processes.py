"""Two processes under torchrun end with the weights of one, and a second command lets the waiting one go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

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
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIGURATION, "train": {**CONFIGURATION["train"], **recipe}}))


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def run(folder, *launcher):
    command = [sys.executable, *launcher, "-m", "pipeline", "train", str(folder / "config.json"), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("recipe", "tolerance"),
    [
        pytest.param({"pact": None, "saliency_guided": None}, 1e-5, id="plain"),
        pytest.param({"pact": None, "saliency_guided": None, "norm_batches": 4}, 1e-5, id="norm-batches"),
        pytest.param({"pact": None, "saliency_guided": {}}, 1e-5, id="saliency-guided"),
        # At the rate above, errors this size carry a digit of float32 to the third digit of the weights.
        pytest.param(
            {"pact": None, "saliency_guided": None, "distillation": True, "learning_rate": 0.002},
            1e-5,
            id="distillation",
        ),
        # bfloat16 keeps three digits, and every step rounds anew.
        pytest.param({"pact": None, "saliency_guided": None, "mixed_precision": True}, 5e-2, id="mixed-precision"),
        # Sums taken in another order land on the other side of a rounding now and then, and background pixels do so
        # together.
        pytest.param({"pact": {}, "saliency_guided": None}, 5e-2, id="pact"),
    ],
)
def test_two_processes_end_with_the_weights_of_one(tmp_path, recipe, tolerance):
    if "distillation" in recipe:
        configure(tmp_path / "teacher", pact=None, saliency_guided=None, seed=1)
        assert run(tmp_path / "teacher").returncode == 0
        teacher = tmp_path / "teacher" / "runs" / "shared" / "train" / "checkpoint.safetensors"
        recipe = {**recipe, "distillation": {"teacher": str(teacher), "feature_weight": 0.2}}
    networks, histories = {}, {}
    for name, launcher in (("one", ()), ("two", TWO)):
        folder = tmp_path / name
        configure(folder, **recipe)
        done = run(folder, *launcher)
        assert done.returncode == 0, done.stderr
        trained = folder / "runs" / "shared" / "train"
        networks[name] = load_file(trained / "checkpoint.safetensors")
        histories[name] = json.loads((trained / "history.json").read_text())
        if name == "two":
            again = run(folder, *launcher)  # everything is there: the waiting process must be let go
            assert again.returncode == 0, again.stderr
            assert {stage["status"] for stage in json.loads(again.stdout)["stages"]} == {"reused"}
    assert networks["one"].keys() == networks["two"].keys()
    for name, tensor in networks["one"].items():
        assert torch.allclose(tensor.double(), networks["two"][name].double(), rtol=0, atol=tolerance), name
    (one,), (two,) = histories["one"], histories["two"]
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=10 * tolerance)


def test_a_loss_that_is_no_number_stops_both_processes_and_keeps_the_best_network(tmp_path):
    recipe = {"epochs": 6, "batch_size": 64, "learning_rate": 200, "warmup_fraction": 0.9}
    configure(tmp_path / "wild", pact=None, saliency_guided=None, **recipe)
    done = run(tmp_path / "wild", *TWO)
    assert done.returncode != 0
    assert done.stderr.count("expected a finite loss") == 1
    network = load_file(tmp_path / "wild" / "runs" / "shared" / "train" / "last_good.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in network.values())
