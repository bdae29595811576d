"""Pretrained weights: what fits is loaded, what does not is listed, published networks score what they should."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from foundation.errors import UsageError
from stages.network import PactSettings, build_network
from stages.network.checkpoint import NetworkSpec
from stages.network.normalisation import normalise
from stages.network.pretrained import ShapeMismatch, build_pretrained, load_pretrained

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
PUBLISHED = DATA / "models" / "resnet_cifar10"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def saved(path, network_name="resnet8", channels=3, classes=10, seed=1):
    network = build_network(network_name, channels, classes, seed)
    torch.save({"state_dict": network.state_dict()}, path)
    return network


def renamed(path, rename):
    torch.save({rename(k): v for k, v in build_network("resnet8", 3, 10, seed=1).state_dict().items()}, path)


def same(first, second, but=()):
    pairs = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for (key, a), b in pairs if key not in but)


def test_every_tensor_of_a_fitting_file_is_loaded(tmp_path):
    source, network = saved(tmp_path / "w.pt"), build_network("resnet8", 3, 10, seed=0)
    report = load_pretrained(network, tmp_path / "w.pt")
    assert same(source, network)
    # 7 convolutions, 7 batch norms of 4 tensors (without their counter), 1 linear layer of 2.
    assert len(report.loaded) == 7 + 28 + 2
    assert (report.missing, report.unexpected, report.mismatched, report.summed) == ((), (), (), None)
    assert report.text() == "w.pt: 37 of the network's 37 tensors loaded"


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "_orig_mod.", "network.", "module._orig_mod."])
def test_the_prefixes_of_wrappers_are_taken_off(tmp_path, prefix):
    renamed(tmp_path / "w.pt", lambda key: prefix + key)
    network = build_network("resnet8", 3, 10, seed=0)
    load_pretrained(network, tmp_path / "w.pt")
    assert same(network, build_network("resnet8", 3, 10, seed=1))


def test_a_network_may_have_the_prefix_itself(tmp_path):
    saved(tmp_path / "w.pt")
    wrapped = torch.nn.Sequential()
    wrapped.add_module("backbone", build_network("resnet8", 3, 10, seed=0))
    assert len(load_pretrained(wrapped, tmp_path / "w.pt").loaded) == 37


def test_of_two_tensors_for_one_place_the_one_of_the_same_name_is_taken(tmp_path):
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.save({"module.weight": torch.tensor([[1.0]]), "weight": torch.tensor([[2.0]])}, tmp_path / "w.pt")
    report = load_pretrained(layer, tmp_path / "w.pt")
    assert layer.weight.item() == 2
    assert report.unexpected == ("module.weight",)


def test_the_head_of_other_classes_is_listed_and_keeps_its_initial_weights(tmp_path):
    saved(tmp_path / "w.pt", classes=10)
    network, initial = (build_network("resnet8", 3, 4, seed=0) for _ in range(2))
    report = load_pretrained(network, tmp_path / "w.pt")
    assert report.mismatched == (
        ShapeMismatch("linear.weight", (10, 64), (4, 64)),
        ShapeMismatch("linear.bias", (10,), (4,)),
    )
    assert torch.equal(network.linear.weight, initial.linear.weight)
    assert len(report.loaded) == 35
    assert "linear.weight (file 10×64, network 4×64)" in report.text()


def test_the_heads_of_vgg_s_published_form_have_no_place(tmp_path):
    source = build_network("vgg11", 3, 10, seed=1)
    tensors = {key: value for key, value in source.state_dict().items() if key.startswith("features.")}
    tensors |= {f"classifier.{number}.{kind}": torch.ones(2) for number in (0, 3, 6) for kind in ("weight", "bias")}
    save_file(tensors, tmp_path / "w.safetensors")
    network = build_network("vgg11", 3, 10, seed=0)
    report = load_pretrained(network, tmp_path / "w.safetensors")
    assert report.missing == ("classifier.weight", "classifier.bias")
    assert len(report.unexpected) == 6
    assert torch.equal(network.features[0].weight, source.features[0].weight)


def test_colour_weights_see_a_gray_image_as_they_would_in_three_channels(tmp_path):
    source, network = saved(tmp_path / "w.pt").eval(), build_network("resnet8", 1, 10, seed=0).eval()
    report = load_pretrained(network, tmp_path / "w.pt")
    gray = torch.randn(2, 1, 20, 20)
    assert report.summed == "conv1.weight"
    assert "conv1.weight: the file's three colour channels summed" in report.text()
    assert torch.allclose(network(gray), source(gray.expand(-1, 3, -1, -1)), atol=1e-5)


def test_gray_weights_for_colour_images_are_listed(tmp_path):
    saved(tmp_path / "w.pt", channels=1)
    report = load_pretrained(build_network("resnet8", 3, 10, seed=0), tmp_path / "w.pt")
    assert report.mismatched == (ShapeMismatch("conv1.weight", (16, 1, 3, 3), (16, 3, 3, 3)),)


def test_densenet_s_first_names_and_medmnist_s_resnet_names_are_known(tmp_path):
    def with_dots(key: str) -> str:
        for kind in ("norm1", "conv1", "norm2", "conv2"):
            key = key.replace(f".{kind}.", f".{kind[:-1]}.{kind[-1]}.") if "denselayer" in key else key
        return key

    dense = build_network("densenet121", 1, 2, seed=1)
    torch.save({with_dots(key): value for key, value in dense.state_dict().items()}, tmp_path / "dense.pt")
    loaded = build_network("densenet121", 1, 2, seed=0)
    assert load_pretrained(loaded, tmp_path / "dense.pt").unexpected == ()
    assert same(dense, loaded)

    small = build_network("resnet18-small", 1, 2, seed=1).state_dict()
    old = {key.replace("downsample", "shortcut").replace("fc.", "linear."): value for key, value in small.items()}
    assert any("shortcut" in key for key in old)
    torch.save({"net": old}, tmp_path / "small.pt")
    report = load_pretrained(build_network("resnet18-small", 1, 2, seed=0), tmp_path / "small.pt")
    assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())


def test_half_precision_becomes_float32(tmp_path):
    torch.save({"weight": torch.full((2, 1), 0.5, dtype=torch.float16)}, tmp_path / "w.pt")
    layer = torch.nn.Linear(1, 2)
    report = load_pretrained(layer, tmp_path / "w.pt")
    assert layer.weight.dtype == torch.float32
    assert layer.weight.flatten().tolist() == [0.5, 0.5]
    assert report.missing == ("bias",)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.tensor([[float("nan")]]), "expected finite numbers in weight"),
        (torch.tensor([[1e300]], dtype=torch.float64), "expected finite numbers in weight"),
        (torch.ones(1, 1, dtype=torch.int8), "expected plain floating-point numbers in weight, found int8"),
        (torch.ones(1, 1).to_sparse(), "expected plain floating-point numbers in weight, found float32.*sparse"),
        (torch.empty(1, 1, device="meta"), "expected plain floating-point numbers in weight.*meta"),
    ],
)
def test_weights_that_are_no_finite_numbers_are_refused_and_nothing_is_changed(tmp_path, weight, message):
    torch.save({"bias": torch.full((1,), 7.0), "weight": weight}, tmp_path / "w.pt")
    layer = torch.nn.Linear(1, 1)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    with pytest.raises(UsageError, match=message):
        load_pretrained(layer, tmp_path / "w.pt")
    assert all(torch.equal(layer.state_dict()[key], value) for key, value in before.items())


def test_foreign_weights_are_refused_with_names_of_both_sides(tmp_path):
    torch.save({"encoder.a": torch.ones(1), "encoder.b": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=r"none that fits.*encoder\.a, encoder\.b.*conv1\.weight, bn1\.weight"):
        load_pretrained(build_network("resnet8", 3, 10, seed=0), tmp_path / "w.pt")
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(UsageError, match="found no tensor"):
        load_pretrained(build_network("resnet8", 3, 10, seed=0), tmp_path / "w.pt")


def test_counters_alone_are_no_weights(tmp_path):
    tensors = build_network("resnet8", 3, 10, seed=0).state_dict()
    torch.save({k: v for k, v in tensors.items() if k.endswith("num_batches_tracked")}, tmp_path / "w.pt")
    with pytest.raises(UsageError, match="none that fits"):
        load_pretrained(build_network("resnet8", 3, 10, seed=0), tmp_path / "w.pt")


def test_the_list_of_a_large_mistake_stays_short(tmp_path):
    saved(tmp_path / "w.pt", "resnet20")
    text = load_pretrained(build_network("resnet56", 3, 10, seed=0), tmp_path / "w.pt").text()
    # 36 further convolutions of 1 tensor and as many batch norms of 4.
    assert "180 not in the file, kept at their initial values: layer1.3.conv1.weight" in text
    assert "and 170 more" in text


def test_pact_is_put_into_the_pretrained_network(tmp_path):
    source = saved(tmp_path / "w.pt").eval()
    eight_bits = PactSettings(weight_bits=8, activation_bits=8)
    spec = NetworkSpec("resnet8", tuple("abcdefghij"), 3, 16, *IMAGENET, eight_bits)
    network, report = build_pretrained(spec, 0, tmp_path / "w.pt")
    assert len(report.loaded) == 37
    first = next(module for name, module in network.named_modules() if name == "layer_0")
    assert torch.equal(first.original_weight, source.conv1.weight)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published CIFAR-10 weights are not at hand")
class TestPublishedWeights:
    @pytest.mark.parametrize(
        ("name", "file", "tensors"),
        [("resnet20", "resnet20-12fca82f.th", 97), ("resnet56", "resnet56-4bfd9763.th", 277)],
    )
    def test_load_completely(self, name, file, tensors):
        report = load_pretrained(build_network(name, 3, 10, seed=0), PUBLISHED / file)
        assert len(report.loaded) == tensors
        assert (report.missing, report.unexpected, report.mismatched) == ((), (), ())

    def test_score_on_their_own_training_images_what_they_should(self):
        from PIL import Image

        folder = DATA / "cifar10" / "lossless_first4000"
        rows = np.array(Image.open(folder / "cifar10_batch_0.png"))
        images = torch.from_numpy(rows.reshape(1000, 32, 32, 3).transpose(0, 3, 1, 2).copy())
        labels = torch.from_numpy(np.loadtxt(folder / "labels.txt", dtype=np.int64)[:1000])
        network = build_network("resnet20", 3, 10, seed=0)
        load_pretrained(network, PUBLISHED / "resnet20-12fca82f.th")
        with torch.no_grad():
            found = network.eval()(normalise(images, *IMAGENET)).argmax(1)
        # 99.8 % of all 4,000 (3,992); of the first 1,000 all but one. One more or less is a tie in float32.
        assert (found == labels).sum().item() == pytest.approx(999, abs=1)
