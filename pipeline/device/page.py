"""The kit's page: one HTML file that holds all it needs and may ask nobody for anything.

Its script and its style are the only ones that the browser may run, because its policy names their digests; the
script holds the digests of the facts and the runtime, and the facts those of the model and the images. So a byte that
changes in any of them is found by the page itself; what changes in the few lines around them is found by `measure.py`
and `serve`, which have the digest of the whole page.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from pipeline.device.browser_runtime import BrowserRuntime

_PARTS = ("page.html", "page.css", "page.js", "worker.js", "resize.js")


@dataclass(frozen=True)
class Page:
    """A page and the digest of its script, by which a device says which page it ran."""

    content: bytes
    script_sha256: str


def program_sha256s(runtime: BrowserRuntime | None) -> dict[str, str]:
    """Return name → sha256 of what a page is made of, beside the kit's own files; nothing where there is no page."""
    if runtime is None:
        return {}
    parts = {**{f"page/{name}": _part(name) for name in _PARTS}, **{f"page/{k}": v for k, v in runtime.parts.items()}}
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(parts.items())}


def make_page(title: str, facts: bytes, payload: Mapping[str, bytes], runtime: BrowserRuntime) -> Page:
    """Return the page of a kit.

    Args:
        title: of the page, plain text.
        facts: `kit.json`.
        payload: name → content of the kit's files that the page needs.
        runtime: what it runs them with.
    """
    identity = {
        "facts_sha256": hashlib.sha256(facts).hexdigest(),
        "runtime_version": runtime.version,
        "runtime": {name: hashlib.sha256(part).hexdigest() for name, part in sorted(runtime.parts.items())},
        "worker": _text("worker.js"),
    }
    script = f"const IDENTITY = {_in_script(identity)};\n{_text('resize.js')}\n{_text('page.js')}"
    style = _text("page.css")
    data = {"kit.json": facts, **payload, **runtime.parts}
    blocks = "\n".join(
        f'<script type="application/octet-stream" id="data:{html.escape(name)}">{_packed(content)}</script>'
        for name, content in sorted(data.items())
    )
    values = {
        "TITLE": html.escape(title),
        "SCRIPT_SHA256": _digest_of(script),
        "STYLE_SHA256": _digest_of(style),
        "STYLE": style,
        "DATA": blocks,
        "SCRIPT": script,
    }
    page = "".join(values[part] if odd else part for odd, part in _alternating(_text("page.html").split("%%")))
    return Page(page.encode(), hashlib.sha256(script.encode()).hexdigest())


def _alternating(parts: list[str]) -> list[tuple[bool, str]]:
    return [(index % 2 == 1, part) for index, part in enumerate(parts)]


def _in_script(value: object) -> str:
    """Return JSON that ends no script element, whatever it holds."""
    return json.dumps(value, sort_keys=True).replace("<", "\\u003c")


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _digest_of(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(name: str) -> str:
    return _part(name).decode()


def _part(name: str) -> bytes:
    return (files("pipeline.device") / "web" / name).read_bytes()
