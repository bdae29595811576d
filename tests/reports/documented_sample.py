"""The run of `docs/sample`: the sample run, smaller, with more images of each class and the words of its author."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sample_run

from foundation.image_by_image import read_image_by_image, write_image_by_image
from foundation.record import read_record, write_record
from foundation.run_folder import RunFolder

CLASSES = ("polyps", "normal cecum", "esophagitis")
SMALLER = {
    "VARIANTS": ("fp32", "pact-int8", "static-int8"),
    "METHODS": ("export", "pact", "static"),
    "SIZES": (1_168_412, 317_902, 331_870, 331_870),  # the last is what the gate on the size reads
    "NOISE": {"static-int8": 0.15, "pact-int8": 0.35},
    "PER_CLASS": 24,
}
WORDS = {
    "intended_use": "To show what a report looks like. The images were generated; no file of this run is for use.",
    "population": "None: generated frames.",
    "reference_standard": "The class from which a frame was generated.",
    "author": "edgeproof's tests",
}


def write_documented_run(root: Path) -> RunFolder:
    """Write the run, from fixed facts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALLER.items():
            patch.setattr(sample_run, name, value)
        run = RunFolder(sample_run.write_sample_run(root, CLASSES))
    found = read_image_by_image(run.image_by_image)
    assert found.maps is not None
    few = (*found.maps.images[:2], found.maps.images[-1])  # two that moved most and a typical one
    write_image_by_image(run.image_by_image, replace(found, maps=replace(found.maps, images=few)))
    record = read_record(run)
    write_record(run, replace(record, configuration={**record.configuration, "report": WORDS}))
    return run
