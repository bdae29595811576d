"""The user's own network: its name, its import, its mistakes; nothing runs that the configuration does not name."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from foundation.artifacts import Checkpoint
from foundation.errors import UsageError
from stages.network import PactSettings, build_network, check_network_name
from stages.network.checkpoint import NetworkSpec, load_checkpoint, save_checkpoint
from stages.network.custom import custom_source_sha256

NETS = """
import torch
from pathlib import Path
Path(__file__).with_name("imported").touch()

def build(channels, classes):
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, classes),
    )

def fails(channels, classes):
    raise RuntimeError("no weights today")

def gives_text(channels, classes):
    return "network"

def gives_features(channels, classes):
    return torch.nn.Conv2d(channels, classes, 3, padding=1)

def wants_rgb(channels, classes):
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten())

not_a_function = 3
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `userpkg` with a module `nets`, importable for one test."""
    folder = tmp_path / "userpkg"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "userpkg"]:
        del sys.modules[name]


def spec(network: str, pact: PactSettings | None = None) -> NetworkSpec:
    return NetworkSpec(network, ("a", "b", "c"), 1, 12, (0.4,), (0.3,), pact)


@pytest.mark.parametrize("name", ["resnet20", "nets:build", "my_package.nets:build", "_a.b2.c:_f"])
def test_rows_and_module_function_are_names(name):
    check_network_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "alexnet", "nets", "nets:", ":build", "nets:build()", "../nets:build", "a..b:c", "1a:b", "a:b:c", "ä:b"],
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=r"expected one of cnn-small.*module:function"):
        check_network_name(name)


def test_checking_a_name_imports_nothing(package):
    check_network_name("userpkg.nets:build")
    assert not (package / "imported").exists()


def test_is_built_with_channels_classes_and_the_seed(package):
    first, again, other = (build_network("userpkg.nets:build", 1, 3, seed).state_dict() for seed in (0, 0, 1))
    assert first["0.weight"].shape == (4, 1, 3, 3)
    assert first["5.weight"].shape == (3, 4)
    assert torch.equal(first["0.weight"], again["0.weight"])
    assert not torch.equal(first["0.weight"], other["0.weight"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_at_all:build", r"expected a module 'nowhere_at_all'.*No module named.*PYTHONPATH"),
        ("userpkg.broken:build", r"expected a module 'userpkg\.broken'.*SyntaxError"),
        ("userpkg.nets:absent", r"expected a function 'absent' in userpkg\.nets, found nothing"),
        ("userpkg.nets:not_a_function", r"expected a function 'not_a_function'.*found int"),
        ("userpkg.nets:fails", r"failed with RuntimeError: no weights today"),
        ("userpkg.nets:gives_text", r"expected a torch\.nn\.Module.*found str"),
        ("userpkg.nets:gives_features", r"expected logits \[2, 3\].*found \[2, 3, 12, 12\]"),
        ("userpkg.nets:wants_rgb", r"failed with RuntimeError.*\[2, 1, 12, 12\]"),
    ],
)
def test_a_mistake_is_named_with_the_key(package, name, message):
    (package / "broken.py").write_text("def build(:\n")
    with pytest.raises(UsageError, match=r"(?s)train\.network: .*" + message):
        spec(name).build(seed=0)


def test_trying_a_network_leaves_its_mode_and_statistics_alone(package):
    built, plain = spec("userpkg.nets:build").build(seed=0), build_network("userpkg.nets:build", 1, 3, seed=0)
    assert built.training
    assert all(torch.equal(built.state_dict()[key], value) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("pact", [None, PactSettings()])
def test_a_checkpoint_comes_back_for_the_configuration_that_names_the_network(package, tmp_path, pact):
    network = spec("userpkg.nets:build", pact).build(seed=3)
    checkpoint = save_checkpoint(tmp_path / "a.safetensors", spec("userpkg.nets:build", pact), network)
    found, loaded = load_checkpoint(checkpoint)
    images = torch.randn(2, 1, 12, 12)
    assert found.network == "userpkg.nets:build"
    assert torch.equal(loaded(images), network.eval()(images))


@pytest.mark.parametrize("allowed", [None, "resnet8", "userpkg.other:build"])
def test_a_checkpoint_cannot_have_code_run_that_the_configuration_does_not_name(package, tmp_path, allowed):
    path = tmp_path / "foreign.safetensors"
    own = spec("resnet8")
    tensors = load_file(save_checkpoint(path, own, own.build(seed=0)).path)
    values = json.loads(own.to_text()) | {"network": "userpkg.nets:build"}
    save_file(tensors, path, metadata={"edgeproof.network": json.dumps(values)})
    with pytest.raises(UsageError, match=r"found 'userpkg\.nets:build'.*would run that module's code"):
        load_checkpoint(Checkpoint.at(path, allowed))
    assert not (package / "imported").exists()
    assert "userpkg" not in sys.modules


def test_another_source_is_another_identity_and_is_not_run(package):
    before = custom_source_sha256("userpkg.nets:build")
    assert before == custom_source_sha256("userpkg.nets:fails")
    (package / "layers.py").write_text("width = 8\n")
    after = custom_source_sha256("userpkg.nets:build")
    (package / "layers.py").write_text("width = 9\n")
    assert len({before, after, custom_source_sha256("userpkg.nets:build")}) == 3
    assert not (package / "imported").exists()


def test_the_identity_of_a_missing_package_is_refused():
    with pytest.raises(UsageError, match="expected a module 'nowhere_at_all', found none"):
        custom_source_sha256("nowhere_at_all.nets:build")
