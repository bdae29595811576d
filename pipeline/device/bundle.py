"""`edgeproof bundle`: one zip with which anybody checks, on any device, that a variant answers as it was reviewed."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from foundation.errors import NotMeasuredError, UsageError
from foundation.files import JSON, atomic_path
from foundation.lock import lock_folder
from foundation.progress import Observer
from foundation.record import RunRecord, VariantRecord, read_record
from foundation.run_files import add_to_record, refuse_changed
from pipeline.device.browser_runtime import BrowserRuntime, browser_runtime
from pipeline.device.contents import BundleRequest, contents_of
from pipeline.device.golden import refuse_bad_count
from pipeline.device.handed_out import HandedOut, facts_bytes, write_handed_out
from pipeline.device.kit.files import FACTS, PAGE, SUMS, sums_text
from pipeline.device.page import make_page, program_sha256s

MOST_BYTES = 1 << 30
"""Of a kit's files together; a device could hardly hold more."""
MOST_PAGE_BYTES = 200 << 20
"""Of the files that a page holds; beyond it phones give up."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PROGRAM = ("__init__.py", "answers.py", "files.py", "measure.py", "serve.py", "timing.py")
_WEB = "page of the kit"


@dataclass(frozen=True)
class Bundled:
    """A kit that was written.

    Attributes:
        path: the zip.
        kit_sha256: of its `kit.json`, the kit's identity.
        has_page: whether it holds a page for browsers.
        remarks: what its maker must know, as sentences.
    """

    path: Path
    kit_sha256: str
    has_page: bool
    remarks: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What was written, in a line."""
        size_mib = self.path.stat().st_size / (1 << 20)
        ways = "measure.py and a page for browsers" if self.has_page else "measure.py"
        return f"{self.path} ({size_mib:.1f} MiB, {ways}; kit {self.kit_sha256[:12]})"

    def as_json(self) -> dict[str, JSON]:
        """Return it as `--json` prints it."""
        found = {"kit": str(self.path), "kit_sha256": self.kit_sha256, "has_page": self.has_page}
        return {**found, "remarks": list(self.remarks)}


def bundle(request: BundleRequest, observer: Observer) -> Bundled:
    """Write the kit of a variant, and record in the run what was handed out.

    The same run gives the same kit. Images go by their digest, never by their name.

    Raises:
        UsageError: no such run or variant, or its files are not as recorded, or the kit would be too large.
        StageError: this machine does not answer as the run recorded.
    """
    refuse_bad_count(request.golden)
    read_record(request.run)  # what is no run is no folder to lock
    with lock_folder(request.run.root):
        record = read_record(request.run)
        variant = _variant_of(record, request.variant)
        own = {variant.path, "data/manifest.json", f"validate/predictions/{variant.variant}.npz"}
        refuse_changed(request.run, record, besides=record.files.keys() - own)
        remarks: list[str] = []
        contents, facts = contents_of(request, record, variant, observer, remarks)
        if sum(map(len, contents.values())) > MOST_BYTES:
            raise UsageError(
                f"{variant.variant}: expected files of at most {MOST_BYTES >> 20} MiB for a kit, found more."
            )
        runtime = _runtime_for(contents, remarks)
        facts["program"] = {**_program_sha256s(), **program_sha256s(runtime)}
        text = facts_bytes(facts)
        digest, script = hashlib.sha256(text).hexdigest(), None
        contents |= {FACTS: text, **_program(), "README.txt": _part("README.txt")}
        if runtime is not None:
            with observer.stage(_WEB):
                payload = {name: contents[name] for name in facts["files"]}
                page = make_page(f"{variant.variant}: device kit", text, payload, runtime)
            contents[PAGE], script = page.content, page.script_sha256
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        path = request.output or Path(f"{variant.variant}.kit.zip")
        _write_zip(path, {**contents, SUMS: sums_text(sums).encode()})
        add_to_record(request.run, [write_handed_out(request.run, HandedOut(facts, sums, script))])
    if request.run.signature.exists():
        remarks.append("The run's record names the kit now, so its signature is one of before: sign it again.")
    return Bundled(path, digest, runtime is not None, tuple(remarks))


def _variant_of(record: RunRecord, name: str) -> VariantRecord:
    for variant in record.variants:
        if variant.variant == name:
            return variant
    known = ", ".join(one.variant for one in record.variants) or "none"
    raise UsageError(f"--variant: expected one of {known}, found {name!r}.")


def _runtime_for(contents: Mapping[str, bytes], remarks: list[str]) -> BrowserRuntime | None:
    """Return what the page runs with; None, with a remark, where the kit gets no page."""
    size = sum(map(len, contents.values()))
    if size > MOST_PAGE_BYTES:
        remarks.append(
            f"No page for browsers: its files are {size >> 20} MiB, and phones take {MOST_PAGE_BYTES >> 20}."
        )
        return None
    try:
        return browser_runtime()
    except NotMeasuredError as error:
        remarks.append(f"No page for browsers: {error}")
        return None


def _program() -> dict[str, bytes]:
    """Return the kit's programs: the package, and what starts it."""
    package = {f"edgeproof_kit/{name}": (files("pipeline.device.kit") / name).read_bytes() for name in _PROGRAM}
    return {**package, **{name: _part(name) for name in ("__main__.py", "measure.py", "serve.py")}}


def _part(name: str) -> bytes:
    return (files("pipeline.device") / "started" / f"{name}.txt").read_bytes()


def _program_sha256s() -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(_program().items())}


def _write_zip(path: Path, contents: Mapping[str, bytes]) -> None:
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in sorted(contents.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            packed = name == PAGE  # it is packed already
            archive.writestr(entry, content, zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED, 6)
