"""A configuration says what it means, and every mistake in one gets a sentence that mends it."""

import json
import re
import textwrap
from itertools import pairwise

import jsonschema
import pytest
import yaml

from calibration_data.datasets import DATASETS
from foundation.errors import UsageError
from pipeline.configuration import json_schema
from pipeline.configuration_file import parse_configuration, read_configuration
from pipeline.template import commented_configuration, starting_text, write_new
from stages.compilers import COMPILERS

SMALL = """
name: small
data:
  source: {name: digits}
  channels: 1
variants:
  static-int8: {method: static}
gates:
  - {metric: accuracy, variant: static-int8, at_least: 0.9}
"""

LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghijkl"))


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        path = tmp_path / "c.yaml"
        path.write_text(textwrap.dedent(text))
        return read_configuration(path)

    return read_text


def test_defaults_fill_what_is_left_out(read):
    configuration = read(SMALL)
    assert configuration.model.train.network == "cnn-medium"
    assert configuration.model.train.pact.alpha_init == 10.0
    assert configuration.validation.accuracy.batch_size == 1
    assert configuration.as_json()["variants"]["static-int8"]["calibration"] == "minmax"


def test_identity_follows_the_meaning_not_the_spelling(read):
    first = read(SMALL)
    assert read(SMALL + "\ntrain: {network: cnn-medium}\n").sha256 == first.sha256
    assert read(SMALL + "\ntrain: {epochs: 3}\n").sha256 != first.sha256
    stricter = read(SMALL.replace("0.9", "0.95"))
    assert stricter.gates_sha256 != first.gates_sha256
    assert len(first.gates_sha256) == 64


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("1E2", 100.0), (".5", 0.5), ("+2.", 2.0), ("3", 3.0)])
def test_numbers_are_read_as_yaml_1_2_writes_them(read, text, value):
    assert read(SMALL + f"\ntrain: {{learning_rate: {text}}}\n").model.train.learning_rate == value


def test_a_home_of_nobody_stays_as_it_is_written(read, tmp_path):
    configuration = read("name: x\ndata: {source: {name: folder, root: ~nobody-at-all/images}}")
    assert configuration.data.source.root == tmp_path / "~nobody-at-all" / "images"


def test_where_the_images_lie_is_no_part_of_the_identity(read):
    one, other = (read(f"name: x\ndata: {{source: {{name: folder, root: {root}}}}}") for root in ("a", "b"))
    assert one.sha256 == other.sha256


