from __future__ import annotations

import hashlib
import hmac
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from foundation.errors import StageError
from pipeline.night.notice_settings import NoticeSettings, WebhookSettings
from pipeline.night.notices import notice_of_error, notify

GREEN: dict[str, Any] = {"name": "skin", "exit_code": 0, "red": []}
RED: dict[str, Any] = {"name": "skin", "exit_code": 1, "red": ["accuracy/static-int8"]}


@contextmanager
def receiver(status: int = 200, wait_s: float = 0.0) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            time.sleep(wait_s)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hook(url: str, **changed: Any) -> NoticeSettings:
    return NoticeSettings(webhook=WebhookSettings(url=url, **changed))


def test_a_change_is_told_once_and_the_way_back_too(tmp_path: Path) -> None:
    with receiver() as (url, got):
        for notice in (GREEN, GREEN, RED, RED, GREEN, GREEN, RED):
            assert notify(hook(url), tmp_path, notice) == ()
    assert [json.loads(body)["exit_code"] for _, body in got] == [1, 0, 1]


def test_another_red_row_is_another_change(tmp_path: Path) -> None:
    with receiver() as (url, got):
        notify(hook(url), tmp_path, RED)
        notify(hook(url), tmp_path, {**RED, "red": ["accuracy/static-int8", "ece/static-int8"]})
    assert len(got) == 2


def test_a_webhook_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s3cret")
    with receiver() as (url, got):
        notify(hook(url, secret_env="HOOK_SECRET"), tmp_path, RED)
    ((headers, body),) = got
    assert headers["X-Edgeproof-Signature-256"] == "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()


def test_a_secret_that_is_not_set_sends_nothing(tmp_path: Path) -> None:
    with receiver() as (url, got):
        (problem,) = notify(hook(url, secret_env="EDGEPROOF_NO_SUCH_SECRET"), tmp_path, RED)
    assert "EDGEPROOF_NO_SUCH_SECRET of its secret is not set" in problem
    assert got == []


@pytest.mark.parametrize(("status", "found"), [(500, "status 500"), (302, "status 302")])
def test_a_refused_notice_is_told_and_tried_again(tmp_path: Path, status: int, found: str) -> None:
    with receiver(status) as (url, _):
        (problem,) = notify(hook(url), tmp_path, RED)
    assert found in problem
    with receiver() as (url, got):
        assert notify(hook(url), tmp_path, RED) == ()
    assert len(got) == 1


def test_a_webhook_that_hangs_or_is_gone_costs_a_sentence(tmp_path: Path) -> None:
    with receiver(wait_s=1.0) as (url, _):
        (problem,) = notify(hook(url, timeout_s=0.2), tmp_path, RED)
        assert "did not answer within 0.2 s" in problem
    (problem,) = notify(hook("http://127.0.0.1:9/"), tmp_path, RED)
    assert "could not be reached" in problem


def test_a_command_gets_the_notice_and_another_receiver_is_not_told_twice(tmp_path: Path) -> None:
    path = tmp_path / "got"
    write = (sys.executable, "-c", f"import sys; open({str(path)!r}, 'ab').write(sys.stdin.buffer.read() + b'\\n')")
    with receiver(500) as (url, got):
        settings = NoticeSettings(command=write, webhook=WebhookSettings(url=url))
        notify(settings, tmp_path, RED)
        notify(settings, tmp_path, RED)
        assert len(got) == 2
    assert [json.loads(line)["red"] for line in path.read_text().splitlines()] == [["accuracy/static-int8"]]


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    for command, found in (
        ((sys.executable, "-c", "raise SystemExit(4)"), "exit code 4"),
        (("/no/such/program",), "could not be started"),
    ):
        (problem,) = notify(NoticeSettings(command=command), tmp_path, RED)
        assert found in problem
    settings = NoticeSettings(command=(sys.executable, "-c", "import time; time.sleep(9)"), command_timeout_s=0.3)
    assert "took longer than 0.3 s" in notify(settings, tmp_path, RED)[0]


def test_a_damaged_memory_tells_again(tmp_path: Path) -> None:
    with receiver() as (url, got):
        notify(hook(url), tmp_path, RED)
        (tmp_path / "notified.json").write_text("{")
        notify(hook(url), tmp_path, RED)
    assert len(got) == 2


@pytest.mark.parametrize(
    "url",
    ["http://example.org/", "ftp://example.org/", "https://", "https://me:pw@example.org/", "file:///etc/passwd"],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        WebhookSettings(url=url)


def test_notices_name_somebody() -> None:
    with pytest.raises(ValidationError, match="a command or a webhook"):
        NoticeSettings()


def test_an_error_is_told_without_a_run() -> None:
    notice = notice_of_error("skin", StageError("training diverged"))
    assert (notice["exit_code"], notice["run"], notice["summary"]) == (3, None, "training diverged")
