"""Ways to damage a file: bytes anywhere, and structures of the formats that hide behind checksums and compression.

A mutator takes a file's bytes, a random generator and the other seeds, and returns other bytes. It never raises:
where a structure cannot be parsed (any more), it falls back to bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

Mutator = Callable[[bytes, random.Random, Sequence[bytes]], bytes]

LARGEST_MUTANT_BYTES = 1_000_000
"""Longer ones are cut: the campaign asks what little files can do."""
_INTERESTING = (
    0,
    1,
    -1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
)
_WORDS = (
    b"\0",
    b"\xff" * 4,
    b"\x1b[31m",
    b"\xc2\x9b",
    "\u202e".encode(),
    b"{",
    b"[",
    b'"',
    b"\n",
    b",",
    b"../",
    b"%s",
)


def mutant(seeds: Sequence[bytes], mutators: Sequence[Mutator], rng: random.Random) -> bytes:
    """Return one damaged file: a seed changed by one to three mutators."""
    content = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(mutators)(content, rng, seeds)[:LARGEST_MUTANT_BYTES]
    return content


# --- bytes ---


def flip(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Change some bits."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def integer(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Write a number at the edge of its type somewhere, in either order of bytes."""
    width = rng.choice((1, 2, 4, 8))
    value = (rng.choice(_INTERESTING) % (1 << 8 * width)).to_bytes(width, rng.choice(("little", "big")))
    at = rng.randrange(max(1, min(len(content), rng.choice((64, 512, len(content) or 1)))))
    return content[:at] + value + content[at + width :]


