"""A result's key follows the imports of what computes it."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from pipeline.run.sources import OWN, closure, sources_sha256
from stages.compilers import COMPILERS


def test_what_training_imports_belongs_to_it():
    assert {"calibration_data.sampling", "stages.network", "foundation.files"} <= closure("stages.train.trainer")


def test_another_data_set_is_no_part_of_compiling():
    for name, row in COMPILERS.items():
        assert not {module for module in closure(*row.modules) if module.startswith("calibration_data.datasets")}, (
            name
        )


def test_a_method_does_not_depend_on_the_others():
    fp16 = closure(*COMPILERS["fp16"].modules)
    assert not {module for module in fp16 if "neural_compressor" in module or "methods.static" in module}


def test_imports_for_type_checkers_alone_do_not_count():
    assert "calibration_data.settings" not in closure("calibration_data.preparation")


def test_imports_inside_functions_count():
    assert "stages.saliency_twin.twin" in closure("stages.search.tuned")


def test_other_modules_have_another_digest():
    assert sources_sha256("foundation.errors") != sources_sha256("foundation.files")
    assert sources_sha256("foundation.files") == sources_sha256("foundation.errors", "foundation.files")


ROOT = Path(__file__).resolve().parents[3]


def test_installed_beside_other_packages_it_is_the_same_code(tmp_path):
    for name in OWN:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ("matplotlib/__init__.py", "mpl_toolkits/mplot3d/__init__.py"):  # one of them is a namespace
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("import mpl_toolkits.mplot3d\n")
    text = "from pipeline.run.sources import sources_sha256\nprint(sources_sha256('pipeline.flow'))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    there = subprocess.check_output([sys.executable, "-c", text], cwd=tmp_path, env=environment, text=True)
    assert there.strip() == sources_sha256("pipeline.flow")


def test_every_package_of_ours_is_known():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(OWN) == set(project["tool"]["importlinter"]["root_packages"])
