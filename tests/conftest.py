"""Small prepared images that every room's tests can train on and measure with."""

import json
import os
import sys
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path

# One thread per process, set before torch is imported: the test files share the cores, and threads that wait for
# each other across processes cost far more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from small_models import corner_model, make_model, make_split  # noqa: F401 (fixtures)

from calibration_data.prepared import PreparedData, PreparedSplit

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("edgeproof", deadline=None)
hypothesis.settings.load_profile("edgeproof")


def pytest_collection_modifyitems(items):
    """Begin with the files that hold the most long tests, so that no core waits for one at the end."""
    long_ones = Counter(item.path for item in items if item.get_closest_marker("long"))
    items.sort(key=lambda item: -long_ones[item.path])


def striped_split(count: int, seed: int, channels: int = 1, size: int = 16) -> PreparedSplit:
    """Three classes of noisy stripes: horizontal, vertical, diagonal; the left half is the "lesion"."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    waves = np.stack([np.sin(rows), np.sin(columns), np.sin((rows + columns) / 1.4)])
    labels = np.arange(count) % 3
    images = 128 + 60 * waves[labels][:, None] + generator.normal(0, 25, (count, channels, size, size))
    masks = np.zeros((count, size, size), dtype=bool)
    masks[:, :, : size // 2] = True
    return PreparedSplit(
        images=images.clip(0, 255).astype(np.uint8),
        labels=labels.astype(np.int64),
        masks=masks,
        has_mask=np.ones(count, dtype=bool),
        mask_class=np.full(count, -1),
        image_ids=tuple(f"{seed}/{i}" for i in range(count)),
        groups=tuple(f"{seed}/{i}" for i in range(count)),
        subgroups=((),) * count,
        sha256=tuple(f"{seed:032d}{i:032d}" for i in range(count)),
    )


@pytest.fixture(scope="session")
def stripes() -> PreparedData:
    """Gray stripes, 16 px, three classes: 120 training, 30 validation, 60 test images."""
    return PreparedData(
        dataset="stripes",
        classes=("horizontal", "vertical", "diagonal"),
        mean=(0.5,),
        std=(0.2,),
        synthetic=True,
        skipped=(),
        sha256="0" * 64,
        train=striped_split(120, 1),
        validation=striped_split(30, 2),
        test=striped_split(60, 3),
    )


@pytest.fixture(scope="session", autouse=True)
def nobody_else_on_this_host(tmp_path_factory):
    """Let tests that run side by side not wait for each other's times."""
    folder = tmp_path_factory.mktemp("host")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foundation.host_lock.cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def every_report_is_valid():
    """Hold every `report.json` that a test makes against the published schema."""
    from reports import report_json

    schema = Path(__file__).resolve().parents[1] / "docs" / "report.schema.json"
    validator = Draft202012Validator(json.loads(schema.read_text(encoding="utf-8")))
    render = report_json.render

    def render_and_validate(facts):
        text = render(facts)
        validator.validate(json.loads(text))
        return text

    report_json.render = render_and_validate
    yield
    report_json.render = render


@pytest.fixture(autouse=True)
def exporter_reads_its_operators_once():
    """Let PyTorch's exporter parse the source of its 500 operators once a process: a third of every small export.

    Nothing is imported for it, so that what exports nothing waits for nothing.
    """
    registration = sys.modules.get("torch.onnx._internal.exporter._registration")
    if registration is not None:
        with suppress(AttributeError):  # its own internals, which other versions may name otherwise
            apis = registration.onnxscript_apis
            if not hasattr(apis.get_torchlib_ops, "cache_info"):
                apis.get_torchlib_ops = cache(apis.get_torchlib_ops)
