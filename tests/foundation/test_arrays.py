from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from foundation.arrays import read_arrays, write_arrays
from foundation.errors import UsageError


def test_same_arrays_same_bytes_and_no_time_of_day(tmp_path: Path) -> None:
    arrays = {"maps": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2], "target": np.array([1, 2])}
    write_arrays(tmp_path / "a.npz", arrays)
    write_arrays(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
    target, maps = read_arrays(tmp_path / "a.npz", ("target", "maps"))
    assert target.tolist() == [1, 2]
    assert maps.tolist() == arrays["maps"].tolist()


def test_objects_are_never_pickled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        write_arrays(tmp_path / "a.npz", {"names": np.array([{"a": 1}], dtype=object)})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_name_is_an_error(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", {"maps": np.zeros(2)})
    with pytest.raises(UsageError, match="expected the arrays maps, target"):
        read_arrays(tmp_path / "a.npz", ("maps", "target"))
