"""What the settings of quantization-aware training refuse, and the defaults that depend on the quantizer."""

import pytest
from pydantic import ValidationError

from stages.network.settings import PactSettings


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, 2e-4), ({"activation_quantizer": "lsq"}, 0.0), ({"activation_quantizer": "lsq", "alpha_l2": 0.1}, 0.1)],
)
def test_only_pacts_clips_decay_unless_told(chosen, expected):
    assert PactSettings(**chosen).clip_l2(2e-4) == expected


@pytest.mark.parametrize(
    "wrong",
    [{"weight_bits": 1}, {"weight_quantizer": "ternary"}, {"layer_bits": {"a": {"bits": 2}}}, {"activation_bits": 9}],
)
def test_what_no_quantizer_offers_is_refused(wrong):
    with pytest.raises(ValidationError):
        PactSettings(**wrong)


def test_layer_bits_survive_the_way_through_json():
    settings = PactSettings(layer_bits={"layer2.*": {"weight_bits": 2}, "a": {"activation_bits": 3}})
    assert PactSettings(**settings.model_dump(mode="json")) == settings
