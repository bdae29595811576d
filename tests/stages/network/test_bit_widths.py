"""Which layer gets how many bits, and which patterns are refused."""

import pytest

from foundation.errors import UsageError
from stages.network.bit_widths import Bits, bits_of_layers
from stages.network.settings import LayerBits, PactSettings

NAMES = ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "fc"]


def bits(layer_bits, **settings):
    return bits_of_layers(NAMES, PactSettings(weight_bits=4, activation_bits=3, layer_bits=layer_bits, **settings))


def test_without_patterns_all_but_first_and_last_have_the_networks_bits():
    edge, inner = Bits(8, 8), Bits(4, 3)
    assert list(bits({}).values()).count(inner) == 3
    assert bits({})["conv1"] == bits({})["fc"] == edge


def test_a_pattern_changes_what_it_says_of_the_layers_it_names():
    found = bits({"layer1.*": LayerBits(weight_bits=2)})
    assert found["layer1.0.conv1"] == found["layer1.0.conv2"] == Bits(2, 3)
    assert found["layer2.0.conv1"] == Bits(4, 3)


def test_the_longest_pattern_holds_whatever_the_order():
    patterns = {"*": LayerBits(weight_bits=8), "layer1.*.conv2": LayerBits(weight_bits=2, activation_bits=2)}
    for order in (patterns, dict(reversed(patterns.items()))):
        found = bits(order)
        assert found["layer1.0.conv2"] == Bits(2, 2)
        assert found["layer1.0.conv1"] == Bits(8, 3)
        assert found["conv1"] == Bits(8, 8)  # "*" names it as well, but the first layer stays as it is


@pytest.mark.parametrize("pattern", ["layer3.*", "conv1", "fc"])
def test_a_pattern_that_can_change_nothing_is_refused_with_the_layers_there_are(pattern):
    with pytest.raises(UsageError, match=r"layer1\.0\.conv1, layer1\.0\.conv2, layer2\.0\.conv1\."):
        bits({pattern: LayerBits(weight_bits=2)})


def test_two_patterns_of_one_length_for_one_layer_are_refused():
    with pytest.raises(UsageError, match="equally long"):
        bits({"layer1.*": LayerBits(weight_bits=2), "*0.conv1": LayerBits(weight_bits=3)})


def test_a_network_of_one_layer_has_only_an_edge():
    assert bits_of_layers(["fc"], PactSettings(weight_bits=2)) == {"fc": Bits(8, 8)}
