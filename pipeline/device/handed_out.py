"""What a run remembers of a kit that it handed out, and whether a device ran that one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.errors import UsageError
from foundation.files import write_json
from foundation.record import RunRecord
from foundation.run_folder import RunFolder
from foundation.typed_files import CLOSED, read_typed
from pipeline.device.device_file import DeviceFile, Sha256
from pipeline.device.kit.files import MODEL, TWIN

if TYPE_CHECKING:
    from pydantic import TypeAdapter

PAGE_SCRIPT = "page script"
"""What a browser ran in place of the Python files."""


@dataclass(frozen=True)
class HandedOut:
    """A kit.

    Attributes:
        facts: its `kit.json`.
        files: name → sha256 of everything in it.
        page_script_sha256: of the script of its page; None where it has none.
        format_version: of this.
    """

    facts: dict[str, Any]
    files: Annotated[dict[str, Sha256], Field(max_length=1000)]
    page_script_sha256: Sha256 | None
    format_version: Literal[1] = 1

    __pydantic_config__ = CLOSED

    @property
    def variant(self) -> str:
        """The variant that it holds."""
        return str(self.facts["variant"])

    @property
    def outputs(self) -> NDArray[np.float32]:
        """What was reviewed, float32 [golden images, width]."""
        return np.array([golden["outputs"] for golden in self.facts["golden"]], dtype=np.float32)


def facts_bytes(facts: Mapping[str, Any]) -> bytes:
    """Return the bytes of a `kit.json`; its digest is the kit's identity."""
    return (json.dumps(facts, sort_keys=True, ensure_ascii=True, allow_nan=False, indent=1) + "\n").encode()


def note_path(run: RunFolder, variant: str, kit_sha256: str) -> Path:
    """Return where a run keeps what it handed out."""
    return run.root / "devices" / "kits" / f"{variant}.{kit_sha256[:16]}.json"


def write_handed_out(run: RunFolder, kit: HandedOut) -> Path:
    """Write it, atomically, and return the file; the run's record does not know it yet."""
    path = note_path(run, kit.variant, hashlib.sha256(facts_bytes(kit.facts)).hexdigest())
    write_json(path, _adapter().dump_python(kit, mode="json"))
    return path


def kit_of(run: RunFolder, record: RunRecord, device: DeviceFile, path: Path) -> HandedOut:
    """Return the kit that a device ran, which is one that this run handed out.

    Args:
        run: the folder; its files are as recorded.
        record: of it.
        device: what the kit wrote.
        path: of that file, for messages.

    Raises:
        UsageError: the kit, or a file of it that ran, is none of this run's; or the run has another file by now.
    """
    names = [name for name in record.files if name.startswith("devices/kits/")]
    found = next((name for name in names if name.endswith(f".{device.kit_sha256[:16]}.json")), None)
    if found is None:
        raise UsageError(
            f"{path}: expected what a kit of this run found, found one of the kit {device.kit_sha256[:12]}; this run "
            f"handed out {len(names)} others. Give the run that it was bundled from, or bundle and measure again."
        )
    kit = read_typed(run.root / found, _adapter(), "what the run remembers of a kit", "Bundle and measure again.")
    if hashlib.sha256(facts_bytes(kit.facts)).hexdigest() != device.kit_sha256:
        raise UsageError(f"{path}: expected a kit of this run, found another. Bundle and measure again.")
    _refuse_other_files(kit, device, path)
    today = {one.variant: one.sha256 for one in record.variants}.get(kit.variant)
    if today != kit.files[MODEL]:
        raise UsageError(
            f"{path}: expected measurements of {kit.variant} as it is now ({str(today)[:12]}), found some of "
            f"the file {kit.files[MODEL][:12]} that the run had before. Bundle and measure again."
        )
    return kit


def _refuse_other_files(kit: HandedOut, device: DeviceFile, path: Path) -> None:
    known = {**kit.files, **({PAGE_SCRIPT: kit.page_script_sha256} if kit.page_script_sha256 else {})}
    program = {PAGE_SCRIPT} if device.way == "browser" else {name for name in kit.files if name.endswith(".py")}
    wanted = set(kit.facts["files"]) | program
    ran = device.files
    other = sorted(name for name in wanted | ran.keys() if name not in known or ran.get(name) != known[name])
    if other:
        raise UsageError(
            f"{path}: expected the files of the kit {device.kit_sha256[:12]}, found that {', '.join(other[:5])} "
            f"{'was' if len(other) == 1 else 'were'} another when it ran. Take the kit anew and measure again."
        )


def files_of(kit: HandedOut) -> dict[str, str]:
    """Return the digests as a place has them: of the variant, and of its twin."""
    twin = kit.files.get(TWIN)
    return {kit.variant: kit.files[MODEL], **({f"{kit.variant}.saliency": twin} if twin else {})}


@cache
def _adapter() -> TypeAdapter[HandedOut]:
    from pydantic import TypeAdapter

    return TypeAdapter(HandedOut)
