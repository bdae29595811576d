"""The kit's page in a real browser with the network off: same answers, every byte counts, usable and accessible."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from calibration_data.dataset import Frame
from calibration_data.fitting import ImageForm, fit_frame
from foundation.run_folder import RunFolder
from pipeline.device.browser_runtime import package_path
from pipeline.device.kit.files import Kit
from pipeline.device.kit.serve import opened
from pipeline.device.taken import take_device

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

pytestmark = pytest.mark.long
AXE = "axe-core-4.14.1.tgz"
DONE = "#verdict.same, #verdict.different"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-quic"])
        yield started
        started.close()


@contextmanager
def shown(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """Open a page with the network off but for this machine, and see that it asks nobody and says no error."""
    context = browser.new_context(**options)
    page, trouble = context.new_page(), list[str]()
    context.set_offline(address.startswith("file:"))
    page.on(
        "request",
        lambda one: trouble.append(one.url) if not one.url.startswith((address, "blob:", "data:")) else None,
    )
    page.on("console", lambda one: trouble.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda one: trouble.append(str(one)))
    page.goto(address)
    page.wait_for_selector(DONE, timeout=120_000)
    yield page
    context.close()
    assert trouble == []


@contextmanager
def served(kit: Path) -> Iterator[str]:
    server, address = opened(Kit(kit), lan=False, port=0, certificate=None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()


def verdict(page: Any) -> str:
    return str(page.inner_text("#verdict"))


def test_from_the_disk_without_a_network_it_says_same(browser: Any, page_kit: Path):
    with shown(browser, (page_kit / "kit" / "index.html").as_uri()) as page:
        assert "Same" in verdict(page)
        assert page.locator(".card .state").all_inner_texts() == ["same"] * 4
        assert page.locator(".card canvas").count() == 12
        assert "<b>normal</b>" not in page.content() or "&lt;b&gt;normal" in page.content()
        outputs = page.evaluate("Array.from(page.legs.values())[0].outputs")
    facts = Kit(page_kit / "kit").facts()
    assert np.array(outputs) == pytest.approx(np.array([one["outputs"] for one in facts["golden"]]), abs=1e-5)


def test_served_it_takes_times_on_every_thread_and_the_run_takes_them_in(
    browser: Any, page_kit: Path, tmp_path: Path
):
    with served(page_kit / "kit") as address, shown(browser, address, accept_downloads=True) as page:
        assert page.evaluate("[crossOriginIsolated, isSecureContext]") == [True, True]
        page.click("#measure")
        page.wait_for_selector("#times table", timeout=240_000)
        page.fill("#name", "Dr. Who")
        page.click("#save")
        assert "Please change the name" in page.inner_text("#name-form")
        page.fill("#name", "phone")
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "device.json")
    device = json.loads((tmp_path / "device.json").read_text())
    assert {leg["provider"] for leg in device["legs"]} >= {"wasm"}
    shape = np.array(device["legs"][0]["timing"]["durations_ms"]).shape
    assert shape == (5, 5, 10)
    taken = take_device(RunFolder(page_kit / "run"), tmp_path / "device.json", None)
    assert taken.places[0] == "phone"
    assert taken.likeness[0].same
    assert taken.verdicts[0].status == "passed"


def changed(page_kit: Path, to: Path, change: Callable[[str], str]) -> str:
    original = (page_kit / "kit" / "index.html").read_text()
    other = change(original)
    assert other != original
    to.write_text(other)
    return to.as_uri()


def with_changed_data(name: str) -> Callable[[str], str]:
    """Return what turns one character of a file that the page holds into another one."""

    def change(text: str) -> str:
        start = text.index(f'id="data:{name}">') + len(f'id="data:{name}">')
        at = start + (text.index("</script>", start) - start) // 2
        return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]

    return change


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


CHANGES: dict[str, Callable[[str], str]] = {
    "the model": with_changed_data("model.onnx"),
    "its twin": with_changed_data("model.saliency.onnx"),
    "a golden image": with_changed_data("golden/images.npy"),
    "a reviewed map": with_changed_data("golden/maps.npy"),
    "the facts": with_changed_data("kit.json"),
    "the runtime": with_changed_data("ort-wasm.wasm"),
    "the runtime's script": with_changed_data("ort-wasm.mjs"),
    "the script": replaced("largest <= bounds.outputs", "largest >= bounds.outputs"),
    "the bound, in the script": replaced("bounds.outputs && away", "bounds.outputs || away"),
    "the policy": replaced("connect-src 'none'", "connect-src *"),
    "the policy's name": replaced("Content-Security-Policy", "Content-Security-Pplicy"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_page_with_one_thing_changed_never_says_same(browser: Any, page_kit: Path, tmp_path: Path, name: str):
    address = changed(page_kit, tmp_path / "index.html", CHANGES[name])
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    page.wait_for_timeout(1500)
    text = page.inner_text("main")
    context.close()
    assert "Nothing was checked" in text
    assert "Same" not in text


def test_a_mended_digest_does_not_help_against_the_answers(browser: Any, page_kit: Path, tmp_path: Path):
    """A model whose digest was mended in the facts, and the facts' in the script, and the script's in the policy."""
    import gzip

    from pipeline.device.page import _digest_of

    def change(text: str) -> str:
        def block(name: str) -> tuple[int, int]:
            start = text.index(f'id="data:{name}">') + len(f'id="data:{name}">')
            return start, text.index("</script>", start)

        start, end = block("kit.json")
        facts = json.loads(gzip.decompress(base64.b64decode(text[start:end])))
        facts["golden"][0]["outputs"][0] += 0.5  # the answers that were reviewed, by another's hand
        content = json.dumps(facts).encode()
        old = re.search(r'"facts_sha256": "([0-9a-f]{64})"', text)
        assert old is not None
        text = text[:start] + base64.b64encode(gzip.compress(content)).decode() + text[end:]
        text = text.replace(old.group(1), hashlib.sha256(content).hexdigest())
        begin = text.index("<script>const IDENTITY") + len("<script>")
        script = text[begin : text.index("</script>", begin)]
        return re.sub(r"script-src 'sha256-[^']+'", f"script-src '{_digest_of(script)}'", text, count=1)

    with shown(browser, changed(page_kit, tmp_path / "index.html", change)) as page:
        assert "Different" in verdict(page)
        assert page.locator(".card .state").all_inner_texts() == ["different", "same", "same", "same"]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_axe_finds_nothing(browser: Any, page_kit: Path, width: int, scheme: str):
    package = package_path().with_name(AXE)
    if not package.exists():
        pytest.skip(f"needs axe-core: npm pack axe-core@4.14.1 --pack-destination {package.parent}")
    with tarfile.open(package) as archive:
        stream = archive.extractfile("package/axe.min.js")
        assert stream is not None
        axe = stream.read().decode()
    options = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
    with shown(browser, (page_kit / "kit" / "index.html").as_uri(), **options) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        smallest = page.evaluate(
            "Math.min(...Array.from(document.querySelectorAll('button, input'), (one) => one.offsetHeight))"
        )
        assert smallest >= 44
        page.evaluate(axe)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert [(one["id"], one["nodes"][0]["html"][:100]) for one in found["violations"]] == []


def picture(width: int, height: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_an_own_image_reaches_the_model_as_the_run_would_have_it(browser: Any, page_kit: Path, tmp_path: Path):
    with shown(browser, (page_kit / "kit" / "index.html").as_uri()) as page:
        page.wait_for_selector("#own:enabled")
        for height, width in ((16, 16), (37, 21), (200, 301), (5, 9)):
            own, pixels = tmp_path / f"{height}.png", picture(height, width)
            Image.fromarray(pixels).save(own)
            page.set_input_files("#own", own)
            page.wait_for_selector("#own:enabled")
            page.wait_for_selector("#own-answer dl", timeout=60_000)
            seen = np.array(page.evaluate("Array.from(page.own.pixels)"), dtype=np.uint8).reshape(3, 16, 16)
            expected, _ = fit_frame(Frame(pixels, None, None), ImageForm(16, 3, "pad"))
            assert seen.tolist() == expected.tolist(), (height, width)
        assert "No medical device" in page.inner_text("section[aria-labelledby=yours]")
        (tmp_path / "broken.png").write_bytes(b"no image")
        page.set_input_files("#own", tmp_path / "broken.png")
        page.locator("#own-answer", has_text="no image").wait_for()


def test_the_other_ways_to_fit_an_image_are_the_runs_too(browser: Any, page_kit: Path):
    pixels = picture(50, 33)
    rgba = np.concatenate([pixels, np.full((33, 50, 1), 255, np.uint8)], axis=2)
    with shown(browser, (page_kit / "kit" / "index.html").as_uri()) as page:
        for fit, channels, share in (("crop", 3, 0.875), ("stretch", 1, 1.0), ("crop", 1, 1.0), ("pad", 1, 1.0)):
            form = {"image_size": 12, "image_width": 20, "channels": channels, "fit": fit, "crop_share": share}
            seen = page.evaluate(
                "([rgba, form]) => Array.from(fitImage(rgba, 50, 33, form))", [rgba.ravel().tolist(), form]
            )
            whole = ImageForm(12, channels, fit, 20, crop_share=share)
            expected, _ = fit_frame(Frame(pixels, None, None), whole)
            assert np.array(seen, dtype=np.uint8).tolist() == expected.ravel().tolist(), form


def test_its_digest_and_its_ranks_are_those_of_everybody(browser: Any, page_kit: Path):
    from scipy.stats import rankdata

    values = np.random.default_rng(0).integers(0, 20, 100).astype(np.float64)
    with shown(browser, (page_kit / "kit" / "index.html").as_uri()) as page:
        for length in (0, 1, 55, 56, 63, 64, 65, 1000):
            data = bytes(range(256)) * 4
            found = page.evaluate("(bytes) => sha256(Uint8Array.from(bytes))", list(data[:length]))
            assert found == hashlib.sha256(data[:length]).hexdigest(), length
        ranks = page.evaluate("(values) => Array.from(ranks(Float32Array.from(values)))", values.tolist())
        assert ranks == rankdata(values).tolist()


def test_a_browser_without_simd_is_told_so(browser: Any, page_kit: Path):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto((page_kit / "kit" / "index.html").as_uri())
    page.wait_for_selector(DONE)
    assert "this browser is too old: it lacks WebAssembly SIMD" in verdict(page)
    context.close()


def test_a_float_file_gets_the_same_input(browser: Any, page_kit: Path):
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 2, 3), dtype=np.uint8)
    from onnx_files.preprocessing import Preprocessing

    form = Preprocessing("float32", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 2, 3, "NHWC", "BGR")
    told = {
        "input_type": "float32", "mean": form.mean, "std": form.std, "image_size": 2, "image_width": 3,
        "layout": "NHWC", "channel_order": "BGR", "channels": 3,
    }  # fmt: skip
    with shown(browser, (page_kit / "kit" / "index.html").as_uri()) as page:
        script = (
            "([told, pixels]) => { page.facts = {preprocessing: told}; return Array.from(toInput(pixels).data); }"
        )
        found = page.evaluate(script, [told, images.ravel().tolist()])
    stream = io.BytesIO()
    np.save(stream, np.array(found, dtype=np.float32))
    assert np.array(found, dtype=np.float32).tobytes() == form.to_input(images).tobytes()
