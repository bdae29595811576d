"""Lets a headless browser answer a job's questions: serves the page on the loopback and writes what comes back.

`python browser.py FOLDER BROWSER ONNXRUNTIME_WEB [ARGUMENT…]`. Nothing but the standard library; no other address is
bound or asked. The path has a random part, so that no other page of this machine can hand in answers.
"""

from __future__ import annotations

import http.server
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

_TYPES = {".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FLAGS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
)  # fmt: skip
_MOST_BYTES = 1 << 31


class Server(http.server.ThreadingHTTPServer):
    """Where the page comes from and where its answers go.

    Attributes:
        job: the folder of the questions.
        web: the folder of onnxruntime-web's files.
        secret: first part of every path.
        ended: set with the page's last word.
        error: that word; "" where all went well.
    """

    daemon_threads = True

    def __init__(self, job: Path, web: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.job, self.web, self.secret = job, web, secrets.token_hex(16)
        self.ended, self.error = threading.Event(), ""

    def file_of(self, path: str) -> Path | None:
        """Return the file that a path of the page's means; None where it means none."""
        parts = path.split("?")[0].strip("/").split("/")
        if parts[0] != self.secret or not all(_NAME.fullmatch(part) for part in parts):
            return None
        match parts[1:]:
            case [("page.html" | "questions.mjs") as name]:
                return Path(__file__).with_name(name)
            case ["ort", name]:
                return self.web / name
            case ["job", name]:
                return self.job / name
            case _:
                return None


class Handler(http.server.BaseHTTPRequestHandler):
    """One request of the page."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Hand out a file."""
        path = self.server.file_of(self.path)
        if path is None or not path.is_file():
            self._reply(404, b"")
            return
        self._reply(200, path.read_bytes(), _TYPES.get(path.suffix, "application/octet-stream"))

    def do_POST(self) -> None:
        """Take a line, an answer, or the last word."""
        length = int(self.headers.get("Content-Length", 0))
        if not 0 <= length <= _MOST_BYTES:
            self._reply(413, b"")
            return
        body = self.rfile.read(length)
        parts = self.path.strip("/").split("/")
        if parts[0] != self.server.secret:
            self._reply(404, b"")
            return
        match parts[1:]:
            case ["say"]:
                print(body.decode(errors="replace")[:300], flush=True)
            case ["end"]:
                self.server.error = body.decode(errors="replace")[:1000]
                self.server.ended.set()
            case ["out", name] if _NAME.fullmatch(name) and name != "job.json":
                half_written = self.server.job / f"{name}.new"
                half_written.write_bytes(body)
                half_written.replace(self.server.job / name)
            case _:
                self._reply(404, b"")
                return
        self._reply(204, b"")

    def _reply(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        # An isolated page has a clock of five microseconds instead of a hundred.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def main(folder: Path, browser: str, web: Path, arguments: list[str]) -> int:
    """Open the page and wait until it ends, or the browser does."""
    server = Server(folder, web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # The kernel lets nobody but root's browser go without a sandbox of its own, and root's not have one.
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    start = Path(__file__).with_name("start.py")
    with tempfile.TemporaryDirectory(prefix="edgeproof-browser-", ignore_cleanup_errors=True) as profile:
        address = f"http://127.0.0.1:{server.server_port}/{server.secret}/page.html"
        command = [browser, *_FLAGS, *as_root, f"--user-data-dir={profile}", *arguments, address]
        child = subprocess.Popen(
            [sys.executable, "-P", start, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not server.ended.wait(0.2):
                if child.poll() is not None:
                    print(f"the browser ended by itself with exit code {child.returncode}", file=sys.stderr)
                    return 1
        finally:
            child.kill()
            child.wait()
    if server.error:
        print(server.error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:]))
