from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foundation.arrays import write_arrays
from foundation.errors import UsageError
from stages.validate.map_values import read_map_values, write_map_values


def test_values_are_read_as_they_were_written(tmp_path: Path) -> None:
    values = {"sparseness": np.array([0.5, 0.25]), "pixel_auroc": np.array([np.nan, 0.75])}
    write_map_values(tmp_path / "v.npz", values)
    found = read_map_values(tmp_path / "v.npz")
    assert list(found) == list(values)
    for name, of_maps in values.items():
        assert np.array_equal(found[name], of_maps, equal_nan=True)
    write_map_values(tmp_path / "none.npz", {})
    assert read_map_values(tmp_path / "none.npz") == {}


@pytest.mark.parametrize(
    ("metrics", "values"),
    [(np.array(["a"]), np.zeros((2, 3))), (np.array([1]), np.zeros((1, 3))), (np.array(["a"]), np.zeros(1))],
)
def test_another_files_arrays_are_refused(tmp_path: Path, metrics: np.ndarray, values: np.ndarray) -> None:
    write_arrays(tmp_path / "v.npz", {"metrics": metrics, "values": values})
    with pytest.raises(UsageError, match=r"expected metrics \[k\] of texts and values \[k, m\] of float64, found"):
        read_map_values(tmp_path / "v.npz")