def insert(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Put in random bytes, a word that means something somewhere, or a stretch of the file once more."""
    at = rng.randrange(len(content) + 1)
    start = rng.randrange(len(content) + 1)
    new = rng.choice(
        (
            rng.randbytes(rng.choice((1, 4, 64))),
            rng.choice(_WORDS),
            content[start : start + rng.choice((1, 16, 256))],
            rng.choice(_WORDS) * rng.choice((2, 100, 5000)),
        )
    )
    return content[:at] + new + content[at:]


def delete(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Take out a stretch."""
    at = rng.randrange(len(content) + 1)
    return content[:at] + content[at + rng.choice((1, 2, 4, 16, 200)) :]


def truncate(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Cut the file off."""
    return content[: rng.randrange(len(content) + 1)]


def splice(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Go on with another seed."""
    other = rng.choice(seeds)
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


BYTES: tuple[Mutator, ...] = (flip, integer, insert, delete, truncate, splice)


def any_bytes(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Apply one of the mutators of bytes."""
    return rng.choice(BYTES)(content, rng, seeds)


# --- JSON, YAML, tables: texts ---

_RAW = "\0raw\0"
_VALUES: tuple[Callable[[random.Random], Any], ...] = (
    lambda rng: rng.choice((None, True, False, 0, 1, -1, 0.5, "", "x", [], {}, [[]], [None], {"": None})),
    lambda rng: rng.choice(
        (float("nan"), float("inf"), -float("inf"), 1e308, -0.0, 2**31, 2**63, 2**64, -(2**63), 10**30)
    ),
    lambda rng: rng.choice(
        ("\x1b[2J", "\x9b31m", "\u202etxt", "\ud800", "\0", "a\nb", "x" * 5000, "../../etc", "/", "ß" * 70)
    ),
    lambda rng: [rng.choice((0, "a", None, 1.5))] * rng.choice((1, 3, 100)),
    lambda rng: (
        _RAW
        + rng.choice(
            (
                "1e999",
                "-1e999",
                "1" * 5000,
                "NaN",
                "-0",
                "1.0",
                "00",
                '"\\ud800"',
                "[" * 300 + "]" * 300,
                "[" * 100_000,
                '{"a":' * 3000 + "1" + "}" * 3000,
            )
        )
    ),
)


def json_value(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Replace, remove, repeat or exchange a value anywhere in a JSON document (or in one of its lines)."""
    lines = content.split(b"\n")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        number = rng.randrange(len(lines))
        try:
            document = json.loads(lines[number])
        except (ValueError, RecursionError):
            return any_bytes(content, rng, seeds)
        lines[number] = _dumped(_edited(document, rng))
        return b"\n".join(lines)
    return _dumped(_edited(document, rng))


def _edited(document: Any, rng: random.Random) -> Any:
    places = list(_places(document))
    if not places:
        return rng.choice(_VALUES)(rng)
    holder, key = rng.choice(places)
    kind = rng.randrange(8)
    if kind == 0 and isinstance(holder, dict):
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(("unknown", "\x1b", "", "1", str(key) + "x"))] = rng.choice(_VALUES)(rng)
    elif kind == 2:
        other, name = rng.choice(places)
        value = json.loads(json.dumps(other[name])) if _has(other, name) else None
        holder[key] = value
    elif kind == 3 and isinstance(holder, list):
        holder.extend([holder[key]] * rng.choice((1, 1000)))
    else:
        holder[key] = rng.choice(_VALUES)(rng)
    return document


def _places(value: Any) -> Any:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            yield one, key
            waiting.append(one[key])


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _dumped(value: Any) -> bytes:
    text = json.dumps(value)
    marked = json.dumps(_RAW)[1:-1]
    while (at := text.find('"' + marked)) >= 0:
        end = at + 1
        while text[end] != '"' or text[end - 1] == "\\":
            end += 1
        text = text[:at] + json.loads(text[at : end + 1]).removeprefix(_RAW) + text[end + 1 :]
    return text.encode()


_YAML = (
    "null",
    "~",
    "yes",
    "1e400",
    "-1",
    "1_000",
    "0x10",
    "1:30",
    ".nan",
    ".inf",
    "''",
    "[]",
    "{}",
    "[[[[[[1]]]]]]",
    "&a [*a]",
    "*b",
    "!!python/object/apply:os.system [x]",
    "!!binary ====",
    "2001-99-99",
    "{a: b: c}",
    "- - - -",
    "? x",
    "| \n   y",
    '"\\x1b[2J"',
    '"\\u202e"',
    '"\\ud800"',
    "%TAG",
    "---",
    "[" * 2000,
    "{a: " * 1500,
    "9" * 5000,
    "x" * 5000,
    "2024-01-01",
    "~root/x",
    "!!set {a}",
    "!!timestamp 2001-12-14t21:59:43.10-05:00",
    "!!omap [a: 1]",
    "<<: {a: 1}",
    "!!float x",
    "!!int ''",
    "!!bool x",
)


def yaml_value(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Replace the value in a line, or move, repeat or indent a line."""
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        lines.insert(rng.randrange(len(lines)), lines[at])
    elif kind == 1:
        lines[at] = b"  " + lines[at]
    elif kind == 2:
        lines[at] = lines[at].lstrip()
    else:
        key, mark, _ = lines[at].partition(b":")
        value = rng.choice(_YAML).encode("utf-8", "surrogatepass")
        lines[at] = key + b": " + value if mark else lines[at] + value
    return b"\n".join(lines)


_CELLS = (
    b"",
    b'"',
    b'"a""b"',
    b"\xff\xfe",
    b"nan",
    b"-1",
    b"1e999",
    b"9" * 400,
    b"\x1b[2J",
    b"\xe2\x80\xae",
    b"a\nb",
    b"a\tb;c",
    b"../../x",
    b"/etc/passwd",
    b"\0",
    b"x" * 140_000,
    b"C:\\x",
    b"~",
    b"train",
    b"0",
    b"  ",
)


def table_cell(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Replace, repeat or drop a cell, a row or the header of a table."""
    rows = [line.split(b",") for line in content.split(b"\n")]
    row = rng.choice(rows)
    at = rng.randrange(len(row))
    kind = rng.randrange(6)
    if kind == 0:
        rows.insert(rng.randrange(len(rows)), list(row))
    elif kind == 1:
        del row[at]
    elif kind == 2:
        row.insert(at, rng.choice(rng.choice(rows) or [b""]))
    else:
        row[at] = rng.choice(_CELLS)
    return rng.choice((b"\n", b"\n", b"\r\n", b"\r")).join(
        rng.choice((b",", b",", b",", b";")).join(cells) for cells in rows
    )


# --- what lies behind a length, a checksum or a compression ---


def inside(*inner: Mutator) -> Mutator:
    """Return a mutator that unpacks gzip or xz, changes what is inside, and packs it again."""

    def change(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
        for unpack, pack in (
            (gzip.decompress, lambda plain: gzip.compress(plain, 1, mtime=0)),
            (lzma.decompress, lzma.compress),
        ):
            try:
                plain = unpack(content)
            except (OSError, EOFError, zlib.error, lzma.LZMAError):
                continue
            return pack(rng.choice(inner)(plain, rng, [plain]))
        return any_bytes(content, rng, seeds)

    return change


def zip_member(*inner: Mutator) -> Mutator:
    """Return a mutator that changes a member of a zip, its name or its packing, and keeps its checksum right."""

    def change(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = [(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]
        except Exception:
            return any_bytes(content, rng, seeds)
        if not members:
            return any_bytes(content, rng, seeds)
        at = rng.randrange(len(members))
        name, plain, packing = members[at]
        kind = rng.randrange(10)
        if kind == 0:
            del members[at]
        elif kind == 1:
            name = rng.choice(("", "../x", "/x", "a\x1bb.png", "x" * 300, name + "/", name.upper(), "\u202e.png"))
        elif kind == 2:
            packing = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED))
        elif kind == 3:
            plain = plain[: len(plain) // 2] + b"\0" * rng.choice((1000, 10**7)) + plain[len(plain) // 2 :]
        else:
            plain = rng.choice(inner)(plain, rng, [one for _, one, _ in members])
        if kind:
            members[at] = (name, plain, zipfile.ZIP_DEFLATED if len(plain) > LARGEST_MUTANT_BYTES else packing)
        if rng.randrange(20) == 0:
            members.append(rng.choice(members))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, plain, packing in members:
                with _quiet():
                    archive.writestr(zipfile.ZipInfo(name or "x"), plain, packing, 1)
        return out.getvalue()

    return change


def _quiet() -> Any:
    import warnings

    return warnings.catch_warnings(action="ignore")


def tar_member(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Rewrite a tar with one member changed: its name, type, size or content."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            members = [(info, stream.read()) for info in archive if (stream := archive.extractfile(info))]
    except Exception:
        return any_bytes(content, rng, seeds)
    if not members:
        return any_bytes(content, rng, seeds)
    at = rng.randrange(len(members))
    info, plain = members[at]
    kind = rng.randrange(5)
    if kind == 0:
        info.name = rng.choice(
            ("../x.png", "/x.png", "a\x1b.png", "x" * 400, "\udcff.png", ".", info.name + "/", "\u202e.png")
        )
    elif kind == 1:
        info.type = rng.choice(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"S", b"x", b"g", b"Z")
        )
        info.linkname = rng.choice(("../x", "/etc/passwd", info.name))
    elif kind == 2:
        info.pax_headers = {
            rng.choice(("size", "path", "mtime", "GNU.sparse.map", "GNU.sparse.size", "hdrcharset")): rng.choice(
                ("-1", "x", "9" * 40, "1,2,3")
            )
        }
    else:
        members[at] = (info, any_bytes(plain, rng, [plain]))
    out = io.BytesIO()
    try:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for info, plain in members:
                info.size = len(plain) if info.isreg() else 0
                archive.addfile(info, io.BytesIO(plain) if info.isreg() else None)
    except Exception:
        return any_bytes(content, rng, seeds)
    return out.getvalue()


def safetensors_header(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Change a value in the JSON header of a safetensors file and set the header's length right."""
    if len(content) < 8:
        return any_bytes(content, rng, seeds)
    length = struct.unpack("<Q", content[:8])[0]
    header = content[8 : 8 + length]
    changed = rng.choice((json_value, json_value, nested_json))(header, rng, [header])
    return struct.pack("<Q", len(changed)) + changed + content[8 + length :]


def nested_json(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Change a value in the JSON that stands as a text in a JSON document's metadata."""
    try:
        document = json.loads(content)
        texts = [
            (holder, key)
            for holder, key in _places(document)
            if isinstance(holder[key], str) and holder[key][:1] in "{["
        ]
        holder, key = rng.choice(texts)
        holder[key] = _dumped(_edited(json.loads(holder[key]), rng)).decode()
        return json.dumps(document).encode()
    except (ValueError, IndexError, TypeError, RecursionError):
        return json_value(content, rng, seeds)


def png_chunk(content: bytes, rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Change the inside of a PNG's chunk, the inflated pixels among them, and set length and checksum right."""
    if not content.startswith(b"\x89PNG"):
        return any_bytes(content, rng, seeds)
    chunks, at = [], 8
    while at + 12 <= len(content):
        length = struct.unpack(">I", content[at : at + 4])[0]
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return any_bytes(content, rng, seeds)
    number = rng.randrange(len(chunks))
    kind, inner = chunks[number]
    try:
        if kind == b"IDAT" and rng.randrange(2):
            inner = zlib.compress(any_bytes(zlib.decompress(inner), rng, [inner]))
        else:
            inner = any_bytes(inner, rng, [inner])
    except zlib.error:
        inner = any_bytes(inner, rng, [inner])
    chunks[number] = (
        rng.choice((kind, kind, kind, b"acTL", b"fdAT", b"iCCP", b"zTXt", b"eXIf", b"PLTE", b"tRNS")),
        inner,
    )
    packed = (
        struct.pack(">I", len(one)) + kind + one + struct.pack(">I", zlib.crc32(kind + one)) for kind, one in chunks
    )
    return content[:8] + b"".join(packed)
