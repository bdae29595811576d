"""Open reports whose every text is hostile in a real browser, scripts on: nothing of a text may run or load.

Each report is opened as it is, and without its content security policy, so that the escaping has to hold alone. A
text that ran would mark the document's root; one that became markup would add an element that a harmless text does
not.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from campaign import Tally, tell

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reports"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipeline"))

_RUNS = "document.documentElement.setAttribute('data-ran','1')"
PAYLOADS = (
    f"<script>{_RUNS}</script>",
    f"</script><script>{_RUNS}</script>",
    f'"><img src=x onerror="{_RUNS}">',
    f"'><svg onload={_RUNS}>",
    f"<svg><script>{_RUNS}</script></svg>",
    f"<details open ontoggle={_RUNS}>",
    f'<iframe srcdoc="<script>parent.{_RUNS}</script>"></iframe>',
    f"<a href=javascript:{_RUNS}>x</a>",
    f"javascript:{_RUNS}",
    f"' autofocus onfocus='{_RUNS}",
    f"</style><script>{_RUNS}</script>",
    f"</title><script>{_RUNS}</script>",
    f"--><script>{_RUNS}</script><!--",
    f"]]><script>{_RUNS}</script>",
    f"</textarea></svg></math><script>{_RUNS}</script>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={_RUNS}>",
    f"&lt;script&gt;{_RUNS}&lt;/script&gt;",
    f"&#60;script&#62;{_RUNS}&#60;/script&#62;",
    f"\\u003cscript\\u003e{_RUNS}\\u003c/script\\u003e",
    "{{ 7*7 }}{% raw %}",
    "$\\frac{1}{0}$",
    "</style><link rel=stylesheet href=http://192.0.2.1/x.css>",
    "<meta http-equiv=refresh content='0;url=http://192.0.2.1/'>",
    "<base href=http://192.0.2.1/>",
    "=cmd|' /C calc'!A0",
    "\u202egpj.exe",
    "‮<script>‬",
)
"""Ways into HTML, SVG, attributes, styles, comments, templates, formulas and tables."""
_CHROMIUM = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=2000", "--dump-dom",
)  # fmt: skip
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


class _Elements(HTMLParser):
    """Counts elements with the names of their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: Counter[tuple[str, ...]] = Counter()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[(tag, *sorted(name for name, _ in attrs))] += 1


def browser(scratch: Path, budget: int) -> list[Tally]:
    """Open one report per hostile text: each of `PAYLOADS`, then joins of two of them."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("browser: skipped, there is no Chromium")
        return [Tally("report", "hostile text", 0, 0, ())]
    from test_report_files import hostile_facts

    from reports import html

    page_path, finds, tried = scratch / "hostile.html", list[str](), 0
    page_path.write_text(f"<!DOCTYPE html><html><body>{PAYLOADS[0]}", encoding="utf-8")
    if not _ran(_opened(chromium, page_path)):
        tell(finds, "browser: a script that should run was not seen to; what follows shows nothing")
    harmless: dict[bool, Counter[tuple[str, ...]]] = {}
    for text in ("x", *_texts(budget)):
        for without_policy in (False, True):
            page = html.render(hostile_facts(text))
            page_path.write_text(_POLICY.sub("", page) if without_policy else page, encoding="utf-8")
            shown = _opened(chromium, page_path)
            elements = _Elements(shown).found
            expected = harmless.setdefault(without_policy, elements)
            tried += text != "x"
            if not shown or _ran(shown):
                tell(finds, f"browser: {text!r} ran, {without_policy=}")
            elif elements != expected:
                tell(finds, f"browser: {text!r} became {elements - expected}, {without_policy=}")
    return [Tally("report", "hostile text", len(PAYLOADS), tried, tuple(finds))]


def _ran(shown: str) -> bool:
    return "data-ran" in shown.partition("<html")[2].partition(">")[0]


def _texts(budget: int) -> Iterator[str]:
    """Yield as many texts as the budget has."""
    draw = random.Random(0)
    for number in range(budget or 2 * len(PAYLOADS)):
        yield PAYLOADS[number] if number < len(PAYLOADS) else "".join(draw.sample(PAYLOADS, 2))


def _opened(chromium: str, page: Path) -> str:
    """Return the document after its scripts ran."""
    with tempfile.TemporaryDirectory(prefix="edgeproof-campaign-") as profile:
        return subprocess.run(
            [chromium, *_CHROMIUM, f"--user-data-dir={profile}", page.as_uri()],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        ).stdout
