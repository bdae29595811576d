"""Archives as they should be, and as somebody with bad intentions would pack them."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from calibration_data.dataset import BadImageError
from calibration_data.datasets import packed_images, unpacking
from calibration_data.datasets.packed_images import is_archive, pack_images, read_packed_image
from foundation.errors import UsageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache


def tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_each_image_is_found_again_by_its_name(tmp_path):
    archive = tar(tmp_path / "a.tar.xz", [("b/2.png", b"two"), ("./b/1.jpg", b"one"), ("b/readme.md", b"x")], "w:xz")
    found = pack_images(archive)
    assert list(found.images) == ["b/1.jpg", "b/2.png"]
    assert found.others == ("b/readme.md",)
    assert found.images["b/1.jpg"].sha256 == hashlib.sha256(b"one").hexdigest()
    assert [read_packed_image(found.packed, name) for name in found.images] == [b"one", b"two"]


def test_an_index_that_was_changed_in_the_cache_is_made_again(tmp_path, own_cache):
    archive = tar(tmp_path / "a.tar", [("1.png", b"one"), ("2.png", b"two")])
    found = pack_images(archive)
    index = found.packed.with_suffix(".json")
    index.write_text(index.read_text().replace("1.png", "3.png"))
    assert list(pack_images(archive).images) == ["1.png", "2.png"]


def test_no_name_leaves_the_cache_and_links_are_left_out(tmp_path, own_cache):
    archive = tar(tmp_path / "a.tar", [("../../evil.png", b"1"), ("/etc/evil.png", b"2"), ("c/good.png", b"3")])
    with tarfile.open(archive, "a") as opened:
        link = tarfile.TarInfo("c/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
    assert list(pack_images(archive).images) == ["c/good.png", "etc/evil.png", "evil.png"]
    assert sorted(path.suffix for path in files(own_cache)) == [".bin", ".json"]


def test_hidden_files_and_a_macs_leftovers_are_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a/1.png", "a/.hidden.png", "__MACOSX/a/._1.png", ".git/2.png"):
            archive.writestr(name, b"x")
    assert list(pack_images(tmp_path / "a.zip").images) == ["a/1.png"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a/1.png", b"x"), ("./a/1.png", b"y")], "expected each name once, found a/1.png twice"),
        ([("a/\x1b[31m.png", b"x")], "expected printable names"),
    ],
)
def test_odd_names_are_refused_and_nothing_is_left_behind(tmp_path, own_cache, members, message):
    with pytest.raises(UsageError, match=message):
        pack_images(tar(tmp_path / "a.tar", members))
    assert not files(own_cache)


@pytest.mark.parametrize(("name", "mode"), [("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz"), ("a.tar", "w")])
def test_truncated_archives_are_refused_and_nothing_is_left_behind(tmp_path, own_cache, name, mode):
    whole = tar(tmp_path / name, [("a/1.png", os.urandom(5000)), ("a/2.png", os.urandom(5000))], mode).read_bytes()
    for keep in (0, 3, 700, 4000):
        (tmp_path / name).write_bytes(whole[:keep])
        with pytest.raises(UsageError, match="expected a whole archive"):
            pack_images(tmp_path / name)
    assert not files(own_cache)


def test_a_damaged_zip_is_refused(tmp_path, own_cache):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", b"abc" * 1000)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[45] ^= 255
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UsageError, match="expected a whole archive"):
        pack_images(tmp_path / "a.zip")
    assert not files(own_cache)


def test_bombs_are_refused_while_they_are_read(tmp_path, own_cache, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(3):
            archive.writestr(f"a/{index}.png", bytes(1000))
    monkeypatch.setattr(unpacking, "LARGEST_UNPACKED_BYTES", 2500)
    with pytest.raises(UsageError, match="expected at most 2500 bytes of images"):
        pack_images(tmp_path / "a.zip")
    monkeypatch.setattr(packed_images, "_LARGEST_MEMBER_BYTES", 999)
    with pytest.raises(UsageError, match=r"expected images below 999 bytes, a/0.png has more"):
        pack_images(tmp_path / "a.zip")
    assert not files(own_cache)


def test_bytes_changed_in_the_cache_are_noticed_and_a_cleared_cache_is_named(tmp_path):
    found = pack_images(tar(tmp_path / "a.tar", [("a/1.png", b"one")]))
    found.packed.write_bytes(b"two")
    with pytest.raises(BadImageError, match="found others in the cache"):
        read_packed_image(found.packed, "a/1.png")
    found.packed.unlink()
    with pytest.raises(UsageError, match="the cache was cleared"):
        read_packed_image(found.packed, "a/1.png")


@pytest.mark.parametrize("name", ["a.zip", "A.TAR.XZ", "a.tgz", "a.tar"])
def test_archives_are_known_by_their_names(name):
    assert is_archive(Path(name))
    assert not is_archive(Path(name + ".part"))
