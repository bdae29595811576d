"""Checkpoints: the same network back, the same bytes twice, nothing foreign let in."""

import json

import pytest
import torch
from safetensors.torch import save_file

from foundation.artifacts import Checkpoint
from foundation.errors import UsageError
from stages.network import PactSettings
from stages.network.checkpoint import NetworkSpec, load_checkpoint, save_checkpoint

SPEC = NetworkSpec("resnet8", ("a", "b", "c"), 1, 16, (0.4,), (0.3,), PactSettings(weight_bits=4))


def test_round_trip_gives_the_same_answers_and_the_same_bytes(tmp_path):
    network = SPEC.build(seed=3)
    first = save_checkpoint(tmp_path / "a.safetensors", SPEC, network)
    second = save_checkpoint(tmp_path / "b.safetensors", SPEC, network)
    spec, loaded = load_checkpoint(first)
    images = torch.randn(2, 1, 16, 16)
    assert spec == SPEC
    assert first.sha256 == second.sha256
    assert torch.equal(loaded(images), network.eval()(images))


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    SPEC.build(seed=1)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x80\x04K\x01."])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"bad\.safetensors"):
        load_checkpoint(Checkpoint.at(path))


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="edgeproof train"):
        load_checkpoint(Checkpoint.at(path))


def test_tensors_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    values = json.loads(SPEC.to_text()) | {"network": "cnn-small"}
    save_file({"w": torch.zeros(1)}, path, metadata={"edgeproof.network": json.dumps(values)})
    with pytest.raises(UsageError, match="expected the tensors of the network") as caught:
        load_checkpoint(Checkpoint.at(path))
    assert len(str(caught.value)) < 450 + len(str(path))  # PyTorch's own message names every tensor
    values["network"] = "alexnet"
    save_file({"w": torch.zeros(1)}, path, metadata={"edgeproof.network": json.dumps(values)})
    with pytest.raises(UsageError, match="alexnet"):
        load_checkpoint(Checkpoint.at(path))


@pytest.mark.parametrize(("network", "least"), [("vgg11", 32), ("densenet121", 29), ("lenet5", 28)])
def test_images_that_leave_nothing_to_the_last_layer_are_refused(network, least):
    spec = NetworkSpec(network, ("a", "b"), 1, least - 1, (0.4,), (0.3,), None)
    with pytest.raises(UsageError, match=rf"{network}.*at least {least} pixels, found {least - 1}.*data\.image_size"):
        spec.build(seed=0)
