"""A result's key follows the imports of what computes it."""

from pipeline.run.sources import closure, sources_sha256
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