def test_paths_are_relative_to_the_configuration(read, tmp_path):
    configuration = read("name: x\ndata: {source: {name: folder, root: images}}")
    assert configuration.data.source.root == tmp_path / "images"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\ndata: {source: {name: digits}, chanels: 1}", r"`data\.chanels` is no key.*`channels`"),
        (SMALL + "\ntrain: {epocs: 3}", r"`train\.epocs` is no key.*`epochs`"),
        (SMALL.replace("method: static", "method: static, calibratoin: minmax"), r"calibratoin.*`calibration`"),
        (SMALL + "\ntrain: {epochs: many}", r'`train\.epochs`: .*integer.*found "many"'),
        (SMALL + "\ntrain: {epochs: -1}", r"`train\.epochs`: .*greater than or equal to 0.*found -1"),
        (SMALL + "\ntrain: {network: alexnet}", r"`train\.network`: expected one of cnn-small.*alexnet"),
        (SMALL.replace("variant: static-int8", "variant: statik"), r"'statik'.*static-int8"),
        (SMALL.replace("metric: accuracy", "metric: acuracy"), r"acuracy.*did you mean 'accuracy'"),
        (
            SMALL.replace("method: static", "method: pact") + "\ntrain: {pact: null}",
            r"train\.pact is null; set train\.pact",
        ),
        (SMALL.replace("static-int8: {", "fp32: {"), r"'fp32' cannot name a variant"),
        (SMALL.replace("static-int8: {", "../evil: {"), r"'\.\./evil' cannot name a variant"),
        (SMALL.replace("name: digits", "name: digit"), "digit"),
        (SMALL.replace("method: static", "method: magic"), "magic"),
        (SMALL.replace("name: small", "name: ../up"), "`name`"),
        ("data: {source: {name: digits}}", r"`name` is missing"),
        ("name: x", r"`data` is missing"),
        ("- just\n- a list", "expected keys and values, found list"),
        ("", "expected keys and values"),
        ("name: [unclosed", "expected YAML"),
        ("name: x\nname: y", r"line 2, column 1: the key 'name' stands twice"),
        ("name: !!python/object/apply:os.system ['true']", "expected YAML"),
        ("name: !!timestamp 2026-01-01\ndata: {source: {name: digits}}", "found a date"),
        (
            'name: "\\e[31mred"',
            r"line 1, column 7: .*'\\x1b\[31mred', which holds .* cannot be shown",
        ),
        (SMALL + "\ntrain: {epochs: 1000000000000}", r"`train\.epochs`: .*less than or equal to 100000"),
        (SMALL + "\ntrain: {seed: 4294967296}", r"`train\.seed`: .*less than or equal to 4294967295"),
        ("name: !!int five", "invalid literal for int"),
        ("name: " + "9" * 5000, "expected YAML.*digits"),
        ("a: &a [*a]", r"line 1, column 8: found the alias '\*a'; write out"),
        (LAUGHS, r"found the alias '\*a'"),
        (SMALL + "\ntrain: {learning_rate: .nan}", r'`train\.learning_rate`: .*found "\.nan"'),
        (SMALL + "\ntrain: {learning_rate: 1.0e+309}", r"`train\.learning_rate`: .*finite number"),
        (SMALL + "\ntrain: {epochs: 1:30}", r'`train\.epochs`: .*integer, found "1:30"'),
        (SMALL + "\ntrain: {epochs: 010}", r'`train\.epochs`: .*integer, found "010"'),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key_and_the_mend(read, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read(text)
    first, *others = str(caught.value).splitlines()
    assert not others or first.endswith(f"{len(others)} mistakes:")
    assert str(caught.value).startswith(("c.yaml", "/"))


@pytest.mark.parametrize(
    ("validation", "gate", "message"),
    [
        (
            "{}",
            "metric: robust_accuracy",
            r"gates\.1: a gate wants robust_accuracy, and validation\.robustness is null",
        ),
        (
            "{robustness: {}}",
            "metric: robust_accuracy, change: jpeg 9",
            r"the change 'jpeg 9'; there are jpeg 1, jpeg 2",
        ),
        ("{}", "metric: ppv_at_threshold/3", r"wants ppv_at_threshold/3, and validation\.operating_points is null"),
        (
            "{operating_points: {classes: ['4']}}",
            "metric: ppv_at_threshold/3",
            r"wants ppv_at_threshold/3, and validation\.operating_points\.classes has 4",
        ),
        ("{}", "metric: max_sensitivity", r"max_sensitivity, and validation\.saliency\.sensitivity_samples is 0"),
        ("{}", "metric: cascade_spearman", r"wants cascade_spearman, and validation\.saliency\.sanity_cascade is 0"),
        ("{}", "metric: completeness_error", r"validation\.saliency\.methods lacks integrated_gradients"),
    ],
)
def test_a_gate_on_what_is_not_asked_for_is_refused_before_the_run(read, validation, gate, message):
    text = f"{SMALL}  - {{{gate}, variant: fp32, at_least: 0.5}}\nvalidation: {validation}\n"
    with pytest.raises(UsageError, match=message):
        read(text)


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(UsageError, match=r"no such file.*edgeproof init"):
        read_configuration(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="readable text"):
        read_configuration(tmp_path)
    binary = tmp_path / "image.yaml"
    binary.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UsageError, match="readable text"):
        read_configuration(binary)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * 1_000_001)
    with pytest.raises(UsageError, match="1000000 bytes"):
        read_configuration(large)


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_starting_configuration_is_valid_for_every_data_set(dataset, read):
    text = commented_configuration("mine", dataset, None)
    configuration = read(text)
    assert configuration.data.source.name == dataset
    assert set(configuration.variants) == {"fp16", "dynamic-int8", "static-int8", "inc-int8", "pact-int8"}
    # What it spells out is what leaving it out means.
    bare = {key: yaml.safe_load(text)[key] for key in ("name", "variants", "gates")}
    spelled = yaml.safe_load(text)["data"]["source"]
    required = {key for key, field in DATASETS[dataset].settings.model_fields.items() if field.is_required()}
    source = {key: value for key, value in spelled.items() if key in {"name", *required}}
    minimal = read(json.dumps({**bare, "data": {"source": source}}))
    assert minimal.sha256 == configuration.sha256
    assert max(len(line) for line in text.splitlines()) <= 120


