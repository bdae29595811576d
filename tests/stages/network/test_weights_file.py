"""Files of weights: every usual form is read, nothing but tensors is let in."""

import argparse
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from foundation.errors import UsageError
from stages.network import weights_file
from stages.network.weights_file import read_weights

TENSORS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


class RunsACommand:
    """What a hostile pickle holds."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def assert_same(found):
    assert list(found) == list(TENSORS)
    assert all(torch.equal(found[key], value) for key, value in TENSORS.items())


def test_safetensors_are_known_by_their_content(tmp_path):
    save_file(TENSORS, tmp_path / "weights.bin")
    found = read_weights(tmp_path / "weights.bin")
    assert {key: value.tolist() for key, value in found.items()} == {k: v.tolist() for k, v in TENSORS.items()}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"state_dict": tensors, "epoch": 3, "best_prec1": 92.6},
        lambda tensors: {"model": {"model_state_dict": tensors}, "optimizer": {"lr": 0.1}},
        lambda tensors: {"net": tensors},
        lambda tensors: {"ema": tensors, "step": torch.tensor(5)},
    ],
    ids=["bare", "state_dict", "nested", "net", "ema"],
)
def test_torch_checkpoints_are_read_in_their_usual_forms(tmp_path, wrap, zipped):
    torch.save(wrap(TENSORS), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert_same(read_weights(tmp_path / "w.pt"))


def test_trained_weights_go_before_their_average(tmp_path):
    torch.save({"ema": {"w": torch.zeros(1)}, "model": {"w": torch.ones(1)}}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt")["w"].item() == 1


def test_a_checkpoint_that_holds_itself_ends(tmp_path):
    content: dict[str, object] = {"w": torch.ones(1)}
    content["model"] = content
    torch.save(content, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt")["w"].item() == 1


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"state_dict": TENSORS, "args": argparse.Namespace(lr=0.1)}, r"argparse\.Namespace"),
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_python_objects_are_refused_with_the_reason_and_the_way_out(tmp_path, content, named):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=rf"w\.pt: .*Python objects \({named}\).*would run code.*state_dict\(\)"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("by_torch", [True, False])
def test_a_pickle_with_a_command_is_refused_and_not_run(tmp_path, protocol, by_torch):
    trace = tmp_path / "trace"
    path = tmp_path / "w.pt"
    if by_torch:
        torch.save(RunsACommand(f"touch {trace}"), path, pickle_protocol=protocol)
    else:
        path.write_bytes(pickle.dumps(RunsACommand(f"touch {trace}"), protocol=protocol))
    with pytest.raises(UsageError, match=r"w\.pt: expected"):
        read_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"x", b"these are no weights", b"PK\x03\x04 torn", b"\xff" * 7 + b"\x7f{}"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UsageError, match=r"w\.pt: expected safetensors or a torch checkpoint"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_torn_checkpoint_is_refused(tmp_path, zipped, share):
    path = tmp_path / "w.pt"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UsageError, match=r"w\.pt: expected"):
        read_weights(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(UsageError, match="found nothing"):
        read_weights(tmp_path / "absent.pt")
    with pytest.raises(UsageError, match="found a folder"):
        read_weights(tmp_path)


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "w.safetensors").open("wb") as stream:
        stream.truncate(weights_file.MAX_BYTES + 1)  # sparse: it takes no room
    with pytest.raises(UsageError, match=r"expected weights of 4294967296 bytes at most, found 4294967297"):
        read_weights(tmp_path / "w.safetensors")


def test_a_zip_that_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_file, "MAX_BYTES", 1_000_000)
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2_000_000)
    assert (tmp_path / "w.pt").stat().st_size < 5_000
    with pytest.raises(UsageError, match=r"found 2000000\."):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "x" * 501, 7])
def test_names_that_a_report_could_not_show_are_refused(tmp_path, name):
    torch.save({name: torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(UsageError, match="500 printable characters"):
        read_weights(tmp_path / "w.pt")
