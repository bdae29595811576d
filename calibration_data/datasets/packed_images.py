"""Image files inside an archive (zip, tar, tar.gz, tar.xz), without ever unpacking it into folders.

An archive's images are copied once, one after another, into one file in the cache, with an index of where each lies
and its sha256. No name inside the archive becomes a path, so none can lead out of the cache, and 60,000 images are
two files. From then on an image is one read at a known place, also where the archive itself has no random access
(tar.xz).
"""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, BinaryIO

from calibration_data.dataset import BadImageError
from calibration_data.datasets.unpacking import largest_unpacked_bytes, unpacked_path
from calibration_data.image_files import is_image_name
from foundation.errors import UsageError
from foundation.files import atomic_path, read_json, sha256_of_file
from foundation.sealed_files import seal_fault, write_sealed

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")
_LARGEST_MEMBER_BYTES = 2**28
"""Of one image file: 64 million pixels of four bytes, uncompressed."""


@dataclass(frozen=True)
class PackedImage:
    """Where one image lies in the packed file.

    Attributes:
        offset: of its first byte, in bytes.
        length: of its file, in bytes.
        sha256: digest of its file.
    """

    offset: int
    length: int
    sha256: str


@dataclass(frozen=True)
class PackedImages:
    """What an archive holds.

    Attributes:
        packed: the file with all images one after another.
        images: name inside the archive → where it lies, in the order of the names.
        others: names of files that are no images, sorted.
    """

    packed: Path
    images: Mapping[str, PackedImage]
    others: tuple[str, ...]


def is_archive(path: Path) -> bool:
    """Return whether a file's name ends like that of an archive which `pack_images` reads."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def pack_images(archive: Path) -> PackedImages:
    """Copy an archive's image files into the cache, unless they are there, and return where they lie.

    Raises:
        UsageError: the archive is damaged or encrypted, too large, or holds a name twice or one that is unprintable.
    """
    digest = sha256_of_file(archive)
    packed, index = unpacked_path(digest, "images.bin"), unpacked_path(digest, "images.json")
    if not (index.is_file() and packed.is_file() and _is_as_written(index)):
        with atomic_path(packed) as temporary, temporary.open("wb") as out:
            images, others = _copy_images(archive, out)
        rows = [[name, image.offset, image.length, image.sha256] for name, image in sorted(images.items())]
        write_sealed(index, {"images": rows, "others": sorted(others)})
    return read_packed(packed)


def read_packed(packed: Path) -> PackedImages:
    """Return what `pack_images` found; read once per process.

    Raises:
        UsageError: the cache was cleared, or damaged.
    """
    index = packed.with_suffix(".json")
    if not (index.is_file() and packed.is_file()):
        raise UsageError(f"{packed}: expected the unpacked images, found nothing: the cache was cleared. Run again.")
    return _read_index(packed, index.stat().st_mtime_ns)


def read_packed_image(packed: Path, name: str) -> bytes:
    """Return one image file's bytes.

    Raises:
        UsageError: the cache was cleared, or damaged.
        BadImageError: its bytes in the cache are not those of the archive.
    """
    image = read_packed(packed).images[name]
    with packed.open("rb") as stream:
        stream.seek(image.offset)
        content = stream.read(image.length)
    if hashlib.sha256(content).hexdigest() != image.sha256:
        raise BadImageError(f"expected the bytes of the archive, found others in the cache. Delete {packed}")
    return content


def _is_as_written(index: Path) -> bool:
    try:
        return seal_fault(index.read_bytes()) is None
    except (ValueError, RecursionError):
        return False


@lru_cache(maxsize=4)
def _read_index(packed: Path, mtime_ns: int) -> PackedImages:
    content = read_json(packed.with_suffix(".json"))
    try:
        images = {name: PackedImage(offset, length, sha256) for name, offset, length, sha256 in content["images"]}
        return PackedImages(packed, images, tuple(content["others"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{packed.with_suffix('.json')}: expected an index, found another. Delete it.") from error


def _copy_images(archive: Path, out: BinaryIO) -> tuple[dict[str, PackedImage], set[str]]:
    """Copy the images one after another; return where each lies, and the names of all other files."""
    images: dict[str, PackedImage] = {}
    others: set[str] = set()
    most = largest_unpacked_bytes(archive.stat().st_size)
    for name, content in _members(archive):
        if not is_image_name(name):
            others.add(name)
        elif name in images:
            raise UsageError(f"{archive}: expected each name once, found {name} twice. Pack it again.")
        else:
            images[name] = _append(archive, name, content, most, out)
    return images, others


def _append(archive: Path, name: str, content: bytes, most: int, out: BinaryIO) -> PackedImage:
    if len(content) > _LARGEST_MEMBER_BYTES:
        raise UsageError(f"{archive}: expected images below {_LARGEST_MEMBER_BYTES} bytes, {name} has more.")
    offset = out.tell()
    if offset + len(content) > most:
        raise UsageError(
            f"{archive}: expected at most {most} bytes of images, found more "
            "(a decompression bomb?). Unpack it yourself if you trust it."
        )
    out.write(content)
    return PackedImage(offset, len(content), hashlib.sha256(content).hexdigest())


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each regular file that is not hidden, in the archive's order; no content of others
    than images, and of a large one no more than shows that it is too large."""
    try:
        for name, stream in _zip_members(archive) if archive.suffix.lower() == ".zip" else _tar_members(archive):
            if not name.isprintable():
                raise UsageError(f"{archive}: expected printable names in UTF-8, found {name!a}. Pack it again.")
            parts = [part for part in posixpath.normpath(name).split("/") if part not in ("", "..")]
            if not any(part.startswith(".") or part == "__MACOSX" for part in parts):
                yield "/".join(parts), stream.read(_LARGEST_MEMBER_BYTES + 1) if is_image_name(name) else b""
    except UsageError:
        raise
    except Exception as error:  # the unpackers raise anything at all on damaged bytes, errors of the disk among it
        raise UsageError(
            f"{archive}: expected a whole archive, found a damaged or encrypted one ({str(error)[:200]}). "
            "Get it again."
        ) from error


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if not info.is_dir():
                with opened.open(info) as stream:
                    yield info.filename, stream


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    # "r|*" reads from front to back once, which is all that a compressed tar allows.
    with tarfile.open(archive, "r|*") as opened:
        most = largest_unpacked_bytes(archive.stat().st_size)
        for member in opened:
            if member.size > most:  # tarfile would look for its end, however far beyond the file's own
                raise UsageError(f"{archive}: expected files of at most {most} bytes, {member.name!a} claims more.")
            if member.issparse():  # a few bytes that stand for any number of zeros
                raise UsageError(f"{archive}: expected plain files, found the sparse {member.name!a}. Pack it again.")
            if member.isfile() and (stream := opened.extractfile(member)) is not None:
                yield member.name, stream