def test_a_starting_configuration_overwrites_nothing(tmp_path):
    path = tmp_path / "c.yaml"
    write_new(path, "first")
    with pytest.raises(UsageError, match="already a file"):
        write_new(path, "second")
    assert path.read_text() == "first"
    with pytest.raises(UsageError, match=r"--dataset.*folder"):
        starting_text("x", "imagenet", None, schema=False)


def test_the_schema_accepts_the_examples_and_refuses_an_unknown_key(read):
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    values = yaml.safe_load(commented_configuration("mine", "folder", "images"))
    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "trian": {}}, schema)
    text = json.dumps(schema)
    assert all(f'"{method}"' in text for method in (*COMPILERS, *DATASETS))


def test_the_published_schema_is_this_one(request):
    published = request.config.rootpath / "docs" / "configuration.schema.json"
    assert json.loads(published.read_text()) == json_schema(), "write it again: edgeproof init --schema > docs/…"


def test_values_that_are_no_json_are_refused(tmp_path):
    with pytest.raises(UsageError, match="here: "):
        parse_configuration({"name": object()}, "here", tmp_path)


def test_a_gate_on_a_saliency_method_that_is_not_measured_is_refused(read):
    gate = "  - {metric: saliency_spearman, variant: static-int8, at_least: 0.9, method: rise}\n"
    with pytest.raises(
        UsageError, match=r"wants saliency by 'rise', and validation\.saliency\.methods has occlusion"
    ):
        read(SMALL + gate)
    measured = SMALL + gate + "validation:\n  saliency: {methods: [occlusion, rise]}\n"
    assert read(measured).gates[1].method == "rise"


def test_all_mistakes_are_told_at_once(read):
    text = "name: x\ndata: {source: {name: digits}, chanels: 1}\ntrain: {epochs: many, network: alexnet}\ngates: [{}]"
    with pytest.raises(UsageError) as caught:
        read(text)
    first, *others = str(caught.value).splitlines()
    assert first.endswith("5 mistakes:")
    keys = ["data.chanels", "train.network", "train.epochs", "gates.0.metric", "gates.0.variant"]
    assert sorted(re.match(r"  - `([\w.]+)`", line)[1] for line in others) == sorted(keys)


def test_mistakes_between_the_parts_are_told_at_once(read):
    text = SMALL.replace("method: static", "method: pact").replace("variant: static-int8", "variant: statik")
    with pytest.raises(UsageError, match=r"2 mistakes:\n.*'statik'.*\n.*train\.pact is null") as caught:
        read(text + "\ntrain: {pact: null}")
    assert "`the configuration`" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {}", "exactly one of train, torch and onnx, found none"),
        ("model: {train: {}, onnx: {path: a.onnx}}", "found train and onnx"),
        ("model: {train: {}}\ntrain: {}", "`train` and `model` both say"),
        ("model: {onnx: {path: a.onnx, scale: 2}}", r"`model\.onnx\.scale`"),
        ("model: {torch: {network: resnet20, weights: a.pt}}", "data.mean and data.std are null"),
        ("model: {onnx: {path: a.onnx}}\nvariants: {p: {method: pact}}", "the model comes from elsewhere"),
        ("variants: {v: {method: given}}", r"`variants\.v\.given\.path` is missing"),
    ],
)
def test_a_model_comes_through_one_door(read, text, message):
    with pytest.raises(UsageError, match=message):
        read(f"name: x\ndata: {{source: {{name: digits}}}}\n{text}")


def test_train_alone_is_short_for_a_trained_model(read):
    head = "name: x\ndata: {source: {name: digits}}\n"
    short, long = read(head + "train: {epochs: 3}"), read(head + "model: {train: {epochs: 3}}")
    assert short == long
    assert short.sha256 == long.sha256
