"""Image files of all kinds become uint8 pixels; bad ones become a reason."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration_data.dataset import BadImageError
from calibration_data.fitting import UndecidedBitsError, bits_for, eight_bits
from calibration_data.image_files import (
    decode_pixels,
    fingerprint_of_files,
    is_image_name,
    read_mask,
    read_pixels,
    read_united_mask,
    require_file,
    require_folder,
    require_inside,
)
from foundation.errors import UsageError

RAMP = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)


def saved(tmp_path: Path, image: Image.Image, name: str = "image.png", **options) -> Path:
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff"])
def test_gray_files_keep_their_values(tmp_path, name):
    pixels = read_pixels(saved(tmp_path, Image.fromarray(RAMP), name))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, RAMP[:, :, None])


def test_colour_files_keep_their_values_in_rgb_order(tmp_path):
    rgb = np.stack([RAMP, RAMP // 2, 255 - RAMP], axis=2)
    assert np.array_equal(read_pixels(saved(tmp_path, Image.fromarray(rgb))), rgb)


def test_sixteen_bits_give_their_high_byte(tmp_path):
    deep = RAMP.astype(np.uint16) * 256 + 77
    for name in ("a.png", "a.tiff"):
        pixels = read_pixels(saved(tmp_path, Image.fromarray(deep), name))
        assert np.array_equal(pixels, deep[:, :, None])
        assert np.array_equal(eight_bits(pixels, 16), RAMP[:, :, None])


def test_twelve_bits_in_sixteen_give_the_highest_eight_of_the_twelve(tmp_path):
    twelve = RAMP.astype(np.uint16) * 16 + 5
    pixels = read_pixels(saved(tmp_path, Image.fromarray(twelve)))
    with pytest.raises(UndecidedBitsError):
        eight_bits(pixels, None)
    assert np.array_equal(eight_bits(pixels, 12), RAMP[:, :, None])
    assert eight_bits(pixels, 16).max() == 14  # what was silently taken before
    with pytest.raises(BadImageError, match=r"values of 11 bits .*, found 3829"):
        eight_bits(pixels, 11)


@pytest.mark.parametrize(
    ("largest", "bits"), [(0, 8), (255, 8), (256, 10), (4095, 12), (4096, 14), (16383, 14), (16384, 16), (65535, 16)]
)
def test_the_largest_value_decides_how_many_bits_are_used(largest, bits):
    assert bits_for(largest) == bits


def test_webp_is_an_image(tmp_path):
    rgb = np.stack([RAMP, RAMP // 2, 255 - RAMP], axis=2)
    path = saved(tmp_path, Image.fromarray(rgb), "a.webp", lossless=True)
    assert is_image_name(path.name)
    assert np.array_equal(read_pixels(path), rgb)


def test_sixteen_bit_colour_gives_its_high_byte_too(tmp_path):
    row = b"\0" + struct.pack(">6H", 0x1234, 0x8001, 0xFFFF, 0x00FF, 0x7F80, 0x0100)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert read_pixels(tmp_path / "a.png").tolist() == [[[0x12, 0x80, 0xFF], [0x00, 0x7F, 0x01]]]


def test_bilevel_files_become_0_and_255(tmp_path):
    pixels = read_pixels(saved(tmp_path, Image.fromarray(RAMP > 100)))
    assert np.array_equal(pixels[:, :, 0], np.where(RAMP > 100, 255, 0))


def test_palettes_become_their_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert read_pixels(saved(tmp_path, image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_a_palette_with_transparency_lies_on_black(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    pixels = read_pixels(saved(tmp_path, image, transparency=b"\x00\xff"))
    assert pixels.tolist() == [[[0, 0, 0], [200, 100, 50]]]


def test_transparent_pixels_lie_on_black(tmp_path):
    image = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    assert read_pixels(saved(tmp_path, image)).tolist() == [[[200, 100, 50], [0, 0, 0]]]


def test_cmyk_becomes_rgb(tmp_path):
    pixels = read_pixels(saved(tmp_path, Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "a.jpg", quality=100))
    assert pixels.shape == (4, 4, 3)
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, -1), (8, 1)])
def test_exif_orientation_is_applied(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = read_pixels(saved(tmp_path, Image.fromarray(RAMP), exif=exif))
    assert np.array_equal(pixels[:, :, 0], np.rot90(RAMP, turn))


def test_the_content_decides_not_the_suffix(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP), "a.bmp").rename(tmp_path / "a.jpg")
    assert np.array_equal(read_pixels(path)[:, :, 0], RAMP)


def test_damaged_metadata_is_no_reason_to_refuse_pixels(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP), "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert read_pixels(path).shape == (12, 20, 1)


# --- bad images ---


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tiff"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_truncated_files_are_refused(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    cut(path, share)
    with pytest.raises(BadImageError, match=r"expected a (whole image|PNG, JPEG, BMP or TIFF image)"):
        read_pixels(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a file of zero bytes"),
        (b"hello", "found other content"),
        (b"\x89PNG\r\n\x1a\n", "expected a PNG, JPEG, BMP or TIFF image|a damaged one"),
        (b"\xff\xd8\xff\xe0", "expected a PNG, JPEG, BMP or TIFF image|a damaged one"),
        (b"BM" + b"\0" * 60, "expected a PNG, JPEG, BMP or TIFF image|a damaged one"),
        (b"%PDF-1.7\n", "found other content"),
        (b"\0" * 4096, "found other content"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(BadImageError, match=message):
        read_pixels(path)


@pytest.mark.parametrize("suffix", ["gif", "ico"])
def test_formats_beyond_these_are_refused_whatever_their_suffix(tmp_path, suffix):
    path = saved(tmp_path, Image.fromarray(RAMP), f"a.{suffix}").rename(tmp_path / "a.png")
    with pytest.raises(BadImageError, match="found other content"):
        read_pixels(path)


@pytest.mark.parametrize("limit", [100, 200])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit):
    # 240 pixels: more than twice the lower limit (Pillow's error), more than the higher one (Pillow's warning).
    path = saved(tmp_path, Image.fromarray(RAMP))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(BadImageError, match=f"expected at most {limit} pixels, found more"):
        read_pixels(path)


def test_a_bomb_is_refused_without_decoding_it(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT")
    with pytest.raises(BadImageError, match="decompression bomb"):
        read_pixels(tmp_path / "a.png")


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_per_channel_are_refused(tmp_path, dtype):
    path = saved(tmp_path, Image.fromarray(RAMP.astype(dtype)), "a.tiff")
    with pytest.raises(BadImageError, match="expected 8 or 16 bits per channel, found 32"):
        read_pixels(path)


def test_a_tiff_of_several_pages_is_refused(tmp_path):
    pages = [Image.fromarray(RAMP), Image.fromarray(RAMP)]
    path = saved(tmp_path, pages[0], "a.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(BadImageError, match="several pages"):
        read_pixels(path)


# --- masks, folders ---


def test_masks_are_true_above_127(tmp_path):
    mask = read_mask(saved(tmp_path, Image.fromarray(RAMP)))
    assert mask.dtype == np.bool_
    assert int(mask.sum()) == 240 - 128


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_masks_of_any_mode_agree(tmp_path, mode):
    expected = np.zeros((12, 20), dtype=bool)
    expected[3:7, 5:15] = True
    image = Image.fromarray(expected.astype(np.uint8) * 255).convert(mode)
    assert np.array_equal(read_mask(saved(tmp_path, image)), expected)


def test_masks_of_0_and_1_are_taken_as_labels(tmp_path):
    labels = (RAMP > 100).astype(np.uint8)
    assert np.array_equal(read_mask(saved(tmp_path, Image.fromarray(labels))), labels == 1)


def test_a_black_mask_is_empty(tmp_path):
    assert not read_mask(saved(tmp_path, Image.new("L", (5, 5)))).any()


def test_fingerprints_see_names_and_bytes_but_not_the_root(tmp_path, write_image):
    def fingerprint(root: Path, seed: int, name: str) -> str:
        return fingerprint_of_files(tmp_path / root, [write_image(tmp_path / root / name, seed)])

    first = fingerprint(Path("x"), 0, "a.png")
    assert first == fingerprint(Path("y"), 0, "a.png")
    assert len({first, fingerprint(Path("z"), 1, "a.png"), fingerprint(Path("z"), 0, "b.png")}) == 3


def test_a_missing_folder_and_a_file_in_its_place_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere: expected a folder, found nothing\. Set `source.root`"):
        require_folder(tmp_path / "nowhere", "source.root")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file: expected a folder, found a file"):
        require_folder(tmp_path / "file", "source.root")


def test_links_out_of_the_folder_are_refused(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").touch()
    (root / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="found a link that leaves it"):
        require_inside(root.resolve(), root / "link")


def test_bytes_are_decoded_like_files(tmp_path):
    path = saved(tmp_path, Image.fromarray(RAMP))
    assert np.array_equal(decode_pixels(path.read_bytes()), read_pixels(path))
    with pytest.raises(BadImageError, match="a file of zero bytes"):
        decode_pixels(b"")


def test_the_masks_of_an_image_are_united(tmp_path):
    masks = np.zeros((2, 4, 6), dtype=np.uint8)
    masks[0, :2, :2] = masks[1, 1:3, 1:3] = 255
    paths = [saved(tmp_path, Image.fromarray(mask), f"{index}.png") for index, mask in enumerate(masks)]
    united = read_united_mask(paths, (4, 6))
    assert united is not None
    assert int(united.sum()) == 4 + 4 - 1
    assert read_united_mask([], (4, 6)) is None
    with pytest.raises(BadImageError, match=r"its mask 0\.png: expected 4 × 6 pixels, found 6 × 4"):
        read_united_mask(paths, (6, 4))


def test_a_missing_file_is_named_with_what_it_should_be(tmp_path):
    for path, found in ((tmp_path / "a", "nothing"), (tmp_path, "a folder")):
        with pytest.raises(UsageError, match=f"expected the list, found {found}"):
            require_file(path, "the list")
